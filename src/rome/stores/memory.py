"""The memory store: a versioned map in the process.

    rome+memory://            private to the Store object that opened it
    rome+memory://name        shared by every Store of this process that names it; gone when the
                              last of them is closed (or forgotten)

It takes no parameters of its own. Nothing survives the process, and a child after fork has its
own copy, as it is with `sqlite://` in memory. It is what the other stores are measured against:
the shortest code that keeps the contract.

**The map** is three containers with one owner, `Database`, all touched under its lock only:

    latest    key → the newest entry
    history   key → older entries, each with the version that ended it, oldest first
    order     every key that is in `latest` or in `history`, sorted

A snapshot is *pinned* to the version that was the newest at its first read. At version v a key is
its newest entry if that was written at v or before, otherwise the one entry of its history that
lived at v. Readers never wait for a transaction: the lock is held only while a call runs.

**History is kept only as long as someone can ask for it.** Snapshots of one version share one
`Pin`, which the database knows by a weak reference: when the last snapshot is closed or simply
forgotten, the pin is gone. An entry that no pin can see is not put into the history at all; what is
there is cleaned by later commits, oldest first.

**A commit is whole even if it is interrupted**: a signal's handler can throw an exception at any of its
instructions. So it notes in a journal what was there before, and takes it away in the very instruction that
makes the new version current. Whoever finds a journal, under the lock, first takes back what it names.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from weakref import WeakSet, WeakValueDictionary

from sortedcontainers import SortedList

from rome.errors import LimitExceeded, StoreError
from rome.stores import leases
from rome.stores.base import (
    ABSENT,
    Characteristics,
    Entry,
    Range,
    Read,
    ReadSet,
    Reply,
    Scan,
    Snapshot,
    Store,
    Writes,
)
from rome.stores.memory_leases import DictTable, MemoryLeases, memory_clock
from rome.stores.validation import check_limits, require

if TYPE_CHECKING:
    from rome.stores.url import StoreURL

PARAMETERS: frozenset[str] = frozenset()

COUNTER_MAX = 2**63 - 1


class Pin:
    """Keeps one version readable for as long as someone holds it."""

    __slots__ = ("__weakref__", "version")

    def __init__(self, version: int) -> None:
        self.version = version


class Past(NamedTuple):
    """An entry that has been overwritten or deleted, and the version that did so."""

    entry: Entry
    ended: int


class Journal(NamedTuple):
    """What a commit is about to change, as it was before; None for what was not there."""

    entries: dict[bytes, Entry | None]
    counters: dict[bytes, int | None]


class Database:
    """The versioned map. Every method but `commit`, `fetch` and `wipe` wants the lock held."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.version = 0
        self._latest: dict[bytes, Entry] = {}
        self._history: dict[bytes, list[Past]] = {}
        self._order = SortedList()
        self._ended: deque[tuple[int, bytes]] = deque()
        """What is in the history, by the version that ended it."""
        self._pins: WeakValueDictionary[int, Pin] = WeakValueDictionary()
        self.counters: dict[bytes, int] = {}
        self.leases = DictTable()
        self._journal: Journal | None = None
        """Of a commit that is under way, or was interrupted."""
        _databases.add(self)

    # reading

    def pin(self) -> Pin:
        """A pin on the newest version."""
        pin = self._pins.get(self.version)
        if pin is None:
            pin = self._pins[self.version] = Pin(self.version)
        return pin

    def entry(self, key: bytes, version: int) -> Entry | None:
        newest = self._latest.get(key)
        if newest is not None and newest.version <= version:
            return newest
        for past in reversed(self._history.get(key, ())):
            if past.entry.version <= version:
                return past.entry if version < past.ended else None
        return None

    def scan(self, scan: Scan, version: int) -> list[Entry]:
        found: list[Entry] = []
        (start, end), limit = scan.range, scan.limit
        if start >= end or limit == 0:
            return found
        for key in self._order.irange(start, end, inclusive=(True, False), reverse=scan.reverse):
            entry = self.entry(key, version)
            if entry is not None:
                found.append(entry)
                if len(found) == limit:
                    break
        return found

    def fetch(self, request: Read, pin: Pin | None, reads: ReadSet | None = None) -> tuple[Reply, Pin]:
        """Answer at the pinned version, or at the newest, which is pinned by this.

        With `reads`, the newest is meant. Raises `Conflict` if they do not hold there.
        """
        with self.lock:
            self._mend()
            if pin is not None and reads is not None and pin.version != self.version:
                require(reads, self)
                pin = None
            pin = pin or self.pin()
            version, reply = pin.version, Reply()
            for key in request.keys:
                reply.values[key] = self.entry(key, version)
            for key in request.presence:
                reply.presence[key] = self.entry(key, version) is not None
            for scan in request.scans:
                entries = self.scan(scan, version)
                reply.scans.append(entries)
                if scan.follow:
                    for entry in entries:
                        reply.values[entry.value] = self.entry(entry.value, version)
            for counter in request.counters:
                reply.counters[counter] = self.counters.get(counter, 0)
            for counter, count in request.allocate.items():
                reply.allocated[counter] = self.allocate(counter, count)
            return reply, pin

    def version_of(self, key: bytes) -> int:
        entry = self._latest.get(key)
        return entry.version if entry is not None else ABSENT

    def pairs(self, within: Range) -> Iterator[tuple[bytes, int]]:
        for key in self._order.irange(within.start, within.end, inclusive=(True, False)):
            if (entry := self._latest.get(key)) is not None:
                yield key, entry.version

    def require_leases(self, fencing: Mapping[str, int]) -> None:
        leases.require(self.leases, fencing, memory_clock())

    # writing

    def commit(self, reads: ReadSet | None, writes: Writes) -> int:
        with self.lock:
            self._mend()
            if reads:
                require(reads, self)
            self._check_counters(writes)
            version = self.version + 1
            self._journal = Journal(
                {key: self._latest.get(key) for keys in (writes.puts, writes.deletes) for key in keys},
                {name: self.counters.get(name) for names in (writes.adds, writes.floors) for name in names},
            )
            pinned = sorted(self._pins)
            created = []
            for key, value in writes.puts.items():
                if self._retire(key, version, pinned):
                    created.append(key)
                self._latest[key] = Entry(key, value, version)
            self._order.update(created)
            for key in writes.deletes:
                if key in self._latest:
                    self._retire(key, version, pinned)
                    del self._latest[key]
                    if key not in self._history:
                        self._order.remove(key)
            for counter, amount in writes.adds.items():
                self.counters[counter] = self.counters.get(counter, 0) + amount
            for counter, least in writes.floors.items():
                self.counters[counter] = max(self.counters.get(counter, 0), least)
            self._forget(pinned[0] if pinned else self.version)
            self.version, self._journal = version, None
            return version

    def _mend(self) -> None:
        """Take back what an interrupted commit has done. (Done again, if that is interrupted as well.)"""
        journal = self._journal
        if journal is None:
            return
        for key, before in journal.entries.items():
            if before is None:
                self._latest.pop(key, None)
            else:
                self._latest[key] = before
        for name, number in journal.counters.items():
            if number is None:
                self.counters.pop(name, None)
            else:
                self.counters[name] = number
        kept = {
            key: [past for past in history if past.ended <= self.version]
            for key, history in self._history.items()
        }
        self._history = {key: history for key, history in kept.items() if history}
        self._ended = deque(sorted((past.ended, key) for key, each in self._history.items() for past in each))
        self._order = SortedList({*self._latest, *self._history})
        self._journal = None

    def _retire(self, key: bytes, version: int, pinned: list[int]) -> bool:
        """Put the newest entry into the history if a pin sees it; was the key unknown?"""
        old = self._latest.get(key)
        if old is None:
            return key not in self._history
        seen = bisect_left(pinned, old.version)
        if seen < len(pinned):
            self._history.setdefault(key, []).append(Past(old, version))
            self._ended.append((version, key))
        return False

    def _forget(self, oldest: int) -> None:
        """Drop the history that ended at or before the oldest version anyone can read."""
        while self._ended and self._ended[0][0] <= oldest:
            key = self._ended.popleft()[1]
            past = self._history[key]
            del past[0]
            if not past:
                del self._history[key]
                if key not in self._latest:
                    self._order.remove(key)

    def _check_counters(self, writes: Writes) -> None:
        for counter, amount in writes.adds.items():
            if abs(self.counters.get(counter, 0) + amount) > COUNTER_MAX:
                raise LimitExceeded("a counter would leave the range of 64-bit integers")

    def allocate(self, counter: bytes, count: int) -> int:
        self._mend()
        last = self.counters.get(counter, 0)
        if last + count > COUNTER_MAX:
            raise LimitExceeded("a counter has no numbers left")
        self.counters[counter] = last + count
        return last + 1

    def wipe(self) -> None:
        with self.lock:
            self._latest, self._history, self._order, self._ended = {}, {}, SortedList(), deque()
            self.counters = {}
            self.version, self._journal = self.version + 1, None
            leases.forget_all(self.leases)

    def retained(self) -> int:
        """How many overwritten entries are kept for open snapshots."""
        with self.lock:
            return sum(map(len, self._history.values()))


_databases: WeakSet[Database] = WeakSet()
_named: WeakValueDictionary[str, Database] = WeakValueDictionary()
_named_lock = threading.Lock()


def _lock_all() -> None:
    _named_lock.acquire()
    for database in _databases:
        database.lock.acquire()


def _unlock_all() -> None:
    for database in _databases:
        database.lock.release()
    _named_lock.release()


# A child must not inherit a map in the middle of a commit, nor a lock whose holder is not there.
os.register_at_fork(before=_lock_all, after_in_parent=_unlock_all, after_in_child=_unlock_all)


class MemorySnapshot(Snapshot):
    """A pinned version of a `Database`."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__()
        self._store: MemoryStore | None = store
        self._pin: Pin | None = None

    def _fetch(self, request: Read) -> Reply:
        if self._store is None:
            raise StoreError("this snapshot is closed")
        self._store.round_trips += 1
        seen = self.version
        reads = self.reads if self.newest_only else None
        reply, self._pin = self._store.database.fetch(request, self._pin, reads)
        self.extensions += seen is not None and seen != self.version
        return reply

    @property
    def version(self) -> int | None:
        return self._pin.version if self._pin else None

    def close(self) -> None:
        self._store = self._pin = None


class MemoryStore(Store):
    """A store in the memory of this process, private or shared by name."""

    kind: ClassVar[str] = "memory"
    characteristics = Characteristics(
        durable=False, shared="process", remote=False, max_key_bytes=2**31, max_value_bytes=2**31
    )

    def __init__(self, name: str = "") -> None:
        super().__init__()
        self.name = name
        self._database: Database | None
        with _named_lock:
            database = _named.get(name) if name else None
            if database is None:
                database = Database()
                if name:
                    _named[name] = database
        self._database = database

    def __repr__(self) -> str:
        return f"<MemoryStore memory://{self.name}>"

    @property
    def database(self) -> Database:
        if self._database is None:
            raise StoreError("this store is closed")
        return self._database

    @property
    def leases(self) -> leases.Leases:
        return MemoryLeases(self)

    def snapshot(self) -> Snapshot:
        return MemorySnapshot(self)

    def commit(self, snapshot: Snapshot | None, writes: Writes) -> int:
        check_limits(writes, self.characteristics)
        self.round_trips += 1
        if snapshot is None:
            return self.database.commit(None, writes)
        seen = snapshot.version
        snapshot.close()
        version = self.database.commit(snapshot.reads, writes)
        if seen is not None and version > seen + 1:
            snapshot.extensions += 1
        return version

    def allocate(self, counter: bytes, count: int = 1) -> int:
        self.round_trips += 1
        with self.database.lock:
            return self.database.allocate(counter, count)

    def health(self) -> dict[str, str | int | bool]:
        database = self.database
        with database.lock:
            return {
                "store": self.kind,
                "name": self.name,
                "durable": False,
                "version": database.version,
                "entries": len(database._latest),
            }

    def wipe(self) -> None:
        self.database.wipe()

    def close(self) -> None:
        self._database = None


def open_url(url: StoreURL) -> MemoryStore:
    """Open what `rome+memory://…` names."""
    return MemoryStore(url.host or url.database)
