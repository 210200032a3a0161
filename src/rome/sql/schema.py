"""The schema of one connection: its catalog, its shadow, and the virtual tables that stand for it.

    catalog      what the running transaction takes the schema to be
    shadow       the same as real, empty tables; made when it is first needed
    installed    the virtual tables and views in the connection's query processor

DDL changes all three, and writes the catalog into the transaction like any other key. Each change
remembers the catalog before it with its mark in the write buffer, so that rolling back to a
savepoint, or the whole transaction, brings the right one back; the shadow is then thrown away and
made again, and the installed tables are compared with what they should be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import apsw

from rome.errors import RomeError
from rome.records.keys import CATALOG_KEY, schema_key
from rome.sql.catalog import Catalog, Index, Table
from rome.sql.errors import NotSupported
from rome.sql.module import VirtualTable, declaration
from rome.sql.session import Session
from rome.sql.shadow import Shadow, quote
from rome.sql.shared import SchemaVersion, Shared
from rome.sql.statement import Statement
from rome.sql.writer import Writer
from rome.stores.base import Range, prefix_range

_MODULE = "rome"
_CHUNK = 5000
"""Entries fetched at once where a whole key space is gone through."""


class _Departed:
    """A table that is connected to just once more, to be dropped (apsw.VTTable)."""

    def Disconnect(self) -> None:
        """Nothing is held."""

    Destroy = Disconnect


class Schema:
    """The schema as one connection sees it."""

    def __init__(self, shared: Shared, session: Session, db: apsw.Connection) -> None:
        self._shared = shared
        self._session = session
        self._db = db
        self.version = SchemaVersion(0, Catalog())
        """The committed schema that the transaction began under."""
        self.catalog = Catalog()
        self._shadow: Shadow | None = None
        self._changes: list[tuple[int, Catalog]] = []
        self._installed: dict[str, Table] = {}
        self._virtual: dict[str, VirtualTable] = {}
        self._installed_views: dict[str, str] = {}
        self._temporary_ddl: list[str] = []
        self._writer: Writer | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Called when the query processor's tables have changed."""
        self.has_own_functions: Callable[[], bool] = lambda: False
        """Whether the program registered functions, which a schema must not depend on."""
        self.on_shadow: Callable[[apsw.Connection], None] = lambda db: None
        """Called with a new shadow, for what the program registered on the connection."""
        db.create_module(_MODULE, cast("apsw.VTModule", self), use_bestindex_object=True, use_no_change=True)

    def bind(self, writer: Writer) -> None:
        """The writer needs the schema, and the virtual tables need the writer."""
        self._writer = writer

    # apsw.VTModule

    def Create(
        self, db: apsw.Connection, module: str, database: str, name: str, *arguments: str
    ) -> tuple[str, VirtualTable | _Departed]:
        # SQLite connects to a table again after it rolled back, if only to drop it.
        table = self._installed.get(name.lower()) or self.catalog.tables.get(name.lower())
        if table is None:
            return "CREATE TABLE x(gone)", _Departed()
        db.vtab_config(apsw.SQLITE_VTAB_CONSTRAINT_SUPPORT, 1)
        assert self._writer is not None
        virtual = VirtualTable(table, self._session, self._writer, db)
        self._virtual[name.lower()] = virtual
        return declaration(table), virtual

    Connect = Create

    def virtual(self, name: str) -> VirtualTable:
        return self._virtual[name.lower()]

    # Which schema it is

    @property
    def shadow(self) -> Shadow:
        if self._shadow is None:
            if self.catalog is self.version.catalog:
                self._shadow = self._shared.shadow(self.version)
            else:
                self._shadow = Shadow(self.catalog.entries)
            self.on_shadow(self._shadow.db)
            for sql in self._temporary_ddl:
                self._shadow.db.execute(sql)
        return self._shadow

    @property
    def has_shadow(self) -> bool:
        return self._shadow is not None

    def adopt(self, version: SchemaVersion) -> None:
        """Take a committed schema for the next transaction."""
        if version.number == self.version.number and self.catalog is self.version.catalog:
            return
        self.version = version
        self._become(version.catalog)

    def rollback_to(self, mark: int, natively: bool = False) -> None:
        """The write buffer goes back to this mark: so does the schema.

        `natively`: SQLite's own rollback may have undone what was installed.
        """
        before = None
        while self._changes and self._changes[-1][0] >= mark:
            before = self._changes.pop()[1]
        if before is not None:
            if natively:
                self._uninstall()
            self._become(before)

    def committed(self, number: int) -> None:
        """The transaction was committed under this number."""
        if self._changes:
            self._changes.clear()
            self.version = SchemaVersion(number, self.catalog)
            self._shared.announce(self.version)

    def _become(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._shadow = None
        self.install()

    # The query processor's tables

    def install(self) -> None:
        """Make the query processor's tables and views those of the catalog."""
        wanted, views = self.catalog.tables, self.catalog.views
        for name, sql in list(self._installed_views.items()):
            if views.get(name) != sql:
                self._db.execute(f"DROP VIEW IF EXISTS main.{quote(name)}")
                del self._installed_views[name]
        for name, table in list(self._installed.items()):
            if wanted.get(name) is not table:
                self._db.execute(f"DROP TABLE IF EXISTS main.{quote(name)}")
                del self._installed[name]
                self._virtual.pop(name, None)
        for name, table in wanted.items():
            if name not in self._installed:
                self._db.execute(f"CREATE VIRTUAL TABLE main.{quote(table.name)} USING {_MODULE}")
                self._installed[name] = table
        for name, sql in views.items():
            if name not in self._installed_views:
                self._db.execute(sql)
                self._installed_views[name] = sql
        self._session.forget_rows()
        if self._writer is not None:
            self._writer.schema_changed()
        self.on_change()

    def _uninstall(self) -> None:
        for type, name in self._db.execute(
            "SELECT type, name FROM main.sqlite_master WHERE type IN ('table', 'view')"
        ).fetchall():
            self._db.execute(f"DROP {type} main.{quote(str(name))}")
        self._installed.clear()
        self._installed_views.clear()
        self._virtual.clear()

    # Temporary tables are SQLite's own; the shadow has them too, for reflection

    def is_temporary(self, name: str | None) -> bool:
        if not self._temporary_ddl or name is None:
            return False
        found = self._db.execute(
            "SELECT 1 FROM sqlite_temp_master WHERE name = ? COLLATE NOCASE", (name,)
        ).fetchall()
        return bool(found)

    def run_temporary(self, sql: str) -> None:
        self.shadow.db.execute(sql)
        try:
            self._db.execute(sql)
        except apsw.Error:
            self._shadow = None
            raise
        self._temporary_ddl.append(sql)

    @property
    def has_temporary(self) -> bool:
        return bool(self._temporary_ddl)

    def forget_temporary(self, count: int) -> None:
        """SQLite rolled back the temporary DDL from this one on."""
        if len(self._temporary_ddl) > count:
            del self._temporary_ddl[count:]
            self._shadow = None

    @property
    def temporary_count(self) -> int:
        return len(self._temporary_ddl)

    # DDL

    def change(self, statement: Statement, sql: str, foreign_keys: bool) -> bool:
        """Run a DDL statement; whether it changed anything. Raises apsw's errors with SQLite's texts."""
        transaction = self._session.transaction
        transaction.get(schema_key())
        mark = transaction.buffer.mark()
        before = self.catalog
        if statement.verb == "drop" and statement.kind == "table" and foreign_keys:
            self._refuse_orphans(before, statement.name)
        altered = statement.table or statement.name if statement.verb == "alter" else None
        try:
            after = self.shadow.apply(sql, before, altered)
            if self.has_own_functions():
                _refuse_own_functions(after)
        except RomeError:
            self._shadow = None  # SQLite took the statement, ROME does not
            raise
        if after.entries == before.entries:
            return False
        try:
            self._move_data(before, after)
            transaction.put(CATALOG_KEY, after.encode())
            transaction.put(schema_key(), after.next_number.to_bytes(8, "big"))
            self._changes.append((mark, before))
            self.catalog = after
            self.install()
        except BaseException:
            transaction.buffer.rollback_to(mark)
            self.rollback_to(mark)
            self.catalog = before
            self._become(before)
            raise
        return True

    def _refuse_orphans(self, catalog: Catalog, name: str | None) -> None:
        """DROP TABLE deletes the rows first, which rows of other tables may refer to."""
        table = catalog.table(name or "")
        if table is None:
            return
        for child, foreign_key in catalog.references.get(table.name.lower(), ()):
            if child is table:
                continue
            columns = " AND ".join(
                f"{quote(child.columns[ordinal].name)} IS NOT NULL" for ordinal in foreign_key.columns
            )
            found = self._db.execute(f"SELECT 1 FROM main.{quote(child.name)} WHERE {columns} LIMIT 1")
            if found.fetchall():
                raise apsw.ConstraintError("FOREIGN KEY constraint failed")

    def _move_data(self, before: Catalog, after: Catalog) -> None:
        """Write and delete what the new schema asks for: rows of dropped tables, index entries."""
        old = {table.id: table for table in before.tables.values()}
        new = {table.id: table for table in after.tables.values()}
        for id, table in old.items():
            if id not in new:
                self._clear(table.row_layout.prefix)
                self._session.transaction.buffer.add(table.count_key, -self._session.row_count(table))
            kept = {index.id for index in new[id].indexes} if id in new else set()
            for index in table.indexes:
                if index.id not in kept:
                    self._clear(table.index_layouts[index.id].prefix)
        for id, table in new.items():
            if id in old and old[id] is not table:
                self._refuse_added_columns(old[id], table)
                present = {index.id for index in old[id].indexes}
                for index in table.indexes:
                    if index.id not in present:
                        self._build(table, index)

    def _clear(self, prefix: bytes) -> None:
        transaction = self._session.transaction
        for key, _ in self._entries(prefix):
            transaction.delete(key)

    def _entries(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All entries of a key space, fetched piece by piece."""
        rest: Range | None = prefix_range(prefix)
        while rest is not None:
            entries, rest = self._session.transaction.scan(rest, _CHUNK)
            yield from entries

    def _build(self, table: Table, index: Index) -> None:
        """Enter all rows into a new index. Raises `apsw.ConstraintError` if it is unique and they are not."""
        transaction = self._session.transaction
        for key, data in self._entries(table.row_layout.prefix):
            row = table.decode(data)
            if index.computed:
                values = self.shadow.compute(table, index, row)
                if values is None:
                    continue
            else:
                values = [row[ordinal] for ordinal in index.columns]
            entry = table.entry_key(index, values, row)
            if transaction.buffer.written(entry)[0]:
                raise apsw.ConstraintError(table.unique_violation(index))
            transaction.put(entry, key)

    def _refuse_added_columns(self, before: Table, after: Table) -> None:
        """What SQLite refuses to add to a table that has rows."""
        known = {column.id for column in before.columns}
        added = [column for column in after.columns if column.id not in known]
        if not added or not transaction_has_rows(self._session, before):
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


def _refuse_own_functions(catalog: Catalog) -> None:
    """Other processes have to understand the schema, without the functions of this program."""
    try:
        Shadow(catalog.entries)
    except apsw.SQLError as error:
        raise NotSupported(
            f"{error}: a schema cannot use a function or collation that only this program has"
        ) from error


def transaction_has_rows(session: Session, table: Table) -> bool:
    """Whether a table has any row."""
    entries: list[tuple[bytes, bytes]] = []
    rest: Range | None = prefix_range(table.row_layout.prefix)
    limit = 1
    while rest is not None and not entries:
        # A chunk without entries only says that this transaction has deleted what was stored there.
        entries, rest = session.transaction.scan(rest, limit)
        limit = min(limit * 8, _CHUNK)
    return bool(entries)
