"""Runs a program on SQLite and on a store, and says where they first differ.

Both connections are in autocommit, so that transactions are what the program says. A result is
compared by its rows, the names of its columns, its row count and whether a transaction is open
afterwards; an error by its PEP 249 class, and an IntegrityError by its text too, since programs
read that.

Python's sqlite3 comes with one release of SQLite and ROME with another. Where these two differ (in
how many digits a float has as text, say), ROME has to agree with its own.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import apsw

from rome.dbapi import Connection
from rome.stores.base import prefix_range
from tests.differential.programs import Program, Step


@dataclass
class Outcome:
    """What one step gave."""

    error: str | None = None
    message: str = ""
    rows: list[tuple[Any, ...]] | None = None
    names: list[str] | None = None
    count: int = -1
    in_transaction: bool = False


@dataclass
class Difference(Exception):
    """A step that went differently, with the program up to there."""

    program: Program
    at: int
    expected: Any
    found: Any

    def __str__(self) -> str:
        steps = "\n    ".join(map(str, self.program.steps[: self.at + 1]))
        return f"\n    {steps}\n  SQLite: {self.expected}\n  ROME:   {self.found}"


def sqlite_connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


class OwnRelease:
    """SQLite of the release that ROME is built on, with its own tables, as a PEP 249 connection."""

    def __init__(self) -> None:
        self._db = apsw.Connection(":memory:")
        self._db.config(apsw.SQLITE_DBCONFIG_DQS_DML, 1)
        self._db.execute("PRAGMA foreign_keys = ON")

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def cursor(self) -> OwnReleaseCursor:
        return OwnReleaseCursor(self._db)

    def execute(self, sql: str) -> OwnReleaseCursor:
        return self.cursor().execute(sql)

    def close(self) -> None:
        self._db.close()


class OwnReleaseCursor:
    """PEP 249 cursor of `OwnRelease`, with sqlite3's row counts and classes of errors."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._rows: list[tuple[Any, ...]] = []
        self.description: Any = None
        self.rowcount = -1

    def execute(self, sql: str, parameters: Any = ()) -> OwnReleaseCursor:
        self._run(sql, [parameters], many=False)
        return self

    def executemany(self, sql: str, rows: Iterable[Any]) -> None:
        self._run(sql, rows, many=True)

    def _run(self, sql: str, rows: Iterable[Any], many: bool) -> None:
        writes = sql.split()[0] in ("INSERT", "UPDATE", "DELETE")
        described: list[Any] = []
        changed = 0

        def trace(cursor: apsw.Cursor, text: str, bindings: Any) -> bool:
            described[:] = cursor.description
            return True

        cursor = self._db.cursor()
        cursor.exec_trace = trace
        try:
            for parameters in rows:
                self._rows = cursor.execute(sql, parameters).fetchall()
                changed += self._db.changes()
        except (apsw.ConstraintError, apsw.MismatchError) as error:
            raise sqlite3.IntegrityError(str(error)) from error
        except apsw.Error as error:
            raise sqlite3.OperationalError(str(error)) from error
        self.rowcount = changed if writes else -1
        self.description = tuple((name,) for name, *_ in described) or None

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows


def perform(connection: Any, errors: Any, step: Step) -> Outcome:
    """Run one step on a connection; `errors` is the module with its PEP 249 errors."""
    cursor = connection.cursor()
    outcome = Outcome()
    try:
        if step.many:
            cursor.executemany(step.sql, step.parameters)
        else:
            cursor.execute(step.sql, step.parameters)
        if cursor.description is not None:
            outcome.rows = cursor.fetchall()
            outcome.names = [column[0] for column in cursor.description]
        outcome.count = cursor.rowcount
    except errors.Error as error:
        outcome.error, outcome.message = type(error).__name__, str(error)
    outcome.in_transaction = connection.in_transaction
    return outcome


class Reference:
    """What SQLite makes of a program: each step's outcome, and what the tables hold in the end."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.outcomes, self.contents = self._run(sqlite_connection())
        self._own: tuple[list[Outcome], dict[str, Any]] | None = None

    def _run(self, connection: Any) -> tuple[list[Outcome], dict[str, Any]]:
        outcomes = [perform(connection, sqlite3, step) for step in self._program.steps]
        found = contents(connection, self._program)
        connection.close()
        return outcomes, found

    @property
    def own_release(self) -> tuple[list[Outcome], dict[str, Any]]:
        if self._own is None:
            self._own = self._run(OwnRelease())
        return self._own

    def compare(self, connection: Connection, errors: Any) -> None:
        """Run the program on a store. Raises `Difference`."""
        for at, (step, wanted) in enumerate(zip(self._program.steps, self.outcomes, strict=True)):
            if wanted.message == "database disk image is malformed":
                return  # SQLite's own fault: a row value compared in a table that was given a column
            found = perform(connection, errors, step)
            if not alike(step, wanted, found) and not alike(step, self.own_release[0][at], found):
                raise Difference(self._program, at, wanted, found)

    def compare_contents(self, connection: Connection) -> None:
        """What the store holds in the end. Raises `Difference`."""
        found = contents(connection, self._program)
        if found not in (self.contents, self.own_release[1] if found != self.contents else None):
            raise Difference(self._program, len(self._program.steps), self.contents, found)


def alike(step: Step, wanted: Outcome, found: Outcome) -> bool:
    if (wanted.error, wanted.in_transaction) != (found.error, found.in_transaction):
        return False
    if wanted.error is not None:
        return wanted.error != "IntegrityError" or step.any_text or wanted.message == found.message
    if step.sql.startswith("ALTER"):
        # Some releases of SQLite show the names of a query of their own.
        return True
    if wanted.names != found.names or (wanted.count != found.count and not step.any_count):
        return False
    if wanted.rows is None or found.rows is None:
        return wanted.rows is found.rows
    plain = (lambda row: tuple(map(loosely, row))) if step.loose else (lambda row: tuple(map(exactly, row)))
    before, after = list(map(plain, wanted.rows)), list(map(plain, found.rows))
    return before == after if step.ordered else Counter(before) == Counter(after)


def exactly(value: Any) -> Hashable:
    """A value that equals another only if both have the same type, too."""
    return type(value).__name__, value


def loosely(value: Any) -> Hashable:
    """A value that equals all that some collation takes for equal."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return value.split("\x00")[0].rstrip(" ").lower()
    return value  # type: ignore[no-any-return]


def contents(connection: Any, program: Program) -> dict[str, Any]:
    """All rows of all tables, as far as statements name them; None for a table that is not there."""
    found: dict[str, Any] = {}
    for table, columns in program.tables:
        try:
            rows = connection.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
        except Exception:
            found[table] = None
        else:
            found[table] = Counter(tuple(map(exactly, row)) for row in rows)
    return found


def check_indexes(connection: Connection) -> None:
    """Every index has exactly the entries of the rows, as the store holds them."""
    connection.execute("BEGIN")
    processor = connection._work
    processor.session.transaction.get(b"\x00\x01")
    transaction = processor.session.transaction
    for table in processor.schema.catalog.tables.values():
        rows = transaction.scan(prefix_range(table.row_layout.prefix)).entries
        wanted: dict[bytes, bytes] = {}
        for key, data in rows:
            row = table.decode(data)
            assert table.row_key(row) == key, f"{table.name}: the key of {row} is not its own"
            for _, entry, _ in processor.writer._entries(table, row):
                assert entry not in wanted, f"{table.name}: two rows share the entry {entry!r}"
                wanted[entry] = key
        found: dict[bytes, bytes] = {}
        for index in table.indexes:
            found.update(transaction.scan(prefix_range(table.index_layouts[index.id].prefix)).entries)
        assert found == wanted, f"{table.name}: index entries and rows disagree"
    connection.execute("ROLLBACK")
