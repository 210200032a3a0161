"""The PEP 249 cursor: runs statements on its connection and hands out their rows.

Rows are fetched when the statement runs: a result is then a part of the transaction's snapshot,
whatever is written after it, and no statement is left half-run when the transaction ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rome.dbapi.errors import ProgrammingError
from rome.sql.results import Result

if TYPE_CHECKING:
    from rome.dbapi.connection import Connection

Row = tuple[Any, ...]
Parameters = Sequence[Any] | Mapping[str, Any]


class Cursor:
    """PEP 249 Cursor, with the shortcuts of sqlite3's."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.arraysize = 1
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.description: tuple[tuple[Any, ...], ...] | None = None
        self._rows: Sequence[Row] = ()
        self._position = 0
        self._closed = False

    def execute(self, operation: str, parameters: Parameters = ()) -> Cursor:
        """Run one statement. Raises PEP 249 errors."""
        self._check()
        self._take(self.connection._run(operation, parameters))
        return self

    def executemany(self, operation: str, seq_of_parameters: Iterable[Parameters]) -> Cursor:
        """Run one statement for each set of parameters."""
        self._check()
        self._take(self.connection._run_many(operation, list(seq_of_parameters)))
        return self

    def executescript(self, script: str) -> Cursor:
        """Run a text of several statements, having committed what was pending.

        As in sqlite3, each is a transaction of its own, but for what stands between BEGIN and COMMIT.
        """
        self._check()
        self.connection._run_script(script)
        return self

    def _take(self, result: Result) -> None:
        self._rows = result.rows
        self._position = 0
        self.rowcount = result.changed
        if result.last_row_id is not None:
            self.lastrowid = result.last_row_id
        described = result.description
        self.description = (
            tuple((name, None, None, None, None, None, None) for name, _ in described) if described else None
        )

    def fetchone(self) -> Row | None:
        self._check()
        if self._position >= len(self._rows):
            return None
        self._position += 1
        return self._rows[self._position - 1]

    def fetchmany(self, size: int | None = None) -> list[Row]:
        self._check()
        start = self._position
        self._position = min(len(self._rows), start + (self.arraysize if size is None else size))
        return list(self._rows[start : self._position])

    def fetchall(self) -> list[Row]:
        self._check()
        start, self._position = self._position, len(self._rows)
        return list(self._rows[start:])

    def __iter__(self) -> Iterator[Row]:
        while (row := self.fetchone()) is not None:
            yield row

    def __next__(self) -> Row:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def setinputsizes(self, sizes: Any) -> None:
        """PEP 249 allows this to have no effect."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """PEP 249 allows this to have no effect."""

    def close(self) -> None:
        self._rows = ()
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise ProgrammingError("Cannot operate on a closed cursor.")
        self.connection._check()
