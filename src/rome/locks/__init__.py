"""Locks that a cloud shares: leases in the store, renewed in the background, and known to COMMIT.

    lock      what a program holds: acquire, release, guard
    renewal   the thread that keeps the leases of this process alive

The rules of leases, fencing numbers and the queue are in `rome.stores.leases`.
"""

from __future__ import annotations

from rome.locks.lock import Lock
from rome.stores import Store
from rome.stores.leases import Held


def held(store: Store) -> list[Held]:
    """The locks of a store's database that are held now, by name. One round trip.

    Raises `StoreError` where the store does not answer.
    """
    return store.leases.held()


__all__ = ["Held", "Lock", "held"]
