"""RETURNING: the rows that a statement wrote, put through a query.

SQLite has RETURNING on virtual tables only for INSERT, and there it shows the values as they were
given, without defaults and numbers. So the clause is cut off, the statement runs while the writer
collects the rows it writes, and the clause's expressions are evaluated by

    SELECT <expressions> FROM <the collected rows> AS <the table>

over a second virtual table that holds just those rows. For DELETE they are the rows as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import apsw

from rome.sql.binding import split
from rome.sql.catalog import Row, Table
from rome.sql.module import declaration
from rome.sql.session import Session
from rome.sql.shadow import quote
from rome.sql.statement import Statement

_MODULE = "rome_returning"


class Returning:
    """The RETURNING clauses of one connection."""

    def __init__(self, db: apsw.Connection, session: Session) -> None:
        self._db = db
        self._session = session
        self._tables: dict[int, tuple[Table, str]] = {}
        self._creating: Table | None = None
        self.rows: list[tuple[bytes, Row]] = []
        db.create_module(_MODULE, cast("apsw.VTModule", self), use_bestindex_object=True)

    # apsw.VTModule

    def Create(
        self, db: apsw.Connection, module: str, database: str, name: str, *arguments: str
    ) -> tuple[str, _Collected]:
        assert self._creating is not None
        return declaration(self._creating), _Collected(self, self._creating)

    Connect = Create

    def run(
        self,
        table: Table,
        statement: Statement,
        write: Callable[[str, Any], Any],
        read: Callable[[str, Any], Any],
        finish: Callable[[], None],
        sql: str,
        parameters: Sequence[Any] | Mapping[str, Any],
    ) -> Any:
        """Run a statement with RETURNING; the result has the clause's rows and the count."""
        at = statement.returning_at
        assert at is not None
        head, clause = sql[:at], sql[at + len("RETURNING") : statement.tail].rstrip().rstrip(";")
        for_head, for_clause = split(sql, at, parameters)
        context = self._session.statement
        context.collect = True
        context.collected = []
        outcome = write(head, for_head)
        changed = outcome.changed if outcome.changed >= 0 else self.changes()
        last = self._db.last_insert_rowid()
        finish()
        context.collect = False
        source = self.show(table, context.collected)
        result = read(f"SELECT {clause} FROM {source} AS {quote(table.name)}", for_clause)
        self.rows = []
        result.changed = changed
        result.last_row_id = last if statement.verb in ("insert", "replace") else None
        return result

    def show(self, table: Table, rows: list[tuple[bytes, Row]]) -> str:
        """Put rows of a table into its second virtual table; returns that one's name."""
        self.rows = rows
        return f"temp.{quote(self._source(table))}"

    def changes(self) -> int:
        """How many rows the last statement wrote."""
        ignored, self._session.statement.ignored = self._session.statement.ignored, 0
        return self._db.changes() - ignored

    def _source(self, table: Table) -> str:
        """The name of the virtual table that shows the collected rows of this one."""
        known = self._tables.get(table.id)
        if known is not None and known[0] is table:
            return known[1]
        name = f"{_MODULE}_{table.id}"
        self._db.execute(f"DROP TABLE IF EXISTS temp.{quote(name)}")
        self._creating = table
        self._db.execute(f"CREATE VIRTUAL TABLE temp.{quote(name)} USING {_MODULE}")
        self._tables[table.id] = (table, name)
        return name


class _Collected:
    """The collected rows as a table."""

    def __init__(self, owner: Returning, table: Table) -> None:
        self.owner = owner
        self.table = table

    def BestIndexObject(self, info: apsw.IndexInfo) -> bool:
        return True

    def Open(self) -> _CollectedCursor:
        return _CollectedCursor(self)

    def Disconnect(self) -> None:
        """Nothing is held."""

    Destroy = Disconnect


class _CollectedCursor:
    def __init__(self, table: _Collected) -> None:
        self._table = table
        self._rows: list[tuple[bytes, Row]] = []
        self._position = 0

    def Filter(self, number: int, text: str | None, arguments: tuple[Any, ...]) -> None:
        self._rows = self._table.owner.rows
        self._position = 0

    def Eof(self) -> bool:
        return self._position >= len(self._rows)

    def Next(self) -> None:
        self._position += 1

    def Column(self, number: int) -> Any:
        return self.Rowid() if number < 0 else self._rows[self._position][1][number]

    def Rowid(self) -> int:
        key, row = self._rows[self._position]
        if self._table.table.key_kind == "clustered":
            return self._table.owner._session.row_number(key)
        number = row[self._table.table.key_columns[0]]
        assert isinstance(number, int)
        return number

    def Close(self) -> None:
        self._rows = []
