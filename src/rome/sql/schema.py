"""The schema of one connection: its catalog, its shadow, and the virtual tables that stand for it.

    catalog         what the running transaction takes the schema to be
    shadow          the same as real, empty tables; made when it is first needed
    installation    the virtual tables and views in the connection's query processor

DDL changes all three, and COMMIT writes the catalog like any other key. Each change
remembers the catalog before it with its mark in the write buffer, so that rolling back to a
savepoint, or the whole transaction, brings the right one back; the shadow is then thrown away and
made again, and the installed tables are compared with what they should be.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from rome.errors import RomeError
from rome.records.keys import CATALOG_KEY, schema_key
from rome.sql import recall
from rome.sql.alteration import Alteration, alter, mentions
from rome.sql.catalog import EMPTY, Catalog, Index, Table
from rome.sql.conversion import Conversion
from rome.sql.errors import NotSupported
from rome.sql.installation import Installation
from rome.sql.session import Session
from rome.sql.shadow import Shadow, quote
from rome.sql.shared import SchemaVersion, Shared
from rome.sql.statement import Statement, analyse
from rome.sql.writer import Writer


class Schema:
    """The schema as one connection sees it."""

    def __init__(self, shared: Shared, session: Session, db: apsw.Connection) -> None:
        self._shared = shared
        self._session = session
        self._db = db
        self.version = SchemaVersion(0, EMPTY)
        """The committed schema that the transaction began under."""
        self.catalog = EMPTY
        self.installation = Installation(session, db)
        self._shadow: Shadow | None = None
        self._shadowed = EMPTY
        """The catalog that the shadow stands for."""
        self._behind: list[str] = []
        """The DDL that the shadow has not run yet."""
        self._changes: list[tuple[int, Catalog]] = []
        self._temporary_ddl: list[str] = []
        self._writer: Writer | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Called when the query processor's tables have changed."""
        self.has_own_functions: Callable[[], bool] = lambda: False
        """Whether the program registered functions, which a schema must not depend on."""
        self.on_shadow: Callable[[apsw.Connection], None] = lambda db: None
        """Called with a new shadow, for what the program registered on the connection."""

    def bind(self, writer: Writer) -> None:
        """The writer needs the schema, and the virtual tables need the writer."""
        self._writer = writer

    @property
    def _bound_writer(self) -> Writer:
        assert self._writer is not None, "the processor binds it"
        return self._writer

    # Which schema it is

    @property
    def shadow(self) -> Shadow:
        if self._shadow is None:
            self._shadow = recall.shadow(self._shadowed)
            self.on_shadow(self._shadow.db)
            for sql in self._temporary_ddl:
                self._shadow.db.execute(sql)
        for sql in self._behind:
            self._shadow.db.execute(sql)
        self._behind.clear()
        return self._shadow

    @property
    def has_shadow(self) -> bool:
        return self._shadow is not None

    def adopt(self, version: SchemaVersion) -> None:
        """Take a committed schema for the next transaction."""
        if version.number == self.version.number and self.catalog is self.version.catalog:
            return
        self._become(version.catalog)
        self.version = version  # last: what was interrupted is done again

    def rollback_to(self, mark: int, natively: bool = False) -> None:
        """The write buffer goes back to this mark: so does the schema.

        `natively`: SQLite's own rollback may have undone what was installed.
        """
        before = None
        while self._changes and self._changes[-1][0] >= mark:
            before = self._changes.pop()[1]
        if natively:
            self.installation.clear()
        if before is not None:
            self._become(before)

    def before_commit(self) -> None:
        """Put the catalog, if it was changed, with what COMMIT writes: once, however many statements did."""
        if self._changes:
            self._session.transaction.put(CATALOG_KEY, recall.encode(self.catalog))

    def committed(self, number: int) -> None:
        """The transaction was committed under this number."""
        if self._changes:
            self._changes.clear()
            self.version = SchemaVersion(number, self.catalog)
            self._shared.announce(self.version)

    def _become(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._discard_shadow(catalog)
        self._install()

    def _discard_shadow(self, catalog: Catalog) -> None:
        """The next shadow is to stand for this catalog."""
        self._shadow = None
        self._shadowed = catalog
        self._behind.clear()

    def _install(self) -> None:
        """See that the query processor's tables and views are those of the catalog."""
        self.installation.follow(self.catalog)
        self._session.forget_rows()
        if self._writer is not None:
            self._writer.schema_changed()
        self.on_change()

    def need(self, statement: Statement) -> None:
        """See that the tables and views are there that a statement names."""
        self.installation.need(statement.names)
        for sql in self._temporary_ddl:  # a temporary view, and what it names
            self.installation.need(analyse(sql).names)

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
            self._discard_shadow(self.catalog)
            raise
        self._temporary_ddl.append(sql)

    @property
    def has_temporary(self) -> bool:
        return bool(self._temporary_ddl)

    def forget_temporary(self, count: int) -> None:
        """SQLite rolled back the temporary DDL from this one on."""
        if len(self._temporary_ddl) > count:
            del self._temporary_ddl[count:]
            self._discard_shadow(self.catalog)

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
        try:
            alteration, after = self._apply(statement, sql)
            self._shadowed = after
            _refuse_long_keys(before, after)
            if self.has_own_functions():
                _refuse_own_functions(after)
        except RomeError:
            self._discard_shadow(before)  # SQLite took the statement, ROME does not
            raise
        if after.entries == before.entries:
            return False
        try:
            first_new = self.version.catalog.next_number
            rows = Conversion(
                self._session, self._bound_writer, lambda: self.shadow, before, after, first_new
            )
            rows.move(displace=alteration is not None)
            transaction.put(schema_key(), after.next_number.to_bytes(8, "big"))
            self._changes.append((mark, before))
            self.catalog = after
            self._install()
            if alteration is not None:
                rows.put_back()
                rows.check(statement.name or "", alteration.added, foreign_keys)
        except BaseException:
            transaction.buffer.rollback_to(mark)
            self.rollback_to(mark)
            self.catalog = before
            self._become(before)
            raise
        return True

    def _apply(self, statement: Statement, sql: str) -> tuple[Alteration | None, Catalog]:
        """Run DDL on the shadow: SQLite's as it is, ROME's own as a new CREATE statement."""
        before = self.catalog
        if statement.alteration_at is None:
            altered = statement.table or statement.name if statement.verb == "alter" else None
            return None, self._run_on_shadow(sql, altered)
        table = before.table(statement.name or "")
        if table is None:
            raise apsw.SQLError(f"no such table: {statement.name}")
        change = alter(sql, statement.alteration_at, table.sql)
        if not isinstance(change, Alteration):
            return None, self._run_on_shadow(change.sql, table.name) if change.sql else before
        without = []
        if change.dropped_column is not None:
            without = [i.name for i in table.indexes if _depends(before, table, i, change.dropped_column)]
        return change, self.shadow.replace(table, change.sql, without, before)

    def _run_on_shadow(self, sql: str, altered: str | None) -> Catalog:
        """The catalog after a DDL statement of SQLite's, which the shadow may run later."""
        depends_on_connection = self.has_temporary or self.has_own_functions()
        after = recall.after(self.catalog, sql, altered) if not depends_on_connection else None
        if after is not None:
            if self._shadow is not None:
                self._behind.append(sql)
            return after
        after = self.shadow.apply(sql, self.catalog, altered)
        if not depends_on_connection:
            recall.remember(self.catalog, sql, altered, after)
        return after

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
            self.installation.need((child.name.lower(),))
            found = self._db.execute(f"SELECT 1 FROM main.{quote(child.name)} WHERE {columns} LIMIT 1")
            if found.fetchall():
                raise apsw.ConstraintError("FOREIGN KEY constraint failed")


def _depends(catalog: Catalog, table: Table, index: Index, column: str) -> bool:
    """Whether an index goes with a column."""
    if index.for_foreign_key or index.is_automatic:
        return False
    if not index.computed:
        return any(table.columns[ordinal].name.lower() == column.lower() for ordinal in index.columns)
    sql = next(sql for type, name, _, sql in catalog.entries if type == "index" and name == index.name)
    return mentions(sql, column)


def _refuse_long_keys(before: Catalog, after: Catalog) -> None:
    """An index that no row could be written to is refused when it is made. Raises `LimitExceeded`."""
    for name, table in after.tables.items():
        if before.tables.get(name) is not table:
            table.row_layout  # noqa: B018 - to make a layout counts its columns
            table.index_layouts  # noqa: B018


def _refuse_own_functions(catalog: Catalog) -> None:
    """Other processes have to understand the schema, without the functions of this program."""
    try:
        Shadow(catalog.entries)
    except apsw.SQLError as error:
        raise NotSupported(
            f"{error}: a schema cannot use a function or collation that only this program has"
        ) from error
