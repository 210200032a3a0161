"""What becomes of the rows when DDL changes the schema.

Column ids spare most changes any work on the rows (see rome.sql.catalog). What is left to do, between one
catalog and the next:

    a table or index that is gone     its keys are deleted
    a new index                       all rows are entered, which shows whether they are unique
    a table whose rows cannot stay    under other keys (its primary key changed), or with other values (the
                                      affinity of a column changed): it has a new number in the new
                                      catalog, and its rows are written to it as an INSERT would write them
    a constraint that was added       is tried on each row

All of it goes through the running transaction: it is all or nothing with the DDL, it takes part in COMMIT's
validation, and a writer that began under the old schema conflicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import apsw

from rome.records.rows import Value
from rome.sql import births
from rome.sql.catalog import Catalog, Index, Row, Table
from rome.sql.definition import Kind
from rome.sql.session import Session, StatementContext
from rome.sql.shadow import Shadow, index_values
from rome.sql.writer import Writer
from rome.stores.base import Range, prefix_range

_CHUNK = 5000
"""Entries fetched at once where a whole key space is gone through."""


class Conversion:
    """One DDL statement's work on the rows."""

    def __init__(
        self,
        session: Session,
        writer: Writer,
        shadow: Callable[[], Shadow],
        before: Catalog,
        after: Catalog,
        first_new: int,
    ) -> None:
        """Tables with the number `first_new` or a greater one were made by the running transaction."""
        self._session = session
        self._writer = writer
        self._shadow = shadow
        self._before = before
        self._after = after
        self._first_new = first_new
        self._displaced: list[tuple[Table, list[dict[str, Value]]]] = []
        """Tables that lie elsewhere now, with their rows by column."""

    def move(self, displace: bool) -> None:
        """Write and delete what the new schema asks for.

        `displace`: a table of the same name that has another number is the same table; its rows are kept
        in memory until `put_back`, when the new schema is in place.
        """
        if displace:
            self._take_displaced()
        old, new = _different(self._before, self._after), _different(self._after, self._before)
        for id, table in old.items():
            if id not in new:
                self._clear(table, table.row_layout.prefix)
                self._session.transaction.buffer.add(table.count_key, -self._session.row_count(table))
            kept = {index.id for index in new[id].indexes} if id in new else set()
            for index in table.indexes:
                if index.id not in kept:
                    self._clear(table, table.index_layouts[index.id].prefix)
        for id, table in new.items():
            if id in old:
                self._refuse_added_columns(old[id], table)
                present = {index.id for index in old[id].indexes}
                for index in table.indexes:
                    if index.id not in present:
                        self._build(table, index)

    def _clear(self, table: Table, prefix: bytes) -> None:
        transaction = self._session.transaction
        for key, _ in self._entries(table, prefix):
            transaction.delete(key)

    def _entries(self, table: Table, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All entries of one of a table's key spaces, fetched piece by piece."""
        if table.id >= self._first_new and not self._session.transaction.buffer.touches(prefix):
            return  # nothing is stored, and nothing was written
        rest: Range | None = prefix_range(prefix)
        while rest is not None:
            entries, rest = self._session.transaction.scan(rest, _CHUNK)
            yield from entries

    def _build(self, table: Table, index: Index) -> None:
        """Enter all rows into a new index. Raises `apsw.ConstraintError` if it is unique and they are not."""
        transaction = self._session.transaction
        for key, data in self._entries(table, table.row_layout.prefix):
            row = table.decode(data)
            values = index_values(table, index, row, self._shadow)
            if values is None:
                continue
            entry = table.entry_key(index, values, row)
            if transaction.buffer.written(entry)[0]:
                raise apsw.ConstraintError(table.unique_violation(index))
            transaction.put(entry, key)

    def _refuse_added_columns(self, before: Table, after: Table) -> None:
        """What SQLite refuses to add to a table that has rows."""
        known = {column.id for column in before.columns}
        added = [column for column in after.columns if column.id not in known]
        if not added or not self._has_rows(before):
            return
        for column in added:
            # Whether a default is a constant is best known to SQLite, and it looks only where there are rows.
            scratch = apsw.Connection(":memory:")
            scratch.execute("CREATE TABLE t (a); INSERT INTO t VALUES (NULL)")
            notnull = " NOT NULL" if column.notnull and not column.generated else ""
            default = f" DEFAULT ({column.default})" if column.default is not None else ""
            try:
                scratch.execute(f"ALTER TABLE t ADD COLUMN b {column.affinity}{notnull}{default}")
            finally:
                scratch.close()

    def _has_rows(self, table: Table) -> bool:
        entries: list[tuple[bytes, bytes]] = []
        rest: Range | None = prefix_range(table.row_layout.prefix)
        limit = 1
        while rest is not None and not entries:
            # A chunk without entries only says that this transaction has deleted what was stored there.
            entries, rest = self._session.transaction.scan(rest, limit)
            limit = min(limit * 8, _CHUNK)
        return bool(entries)

    # Rows that lie elsewhere

    def _take_displaced(self) -> None:
        for name, table in self._after.tables.items():
            old = self._before.tables.get(name)
            if old is None or old.id == table.id:
                continue
            own = [(i, column.name.lower()) for i, column in enumerate(old.columns) if not column.generated]
            found = [old.decode(data) for _, data in self._entries(old, old.row_layout.prefix)]
            if old.has_births:
                found.sort(key=births.of)
            rows = [{name: row[ordinal] for ordinal, name in own} for row in found]
            if old.key_kind == table.key_kind == "rowid":
                self._keep_counting(old, table)
            self._displaced.append((table, rows))

    def _keep_counting(self, before: Table, after: Table) -> None:
        """A number that was given out once is not given to another row."""
        transaction = self._session.transaction
        following = transaction.load(allocate={before.sequence_key: 1})[before.sequence_key]
        given_out = max(following - 1, transaction.buffer.floor_of(before.sequence_key))
        if given_out > 0:
            transaction.buffer.floor(after.sequence_key, given_out)

    def put_back(self) -> None:
        """Write the displaced rows, under the keys and with the values that the new schema gives them."""
        for table, rows in self._displaced:
            names = tuple(column.name for column in table.columns if not column.generated)
            self._session.statement = StatementContext(given=names, rows_expected=max(1, len(rows)))
            with self._writer.trusting_references():
                for row in rows:
                    fields = [row.get(column.name.lower()) for column in table.columns]
                    self._writer.insert(table, fields, None, apsw.SQLITE_ABORT)
            self._writer.finish_statement()

    # Constraints that were added

    def check(self, name: str, added: Kind | None, foreign_keys: bool) -> None:
        """Whether the rows of an altered table obey what it asks now. Raises `apsw.ConstraintError`."""
        before, table = self._before.tables[name.lower()], self._after.tables[name.lower()]
        if before.id == table.id:  # else each row has been put to NOT NULL and CHECK already
            self._check_each(table, _added_not_null(before, table), tries_check=added == "check")
        if foreign_keys:
            self._check_references(before, table, added)
        self._writer.finish_statement()

    def _check_each(self, table: Table, needed: list[int], tries_check: bool) -> None:
        if not (needed or tries_check):
            return
        own = [i for i in range(len(table.columns)) if i not in table.generated]
        for _, data in self._entries(table, table.row_layout.prefix):
            row = table.decode(data)
            for ordinal in needed:
                if row[ordinal] is None:
                    column = table.columns[ordinal].name
                    raise apsw.ConstraintError(f"NOT NULL constraint failed: {table.name}.{column}")
            if tries_check:
                self._shadow().keep(table, "ABORT", own, _picked(row, own))

    def _check_references(self, before: Table, table: Table, added: Kind | None) -> None:
        """A foreign key that is new; and those whose values were converted, on either side."""
        converted = _converted(before, table)
        own = _added_references(before, table) if added == "foreign key" else set()
        own.update(i for key in table.foreign_keys if converted & set(key.columns) for i in key.columns)
        self._check_parents(table, own)
        for child, key in self._after.references.get(table.name.lower(), ()):
            if converted & set(self._after.parent_columns(table, key) or ()):
                self._check_parents(child, set(key.columns))

    def _check_parents(self, table: Table, columns: set[int]) -> None:
        if columns:
            for key, data in self._entries(table, table.row_layout.prefix):
                row = table.decode(data)
                self._writer.references.child_written(table, key, row, columns, self._writer.checks)


def _different(these: Catalog, those: Catalog) -> dict[int, Table]:
    """The tables of one catalog, by number, that are not just so in the other."""
    others = those.tables
    return {table.id: table for name, table in these.tables.items() if others.get(name) is not table}


def _added_not_null(before: Table, after: Table) -> list[int]:
    """The columns that may not be NULL any more."""
    nullable = {column.id for column in before.columns if not column.notnull}
    return [i for i, column in enumerate(after.columns) if column.notnull and column.id in nullable]


def _converted(before: Table, after: Table) -> set[int]:
    """The columns whose values are of another kind now."""
    known = {column.name.lower(): column.affinity for column in before.columns}
    return {
        i
        for i, column in enumerate(after.columns)
        if known.get(column.name.lower(), column.affinity) != column.affinity
    }


def _added_references(before: Table, after: Table) -> set[int]:
    """The columns of foreign keys that were not there before."""
    known = {(key.columns, key.parent, key.parent_columns) for key in before.foreign_keys}
    found: set[int] = set()
    for key in after.foreign_keys:
        if (key.columns, key.parent, key.parent_columns) not in known:
            found.update(key.columns)
    return found


def _picked(row: Row, ordinals: list[int]) -> Row:
    return [row[ordinal] for ordinal in ordinals]
