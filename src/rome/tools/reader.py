"""Reading a whole database in one snapshot, in pieces of a bearable size.

A range is read in chunks. Their length follows the size of what came last, so that a reply holds a
few megabytes at most whether rows are small or large (a single value may of course be larger).

The snapshot's read set is what keeps its pieces one state on Redis, and what a repair is validated
by, so it is kept: some 200 bytes of memory for each key read. The values are let go at once.

On Redis the snapshot moves forward when others commit. If they changed what was read already, it could
only go on in the past, where counters do not belong to what is read: `Conflict`, and the caller begins again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import apsw

from rome.errors import FormatError
from rome.records.keys import CATALOG_KEY, schema_key
from rome.sql.catalog import FORMAT, Catalog, decode_catalog
from rome.sql.shadow import Shadow
from rome.stores import ABSENT, Entry, Range, Read, Reply, Scan, Store

_FIRST_CHUNK = 100
_LONGEST_CHUNK = 2000
_REPLY_BYTES = 4 << 20
_GROWTH = 4


class Progress(Protocol):
    """Told how far a long walk has come."""

    def begin(self, total: int) -> None:
        """A walk over about so many entries begins, perhaps not for the first time."""

    def step(self, table: str, entries: int) -> None:
        """So many more entries of this table were read."""


class Silent:
    """Nobody watches."""

    def begin(self, total: int) -> None: ...

    def step(self, table: str, entries: int) -> None: ...


class Reader:
    """One snapshot of a store."""

    def __init__(self, store: Store) -> None:
        self.snapshot = store.snapshot()
        # On one host, counters are part of the snapshot.
        self.snapshot.newest_only = store.characteristics.remote

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.snapshot.close()

    def ask(self, request: Read) -> Reply:
        """Raises `Conflict` and `StoreError` as the snapshot does."""
        reply = self.snapshot.read(request)
        self.snapshot.reads  # noqa: B018 - puts the read set in order, which lets the values go
        return reply

    def chunks(self, within: Range) -> Iterator[list[Entry]]:
        """All entries of a range, in key order."""
        start, end = within
        limit = _FIRST_CHUNK
        while True:
            entries = self.ask(Read(scans=[Scan(Range(start, end), limit=limit)])).scans[0]
            if entries:
                yield entries
            if len(entries) < limit:
                return
            start = entries[-1].key + b"\x00"
            size = sum(len(entry.key) + len(entry.value) for entry in entries) // len(entries)
            limit = max(1, min(_REPLY_BYTES // max(1, size), limit * _GROWTH, _LONGEST_CHUNK))

    def count(self, within: Range) -> int:
        """How many entries a range has."""
        return sum(map(len, self.chunks(within)))


@dataclass(frozen=True)
class StoredSchema:
    """The schema as the store has it."""

    version: int
    """The commit that wrote it; 0 (absent) for a database without a schema."""
    format: int
    marker: bytes
    """What the small key holds that every transaction reads."""
    numbers: dict[str, Any]
    """The stored catalog, undigested."""
    catalog: Catalog
    shadow: Shadow


def read_schema(reader: Reader) -> StoredSchema:
    """The schema, by one round trip. Raises `FormatError` if it cannot be understood."""
    reply = reader.ask(Read(keys=[schema_key(), CATALOG_KEY]))
    marker, stored = reply.values[schema_key()], reply.values[CATALOG_KEY]
    if marker is None and stored is None:
        return StoredSchema(ABSENT, FORMAT, b"", {}, Catalog(), Shadow())
    if marker is None or stored is None:
        missing = "its version" if marker is None else "its entry"
        raise FormatError(f"the stored catalog is damaged: {missing} is missing")
    numbers = decode_catalog(stored.value)
    try:
        shadow = Shadow(tuple(map(tuple, numbers["entries"])))
        catalog = shadow.catalog(stored.value)
    except (apsw.Error, AssertionError, LookupError, TypeError, ValueError) as error:
        raise FormatError(f"the stored catalog cannot be read: {type(error).__name__}: {error}") from error
    return StoredSchema(marker.version, numbers["format"], marker.value, numbers, catalog, shadow)
