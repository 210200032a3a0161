"""The status of a database: is it reachable, how durable is it, what does it hold, which locks are held?

It is meant to be asked often, by people and by monitoring, so it costs a few round trips whatever
the size of the database: rows are counted by the counters that every commit moves along, and bytes
are those of the first rows and entries of each table, times their number (exactly, if asked to).

Bytes are those of keys and values, without what the store itself needs around them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from rome.errors import Conflict, FormatError, RomeError, StoreError
from rome.locks import Held, held
from rome.sql.catalog import FORMAT, Table
from rome.sql.counters import KEYS
from rome.stores import Entry, Read, Scan, Store, StoreURL, prefix_range
from rome.tools.opening import opened
from rome.tools.reader import Reader, read_schema

SAMPLE = 50
"""So many entries of each table and index are looked at for an estimate of bytes."""

_SCANS_AT_ONCE = 50
_TRIES = 5


@dataclass(frozen=True, slots=True)
class TableStatus:
    name: str
    rows: int
    bytes: int
    exact: bool
    """The bytes were counted, not estimated."""
    indexes: int


@dataclass(slots=True)
class Status:
    """What was found out until it was all, or something failed."""

    url: str
    """Without its password."""
    store: str
    reachable: bool = False
    readable: bool = False
    reason: str | None = None
    """Why it is not reachable, or not readable."""
    health: dict[str, str | int | bool] = field(default_factory=dict)
    """The store's facts, its durability settings among them."""
    schema_version: int | None = None
    """The commit that wrote the schema; 0: there is none yet."""
    catalog_format: int | None = None
    readable_format: int = FORMAT
    """The greatest catalog format that this ROME reads."""
    tables: list[TableStatus] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    """What became of transactions, over all processes; some seconds late (see rome.sql.counters)."""
    locks: list[Held] = field(default_factory=list)
    """The locks that are held now."""

    @property
    def healthy(self) -> bool:
        return self.reachable and self.readable

    def as_dict(self) -> dict[str, Any]:
        locks = [lock._asdict() for lock in self.locks]
        return {**asdict(self), "locks": locks, "healthy": self.healthy}


def status(url: StoreURL, exact: bool = False) -> Status:
    """Ask the store. Never raises for what is wrong with the store: `reason` says it."""
    found = Status(str(url), url.kind)
    try:
        with opened(url) as store:
            found.health = store.health()
            found.reachable = True
            _read(store, found, exact)
            found.locks = held(store)
            found.readable = True
    except FormatError as error:
        # Whoever can say that it is damaged has reached it.
        found.reachable = True
        found.reason = str(error)
    except RomeError as error:
        found.reason = str(error)
    return found


def _read(store: Store, found: Status, exact: bool) -> None:
    for _ in range(_TRIES):
        try:
            with Reader(store) as reader:
                schema = read_schema(reader)
                found.schema_version, found.catalog_format = schema.version, schema.format
                tables = sorted(schema.catalog.tables.values(), key=lambda table: table.name)
                counts = [table.count_key for table in tables]
                counters = reader.ask(Read(counters=[*KEYS.values(), *counts])).counters
                found.counters = {name: counters[key] for name, key in KEYS.items()}
                found.tables = list(
                    _counted(reader, tables) if exact else _estimated(reader, tables, counters)
                )
                return
        except Conflict:
            continue
    raise StoreError(f"other programs changed what was read during each of {_TRIES} tries: try again")


def _prefixes(table: Table) -> list[bytes]:
    return [table.row_layout.prefix, *(layout.prefix for layout in table.index_layouts.values())]


def _counted(reader: Reader, tables: list[Table]) -> Iterator[TableStatus]:
    for table in tables:
        rows = size = 0
        for prefix in _prefixes(table):
            for chunk in reader.chunks(prefix_range(prefix)):
                rows += len(chunk) if prefix == table.row_layout.prefix else 0
                size += _size(chunk)
        yield TableStatus(table.name, rows, size, True, len(table.indexes))


def _estimated(reader: Reader, tables: list[Table], rows: dict[bytes, int]) -> Iterator[TableStatus]:
    wanted = iter([Scan(prefix_range(p), limit=SAMPLE) for table in tables for p in _prefixes(table)])
    samples: list[list[Entry]] = []
    while scans := list(islice(wanted, _SCANS_AT_ONCE)):
        samples += reader.ask(Read(scans=scans)).scans
    sampled = iter(samples)
    for table in tables:
        count = max(0, rows[table.count_key])
        size, exact = 0, True
        for entries in islice(sampled, len(_prefixes(table))):
            if len(entries) < SAMPLE:
                size += _size(entries)
            else:
                size += _size(entries) * max(count, SAMPLE) // SAMPLE
                exact = exact and count == SAMPLE
        yield TableStatus(table.name, count, size, exact, len(table.indexes))


def _size(entries: list[Entry]) -> int:
    return sum(len(entry.key) + len(entry.value) for entry in entries)
