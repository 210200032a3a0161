"""In a service: threads, forks, pools, and those of sqlite3's extras that programs use."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

import rome
from rome.dbapi import Connection, OperationalError

Connect = Callable[..., Connection]


# Threads and processes


def transfer(engine: Engine, worker: int, times: int) -> None:
    """Add to a counter that all share, and insert a row, until both are done in one transaction."""
    for number in range(times):
        while True:
            try:
                with engine.begin() as connection:
                    value = connection.exec_driver_sql("SELECT v FROM counter").scalar_one()
                    connection.exec_driver_sql("UPDATE counter SET v = ?", (value + 1,))
                    connection.exec_driver_sql("INSERT INTO log (worker, n) VALUES (?, ?)", (worker, number))
                break
            except sa.exc.OperationalError as error:
                if "serialization failure" not in str(error):
                    raise


def prepare(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE counter (v INTEGER)")
        connection.exec_driver_sql("INSERT INTO counter VALUES (0)")
        connection.exec_driver_sql("CREATE TABLE log (id INTEGER PRIMARY KEY, worker INTEGER, n INTEGER)")
        connection.exec_driver_sql("CREATE UNIQUE INDEX ux ON log (worker, n)")


def counted(engine: Engine) -> tuple[Any, ...]:
    with engine.connect() as connection:
        total = connection.exec_driver_sql("SELECT v FROM counter").scalar_one()
        rows = connection.exec_driver_sql("SELECT count(*), count(DISTINCT id) FROM log").one()
    return (total, *rows)


def test_sixteen_threads_on_one_engine(engine: Engine) -> None:
    prepare(engine)
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            transfer(engine, worker, 3)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert counted(engine) == (48, 48, 48)


def _child(engine: Engine, worker: int) -> None:
    transfer(engine, worker, 5)
    os._exit(0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_after_the_engine_was_used(engine: Engine, url: str) -> None:
    """As uWSGI and multiprocessing do: the children go on with the parent's engine and its pool."""
    prepare(engine)
    transfer(engine, 0, 2)
    shared = not url.startswith("rome+memory")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_child, args=(engine, worker)) for worker in (1, 2, 3)]
    for child in children:
        child.start()
    transfer(engine, 4, 5)
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    expected = 2 + 5 + (15 if shared else 0)  # a memory store is copied by fork
    assert counted(engine) == (expected, expected, expected)


# The pool


def test_a_connection_returned_in_the_middle_of_a_transaction_is_rolled_back(
    open_engine: Callable[..., Engine],
) -> None:
    engine = open_engine(pool_size=1, max_overflow=0)
    prepare(engine)
    connection = engine.connect()
    connection.exec_driver_sql("INSERT INTO log (worker) VALUES (1)")
    connection.exec_driver_sql("SAVEPOINT s")
    connection.exec_driver_sql("CREATE TABLE undone (id)")
    connection.close()
    assert counted(engine) == (0, 0, 0)
    assert sa.inspect(engine).get_table_names() == ["counter", "log"]


def test_pre_ping_costs_no_round_trip(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(pool_pre_ping=True)
    prepare(engine)
    before = rome.store_of(engine).round_trips
    for _ in range(5):
        engine.connect().close()
    assert rome.store_of(engine).round_trips == before


def test_a_new_connection_costs_no_round_trip(engine: Engine) -> None:
    prepare(engine)
    with engine.connect(), engine.connect(), engine.connect():
        before = rome.store_of(engine).round_trips
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT v FROM counter").all()
        assert rome.store_of(engine).round_trips - before <= 1


def test_dispose_wipes_a_private_memory_store(open_url: Callable[..., Engine]) -> None:
    engine = open_url("rome+memory://")
    prepare(engine)
    assert sa.inspect(engine).get_table_names() == ["counter", "log"]
    engine.dispose()
    assert sa.inspect(engine).get_table_names() == []


def test_private_memory_stores_are_each_their_own(open_url: Callable[..., Engine]) -> None:
    one, two = open_url("rome+memory://"), open_url("rome+memory://")
    prepare(one)
    assert sa.inspect(two).get_table_names() == []


def test_dispose_keeps_any_other_store(engine: Engine, url: str) -> None:
    prepare(engine)
    transfer(engine, 1, 1)
    engine.dispose()
    assert counted(engine) == (1, 1, 1)


# sqlite3's extras


def test_executescript_commits_what_was_pending_and_runs_all(connect: Connect) -> None:
    connection, other = connect(), connect()
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
    connection.executescript(
        """
        -- a comment; with a semicolon
        INSERT INTO t (a) VALUES ('x;y');
        BEGIN;
        INSERT INTO t (a) VALUES ('undone');
        ROLLBACK;
        INSERT INTO t (a) VALUES ('z')
        """
    )
    connection.commit()
    assert other.execute("SELECT a FROM t ORDER BY id").fetchall() == [("x;y",), ("z",)]
    with pytest.raises(OperationalError, match="no such table"):
        connection.executescript("INSERT INTO t (a) VALUES ('last'); INSERT INTO missing VALUES (1)")


SCRIPT = """CREATE TABLE p (id INTEGER PRIMARY KEY, "odd name" TEXT, f REAL, b BLOB);
CREATE TABLE s (k VARCHAR(10) NOT NULL PRIMARY KEY, p INTEGER REFERENCES p (id), g AS (p + 1));
CREATE UNIQUE INDEX ux ON p ("odd name");
CREATE VIEW v AS SELECT k, "odd name" FROM s JOIN p ON p.id = s.p;
INSERT INTO p VALUES (1, 'it''s; a\ntext', 1.5, x'00ff'), (2, NULL, -0.1, NULL), (3, '😀', 1e300, x'');
INSERT INTO s (k, p) VALUES ('a', 1), ('b', 3), ('c', NULL)"""


def contents(connection: Any) -> list[Any]:
    return [connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in ("p", "s", "v")]


def test_iterdump_into_sqlite_and_back(connect: Connect, open_url: Callable[..., Engine]) -> None:
    connection = connect()
    connection.executescript(SCRIPT)
    connection.commit()
    plain = sqlite3.connect(":memory:")
    plain.executescript("\n".join(connection.iterdump()))
    assert contents(plain) == contents(connection)
    back = open_url("rome+memory://back").raw_connection()
    back.executescript("\n".join(plain.iterdump()))  # type: ignore[attr-defined]
    assert contents(back.driver_connection) == contents(connection)
    back.close()
    plain.close()


def test_functions_aggregates_and_collations_of_the_program(connection: Connection) -> None:
    class Longest:
        def __init__(self) -> None:
            self.found = ""

        def step(self, value: str) -> None:
            self.found = max(self.found, value, key=len)

        def finalize(self) -> str:
            return self.found

    connection.create_function("twice", 1, lambda value: value * 2, deterministic=True)
    connection.create_aggregate("longest", 1, Longest)
    connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
    connection.execute("INSERT INTO t (a) VALUES ('x'), ('yyy'), ('zz')")
    connection.commit()
    assert connection.execute("SELECT id FROM t WHERE twice(a) = 'zzzz'").fetchall() == [(3,)]
    assert connection.execute("SELECT longest(a) FROM t").fetchall() == [("yyy",)]
    rows = connection.execute("SELECT a FROM t ORDER BY a COLLATE backwards").fetchall()
    assert rows == [("zz",), ("yyy",), ("x",)]


def test_a_function_that_fails_fails_its_statement(connection: Connection) -> None:
    connection.create_function("broken", 0, lambda: 1 // 0)
    connection.execute("CREATE TABLE t (a)")
    with pytest.raises(OperationalError, match="user-defined function raised exception"):
        connection.execute("INSERT INTO t SELECT broken()")
    assert connection.execute("SELECT * FROM t").fetchall() == []


def test_regexp(connection: Connection) -> None:
    connection.execute("CREATE TABLE t (a TEXT)")
    connection.execute("INSERT INTO t VALUES ('abc'), ('xyz'), (NULL)")
    assert connection.execute("SELECT a FROM t WHERE a REGEXP '^a.c$'").fetchall() == [("abc",)]


def test_who_comes_while_a_connection_is_in_use_is_refused(connect: Connect) -> None:
    connection = connect()
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> int:
        inside.set()
        go_on.wait(60)
        return 7

    connection.create_function("hold", 0, hold)
    found: list[Any] = []
    holder = threading.Thread(target=lambda: found.append(connection.execute("SELECT hold()").fetchall()))
    holder.start()
    assert inside.wait(60)
    for attempt in (connection.commit, connection.rollback, connection.close):
        with pytest.raises(rome.dbapi.ProgrammingError, match="in use"):
            attempt()
    with pytest.raises(rome.dbapi.ProgrammingError, match="in use"):
        connection.execute("SELECT 1")
    go_on.set()
    holder.join(60)
    assert found == [[(7,)]]
    assert connection.execute("SELECT 2").fetchall() == [(2,)]


def test_a_function_called_from_sql_cannot_use_its_connection(connect: Connect) -> None:
    connection = connect()
    connection.create_function("again", 0, lambda: connection.execute("SELECT 1").fetchone()[0])
    with pytest.raises(OperationalError):
        connection.execute("SELECT again()")
    assert connection.execute("SELECT 2").fetchall() == [(2,)]


# Wiping


@pytest.mark.parametrize("by_another", [False, True])
def test_numbers_begin_anew_in_a_database_that_was_wiped(
    engine: Engine, open_engine: Callable[..., Engine], by_another: bool
) -> None:
    other = open_engine()
    with other.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    for _ in range(2):
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
        for number in range(1, 41):
            with engine.begin() as connection:
                assert connection.exec_driver_sql("INSERT INTO t (a) VALUES (0)").lastrowid == number
        rome.store_of(other if by_another else engine).wipe()
