"""Stores that break one promise each, on purpose: a checker that finds nothing on them is worth nothing.

Each is a real store with something taken away at COMMIT.
"""

from __future__ import annotations

import random

from rome.dbapi import Connection
from rome.dbapi.replay import ReplayLimits
from rome.errors import Conflict
from rome.stores import Snapshot, Store, Writes, open_store
from rome.stores.leases import Leases


class Broken(Store):
    """A store that passes everything on to another one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.kind = store.kind
        self.characteristics = store.characteristics
        super().__init__()

    def snapshot(self) -> Snapshot:
        return self._store.snapshot()

    def commit(self, snapshot: Snapshot | None, writes: Writes) -> int:
        return self._store.commit(snapshot, writes)

    @property
    def leases(self) -> Leases:
        return self._store.leases

    def allocate(self, counter: bytes, count: int = 1) -> int:
        return self._store.allocate(counter, count)

    def health(self) -> dict[str, str | int | bool]:
        return self._store.health()

    def wipe(self) -> None:
        self._store.wipe()

    def close(self) -> None:
        self._store.close()


class Unmoved(Broken):
    """A snapshot stays where it is: to move it forward is to look at what was read."""

    def snapshot(self) -> Snapshot:
        snapshot = super().snapshot()
        kind = type(snapshot)
        stuck = property(lambda self: False, lambda self, value: None)
        snapshot.__class__ = type(kind.__name__, (kind,), {"newest_only": stuck})
        return snapshot


class ValidatesNothing(Unmoved):
    """COMMIT forgets what was read: snapshot isolation without first-committer-wins, that is, nothing."""

    def commit(self, snapshot: Snapshot | None, writes: Writes) -> int:
        if snapshot is not None:
            snapshot.reads.keys.clear()
            snapshot.reads.presence.clear()
            snapshot.reads.ranges.clear()
        return super().commit(snapshot, writes)


class ValidatesWrittenKeysOnly(Unmoved):
    """COMMIT looks at what is both read and written: snapshot isolation, as many databases have it."""

    def commit(self, snapshot: Snapshot | None, writes: Writes) -> int:
        if snapshot is not None:
            forget_ranges(snapshot)
            keys = snapshot.reads.keys
            for key in keys.keys() - writes.puts.keys() - writes.deletes:
                del keys[key]
        return super().commit(snapshot, writes)


class ValidatesNoRanges(Unmoved):
    """COMMIT looks at rows that were there; rows that appeared in a range are not seen."""

    def commit(self, snapshot: Snapshot | None, writes: Writes) -> int:
        if snapshot is not None:
            forget_ranges(snapshot)
        return super().commit(snapshot, writes)


class LosesCommits(Broken):
    """One COMMIT in fifty is acknowledged and forgotten (but not that of the schema, the first one)."""

    _commits = 0

    def commit(self, snapshot: Snapshot | None, writes: Writes) -> int:
        self._commits += 1
        if self._commits > 1 and random.random() < 0.02:
            return 1
        return super().commit(snapshot, writes)


class ReportsFalseConflicts(Broken):
    """One COMMIT in fifty is made, and reported as refused (but not that of the schema, the first one)."""

    _commits = 0

    def commit(self, snapshot: Snapshot | None, writes: Writes) -> int:
        version = super().commit(snapshot, writes)
        self._commits += 1
        if self._commits > 1 and random.random() < 0.02:
            raise Conflict(list(writes.puts) or [b"?"])
        return version


def forget_ranges(snapshot: Snapshot) -> None:
    """Of the ranges that were read, keep what was in them."""
    for found in snapshot.reads.ranges:
        for key, version in found.entries:
            snapshot.reads.keys.setdefault(key, version)
    snapshot.reads.ranges.clear()


def connect(kind: type[Broken], url: str) -> Connection:
    """A connection to a broken store. Nothing is replayed, so that the program sees every conflict."""
    store = kind(open_store(url))
    return Connection(store, replay=ReplayLimits(tries=0), on_close=store.close)
