"""What the virtual tables of one connection share: the running transaction and statement.

The virtual tables, their cursors and the writer are called by SQLite, from inside a statement;
this is where they find what they work on. `rome.sql.processor` owns it and says when a
transaction begins and ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rome.errors import FormatError
from rome.sql.catalog import Row, Table
from rome.sql.planner import Plan
from rome.transaction import Transaction


@dataclass(slots=True)
class HeldBack:
    """What the writer is to do about rows in conflict: which conflicts, and where to put the rows."""

    targets: frozenset[int] | None
    """Numbers of unique indexes, -1 for the row's own key; None: any of them."""
    rows: list[tuple[bytes, Row]] = field(default_factory=list)
    """The key of the row in the way, and the row that was to be inserted."""


@dataclass(slots=True)
class StatementContext:
    """What is particular to the statement that runs."""

    given: tuple[str, ...] | None = None
    """The columns that INSERT names; None: all of them."""
    has_limit: bool = False
    in_subquery: bool = False
    rows_expected: int = 1
    """How many rows INSERT is about to write, as far as is known."""
    ignored: int = 0
    """How many rows OR IGNORE left out. SQLite, which is told of no error, has counted them."""
    held_back: HeldBack | None = None
    """UPSERT: which conflicts hold a row back instead of failing."""
    collect: bool = False
    """RETURNING: keep the rows that are written."""
    collected: list[tuple[bytes, Row]] = field(default_factory=list)


class Prefetcher(Protocol):
    """Fetches ahead what other scans of the statement will need (see rome.sql.prefetch)."""

    def fetch_ahead(self, table: Table, number: int, plan: Plan, arguments: Sequence[Any]) -> None: ...

    def fetched(self, table: Table, number: int, rows: list[tuple[bytes, Row]]) -> None: ...


class Session:
    """The state that SQLite's callbacks work on. One per connection, for one thread at a time."""

    def __init__(self, remote: bool) -> None:
        self.remote = remote
        self.statement = StatementContext()
        self.counts: dict[bytes, int] = {}
        """Row counts by counter key: hints for planning."""
        self.prefetcher: Prefetcher | None = None
        """Present where a read costs a round trip."""
        self._transaction: Transaction | None = None
        self._rows: dict[bytes, tuple[bytes, Row]] = {}
        self.results: dict[tuple[Any, ...], tuple[int, list[tuple[bytes, Row]]]] = {}
        """Whole results of scans, with the write buffer's generation that they hold for."""
        self._row_numbers: dict[bytes, int] = {}
        self._numbered_keys: list[bytes] = []

    @property
    def transaction(self) -> Transaction:
        assert self._transaction is not None, "SQLite called back outside of a transaction"
        return self._transaction

    @property
    def in_transaction(self) -> bool:
        return self._transaction is not None

    def begin(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def end(self) -> None:
        """Forget everything that belongs to the transaction."""
        self._transaction = None
        self._rows.clear()
        self.results.clear()
        self._row_numbers.clear()
        self._numbered_keys.clear()

    # Hints for the planner

    def row_count(self, table: Table) -> int:
        return self.counts.get(table.count_key, 0)

    @property
    def has_limit(self) -> bool:
        return self.statement.has_limit

    @property
    def in_subquery(self) -> bool:
        return self.statement.in_subquery

    # Rows

    def row(self, table: Table, key: bytes, data: bytes) -> Row:
        """A stored row decoded; the same row is decoded once in a transaction."""
        known = self._rows.get(key)
        if known is not None and known[0] is data:
            return known[1]
        row = table.decode(data)
        self._rows[key] = (data, row)
        return row

    def fetch(self, table: Table, key: bytes) -> Row:
        """A row that has to be there."""
        data = self.transaction.get(key)
        if data is None:
            raise FormatError(f"an index of table {table.name} names a row that is not there: run rome check")
        return self.row(table, key, data)

    def forget_rows(self) -> None:
        """The schema changed: rows have to be decoded anew."""
        self._rows.clear()
        self.results.clear()

    # Row numbers, where the row's key is not one

    def row_number(self, key: bytes) -> int:
        """A number that SQLite can name a clustered row by, until the transaction ends."""
        number = self._row_numbers.get(key)
        if number is None:
            self._numbered_keys.append(key)
            number = self._row_numbers[key] = len(self._numbered_keys)
        return number

    def numbered_key(self, number: int) -> bytes:
        return self._numbered_keys[number - 1]
