"""One transaction: a snapshot to read from, a buffer to write to, and one call at COMMIT.

    read      own writes first, then what this transaction has fetched, then the snapshot
    write     into the buffer; savepoints are marks in it
    COMMIT    read-only: nothing is sent (under a lock: is it still held?). Otherwise the read set and the
              writes in one call

**Guard.** A transaction runs under one version of the schema, whose small key (the guard) travels
along with the first read. If it is not what the caller expected, `SchemaChanged` comes instead of
an answer, before the program has seen anything; if it changes later, COMMIT conflicts.

**Constraints found at COMMIT.** A unique key that was free when the statement ran may be taken by
the time of COMMIT, a parent row may be gone, and a child may have come. All of these show as a conflict.
So each check leaves a note. If a noted key or range differs, and the row that was checked is still being
written, the newest state is asked whether the constraint is broken: then that is the answer, and not a
race to be replayed. (That it differs is not enough: the parent row may just have been updated.)

**Blind keys.** A number from a sequence is new by construction, and its row's key is not read but
expected to be absent; COMMIT verifies it like everything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from rome.errors import Conflict, RomeError
from rome.stores.base import ABSENT, Entry, Range, Read, Reply, Scan, Store, Writes
from rome.transaction.buffer import WriteBuffer
from rome.transaction.cache import ReadCache


class SchemaChanged(RomeError):
    """The database's schema is not the one this transaction was begun under."""


class ConstraintViolated(RomeError):
    """A unique or foreign key constraint is broken; the text is SQLite's."""


class Chunk(NamedTuple):
    """A piece of a scan: its entries, own writes included, and the range still to be scanned."""

    entries: list[tuple[bytes, bytes]]
    rest: Range | None


class Note(NamedTuple):
    """What a check has relied on, for the row `witness`."""

    expected: Literal["free", "there", "empty"]
    """Of a key: nobody has it, or somebody does. Of a range: nobody is in it."""
    range: Range
    witness: bytes
    violation: str
    """What to say if it is otherwise."""

    @property
    def key(self) -> bytes:
        return self.range.start


class Transaction:
    """Not safe for use by two threads at once: it belongs to one connection."""

    def __init__(self, store: Store, guard: bytes | None = None, guard_version: int = ABSENT) -> None:
        self._store = store
        self._snapshot = store.snapshot()
        self._cache = ReadCache()
        self._guard = guard
        self._guard_version = guard_version
        self._cut_short: dict[Scan, Range] = {}
        """Scans that met their limit: the part of the range that they cover."""
        self._notes: dict[bytes, list[Note]] = {}
        self._expected_absent: set[bytes] = set()
        self.buffer = WriteBuffer()
        self.has_read = False

    # Reading

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        written, value = self.buffer.written(key)
        if written:
            return value
        if not self._cache.knows(key):
            self.load(keys=[key])
        entry = self._cache.find(key)
        return entry.value if entry is not None else None

    def present(self, key: bytes) -> bool:
        """Whether a key is there; COMMIT will only insist on that, not on its value."""
        written, value = self.buffer.written(key)
        if written:
            return value is not None
        if not self._presence_known(key):
            self.load(presence=[key])
        return self._presence(key)

    def knows(self, key: bytes) -> bool:
        """Whether it is known, without asking the store, if a key is there."""
        return self._presence_known(key)

    def knows_value(self, key: bytes) -> bool:
        """Whether `get` can answer without asking the store."""
        return self.buffer.written(key)[0] or self._cache.knows(key)

    def knows_scan(self, scan: Scan) -> bool:
        """Whether `scan` can answer without asking the store."""
        known = self._known(scan)
        return known is not None and (
            not scan.follow or all(self._cache.knows(entry.value) for entry in known[1])
        )

    def stored(self, key: bytes) -> bool:
        """Whether a key is there in the snapshot, own writes aside."""
        if not self._presence_known(key):
            self.load(presence=[key])
        return self._presence(key)

    def scan(
        self, range: Range, limit: int | None = None, reverse: bool = False, follow: bool = False
    ) -> Chunk:
        """The entries of a range in order, at most about `limit` of them, and what is left of it.

        With `follow`, the entries' values are keys, which are fetched in the same round trip.
        """
        request = Scan(range, limit, reverse, follow)
        known = self._known(request)
        if known is not None:
            covered, stored = known
            if follow:
                self.load(keys=[entry.value for entry in stored])
        else:
            covered, stored = self._learn(request, self._fetch_scans([request])[0])
        merged = self._overlay(covered, stored)
        if reverse:
            merged.reverse()
        if covered == range:
            return Chunk(merged, None)
        rest = Range(range.start, covered.start) if reverse else Range(covered.end, range.end)
        return Chunk(merged, rest)

    def load(
        self,
        keys: Iterable[bytes] = (),
        presence: Iterable[bytes] = (),
        scans: Iterable[Scan] = (),
        allocate: dict[bytes, int] | None = None,
    ) -> dict[bytes, int]:
        """Fetch what is not known yet of all this in one round trip, or in none.

        Returns the first of the numbers allocated, by counter.
        """
        wanted = dict.fromkeys(keys)
        missing = []
        for scan in dict.fromkeys(scans):
            known = self._known(scan)
            if known is None:
                missing.append(scan)
            elif scan.follow:
                wanted.update((entry.value, None) for entry in known[1])
        request = Read(
            keys=[key for key in wanted if not self._is_known(key)],
            presence=[key for key in dict.fromkeys(presence) if not self._presence_known(key)],
            scans=missing,
            allocate=allocate or {},
        )
        if not (request.keys or request.presence or request.scans or request.allocate):
            return {}
        reply = self._fetch(request)
        for scan, entries in zip(request.scans, reply.scans, strict=True):
            self._learn(scan, entries)
        return reply.allocated

    def expect_absent(self, key: bytes) -> None:
        """Rely on a key being absent without having looked; COMMIT will verify it."""
        self._snapshot.reads.assume_absent(key)
        self._expected_absent.add(key)

    def verify_absent(self) -> None:
        """Look now at what was only expected to be absent. Raises `Conflict` if some of it is not."""
        self.load(presence=self._expected_absent)
        found = [key for key in self._expected_absent if self.stored(key)]
        if found:
            raise Conflict(found)

    # Writing

    def put(self, key: bytes, value: bytes) -> None:
        self._snapshot.newest_only = True
        self.buffer.put(key, value)

    def delete(self, key: bytes) -> None:
        self._snapshot.newest_only = True
        self.buffer.put(key, None)

    def note_free(self, key: bytes, witness: bytes, violation: str) -> None:
        """If the key is taken at COMMIT while `witness` is being written, `violation` is the reason."""
        self._note(Note("free", Range(key, key), witness, violation))

    def note_there(self, key: bytes, witness: bytes, violation: str) -> None:
        """If the key is gone at COMMIT while `witness` is being written, `violation` is the reason."""
        self._note(Note("there", Range(key, key), witness, violation))

    def note_empty(self, range: Range, witness: bytes, violation: str) -> None:
        """If the range is not empty at COMMIT while `witness` is written, `violation` is the reason."""
        self._note(Note("empty", range, witness, violation))

    def _note(self, note: Note) -> None:
        self._notes.setdefault(note.key, []).append(note)

    # Ending

    @property
    def extensions(self) -> int:
        """How often this transaction went on past what others had committed meanwhile."""
        return self._snapshot.extensions

    def commit(
        self, statistics: dict[bytes, int] | None = None, leases: dict[str, int] | None = None
    ) -> int | None:
        """Make it so. None when there was nothing to write.

        `statistics` are counters to move along, if something is written; nothing depends on them.
        `leases` (name → fencing number) are those of the locks that this transaction runs under.
        Raises `LockLost`, `ConstraintViolated`, `Conflict` or `StoreError`; the transaction is over
        either way.
        """
        writes = self.buffer.writes()
        try:
            if not writes:
                if leases:
                    self._store.leases.require(leases)
                return None
            if leases:
                self._snapshot.reads.leases.update(leases)
            if statistics:
                writes.adds.update(statistics)
            if self._guard is not None:
                self._snapshot.reads.keys.setdefault(self._guard, self._guard_version)
            return self._store.commit(self._snapshot, writes)
        except Conflict as conflict:
            violation = self._violation(conflict, writes)
            if violation is not None:
                raise ConstraintViolated(violation) from conflict
            raise
        finally:
            self._snapshot.close()

    def _violation(self, conflict: Conflict, writes: Writes) -> str | None:
        """Which constraint is broken as the store is now, if that is what the conflict comes from."""
        if not self._expected_absent.isdisjoint(conflict.keys):
            return None  # What was built on a key that was thought to be free says nothing.
        notes = [
            note
            for key in conflict.keys
            for note in self._notes.get(key, ())
            if note.witness in writes.puts or note.witness in writes.deletes
        ]
        if not notes:
            return None
        ranges = [note.range for note in notes if note.expected == "empty"]
        newest = self._store.snapshot()
        try:
            reply = newest.read(
                Read(
                    presence=[note.key for note in notes if note.expected != "empty"],
                    scans=[Scan(range) for range in ranges],
                )
            )
        finally:
            newest.close()
        inside = {
            range: {entry.key for entry in entries} - writes.deletes
            for range, entries in zip(ranges, reply.scans, strict=True)
        }
        reads = self._snapshot.reads
        for note in notes:
            if note.expected == "empty":
                broken = bool(inside[note.range])
            elif note.expected == "there":
                broken = not reply.presence[note.key]
            else:
                # One that was there before is this transaction's own to replace.
                was_free = not reads.presence.get(note.key, reads.keys.get(note.key, ABSENT) != ABSENT)
                broken = was_free and reply.presence[note.key]
            if broken:
                return note.violation
        return None

    def close(self) -> None:
        """End the transaction without a trace."""
        self._snapshot.close()

    # How it is done

    def _known(self, scan: Scan) -> tuple[Range, list[Entry]] | None:
        """What is known of a scan's answer: the range it covers, and the entries in key order."""
        stored = self._cache.find_range(scan.range)
        if stored is not None:
            return scan.range, stored
        covered = self._cut_short.get(scan)
        stored = self._cache.find_range(covered) if covered is not None else None
        return (covered, stored) if covered is not None and stored is not None else None

    def _is_known(self, key: bytes) -> bool:
        return self._cache.knows(key)

    def _presence_known(self, key: bytes) -> bool:
        return key in self._cache.presence or self._cache.knows(key)

    def _presence(self, key: bytes) -> bool:
        if key in self._cache.presence:
            return self._cache.presence[key]
        return self._cache.find(key) is not None

    def _fetch_scans(self, scans: list[Scan]) -> list[list[Entry]]:
        return self._fetch(Read(scans=scans)).scans

    def _fetch(self, request: Read) -> Reply:
        guarded = self._guard is not None and not self.has_read
        if guarded:
            request.keys.append(self._guard)  # type: ignore[arg-type]
        reply = self._snapshot.read(request)
        if guarded:
            entry = reply.values[self._guard]  # type: ignore[index]
            if (entry.version if entry is not None else ABSENT) != self._guard_version:
                raise SchemaChanged("the schema was changed by another connection")
        self.has_read = True
        for key, found in reply.values.items():
            self._cache.entries.setdefault(key, found)
        self._cache.presence.update(reply.presence)
        return reply

    def _learn(self, scan: Scan, entries: list[Entry]) -> tuple[Range, list[Entry]]:
        """Put a scan's entries into the cache; returns what range they cover, in key order."""
        start, end = scan.range
        if scan.limit is not None and entries and len(entries) >= scan.limit:
            if scan.reverse:
                start = entries[-1].key
            else:
                end = entries[-1].key + b"\x00"
            self._cut_short[scan] = Range(start, end)
        covered = Range(start, end)
        ordered = entries[::-1] if scan.reverse else entries
        self._cache.add_range(covered, ordered)
        return covered, ordered

    def _overlay(self, range: Range, stored: list[Entry]) -> list[tuple[bytes, bytes]]:
        """The entries of a range as this transaction sees them: with its own writes."""
        own = self.buffer.within(range)
        if not own:
            return [(entry.key, entry.value) for entry in stored]
        merged: dict[bytes, bytes | None] = {entry.key: entry.value for entry in stored}
        merged.update(own)
        return sorted((key, value) for key, value in merged.items() if value is not None)
