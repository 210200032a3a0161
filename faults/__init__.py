"""Faults: ROME's processes, its servers, its network and its disks, broken on purpose while it works.

    registry     what a fault is: a name, the stores it is for, how often it is done; and its report
    databases    a database to break: an LMDB directory, or a Redis with `appendfsync always`
    ledger       what writers were told, and what must therefore be found
    writers      processes that write all the time, and go on by themselves when something breaks
    proxy        a TCP proxy that cuts connections at a given byte
    run          all faults, or one, with counts of what was tried and found (`make faults`)

Every other module is one fault, or a few that are close relatives, and registers them by itself. A
fault breaks something for real, as often as it is told to, and then compares what the programs were
told with what is in the database: every acknowledged write is there, none is there twice, each
transaction is there whole or not at all, and rows and indexes agree. All of it goes through SQLAlchemy
or the PEP 249 connection, as in any program, unless the module says why not.
"""
