"""The PEP 249 connection: when transactions begin and end, and what becomes of failures.

A transaction begins with the first statement (PEP 249), reads one snapshot, and ends with
`commit()` or `rollback()`. With `isolation_level = None`, as in sqlite3, each statement is its own
transaction unless BEGIN was said.

A conflict is first absorbed by replay (see rome.dbapi.replay). A transaction that lost one for
good, or its store, in the middle is over: nothing of it will be
written. The connection then refuses every statement until `rollback()` (or ROLLBACK), so that a
program that overlooks the error cannot commit the second half of what it wanted. The same is done where
something is thrown into the middle of a statement or of COMMIT: Ctrl-C, a handler's exception, GreenletExit.

A connection is for one thread, or greenlet, at a time. Who comes while another one is inside, in the midst
of a round trip, say, is refused (`_exclusively`): to wait for it could be for ever between two greenlets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, Concatenate, Final, NoReturn, ParamSpec, TypeVar

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
from rome.errors import Conflict, RomeError, StoreError
from rome.sql import dump, forking, pragmas
from rome.sql.binding import frozen
from rome.sql.processor import Processor
from rome.sql.results import Result
from rome.sql.shared import shared_of
from rome.sql.statement import Statement, analyse, split_script
from rome.stores.base import Store

_SEQUENCE_BLOCK = 16
"""Numbers taken at once where taking some costs a round trip or a write to disk."""
_CONTROL = frozenset(["begin", "commit", "rollback", "savepoint", "release", "rollback_to"])
_BATCHED = frozenset(["insert", "replace", "update", "delete"])

_IDLE: Final = (None,)

_EXPECTED: Final = (Error, RomeError, apsw.Error, ArithmeticError, LookupError, TypeError, ValueError)
"""What methods raise of themselves. Anything else was thrown into them, by a handler of a signal, say."""

P = ParamSpec("P")
T = TypeVar("T")


def _exclusively(
    method: Callable[Concatenate[Connection, P], T],
) -> Callable[Concatenate[Connection, P], T]:
    """Let a method run while no other one does.

    The right to is an element of a list. To take it and to give it back are one instruction each, which
    threads and signal handlers leave whole: there is no lock that a fork or an exception could leave held.
    """

    @wraps(method)
    def run(self: Connection, /, *arguments: P.args, **options: P.kwargs) -> T:
        try:
            del self._idle[0]
        except IndexError:
            raise ProgrammingError(
                "this connection is in use: by another thread or greenlet, or by a function called from SQL"
            ) from None
        try:
            forking.enter()
            return method(self, *arguments, **options)
        except _EXPECTED:
            raise
        except BaseException as error:
            self._interrupted(error)
            raise
        finally:
            self._idle[:] = _IDLE
            del forking.users[-1:]

    return run


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
        with forking.inside:
            self._processor: Processor | None = Processor(store, shared_of(store, block), foreign_keys)
        self._on_close = on_close
        self._log = Log(replay or ReplayLimits())
        self._explicit = False
        self._begun_by_savepoint = False
        """In autocommit, SAVEPOINT begins a transaction, and the RELEASE of it commits, as in SQLite."""
        self._leases: dict[str, int] = {}
        """Those of the locks that the running transaction is under: name → fencing number."""
        self._failure: BaseException | None = None
        self._idle: list[None] = [*_IDLE]
        """Empty while a method runs, see `_exclusively`."""
        self.isolation_level: str | None = ""
        """None: autocommit, until BEGIN. Anything else: transactions begin by themselves."""

    # PEP 249

    def cursor(self) -> Cursor:
        self._check()
        return Cursor(self)

    @_exclusively
    def commit(self) -> None:
        """Commit. Read-only transactions send nothing.

        Raises `OperationalError` (serialization failure) where the transaction could not have run
        alone at this moment, `IntegrityError` where another one took a unique key or a parent away,
        `LockLost` where it is not protected any more by a lock that it runs under.
        """
        self._commit()

    def _commit(self) -> None:
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
                self._work.commit(self._leases)
                return
            except Conflict as conflict:
                self._log.replay(self._work, conflict)

    @_exclusively
    def rollback(self) -> None:
        """Roll back; nothing of the transaction is left."""
        self._rollback()

    def _rollback(self) -> None:
        self._check()
        self._failure = None
        self._explicit = self._begun_by_savepoint = False
        self._log.clear()
        self._work.rollback()

    @_exclusively
    def require_lease(self, name: str, fencing: int) -> None:
        """Let COMMIT fail unless this lease is held then. Begins a transaction where none is open.

        Raises `ProgrammingError` where the transaction has read already, since that may be older than
        the lease, and in autocommit, where there is none that could be under a lock.
        """
        self._check()
        self._refuse_after_failure()
        if self.isolation_level is None and not self._explicit:
            raise ProgrammingError("a lock guards a transaction, and this connection is in autocommit")
        self._begin_if_needed()
        if self._work.session.transaction.has_read and self._leases.get(name) != fencing:
            raise ProgrammingError(
                "this transaction has read already, perhaps what was true before the lock was acquired:"
                " acquire the lock, then begin the transaction and guard it before its first statement"
            )
        self._leases[name] = fencing

    @_exclusively
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
        return iter(self._dumped())

    @_exclusively
    def _dumped(self) -> list[str]:
        self._check()
        self._refuse_after_failure()
        self._begin_if_needed()
        self._log.forget()
        try:
            return list(dump.script(self._work))
        except (RomeError, apsw.Error) as error:
            self._raise(error)

    def create_function(
        self, name: str, narg: int, func: Callable[..., Any] | None, *, deterministic: bool = False
    ) -> None:
        """Make a Python function callable from SQL."""
        self._log.forget()
        wrapped = _guarded(func) if func is not None else None
        self._work.functions.scalar(name, narg, wrapped, deterministic)

    def create_aggregate(self, name: str, n_arg: int, aggregate_class: type | None) -> None:
        """Make a class with `step` and `finalize` callable as an aggregate from SQL."""
        self._log.forget()
        self._work.functions.aggregate(name, n_arg, aggregate_class)

    def create_collation(self, name: str, callback: Callable[[str, str], int] | None) -> None:
        """Make a Python comparison usable in COLLATE."""
        self._log.forget()
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

    @_exclusively
    def _run(self, sql: str, parameters: Parameters) -> Result:
        return self._run_one(sql, parameters)

    def _run_one(self, sql: str, parameters: Parameters) -> Result:
        statement = analyse(sql)
        if statement.tail is not None:
            raise ProgrammingError("You can only execute one statement at a time.")
        if statement.verb in _CONTROL:
            return self._control(statement)
        given = frozen(parameters)
        result = self._within(lambda processor: processor.execute(statement, sql, given))
        if statement.verb == "pragma" and (statement.name or "").lower() in pragmas.EVALUATION:
            self._log.forget()
        return result

    @_exclusively
    def _run_many(self, sql: str, batches: list[Parameters]) -> Result:
        statement = analyse(sql)
        if statement.verb not in _BATCHED or statement.returning_at is not None:
            raise ProgrammingError("executemany() can only execute DML statements.")
        if not batches:
            return Result(changed=0)
        given = [frozen(parameters) for parameters in batches]
        return self._within(lambda processor: processor.execute_many(statement, sql, given))

    @_exclusively
    def _run_script(self, script: str) -> None:
        if self.in_transaction:
            self._commit()
        level, self.isolation_level = self.isolation_level, None
        try:
            for sql in split_script(script):
                self._run_one(sql, ())
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
            self._commit()
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
            self._leases.clear()
            self._log.clear()
            self._work.begin()

    def _raise(self, error: BaseException) -> NoReturn:
        """Raise the PEP 249 error; a conflict or a lost store ends the transaction."""
        if isinstance(error, Conflict | StoreError) and self._work.in_transaction:
            self._work.rollback()
            if self._explicit or self.isolation_level is not None:
                self._failure = error
        translated = translate(error)
        if translated is error:
            raise error
        raise translated from error

    def _interrupted(self, error: BaseException) -> None:
        """Something was thrown at any instant: the transaction is over, for nobody knows how far it came."""
        if self._processor is None or not self._processor.in_transaction:
            return
        if self._explicit or self.isolation_level is not None:
            self._failure = OperationalError(f"the transaction was interrupted by {type(error).__name__}")
        self._processor.rollback()

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
            self._rollback()
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
            self._commit()
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
            self._commit()


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """sqlite3 hides what a user's function raised; the cause is kept here."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise apsw.SQLError("user-defined function raised exception") from error

    return call
