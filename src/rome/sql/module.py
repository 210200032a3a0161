"""The virtual tables: SQLite reads and writes the store through these.

    VirtualTable   plans scans (rome.sql.planner) and passes writes on (rome.sql.writer)
    ScanCursor     hands out the rows of a plan, and tells the prefetcher of them

What a scan fetches, and in which order, is the business of `rome.sql.scans`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

import apsw

from rome.records.rows import Value
from rome.sql.catalog import Row, Table
from rome.sql.planner import Planner
from rome.sql.scans import KeyedRow, scan_rows
from rome.sql.session import Prefetcher, Session
from rome.sql.shadow import quote
from rome.sql.writer import RowIgnored, Writer

_REMEMBERED_ROWS: Final = 32
"""The greatest result of a scan that is kept for the next time it is asked for."""


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
        try:
            key, row = self._writer.insert(self.table, list(fields), rowid, self._db.vtab_on_conflict())
        except RowIgnored:
            self.session.statement.ignored += 1
            return self._db.last_insert_rowid()
        return self.rowid_of(key, row) if rowid is None else None

    def UpdateDeleteRow(self, rowid: int) -> None:
        self._writer.delete(self.table, self.key_of(rowid))

    def UpdateChangeRow(self, rowid: int, new_rowid: int, fields: tuple[Any, ...]) -> None:
        moved = new_rowid if new_rowid != rowid else None
        try:
            self._writer.update(self.table, self.key_of(rowid), fields, moved, self._db.vtab_on_conflict())
        except RowIgnored:
            self.session.statement.ignored += 1


class ScanCursor:
    """One scan of a virtual table (apsw.VTCursor)."""

    __slots__ = ("Column", "_count", "_more", "_position", "_rows", "_table")

    Column: Callable[[int], Value]
    """The current row's values by ordinal: SQLite asks for each of them, so nothing stands between."""

    def __init__(self, table: VirtualTable) -> None:
        self._table = table
        self._rows: list[KeyedRow] = []
        self._position = 0
        self._count = 0
        self._more: Iterator[list[KeyedRow]] = iter(())

    def Filter(self, number: int, text: str, arguments: tuple[Any, ...]) -> None:
        table, session = self._table.table, self._table.session
        plan = self._table.planner.plans[number]
        generation = session.transaction.buffer.generation
        identity = (table.id, number, arguments) if plan.repeatable else None
        if identity is not None:
            held, rows = session.results.get(identity, (-1, self._rows))
            if held == generation:
                self._more = iter((rows,))
                self._advance()
                return
        if session.prefetcher is not None:
            session.prefetcher.fetch_ahead(table, number, plan, arguments)
            self._more = _told(session.prefetcher, table, number, scan_rows(table, session, plan, arguments))
        else:
            self._more = scan_rows(table, session, plan, arguments)
        self._advance()
        if identity is not None and self._count <= _REMEMBERED_ROWS:
            ahead = next(self._more, None)
            if ahead is None:
                session.results[identity] = (generation, self._rows if self._count else [])
            else:
                self._more = chain((ahead,), self._more)

    def _advance(self) -> None:
        """Go on to the next chunk that has rows."""
        self._position = self._count = 0
        for rows in self._more:
            if rows:
                self._rows = rows
                self._count = len(rows)
                self.Column = rows[0][1].__getitem__
                return

    def Next(self) -> None:
        self._position += 1
        if self._position < self._count:
            self.Column = self._rows[self._position][1].__getitem__
        else:
            self._advance()

    def Eof(self) -> bool:
        return self._position >= self._count

    def ColumnNoChange(self, number: int) -> Any:
        return apsw.no_change

    def Rowid(self) -> int:
        return self._table.rowid_of(*self._rows[self._position])

    def Close(self) -> None:
        self._rows = []
        self._more = iter(())


def _told(
    prefetcher: Prefetcher, table: Table, number: int, chunks: Iterator[list[KeyedRow]]
) -> Iterator[list[KeyedRow]]:
    for rows in chunks:
        prefetcher.fetched(table, number, rows)
        yield rows
