"""Proof of serializability: what ROME promises about transactions, tried and checked.

    history     what is written down of each transaction: its operations, what they returned, its end
    workload    random transactions of reads, range reads, appends and unique inserts
    checker     finds out whether a history could have happened one transaction after the other
    races       what clouds rely on: unique names, counters, pools of addresses, quotas …
    racing      how a race is run
    contention  how often writers meet, what that costs, and how much of it programs see
    workers     many processes (or threads) at once, and what they return
    run         all of it on one store, with counts of what was tried and found (`make prove`)

Nothing here knows how ROME works: it talks to the PEP 249 connection, as any program does.
"""
