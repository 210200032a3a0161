"""The PEP 249 connection: when transactions begin and end, and what becomes of failures.

A transaction begins with the first statement (PEP 249), reads one snapshot, and ends with
`commit()` or `rollback()`. With `isolation_level = None`, as in sqlite3, each statement is its own
transaction unless BEGIN was said.

A conflict is first absorbed by replay (see rome.dbapi.replay). A transaction that lost one for
good, or its store, in the middle is over: nothing of it will be
written. The connection then refuses every statement until `rollback()` (or ROLLBACK), so that a
program that overlooks the error cannot commit the second half of what it wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apsw

from rome.dbapi.cursor import Cursor, Parameters
from rome.dbapi.errors import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,
    translate,
)
from rome.dbapi.replay import Log, ReplayLimits, Run
from rome.errors import Conflict, StoreError
from rome.sql import dump
from rome.sql.processor import Processor
from rome.sql.results import Result
from rome.sql.shared import shared_of
from rome.sql.statement import Statement, analyse, split_script
from rome.stores.base import Store

_SEQUENCE_BLOCK = 16
"""Numbers taken at once where taking some costs a round trip or a write to disk."""
_CONTROL = frozenset(["begin", "commit", "rollback", "savepoint", "release", "rollback_to"])
_BATCHED = frozenset(["insert", "replace", "update", "delete"])


class Connection:
    """PEP 249 Connection, with those of sqlite3's extras that programs use."""

    Warning = Warning
    Error = Error
    InterfaceError = InterfaceError
    DatabaseError = DatabaseError
    OperationalError = OperationalError
    IntegrityError = IntegrityError
    ProgrammingError = ProgrammingError
    NotSupportedError = NotSupportedError
    DataError = DataError
    InternalError = InternalError

    def __init__(
        self,
        store: Store,
        *,
        foreign_keys: bool = True,
        sequence_cache: int | None = None,
        replay: ReplayLimits | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        kind = store.characteristics
        block = sequence_cache or (_SEQUENCE_BLOCK if kind.remote or kind.durable else 1)
        self._processor: Processor | None = Processor(store, shared_of(store, block), foreign_keys)
        self._on_close = on_close
        self._log = Log(replay or ReplayLimits())
        self._explicit = False
        self._begun_by_savepoint = False
        """In autocommit, SAVEPOINT begins a transaction, and the RELEASE of it commits, as in SQLite."""
        self._failure: BaseException | None = None
        self.isolation_level: str | None = ""
        """None: autocommit, until BEGIN. Anything else: transactions begin by themselves."""

    # PEP 249

    def cursor(self) -> Cursor:
        self._check()
        return Cursor(self)

    def commit(self) -> None:
        """Commit. Read-only transactions send nothing.

        Raises `OperationalError` (serialization failure) where the transaction could not have run
        alone at this moment, `IntegrityError` where another one took a unique key or a parent away.
        """
        self._check()
        self._refuse_after_failure()
        if self._work.in_transaction:
            try:
                self._commit_or_replay()
            except BaseException as error:
                if isinstance(error, Conflict | StoreError):
                    self._work.rollback()
                # A deferred foreign key that is broken leaves the transaction open, as in SQLite.
                self._explicit = self._explicit and self.in_open_transaction
                self._raise(error)
        self._explicit = self._begun_by_savepoint = False
        self._log.clear()

    def _commit_or_replay(self) -> None:
        while True:
            try:
                self._work.commit()
                return
            except Conflict as conflict:
                self._work.counters.conflicts += 1
                self._log.replay(self._work, conflict)

    def rollback(self) -> None:
        """Roll back; nothing of the transaction is left."""
        self._check()
        self._failure = None
        self._explicit = self._begun_by_savepoint = False
        self._log.clear()
        self._work.rollback()

    def close(self) -> None:
        """Roll back what is pending and give up the connection. Closing twice is fine."""
        if self._processor is None:
            return
        processor, self._processor = self._processor, None
        try:
            processor.close()
        finally:
            if self._on_close is not None:
                self._on_close()

    # As in sqlite3

    def execute(self, operation: str, parameters: Parameters = ()) -> Cursor:
        return self.cursor().execute(operation, parameters)

    def executemany(self, operation: str, seq_of_parameters: Sequence[Parameters]) -> Cursor:
        return self.cursor().executemany(operation, seq_of_parameters)

    def executescript(self, script: str) -> Cursor:
        return self.cursor().executescript(script)

    def iterdump(self) -> Iterator[str]:
        """The database as a script of SQL statements."""
        self._check()
        self._begin_if_needed()
        yield from dump.script(self._work)

    def create_function(
        self, name: str, narg: int, func: Callable[..., Any] | None, *, deterministic: bool = False
    ) -> None:
        """Make a Python function callable from SQL."""
        wrapped = _guarded(func) if func is not None else None
        self._work.functions.scalar(name, narg, wrapped, deterministic)

    def create_aggregate(self, name: str, n_arg: int, aggregate_class: type | None) -> None:
        """Make a class with `step` and `finalize` callable as an aggregate from SQL."""
        self._work.functions.aggregate(name, n_arg, aggregate_class)

    def create_collation(self, name: str, callback: Callable[[str, str], int] | None) -> None:
        """Make a Python comparison usable in COLLATE."""
        self._work.functions.collation(name, callback)

    @property
    def in_transaction(self) -> bool:
        return self._explicit or self.in_open_transaction

    @property
    def in_open_transaction(self) -> bool:
        """Whether a transaction has begun, by BEGIN or by itself."""
        return self._processor is not None and self._processor.in_transaction

    @property
    def store(self) -> Store:
        return self._work.store

    @property
    def closed(self) -> bool:
        return self._processor is None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.commit()
        else:
            self.rollback()

    # How it is done

    @property
    def _work(self) -> Processor:
        if self._processor is None:
            raise ProgrammingError("Cannot operate on a closed database.")
        return self._processor

    def _check(self) -> None:
        if self._processor is None:
            raise ProgrammingError("Cannot operate on a closed database.")

    def _run(self, sql: str, parameters: Parameters) -> Result:
        statement = analyse(sql)
        if statement.tail is not None:
            raise ProgrammingError("You can only execute one statement at a time.")
        if statement.verb in _CONTROL:
            return self._control(statement)
        return self._within(lambda processor: processor.execute(statement, sql, parameters))

    def _run_many(self, sql: str, batches: list[Parameters]) -> Result:
        statement = analyse(sql)
        if statement.verb not in _BATCHED or statement.returning_at is not None:
            raise ProgrammingError("executemany() can only execute DML statements.")
        if not batches:
            return Result(changed=0)
        return self._within(lambda processor: processor.execute_many(statement, sql, batches))

    def _run_script(self, script: str) -> None:
        if self.in_transaction:
            self.commit()
        level, self.isolation_level = self.isolation_level, None
        try:
            for sql in split_script(script):
                self._run(sql, ())
        finally:
            self.isolation_level = level

    def _within(self, run: Run) -> Result:
        """Run within the transaction, which begins here if none is open, and ends here in autocommit."""
        self._refuse_after_failure()
        self._begin_if_needed()
        alone = self.isolation_level is None and not self._explicit
        try:
            result = self._run_or_replay(run)
        except apsw.Error as error:
            self._log.add(run, None, error)
            # The statement is undone; what is left belongs to those that executemany ran before it.
            if alone:
                self._commit_alone()
            self._raise(error)
        except BaseException as error:
            if alone:
                self._work.rollback()
            self._raise(error)
        self._log.add(run, result)
        if alone:
            self._commit_alone()
        return result

    def _commit_alone(self) -> None:
        """COMMIT in autocommit. Where that is refused, nothing is left open that a program could mend."""
        try:
            self.commit()
        finally:
            self._work.rollback()

    def _run_or_replay(self, run: Run) -> Result:
        """Run; if what was read before turns out to have changed, replay the transaction so far first."""
        while True:
            try:
                return run(self._work)
            except Conflict as conflict:
                self._log.replay(self._work, conflict)

    def _begin_if_needed(self) -> None:
        if not self._work.in_transaction:
            self._log.clear()
            self._work.begin()

    def _raise(self, error: BaseException) -> None:
        """Raise the PEP 249 error; a conflict or a lost store ends the transaction."""
        if isinstance(error, Conflict | StoreError) and self._work.in_transaction:
            self._work.rollback()
            if self._explicit or self.isolation_level is not None:
                self._failure = error
        translated = translate(error)
        if translated is error:
            raise error
        raise translated from error

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            translated = translate(self._failure)
            raise OperationalError(f"{translated} (the transaction is over: roll back)") from self._failure

    def _control(self, statement: Statement) -> Result:
        """BEGIN, COMMIT, ROLLBACK and savepoints, said as SQL."""
        verb = statement.verb
        if verb == "rollback":
            if not self.in_transaction and self._failure is None:
                raise OperationalError("cannot rollback - no transaction is active")
            self.rollback()
            return Result()
        self._refuse_after_failure()
        if verb == "begin":
            if self._explicit:
                raise OperationalError("cannot start a transaction within a transaction")
            self._begin_if_needed()
            self._explicit = True
        elif verb == "commit":
            if not self.in_transaction:
                raise OperationalError("cannot commit - no transaction is active")
            self.commit()
        else:
            self._savepoint(verb, statement.savepoint or "")
        return Result()

    def _savepoint(self, verb: str, name: str) -> None:
        if verb == "savepoint":
            self._begin_if_needed()
            if self.isolation_level is None and not self._explicit:
                self._explicit = self._begun_by_savepoint = True

        def run(processor: Processor) -> Result:
            if not processor.in_transaction:
                raise apsw.SQLError(f"no such savepoint: {name}")
            if verb == "savepoint":
                processor.savepoint(name)
            elif verb == "release":
                processor.release(name)
            else:
                processor.rollback_to(name)
            return Result()

        try:
            self._log.add(run, run(self._work))
        except apsw.Error as error:
            self._log.add(run, None, error)
            raise translate(error) from error
        if verb == "release" and self._begun_by_savepoint and not self._work.has_savepoints:
            self.commit()


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """sqlite3 hides what a user's function raised; the cause is kept here."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise apsw.SQLError("user-defined function raised exception") from error

    return call
