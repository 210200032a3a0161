"""Connections that come back to the pool in the midst of something: nothing of it reaches the next user.

A user leaves a connection in one of the states of `STATES`, and gives it up in one of the ways of `WAYS`:
returned, forgotten (garbage-collected), invalidated, detached, left checked out while the engine is disposed
of, or with an exception in the middle of a statement. The pool has one connection, so that the next user gets
that very one, if it lives. It must find the database as it was, no transaction, no savepoint, no temporary
table that was not committed, no setting but its own; and what it writes then must be there.
"""

from __future__ import annotations

import gc
import random
import warnings
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, inspect, text

from faults.databases import database, problems_of
from faults.registry import Report, fault

ROWS: Final = 30


class Thrown(BaseException):
    """What a signal handler, say, throws into the middle of something."""


def _written(connection: Connection) -> None:
    connection.execute(text("UPDATE t SET v = 'dirty'"))
    connection.execute(text("INSERT INTO t (v) VALUES ('dirty')"))
    connection.execute(text("DELETE FROM t WHERE id = 1"))


def _half_read(connection: Connection) -> None:
    _written(connection)
    result = connection.execution_options(stream_results=True, yield_per=2).execute(text("SELECT * FROM t"))
    result.fetchone()
    vars(connection)["open"] = result  # for as long as the connection is known, which the pool's does not end


def _savepoints(connection: Connection) -> None:
    _written(connection)
    connection.begin_nested()
    connection.execute(text("SAVEPOINT by_hand"))
    connection.execute(text("UPDATE t SET v = 'dirtier'"))


def _schema_changed(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE undone (id INTEGER PRIMARY KEY)"))
    connection.execute(text("INSERT INTO undone VALUES (1)"))
    connection.execute(text("ALTER TABLE t ADD COLUMN undone TEXT"))
    connection.execute(text("CREATE INDEX undone_index ON t (v)"))
    connection.execute(text("DROP TABLE empty"))


def _temporary(connection: Connection) -> None:
    connection.execute(text("CREATE TEMPORARY TABLE scratch (id INTEGER)"))
    connection.execute(text("INSERT INTO scratch VALUES (1)"))
    _written(connection)


def _statement_failed(connection: Connection) -> None:
    _written(connection)
    try:
        connection.execute(text("INSERT INTO t (id, v) VALUES (2, 'taken')"))
    except Exception:
        connection.info["failed"] = True


def _in_autocommit(connection: Connection) -> None:
    raw = connection.execution_options(isolation_level="AUTOCOMMIT").connection.dbapi_connection
    assert raw is not None
    raw.cursor().execute("BEGIN")
    raw.cursor().execute("UPDATE t SET v = 'dirty'")
    raw.cursor().execute("SAVEPOINT deep")


STATES: Final = {
    "written": _written,
    "a result read by half": _half_read,
    "savepoints": _savepoints,
    "DDL": _schema_changed,
    "a temporary table": _temporary,
    "a failed statement": _statement_failed,
    "BEGIN in autocommit": _in_autocommit,
}


def _closed(engine: Engine, state: Callable[[Connection], None]) -> None:
    connection = engine.connect()
    state(connection)
    connection.close()


def _forgotten(engine: Engine, state: Callable[[Connection], None]) -> None:
    raw: Any = engine.connect()
    state(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy tells of the connection that it has found
        del raw
        gc.collect()


def _invalidated(engine: Engine, state: Callable[[Connection], None]) -> None:
    with engine.connect() as connection:
        state(connection)
        connection.invalidate()


def _detached(engine: Engine, state: Callable[[Connection], None]) -> None:
    connection = engine.connect()
    state(connection)
    connection.detach()
    connection.close()


def _disposed(engine: Engine, state: Callable[[Connection], None]) -> None:
    """The engine's pool is replaced while the connection is out; it is returned to a pool that is gone."""
    connection = engine.connect()
    state(connection)
    engine.dispose()
    with engine.connect() as other:
        _judge(other)
    connection.close()


def _thrown(engine: Engine, state: Callable[[Connection], None]) -> None:
    """An exception inside of a virtual table's callback, in the middle of a statement."""

    def throw(value: str) -> str:
        raise Thrown(value)

    try:
        with engine.connect() as connection:
            state(connection)
            raw: Any = connection.connection.dbapi_connection
            raw.create_function("throw", 1, throw)
            connection.execute(text("UPDATE t SET v = throw(v)"))
    except Thrown:
        return
    raise AssertionError("the exception was swallowed")


WAYS: Final = (_closed, _forgotten, _invalidated, _detached, _disposed, _thrown)


@fault(stores=("memory", "lmdb", "redis"), times=400, sample=42)
def connection_returned_midway(store: str, times: int, seed: int) -> Report:
    """A connection is given up in the midst of a transaction, in every way: nothing reaches the next user."""
    report = Report()
    chance = random.Random(seed)
    pairs = [(name, way) for name in STATES for way in WAYS]
    with database(store) as made:
        engine = create_engine(made.url, pool_size=1, max_overflow=1)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)"))
            connection.execute(text("CREATE TABLE empty (id INTEGER PRIMARY KEY)"))
            connection.execute(text("CREATE TABLE tally (n INTEGER)"))
            connection.execute(text("INSERT INTO tally VALUES (0)"))
            for _ in range(ROWS):
                connection.execute(text("INSERT INTO t (v) VALUES ('clean')"))
        for number in range(times):
            name, way = pairs[number] if number < len(pairs) else chance.choice(pairs)
            where = f"{name}, {way.__name__.strip('_')}"
            try:
                way(engine, STATES[name])
                with engine.begin() as connection:
                    _judge(connection)
                    connection.execute(text("UPDATE tally SET n = n + 1"))
            except Exception as error:
                report.problems.append(f"{where}: {error!r}")
            report.counts[f"given up: {way.__name__.strip('_')}"] += 1
            report.counts["next users"] += 1
        with engine.connect() as connection:
            _judge(connection)
            done = connection.scalar(text("SELECT n FROM tally"))
        report.require(done == times, f"{done} of {times} writes of the next users are there")
        engine.dispose()
        if store != "memory":
            report.problems += problems_of(made.url)
    return report


def _judge(connection: Connection) -> None:
    """What the next user finds: everything as it was. Raises AssertionError otherwise."""
    raw: Any = connection.connection.dbapi_connection
    assert not raw.in_transaction, "a transaction is open"
    assert raw.isolation_level is not None, "it is in autocommit"
    rows = connection.execute(text("SELECT id, v FROM t ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(n + 1, "clean") for n in range(ROWS)], f"rows: {rows[:3]}…"
    seen = inspect(connection)
    assert sorted(seen.get_table_names()) == ["empty", "t", "tally"], seen.get_table_names()
    assert seen.get_temp_table_names() == [], "a temporary table"
    assert [column["name"] for column in seen.get_columns("t")] == ["id", "v"], "columns"
    assert seen.get_indexes("t") == [], "an index"
    for name in ("by_hand", "deep", "sa_savepoint_1"):
        try:
            raw.cursor().execute(f"RELEASE {name}")
        except raw.OperationalError:
            continue
        raise AssertionError(f"savepoint {name} is open")
