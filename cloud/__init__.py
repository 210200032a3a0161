"""A whole cloud on ROME: six services of OpenStack, unmodified, as real processes on loopback.

    python -m cloud up --store lmdb|redis [--races] [--keep]
    python -m cloud races             on the cloud that `up --keep` left running
    python -m cloud down

Everything is installed from PyPI and configured as an operator would do it, by files alone; the line
`connection =` of each service names a store of ROME, and nothing else in it knows about ROME.

    progress    what is shown while it works: each step with its time
    layout      where things are: folder, ports, passwords, the URL of each database
    processes   children in sessions of their own, recorded so that another command can end them
    servers     what the services stand on: Redis (for STORE=redis) and RabbitMQ
    services    one module for each service: its configuration, its commands, its processes
    agent       the only program of ours in the cloud: an L2 agent that wires nothing
    build       from an empty folder to a cloud that answers
    checks      what is asked of the cloud through its public APIs, and what must come back
    races       many clients at once, and the books that must balance afterwards

Each of these imports only those above it in this list. All files are under build/cloud.
"""
