"""The LMDB store: an embedded database in a directory, for all processes of one host.

    rome+lmdb:///absolute/directory

One directory is one database. The directory is made if it is missing (its parent must be there),
readable by its owner and group as the umask allows. Parameters:

    sync=full|meta|no   (full) what COMMIT waits for, see below
    map_size=BYTES      (1073741824) size of the map to begin with. It is address space, not memory
                        or disk, and grows by itself
    write_timeout=S     (30) seconds to wait for others to have written

**What an acknowledged commit survives.** With `sync=full`, everything that the disk survives: COMMIT
returns after fsync of the data and of the page that makes it current. With `sync=meta`, the end of
every process; a crash of the system may undo the last commit, but the database stays whole. With
`sync=no`, the end of every process; a crash of the system may undo the last commits and, on file
systems that write out of order, damage the database: for data that can be made again.

**Processes and threads.** Any number may use one directory at once. There is one writer at a time, and
writers wait for each other (see `rome.stores.lmdb_turn`): a writer that is killed frees the lock; behind one
that is stopped by a signal the others wait for `write_timeout` seconds, and then raise StoreBusy, with
nothing written. Readers never wait. Not for network file systems.

**A snapshot** is a read transaction of LMDB. While it is open, pages freed since then cannot be used
again and the file grows, so that snapshots should be short. When the map has to be replaced (see
`rome.stores.lmdb_environment`), an open snapshot moves to the newest state at its next read,
if all that it has read still holds there; otherwise that read raises Conflict.

**Four trees**: `entries` (key → 8 bytes version, then the value), `counters` (→ 8 bytes), `leases`
(those of locks), and `meta` (the commit number, and the version of this layout). Keys end at 511 bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rome.errors import ConfigurationError, LimitExceeded, StoreError
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
    total_bytes,
)
from rome.stores.lmdb_environment import Environment, acquire
from rome.stores.lmdb_leases import LMDBLeases, LMDBTable, host_clock
from rome.stores.validation import check_limits, require

if TYPE_CHECKING:
    from rome.stores.url import StoreURL

PARAMETERS = frozenset({"sync", "map_size", "write_timeout"})

DEFAULT_MAP_SIZE = 1 << 30
DEFAULT_WRITE_TIMEOUT = 30.0
SYNC_CHOICES = ("full", "meta", "no")

_COMMIT_NUMBER = b"commit"
_number = int.from_bytes
_version = Struct(">Q").unpack_from
_make = tuple.__new__

T = TypeVar("T")


class Tree:
    """The map as one LMDB transaction sees it."""

    def __init__(self, environment: Environment, txn: Any) -> None:
        self._environment = environment
        self._txn = txn

    @property
    def version(self) -> int:
        return _number(self._txn.get(_COMMIT_NUMBER, b"", db=self._environment.meta))

    def entry(self, key: bytes) -> Entry | None:
        if not key:
            return None
        stored = self._txn.get(key, db=self._environment.entries)
        return None if stored is None else Entry(key, stored[8:], _number(stored[:8]))

    def version_of(self, key: bytes) -> int:
        stored = self._txn.get(key, db=self._environment.entries) if key else None
        return ABSENT if stored is None else _number(stored[:8])

    def require_leases(self, fencing: Mapping[str, int]) -> None:
        leases.require(LMDBTable(self._environment, self._txn), fencing, host_clock())

    def counter(self, name: bytes) -> int:
        return _number(self._txn.get(name, b"", db=self._environment.counters), signed=True)

    def scan(self, scan: Scan) -> list[Entry]:
        limit = scan.limit
        entries: list[Entry] = []
        if limit == 0:
            return entries
        for key, stored in self._backward(scan.range) if scan.reverse else self._forward(scan.range):
            # tuple.__new__ makes an Entry in half the time that Entry() takes; lists of rows are hot.
            entries.append(_make(Entry, (key, stored[8:], _version(stored)[0])))
            if len(entries) == limit:
                break
        return entries

    def pairs(self, within: Range) -> Iterator[tuple[bytes, int]]:
        for key, stored in self._forward(within):
            yield key, _number(stored[:8])

    def _forward(self, within: Range) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._txn.cursor(db=self._environment.entries)
        found = cursor.set_range(within.start) if within.start else cursor.first()
        if found:
            end = within.end
            for key, stored in cursor.iternext():
                if key >= end:
                    return
                yield key, stored

    def _backward(self, within: Range) -> Iterator[tuple[bytes, bytes]]:
        if not within.end:
            return
        cursor = self._txn.cursor(db=self._environment.entries)
        found = cursor.prev() if cursor.set_range(within.end) else cursor.last()
        if found:
            start = within.start
            for key, stored in cursor.iterprev():
                if key < start:
                    return
                yield key, stored


class LMDBSnapshot(Snapshot):
    """A read transaction, begun at the first read; a `Reader` of its environment."""

    def __init__(self, store: LMDBStore) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self._store: LMDBStore | None = store
        self._environment = store.environment
        self._txn: Any = None
        self._version: int | None = None

    @property
    def version(self) -> int | None:
        return self._version

    def _fetch(self, request: Read) -> Reply:
        store = self._store
        if store is None:
            raise StoreError("this snapshot is closed")
        store.round_trips += 1
        reply = Reply()
        for counter, count in request.allocate.items():
            reply.allocated[counter] = store.take(counter, count)
        if self._version is None:
            self._environment.register(self)
        self._environment.persist(lambda: self._answer(request, reply))
        return reply

    def _answer(self, request: Read, reply: Reply) -> None:
        with self.lock:
            tree = self._tree()
            for key in request.keys:
                reply.values[key] = tree.entry(key)
            for key in request.presence:
                reply.presence[key] = tree.version_of(key) != ABSENT
            reply.scans = [tree.scan(scan) for scan in request.scans]
            for scan, entries in zip(request.scans, reply.scans, strict=True):
                if scan.follow:
                    for entry in entries:
                        reply.values[entry.value] = tree.entry(entry.value)
            for counter in request.counters:
                reply.counters[counter] = tree.counter(counter)

    def _tree(self) -> Tree:
        """The pinned state; or the newest, if that still holds what was read before."""
        if self._txn is not None and not (self.newest_only and self._is_left_behind()):
            return Tree(self._environment, self._txn)
        txn = self._environment.handle.begin()
        try:
            tree = Tree(self._environment, txn)
            version = tree.version
            if version != self._version:
                require(self.reads, tree)
                self.extensions += self._version is not None
        except BaseException:
            txn.abort()
            raise
        if self._txn is not None:
            self._txn.abort()
        self._txn, self._version = txn, version
        return tree

    def _is_left_behind(self) -> bool:
        """Whether something was written since, if only a counter."""
        newest, own = self._environment.handle.info()["last_txnid"], self._txn.id()
        return bool(newest != own)

    def ended(self) -> Any:
        txn, self._txn = self._txn, None
        return txn

    def close(self) -> None:
        self._store = None
        with self.lock:
            txn = self.ended()
            if txn is not None:
                txn.abort()


class LMDBStore(Store):
    """A database in a directory of this host."""

    kind: ClassVar[str] = "lmdb"
    characteristics = Characteristics(
        durable=True, shared="host", remote=False, max_key_bytes=511, max_value_bytes=2**31 - 16
    )

    def __init__(
        self,
        path: str,
        sync: str = "full",
        map_size: int = DEFAULT_MAP_SIZE,
        write_timeout: float = DEFAULT_WRITE_TIMEOUT,
    ) -> None:
        super().__init__()
        self._write_timeout = write_timeout
        self.path = path
        self._open = True
        self._environment = acquire(path, sync, map_size, write_timeout)

    def __repr__(self) -> str:
        return f"<LMDBStore {self.path}>"

    @property
    def environment(self) -> Environment:
        if not self._open:
            raise StoreError("this store is closed")
        return self._environment

    @property
    def leases(self) -> leases.Leases:
        return LMDBLeases(self)

    def snapshot(self) -> Snapshot:
        return LMDBSnapshot(self)

    def commit(self, snapshot: Snapshot | None, writes: Writes) -> int:
        check_limits(writes, self.characteristics)
        self.round_trips += 1
        reads, seen = None, None
        if snapshot:
            reads, seen = snapshot.reads, snapshot.version
            snapshot.close()
        version = self.write(lambda txn: self._write(txn, reads, writes), room=total_bytes(writes))
        if snapshot and seen is not None and version > seen + 1:
            snapshot.extensions += 1
        return version

    def _write(self, txn: Any, reads: ReadSet | None, writes: Writes) -> int:
        environment = self._environment
        tree = Tree(environment, txn)
        if reads:
            require(reads, tree)
        version = tree.version + 1
        stamp = version.to_bytes(8)
        if writes.puts:
            cursor = txn.cursor(db=environment.entries)
            cursor.putmulti([(key, stamp + value) for key, value in sorted(writes.puts.items())])
        for key in writes.deletes:
            txn.delete(key, db=environment.entries)
        for counter, amount in writes.adds.items():
            self._set_counter(txn, counter, tree.counter(counter) + amount)
        for counter, least in writes.floors.items():
            if least > tree.counter(counter):
                self._set_counter(txn, counter, least)
        txn.put(_COMMIT_NUMBER, stamp, db=environment.meta)
        return version

    def write(self, action: Callable[[Any], T], room: int = 0) -> T:
        """Run an action in a write transaction, with `room` bytes for it in the map."""
        environment = self.environment
        return environment.persist(lambda: environment.write(action, self._write_timeout), room)

    def _set_counter(self, txn: Any, counter: bytes, value: int) -> None:
        try:
            stored = value.to_bytes(8, signed=True)
        except OverflowError:
            raise LimitExceeded("a counter would leave the range of 64-bit integers") from None
        txn.put(counter, stored, db=self._environment.counters)

    def allocate(self, counter: bytes, count: int = 1) -> int:
        self.round_trips += 1
        return self.take(counter, count)

    def take(self, counter: bytes, count: int) -> int:
        """Take numbers out of a counter, in a transaction of its own."""

        def act(txn: Any) -> int:
            last = Tree(self._environment, txn).counter(counter)
            self._set_counter(txn, counter, last + count)
            return last + 1

        return self.write(act)

    def add_in_passing(self, adds: dict[bytes, int]) -> None:
        """A commit, unless someone else is at one."""
        if self._open and self._environment.is_free():
            self.commit(None, Writes(adds=adds))

    def health(self) -> dict[str, str | int | bool]:
        environment = self.environment

        def facts() -> dict[str, str | int | bool]:
            handle = environment.handle
            info, stat = handle.info(), handle.stat()
            slots = handle.readers().splitlines()[1:]
            with environment.writing, handle.begin() as txn:
                return {
                    "store": self.kind,
                    "directory": environment.path,
                    "sync": environment.sync,
                    "durable": environment.sync == "full",
                    "version": Tree(environment, txn).version,
                    "entries": txn.stat(db=environment.entries)["entries"],
                    "bytes": (info["last_pgno"] + 1) * stat["psize"],
                    "map_bytes": info["map_size"],
                    "snapshots": sum(not slot.endswith("-") for slot in slots),
                }

        return environment.persist(facts)

    def wipe(self) -> None:
        environment = self.environment

        def act(txn: Any) -> None:
            stamp = (Tree(environment, txn).version + 1).to_bytes(8)
            txn.drop(environment.entries, delete=False)
            txn.drop(environment.counters, delete=False)
            leases.forget_all(LMDBTable(environment, txn))
            txn.put(_COMMIT_NUMBER, stamp, db=environment.meta)

        self.write(act)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._environment.release()


def open_url(url: StoreURL) -> LMDBStore:
    """Open what `rome+lmdb:///…` names."""
    if url.host or not url.database.strip("/"):
        raise ConfigurationError("an LMDB store is named by an absolute directory: rome+lmdb:///var/lib/rome")
    return LMDBStore(
        "/" + url.database.strip("/"),
        sync=url.choice("sync", SYNC_CHOICES, "full"),
        map_size=url.whole("map_size", DEFAULT_MAP_SIZE, least=1 << 16),
        write_timeout=url.seconds("write_timeout", DEFAULT_WRITE_TIMEOUT),
    )
