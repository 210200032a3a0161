"""The virtual tables: SQLite reads and writes the store through these.

    VirtualTable   plans scans (rome.sql.planner) and passes writes on (rome.sql.writer)
    Scan cursor    turns a plan and its values into key ranges, and hands out the rows

A scan asks for more than one row at a time: with a LIMIT in sight a few, growing; otherwise
thousands. SQLite stops when it has what it wants.

**Order.** A plan may promise rows in order. Key order is value order except where a value was cut
(see rome.records.keys), or where a constraint of the plan could not be used after all; then all
the rows are fetched and sorted by the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, Final

import apsw

from rome.records.keys import KeyColumn, KeyLayout
from rome.records.rows import Value
from rome.sql.affinity import UNDECIDED, lookup
from rome.sql.catalog import Row, Table
from rome.sql.planner import Plan, Planner, Term
from rome.sql.session import Prefetcher, Session
from rome.sql.shadow import quote
from rome.sql.writer import Writer
from rome.stores.base import Range, Scan

_FIRST_CHUNK_LOCAL: Final = 256
_FIRST_CHUNK_REMOTE: Final = 5000
_FIRST_CHUNK_UNDER_LIMIT: Final = 64
_GREATEST_CHUNK: Final = 20_000
_GROWTH: Final = 4

KeyedRow = tuple[bytes, Row]


def declaration(table: Table) -> str:
    """What SQLite is told of a virtual table's columns: names, affinities, collations, NOT NULL."""
    columns = ", ".join(
        f"{quote(column.name)} {column.type} COLLATE {column.collation}"
        + (" NOT NULL" if column.notnull else "")
        for column in table.columns
    )
    return f"CREATE TABLE x({columns})"


class VirtualTable:
    """One table, as SQLite sees it (apsw.VTTable)."""

    def __init__(self, table: Table, session: Session, writer: Writer, db: apsw.Connection) -> None:
        self.table = table
        self.session = session
        self._writer = writer
        self._db = db
        self.planner = Planner(table, session)
        self.BestIndexObject = self.planner.best_index

    def Open(self) -> ScanCursor:
        return ScanCursor(self)

    def Disconnect(self) -> None:
        """Nothing is held: the table lives in the store."""

    Destroy = Disconnect

    def Rename(self, name: str) -> None:
        raise apsw.SQLError(f"cannot rename {self.table.name} here")

    def key_of(self, rowid: int) -> bytes:
        if self.table.key_kind == "clustered":
            return self.session.numbered_key(rowid)
        return self.table.row_layout.encode([rowid])

    def rowid_of(self, key: bytes, row: Row) -> int:
        if self.table.key_kind == "clustered":
            return self.session.row_number(key)
        number = row[self.table.key_columns[0]]
        assert isinstance(number, int)
        return number

    def UpdateInsertRow(self, rowid: int | None, fields: tuple[Any, ...]) -> int | None:
        key, row = self._writer.insert(self.table, list(fields), rowid, self._db.vtab_on_conflict())
        return self.rowid_of(key, row) if rowid is None else None

    def UpdateDeleteRow(self, rowid: int) -> None:
        self._writer.delete(self.table, self.key_of(rowid))

    def UpdateChangeRow(self, rowid: int, new_rowid: int, fields: tuple[Any, ...]) -> None:
        moved = new_rowid if new_rowid != rowid else None
        self._writer.update(self.table, self.key_of(rowid), fields, moved, self._db.vtab_on_conflict())


class ScanCursor:
    """One scan of a virtual table (apsw.VTCursor)."""

    __slots__ = ("_count", "_more", "_position", "_row", "_rows", "_table")

    def __init__(self, table: VirtualTable) -> None:
        self._table = table
        self._rows: list[KeyedRow] = []
        self._row: Row = []
        self._position = 0
        self._count = 0
        self._more: Iterator[list[KeyedRow]] = iter(())

    def Filter(self, number: int, text: str, arguments: tuple[Any, ...]) -> None:
        table, session = self._table.table, self._table.session
        plan = self._table.planner.plans[number]
        if session.prefetcher is not None:
            session.prefetcher.fetch_ahead(table, number, plan, arguments)
            self._more = _told(session.prefetcher, table, number, scan_rows(table, session, plan, arguments))
        else:
            self._more = scan_rows(table, session, plan, arguments)
        self._advance()

    def _advance(self) -> None:
        """Go on to the next chunk that has rows."""
        self._position = self._count = 0
        for rows in self._more:
            if rows:
                self._rows = rows
                self._count = len(rows)
                self._row = rows[0][1]
                return

    def Next(self) -> None:
        self._position += 1
        if self._position < self._count:
            self._row = self._rows[self._position][1]
        else:
            self._advance()

    def Eof(self) -> bool:
        return self._position >= self._count

    def Column(self, number: int) -> Value:
        if number < 0:
            return self.Rowid()
        return self._row[number]

    def ColumnNoChange(self, number: int) -> Any:
        return apsw.no_change

    def Rowid(self) -> int:
        return self._table.rowid_of(*self._rows[self._position])

    def Close(self) -> None:
        self._rows = []
        self._more = iter(())


def scan_rows(
    table: Table, session: Session, plan: Plan, arguments: Sequence[Any]
) -> Iterator[list[KeyedRow]]:
    """The rows of a plan, in chunks."""
    ranges, exact = plan_ranges(table, plan, arguments)
    fetch = _row_chunks if plan.path.index is None else _index_chunks
    if plan.path.index is None and plan.single and exact:
        return _point(table, session, [range.start for range in ranges])
    chunks = fetch(table, session, plan, ranges, _first_chunk(session, plan, arguments))
    if plan.order and not exact:
        return iter([_sorted(table, plan, [row for rows in chunks for row in rows])])
    if plan.order:
        return _in_order(table, plan, chunks)
    return chunks


def _told(
    prefetcher: Prefetcher, table: Table, number: int, chunks: Iterator[list[KeyedRow]]
) -> Iterator[list[KeyedRow]]:
    for rows in chunks:
        prefetcher.fetched(table, number, rows)
        yield rows


def plan_ranges(table: Table, plan: Plan, arguments: Sequence[Any]) -> tuple[list[Range], bool]:
    """The key ranges that answer a plan for these values; and whether all its terms were used."""
    path = plan.path
    choices: list[list[Value]] = []
    exact = True
    for term, ordinal in zip(plan.equal, path.columns, strict=False):
        values = _values(term, arguments, table.affinities[ordinal])
        if values is None:
            exact = False
            break
        choices.append(values)
    low = high = None
    if exact and (plan.low is not None or plan.high is not None):
        affinity = table.affinities[path.columns[len(plan.equal)]]
        bounds = []
        for term in (plan.low, plan.high):
            if term is None:
                bounds.append(None)
                continue
            value = lookup(arguments[term.argument], affinity)
            if value is None:
                return [], True
            if value is UNDECIDED:
                exact = False
                bounds.append(None)
            else:
                bounds.append((value, term.inclusive))
        low, high = bounds
    layout = path.layout
    ranges = [layout.range(values, low, high) for values in product(*choices)]  # type: ignore[arg-type]
    if len(ranges) > 1:
        ranges = sorted(set(ranges))
    return ranges, exact


def _values(term: Term, arguments: Sequence[Any], affinity: str) -> list[Value] | None:
    """The key values that an equality asks for; None if the key cannot answer for them."""
    if term.argument < 0:
        return [None]
    argument = arguments[term.argument]
    found = []
    for value in argument if term.many else (argument,):
        if value is None and not term.null_matches:
            continue
        converted = lookup(value, affinity)
        if converted is UNDECIDED:
            return None
        found.append(converted)
    return found  # type: ignore[return-value]


def _first_chunk(session: Session, plan: Plan, arguments: Sequence[Any]) -> int:
    if plan.limit >= 0 and isinstance(arguments[plan.limit], int) and arguments[plan.limit] >= 0:
        offset = arguments[plan.offset] if plan.offset >= 0 else 0
        return int(arguments[plan.limit]) + max(0, int(offset or 0)) + 1
    if session.has_limit:
        return _FIRST_CHUNK_UNDER_LIMIT
    return _FIRST_CHUNK_REMOTE if session.remote else _FIRST_CHUNK_LOCAL


def _point(table: Table, session: Session, keys: list[bytes]) -> Iterator[list[KeyedRow]]:
    for key in keys:
        data = session.transaction.get(key)
        if data is not None:
            yield [(key, session.row(table, key, data))]


def _row_chunks(
    table: Table, session: Session, plan: Plan, ranges: list[Range], size: int
) -> Iterator[list[KeyedRow]]:
    for entries in _chunks(session, plan, ranges, size, follow=False):
        yield [(key, session.row(table, key, data)) for key, data in entries]


def _index_chunks(
    table: Table, session: Session, plan: Plan, ranges: list[Range], size: int
) -> Iterator[list[KeyedRow]]:
    for entries in _chunks(session, plan, ranges, size, follow=True):
        yield [(key, session.fetch(table, key)) for _, key in entries]


def _chunks(
    session: Session, plan: Plan, ranges: list[Range], size: int, follow: bool
) -> Iterator[list[tuple[bytes, bytes]]]:
    if len(ranges) > 1:
        session.transaction.load(scans=[Scan(range, size, plan.reverse, follow) for range in ranges])
    for range in ranges:
        rest: Range | None = range
        limit = size
        while rest is not None:
            entries, rest = session.transaction.scan(rest, limit, plan.reverse, follow)
            yield entries
            limit = min(limit * _GROWTH, _GREATEST_CHUNK)


# Order


def _in_order(
    table: Table, plan: Plan, chunks: Iterator[list[KeyedRow]]
) -> Iterator[list[KeyedRow]]:
    """The chunks as they are, until a cut value shows up; then the rest is sorted as a whole."""
    limit = plan.path.layout.cut_limit // 4
    ordinals = [
        ordinal for ordinal, _ in plan.order if ordinal >= 0 and table.affinities[ordinal] != "INTEGER"
    ]
    if not ordinals:
        yield from chunks
        return
    held: list[KeyedRow] = []
    for rows in chunks:
        if not held and not any(_long(row[ordinal], limit) for _, row in rows for ordinal in ordinals):
            yield rows
        else:
            held += rows
    if held:
        # What was handed out before cannot belong behind any of these: keys agree in the order
        # of all that is not cut, and a cut value's neighbours with the same beginning are cut too,
        # but for those that end just there, which come first in either direction of the values.
        yield _sorted(table, plan, held)


def _long(value: Value, limit: int) -> bool:
    return isinstance(value, str | bytes) and len(value) > limit


def _sorted(table: Table, plan: Plan, rows: list[KeyedRow]) -> list[KeyedRow]:
    key = sort_key(table, plan.order)
    return sorted(rows, key=lambda keyed: key(keyed[1]))


def sort_key(table: Table, order: Sequence[tuple[int, bool]]) -> Callable[[Row], bytes]:
    """A function that gives a row's sort key in SQLite's order of the values."""
    rowid = table.key_columns[0]
    ordinals = [ordinal if ordinal >= 0 else rowid for ordinal, _ in order]
    collations = [table.columns[o].collation if o < len(table.columns) else "BINARY" for o in ordinals]
    layout = KeyLayout(
        b"", [KeyColumn(c, d) for c, (_, d) in zip(collations, order, strict=True)], unlimited=True
    )
    return lambda row: layout.encode([row[ordinal] for ordinal in ordinals])

