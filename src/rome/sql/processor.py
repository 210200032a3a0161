"""The query processor of one connection: an in-memory SQLite whose tables live in the store.

    execute   where a statement goes: transaction control, DDL, PRAGMA, the shadow, or SQLite
    begin, commit, rollback, savepoints   one `Transaction` at a time

A statement is all or nothing: the write buffer has a mark before it, and goes back to it if the
statement fails, or if a constraint turns out to be broken when it ends.

SQLite itself runs a transaction only where temporary tables are in use, whose data is its own;
for everything else the write buffer is the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import apsw

from rome.errors import CommitUnknown, Conflict
from rome.records.keys import schema_key
from rome.sql import explain, pragmas, regexp, returning
from rome.sql.binding import convert
from rome.sql.counters import Tally
from rome.sql.errors import NotSupported
from rome.sql.functions import Functions
from rome.sql.keyset import find as find_keyset
from rome.sql.results import Parameters, Result, run_on
from rome.sql.schema import Schema
from rome.sql.sequences import Numbers
from rome.sql.session import Session, StatementContext
from rome.sql.shadow import quote
from rome.sql.shared import Shared
from rome.sql.statement import Statement, analyse
from rome.sql.turns import WRITING, Turn
from rome.sql.upsert import Upsert
from rome.sql.writer import Writer
from rome.stores.base import Store
from rome.transaction import SchemaChanged, Transaction

_WRITES = frozenset(["insert", "replace", "update", "delete"])


@dataclass(slots=True)
class _Savepoint:
    name: str
    mark: int
    temporary: int


class Processor:
    """Runs statements over one store. For one thread at a time."""

    def __init__(self, store: Store, shared: Shared, foreign_keys: bool = True) -> None:
        self.store = store
        self._shared = shared
        self.db = apsw.Connection(":memory:", statementcachesize=512)
        self.db.config(apsw.SQLITE_DBCONFIG_DQS_DML, 1)
        # Otherwise `LIMIT ?` is compiled anew for each value, which takes ten times as long as running it.
        self.db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        self.db.convert_binding = convert
        regexp.register(self.db)
        self.session = Session(store.characteristics.remote)
        self.session.counts = shared.counts
        self.schema = Schema(shared, self.session, self.db)
        self.writer = Writer(
            self.session, lambda: self.schema.catalog, lambda: self.schema.shadow, shared.sequences
        )
        self.writer.foreign_keys = foreign_keys
        self.schema.bind(self.writer)
        self.schema.installation.bind(self.writer)
        self.returning = returning.Returning(self.db, self.session)
        self.upsert = Upsert(self.session, self.returning)
        self._savepoints: list[_Savepoint] = []
        self._temporary_at_begin = 0
        self._opening: str | None = None
        """The first statement of the running transaction, where transactions take turns."""
        self._needs_turn = False
        self._turn: Turn | None = None
        self.functions = Functions(self.db, self.schema)
        if self.session.remote:
            self._use_prefetcher()

    def _use_prefetcher(self) -> None:
        from rome.sql.prefetch import StatementPrefetcher

        def lookup(name: str) -> Any:
            virtual = self.schema.installation.virtual(name)
            return virtual.table, virtual.planner

        self._prefetcher = StatementPrefetcher(self.session, self.db, lookup)
        self.session.prefetcher = self._prefetcher
        self.schema.on_change = self._prefetcher.forget

    # Transactions

    @property
    def in_transaction(self) -> bool:
        return self.session.in_transaction

    def begin(self, numbers: Numbers | None = None) -> None:
        """Begin a transaction on the newest schema that this process knows. Costs no round trip.

        `numbers` were drawn by an earlier run of the same transaction, and are used first.
        """
        self.schema.adopt(self._shared.newest)
        self.session.begin(Transaction(self.store, schema_key(), self.schema.version.number))
        self.writer.begin(numbers)
        self._savepoints.clear()
        self._temporary_at_begin = self.schema.temporary_count
        if self.schema.has_temporary:
            self.db.execute("BEGIN")

    def commit(self, leases: dict[str, int] | None = None) -> None:
        """Commit, under the locks of these leases.

        Raises what `Transaction.commit` raises; the transaction is over either way.
        """
        transaction = self.session.transaction
        told: dict[bytes, int] = {}
        try:
            self.writer.finish_transaction()
            self.schema.before_commit()
            if transaction.buffer.mark():
                told = self.tally.due()
            number = transaction.commit(told, leases)
        except apsw.ConstraintError:
            # A deferred foreign key: as in SQLite, the transaction stays open.
            raise
        except BaseException as error:
            if not isinstance(error, CommitUnknown):
                self.tally.take_back(told)
            self.rollback()
            raise
        if number is None:
            self.tally.take_back(told)
        else:
            self.tally.count("commits")
            self.schema.committed(number)
            self._shared.moved(transaction.buffer.writes().adds)
        if not self.db.get_autocommit():
            self.db.execute("COMMIT")
        self._end()

    def rollback(self) -> None:
        """Roll back; without a transaction, nothing happens."""
        if not self.session.in_transaction:
            return
        transaction = self.session.transaction
        native = not self.db.get_autocommit()
        if native:
            self.db.execute("ROLLBACK")
            self.schema.forget_temporary(self._temporary_at_begin)
        transaction.close()
        self.schema.rollback_to(0, natively=native)
        self._end()

    def _end(self) -> None:
        extensions = self.session.transaction.extensions
        if extensions:
            self.tally.count("extensions", extensions)
        self.session.end()
        self._savepoints.clear()
        if self._opening is not None:
            self._leave()

    def _enter(self, statement: Statement, sql: str) -> None:
        """Before a statement: where it is the first one, wait for this transaction's turn."""
        turns = self._shared.turns
        if turns is None:
            return
        # Where reads are round trips, a snapshot holds only while nothing that was read changes, so that a
        # transaction which reads twice can be refused, too.
        reads_on = self.session.remote and self._opening is not None
        self._needs_turn = self._needs_turn or reads_on or statement.verb in WRITING
        if self._opening is None:
            self._opening = sql
            if not self.session.transaction.has_read and turns.may_need(sql):
                self._turn = turns.take()

    def _leave(self) -> None:
        """The transaction is over: remember what it was, and let the next one go ahead."""
        turns, opening, turn = self._shared.turns, self._opening, self._turn
        self._opening = self._turn = None
        if turns is not None and opening is not None:
            turns.learn(opening, self._needs_turn)
            if turn is not None:
                turns.give_back(turn)
        self._needs_turn = False

    @property
    def has_savepoints(self) -> bool:
        return bool(self._savepoints)

    def savepoint(self, name: str) -> None:
        if not self.db.get_autocommit():
            self.db.execute(f"SAVEPOINT {quote(name)}")
        mark = self.session.transaction.buffer.mark()
        self._savepoints.append(_Savepoint(name, mark, self.schema.temporary_count))

    def release(self, name: str) -> None:
        position = self._find_savepoint(name)
        if not self.db.get_autocommit():
            self.db.execute(f"RELEASE {quote(name)}")
        del self._savepoints[position:]

    def rollback_to(self, name: str) -> None:
        position = self._find_savepoint(name)
        native = not self.db.get_autocommit()
        if native:
            self.db.execute(f"ROLLBACK TO {quote(name)}")
        found = self._savepoints[position]
        del self._savepoints[position + 1 :]
        self.session.transaction.buffer.rollback_to(found.mark)
        self.schema.forget_temporary(found.temporary)
        self.schema.rollback_to(found.mark, natively=native)

    def _find_savepoint(self, name: str) -> int:
        for position in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[position].name.lower() == name.lower():
                return position
        raise apsw.SQLError(f"no such savepoint: {name}")

    def numbers_drawn(self) -> Numbers:
        """The numbers that the running transaction took from sequences, in order, by sequence."""
        return self.writer.numbers_drawn()

    def is_over_numbers(self, conflict: Conflict) -> bool:
        """Whether a number that the transaction drew seems to be used already; see rome.sql.sequences."""
        return self.writer.is_over_numbers(conflict)

    @property
    def tally(self) -> Tally:
        return self._shared.tally

    # Statements

    def execute(self, statement: Statement, sql: str, parameters: Parameters = ()) -> Result:
        """Run one statement within the transaction."""
        return self._once_or_twice(statement, sql, lambda: self._dispatch(statement, sql, parameters))

    def execute_many(self, statement: Statement, sql: str, batches: Sequence[Parameters]) -> Result:
        """Run an INSERT, UPDATE or DELETE for each set of parameters, each of them a statement of its own.

        Where no set can see what another did, their checks wait for the last one, in one round trip. If
        one of them then fails, all are undone and run again one by one: those before it stay, as in sqlite3.
        """

        def run() -> Result:
            if len(batches) > 1 and self._checks_can_wait(statement, sql):
                try:
                    with _Atomic(self):
                        return self._write_each(statement, sql, batches)
                except apsw.Error:
                    pass
            return self._write_each(statement, sql, batches, atomic=True)

        return self._once_or_twice(statement, sql, run)

    def _checks_can_wait(self, statement: Statement, sql: str) -> bool:
        """Whether a set of parameters cannot see the rows, or the cascades, of the sets before it."""
        table = self.schema.catalog.table(statement.table or "")
        return table is not None and not self.schema.catalog.cyclic(table) and "SELECT" not in sql.upper()

    def _write_each(
        self, statement: Statement, sql: str, batches: Sequence[Parameters], atomic: bool = False
    ) -> Result:
        total = Result(changed=0)
        self.schema.need(statement)
        statement, sql = self._naming_columns(statement, sql)
        self.session.statement = _context(statement, expected=len(batches))
        for parameters in batches:
            self._refuse_early(statement, sql, parameters)
            with _Atomic(self) if atomic else nullcontext():
                one = self._write(statement, sql, parameters)
            total.changed += max(0, one.changed)
            total.last_row_id = one.last_row_id
        return total

    def _once_or_twice(self, statement: Statement, sql: str, run: Any) -> Result:
        """Run; once more if it turned out, before anything was seen, that the schema is a newer one."""
        for _ in range(20):
            self._enter(statement, sql)
            try:
                try:
                    result: Result = run()
                    return result
                except apsw.SQLError:
                    # "no such table" may be said of a schema that nobody has checked yet.
                    if not self.session.transaction.has_read:
                        self.session.transaction.get(schema_key())
                    raise
            except SchemaChanged:
                if self.session.transaction.buffer.mark():
                    self._shared.load()
                    raise Conflict([schema_key()]) from None
                savepoints = self._savepoints[:]
                self.rollback()
                self._shared.load()
                self.begin()
                for savepoint in savepoints:
                    self.savepoint(savepoint.name)
        raise Conflict([schema_key()])

    def _dispatch(self, statement: Statement, sql: str, parameters: Parameters) -> Result:
        self.session.statement = _context(statement)
        if not statement.is_ddl or statement.temporary or statement.as_select_at is not None:
            self.schema.need(statement)
        if statement.is_ddl:
            return self._ddl(statement, sql)
        if statement.verb == "pragma":
            self.session.transaction.get(schema_key())
            return pragmas.run(self, statement, sql)
        if statement.mentions_catalog:
            self.session.transaction.get(schema_key())
            return run_on(self.schema.shadow.db, sql, parameters)
        if statement.verb in ("vacuum", "analyze", "reindex"):
            return Result()
        if statement.verb in ("attach", "detach"):
            raise NotSupported(f"{statement.verb.upper()}: a connection has one database")
        if statement.verb in _WRITES:
            statement, sql = self._naming_columns(statement, sql)
            self.session.statement = _context(statement)
            self._refuse_early(statement, sql, parameters)
            with _Atomic(self):
                return self._write(statement, sql, parameters)
        result = self._read(sql, parameters)
        if statement.verb == "explain":
            names = [table.name for table in self.schema.catalog.tables.values()]
            result.rows = explain.plainly(result.rows, names)
        return result

    def _read(self, sql: str, parameters: Parameters) -> Result:
        keyset = find_keyset(sql) if " OR " in sql or " or " in sql else None
        if keyset is not None and keyset.applies(parameters):
            sql = keyset.sql
        if self.session.prefetcher is None:
            return run_on(self.db, sql, parameters)
        self._prefetcher.begin(sql, parameters)
        try:
            return run_on(self.db, sql, parameters)
        finally:
            self._prefetcher.end()

    def _write(self, statement: Statement, sql: str, parameters: Parameters) -> Result:
        table = self.schema.catalog.table(statement.table or "")
        write: Callable[[str, Parameters], Result] = self._read
        if table is None or self.schema.is_temporary(statement.table):
            return self._counted(statement, self._read(sql, parameters))
        if statement.upsert_at is not None:
            write = partial(self.upsert.run, table, statement, self._read)
        self.session.statement.ignored = 0
        if statement.returning_at is None:
            return self._counted(statement, write(sql, parameters))
        finish = self.writer.finish_statement
        returned: Result = self.returning.run(table, statement, write, self._read, finish, sql, parameters)
        return returned

    def _counted(self, statement: Statement, result: Result) -> Result:
        if result.changed < 0:
            result.changed = self.returning.changes()
        if statement.verb in ("insert", "replace"):
            result.last_row_id = self.db.last_insert_rowid()
        return result

    def _naming_columns(self, statement: Statement, sql: str) -> tuple[Statement, str]:
        """INSERT without a list of columns means all but the generated ones, which SQLite is not told of."""
        table = self.schema.catalog.table(statement.table or "")
        at = statement.columns_at
        if table is None or not table.generated or at is None:
            return statement, sql
        names = ", ".join(quote(column.name) for column in table.columns if not column.generated)
        sql = f"{sql[:at]} ({names}) {sql[at:]}"
        return analyse(sql), sql

    def _refuse_early(self, statement: Statement, sql: str, parameters: Parameters) -> None:
        """What SQLite refuses when it prepares a statement: a generated column set, a missing parent.

        RETURNING must not aggregate, which only SQLite can tell: max() of two values does not.
        """
        table = self.schema.catalog.table(statement.table or "")
        at = statement.returning_at
        aggregates = at is not None and "(" in sql[at:]
        if table is not None and (table.generated or aggregates):
            self.schema.shadow.db.execute("EXPLAIN " + sql, parameters).fetchall()
        if table is not None and self.writer.foreign_keys and statement.verb != "update":
            self.writer.references.require_parents(table)

    def _ddl(self, statement: Statement, sql: str) -> Result:
        if statement.kind == "trigger" and statement.verb == "create":
            raise NotSupported("CREATE TRIGGER: SQLite has no triggers on virtual tables")
        if statement.kind == "virtual table":
            raise NotSupported("CREATE VIRTUAL TABLE: the data would not be in the store")
        object_name = statement.table or statement.name
        drops_temporary = statement.verb != "create" and self.schema.is_temporary(object_name)
        indexes_temporary = statement.kind == "index" and self.schema.is_temporary(statement.table)
        if statement.temporary or drops_temporary or indexes_temporary:
            self._begin_natively()
            self.schema.run_temporary(sql)
            return Result()
        with _Atomic(self):
            changed = self.schema.change(statement, sql, self.writer.foreign_keys)
            if changed and statement.as_select_at is not None:
                self._fill_created(statement, sql)
        return Result()

    def _fill_created(self, statement: Statement, sql: str) -> None:
        """CREATE TABLE … AS: the shadow made the columns; the rows come from here."""
        table = self.schema.catalog.table(statement.name or "")
        assert table is not None
        assert statement.as_select_at is not None
        self.session.statement = StatementContext()
        self.schema.installation.need((table.name.lower(),))
        self._read(f"INSERT INTO main.{quote(table.name)} {sql[statement.as_select_at :]}", ())

    def _begin_natively(self) -> None:
        """Temporary tables need SQLite's own transaction, with the savepoints so far."""
        if self.db.get_autocommit():
            self.db.execute("BEGIN")
            for savepoint in self._savepoints:
                self.db.execute(f"SAVEPOINT {quote(savepoint.name)}")

    def close(self) -> None:
        self.rollback()
        self.db.close()


class _Atomic:
    """All of a statement or nothing of it, its checks at the end included."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._mark = processor.session.transaction.buffer.mark()

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            try:
                self._processor.writer.finish_statement()
            except BaseException:
                self._undo()
                raise
        else:
            try:
                if isinstance(error, apsw.ConstraintError):
                    self._processor.writer.first_violation()
            finally:
                self._undo()

    def _undo(self) -> None:
        self._processor.writer.discard_statement()
        self._processor.session.transaction.buffer.rollback_to(self._mark)


def _context(statement: Statement, expected: int = 1) -> StatementContext:
    return StatementContext(
        given=statement.insert_columns,
        has_limit=statement.has_limit,
        in_subquery=statement.in_subquery,
        rows_expected=expected,
    )
