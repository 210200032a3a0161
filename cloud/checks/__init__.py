"""What is asked of the cloud through its public APIs, and what must come back.

    tenancy     a project with its user; image, flavors, network: what any server needs
    hosts       services and their heartbeats, compute nodes, aggregates, availability zones
    servers     ten servers from boot to listing; what was noted of their lives
    attachments volumes, floating addresses, server groups, snapshots
    addresses   more asked for than there are, by many at once
    endings     all is deleted, and nothing is left in any service's books

Each is a function that takes the `Tenancy` and adds to it.
"""
