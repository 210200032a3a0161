"""The contract of a store: an ordered map from bytes to bytes that knows who wrote what, when.

Every commit has a number, the *version*; it grows by at least one with each commit, and every
entry remembers the version that wrote it. On that alone ROME builds serializable transactions:

    snapshot = store.snapshot()
    reply = snapshot.read(Read(keys=[...], scans=[Scan(...)]))     one round trip
    store.commit(snapshot, Writes(puts={...}, deletes={...}))      one round trip

**A snapshot never mixes two states.** Everything that one snapshot hands out was true at one
single version. How is the driver's business: an LMDB read transaction, an old version kept in
memory, or, on Redis, the lazy snapshot algorithm (Riegel, Felber, Fetzer 2006): when a reply shows
that the store has moved on, what was read so far is validated, and either the snapshot moves
forward, or it goes on in the past. A transaction that has written could not commit there
(`newest_only`): on every store its snapshot moves forward, or `Conflict` is raised.

**A snapshot remembers what it handed out**, in its `ReadSet`. It is the one owner of that state:
`commit` takes the snapshot, and validates it against the store as it is at that moment.

    keys       key → version seen (0: absent)      must still have exactly that version
    presence   key → was it there?                 must still be there / absent, at any version
    ranges     range → the (key, version) pairs    must still hold exactly those pairs

A range that was read up to a limit covers only what lies between its start and the last entry
handed out, so writers beyond that do not disturb the reader.

Keys are at least one byte long; values may be empty.

**Counters** live beside the map: integers that many writers move at once without disturbing each
other (row counts, sequences). Reading a counter is a hint, never part of the read set. `allocate`
takes numbers out of a counter for good, whatever becomes of the transaction.

**Leases** live beside the map as well (`rome.stores.leases`). A transaction that runs under a lock names
its lease in the read set; whether it is held is then looked at when COMMIT validates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from rome.stores.leases import Leases

ABSENT = 0
"""The version of a key that is not there. Commit numbers begin at 1."""


class Range(NamedTuple):
    """The half-open key range [start, end), in byte order."""

    start: bytes
    end: bytes

    def covers(self, other: Range) -> bool:
        return self.start <= other.start and other.end <= self.end

    def holds(self, key: bytes) -> bool:
        return self.start <= key < self.end


class Entry(NamedTuple):
    """One key of the map, with its value and the version that wrote it."""

    key: bytes
    value: bytes
    version: int


class Scan(NamedTuple):
    """A request for the entries of a range, in key order or in reverse.

    `limit` is the greatest number of entries wanted (None: all). With `follow`, each entry's
    value is itself a key, and the entries of those keys come in the same reply (as if they had
    been asked for by `Read.keys`): an index scan brings its rows in the same round trip.
    """

    range: Range
    limit: int | None = None
    reverse: bool = False
    follow: bool = False


@dataclass(slots=True)
class Read:
    """Everything that one round trip asks for."""

    keys: list[bytes] = field(default_factory=list)
    presence: list[bytes] = field(default_factory=list)
    scans: list[Scan] = field(default_factory=list)
    counters: list[bytes] = field(default_factory=list)
    allocate: dict[bytes, int] = field(default_factory=dict)
    """Counter → how many numbers to take out of it."""


@dataclass(slots=True)
class Reply:
    """The answer to a `Read`: all of it true at one version, but for counters."""

    values: dict[bytes, Entry | None] = field(default_factory=dict)
    """For each key asked for, and each key followed from a scan."""
    presence: dict[bytes, bool] = field(default_factory=dict)
    scans: list[list[Entry]] = field(default_factory=list)
    """In the order of `Read.scans`. Fewer entries than the limit: the range is exhausted."""
    counters: dict[bytes, int] = field(default_factory=dict)
    """0 for a counter that was never touched."""
    allocated: dict[bytes, int] = field(default_factory=dict)
    """Counter → the first of the numbers taken; the others follow it without a gap."""


class RangeRead(NamedTuple):
    """A range that was read, and what was in it (in key order)."""

    range: Range
    entries: tuple[tuple[bytes, int], ...]


@dataclass(slots=True)
class ReadSet:
    """What a snapshot has handed out, as COMMIT must find it again."""

    keys: dict[bytes, int] = field(default_factory=dict)
    presence: dict[bytes, bool] = field(default_factory=dict)
    ranges: list[RangeRead] = field(default_factory=list)
    leases: dict[str, int] = field(default_factory=dict)
    """Lease → the fencing number under which COMMIT must find it held."""
    assumed: bool = False
    """Something is in here that no reply has said: it holds at no version until COMMIT has looked."""

    def assume_absent(self, key: bytes) -> None:
        """Rely on a key being absent without having looked."""
        if key not in self.presence:
            self.presence[key] = False
            self.assumed = True

    def record(self, request: Read, reply: Reply) -> None:
        """Take note of a reply. The first version seen of a key is the one that counts."""
        for key, entry in reply.values.items():
            self.keys.setdefault(key, entry.version if entry else ABSENT)
        for key, present in reply.presence.items():
            self.presence.setdefault(key, present)
        for scan, entries in zip(request.scans, reply.scans, strict=True):
            self.ranges.append(range_read(scan, entries))

    def __bool__(self) -> bool:
        return bool(self.keys or self.presence or self.ranges or self.leases)


def range_read(scan: Scan, entries: list[Entry]) -> RangeRead:
    """What a scan's entries say about its range: all of it, or as far as the limit reached."""
    start, end = scan.range
    pairs = [(entry.key, entry.version) for entry in entries]
    if scan.limit is not None and len(entries) >= scan.limit:
        if not entries:
            end = start
        elif scan.reverse:
            start = entries[-1].key
        else:
            end = entries[-1].key + b"\x00"
    if scan.reverse:
        pairs.reverse()
    return RangeRead(Range(start, end), tuple(pairs))


@dataclass(slots=True)
class Writes:
    """What a transaction writes. A key is in `puts` or in `deletes`, never in both."""

    puts: dict[bytes, bytes] = field(default_factory=dict)
    deletes: set[bytes] = field(default_factory=set)
    adds: dict[bytes, int] = field(default_factory=dict)
    """Counter → what to add to it."""
    floors: dict[bytes, int] = field(default_factory=dict)
    """Counter → raise it to at least this."""

    def __bool__(self) -> bool:
        return bool(self.puts or self.deletes or self.adds or self.floors)


@dataclass(frozen=True, slots=True)
class Characteristics:
    """What a kind of store is and promises, for planning and for `status`."""

    durable: bool
    """An acknowledged commit survives the end of every process that uses the store."""
    shared: str
    """Who may use one database at once: "engine", "process", "host" or "network"."""
    remote: bool
    """A read costs a network round trip, so that fetching ahead is worth its while."""
    max_key_bytes: int
    max_value_bytes: int


class Snapshot(ABC):
    """One consistent state of a store, pinned at the first read at the latest.

    Not safe for use by two threads at once: it belongs to one transaction.
    """

    def __init__(self) -> None:
        self.newest_only = False
        """Answer from the newest state or not at all: one that writes could not commit otherwise."""
        self._reads = ReadSet()
        self._unrecorded: list[tuple[Read, Reply]] = []
        self.extensions = 0
        """How often it turned out that others had committed meanwhile, and that all reads still held."""

    @property
    def reads(self) -> ReadSet:
        """What was handed out. Put in order when it is asked for: most snapshots never are."""
        if self._unrecorded:
            unrecorded, self._unrecorded = self._unrecorded, []
            for request, reply in unrecorded:
                self._reads.record(request, reply)
        return self._reads

    def read(self, request: Read) -> Reply:
        """Answer in one round trip, and remember what was seen.

        Raises `Conflict` where the store has moved on and what was read before is no longer
        true, so that no single version could answer both; `StoreError` where there is no answer.
        """
        reply = self._fetch(request)
        self._unrecorded.append((request, reply))
        return reply

    @abstractmethod
    def _fetch(self, request: Read) -> Reply:
        """Answer at this snapshot's version (moving it forward first where that is needed)."""

    @property
    @abstractmethod
    def version(self) -> int | None:
        """The version this snapshot is at; None while nothing was read."""

    def close(self) -> None:  # noqa: B027 - many kinds have nothing to give back
        """Give back what the snapshot holds. Reading it afterwards is an error."""


class Store(ABC):
    """An open store, holding one database; shared by all connections of an engine.

    Safe for use by many threads; usable again in a child after fork.
    """

    kind: ClassVar[str]
    characteristics: Characteristics

    def __init__(self) -> None:
        self.round_trips = 0

    @property
    def losses(self) -> int:
        """How often the store was lost sight of: each time it may have lost its last writes."""
        return 0

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """A new snapshot of the newest state. Costs no round trip by itself."""

    @abstractmethod
    def commit(self, snapshot: Snapshot | None, writes: Writes) -> int:
        """Validate the snapshot's read set and write everything, atomically.

        Returns the new version once the store has made it as durable as it promises. Raises
        `LockLost`, or `Conflict` (with the keys that differ), and writes nothing when the read set no
        longer holds. `snapshot` may be None for a blind write. Afterwards the snapshot is spent.
        """

    @property
    @abstractmethod
    def leases(self) -> Leases:
        """What locks are made of."""

    @abstractmethod
    def allocate(self, counter: bytes, count: int = 1) -> int:
        """Take `count` numbers out of a counter; returns the first. Never given out twice."""

    def add_in_passing(self, adds: dict[bytes, int]) -> None:  # noqa: B027 - to let it be is right
        """Add to counters if that cannot make the caller wait; otherwise let it be. May raise anything.

        For what a process would like to leave behind when it ends.
        """

    @abstractmethod
    def health(self) -> dict[str, str | int | bool]:
        """Facts for an operator (server version, durability setting …); raises if unreachable."""

    @abstractmethod
    def wipe(self) -> None:
        """Delete everything in this database: entries and counters.

        Later versions are still greater than earlier ones, so that a snapshot from before can
        never take the new state for its own.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up connections and files. Closing twice is fine."""


def prefix_range(prefix: bytes) -> Range:
    """The range of all keys that begin with `prefix`."""
    end = prefix.rstrip(b"\xff")
    if not end:
        raise ValueError("a prefix of 0xFF bytes only has no end")
    return Range(prefix, end[:-1] + bytes([end[-1] + 1]))


def total_bytes(writes: Writes) -> int:
    """How many bytes of keys and values a commit carries."""
    pairs: Iterable[tuple[bytes, bytes]] = writes.puts.items()
    return sum(len(key) + len(value) for key, value in pairs) + sum(map(len, writes.deletes))
