"""Transactions: what is kept, what is undone, what COMMIT costs, and how its failures look."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from oslo_db import exception as oslo_exception
from oslo_db.sqlalchemy import enginefacade
from sqlalchemy.engine import Engine

import rome
from rome.dbapi import Connection, Error, IntegrityError, OperationalError
from tests.servers import RedisServer

Connect = Callable[..., Connection]

SCHEMA = """
CREATE TABLE parent (id INTEGER PRIMARY KEY, name VARCHAR(20));
CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES parent (id), tag VARCHAR(20) UNIQUE);
CREATE TABLE pair (a INTEGER NOT NULL, b INTEGER NOT NULL, UNIQUE (a, b));
"""


@pytest.fixture
def database(connection: Connection) -> Connection:
    connection.executescript(SCHEMA)
    connection.commit()
    return connection


def names(connection: Connection) -> list[Any]:
    return [name for (name,) in connection.execute("SELECT name FROM parent ORDER BY id")]


def add(connection: Connection, id: int, name: str) -> None:
    connection.execute("INSERT INTO parent (id, name) VALUES (?, ?)", (id, name))


# Savepoints


def test_rollback_to_a_savepoint_undoes_what_came_after_it(database: Connection) -> None:
    add(database, 1, "kept")
    database.execute("SAVEPOINT one")
    add(database, 2, "undone")
    database.execute("UPDATE parent SET name = 'changed' WHERE id = 1")
    database.execute("ROLLBACK TO SAVEPOINT one")
    assert names(database) == ["kept"]
    database.commit()
    assert names(database) == ["kept"]


def test_a_savepoint_stays_after_rollback_to(database: Connection) -> None:
    database.execute("SAVEPOINT one")
    for id in (1, 2):
        add(database, id, "undone")
        database.execute("ROLLBACK TO one")
    database.execute("RELEASE one")
    assert names(database) == []


def test_nested_savepoints_are_undone_from_the_inside_or_all_at_once(database: Connection) -> None:
    database.execute("SAVEPOINT outer_one")
    add(database, 1, "outer")
    database.execute("SAVEPOINT inner_one")
    add(database, 2, "inner")
    database.execute("ROLLBACK TO inner_one")
    assert names(database) == ["outer"]
    add(database, 3, "inner again")
    database.execute("RELEASE inner_one")
    assert names(database) == ["outer", "inner again"]
    database.execute("ROLLBACK TO outer_one")
    assert names(database) == []


def test_the_innermost_of_savepoints_of_one_name_is_meant(database: Connection) -> None:
    database.execute("SAVEPOINT s")
    add(database, 1, "first")
    database.execute("SAVEPOINT s")
    add(database, 2, "second")
    database.execute("ROLLBACK TO s")
    assert names(database) == ["first"]
    database.execute("RELEASE s")
    database.execute("ROLLBACK TO s")
    assert names(database) == []


def test_release_forgets_the_savepoints_within(database: Connection) -> None:
    database.execute("SAVEPOINT a")
    database.execute("SAVEPOINT b")
    database.execute("RELEASE a")
    for statement in ("ROLLBACK TO b", "RELEASE a"):
        with pytest.raises(OperationalError, match="no such savepoint"):
            database.execute(statement)


def test_begin_nested_of_sqlalchemy(engine: Engine, database: Connection) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO parent (id) VALUES (1)"))
        nested = connection.begin_nested()
        connection.execute(sa.text("INSERT INTO parent (id) VALUES (2)"))
        with pytest.raises(sa.exc.IntegrityError):
            connection.execute(sa.text("INSERT INTO parent (id) VALUES (1)"))
        nested.rollback()
        with connection.begin_nested():
            connection.execute(sa.text("INSERT INTO parent (id) VALUES (3)"))
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT id FROM parent")).scalars().all() == [1, 3]


# Atomicity


def test_a_statement_that_fails_leaves_nothing_of_itself_and_all_before_it(database: Connection) -> None:
    add(database, 1, "before")
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: parent\.id"):
        database.execute("INSERT INTO parent (id, name) VALUES (7, 'x'), (8, 'x'), (1, 'taken')")
    assert names(database) == ["before"]
    database.execute("UPDATE parent SET id = 5")
    with pytest.raises(IntegrityError):
        database.execute("INSERT INTO parent SELECT id + 1, 'x' FROM parent UNION ALL SELECT 5, 'taken'")
    database.commit()
    assert database.execute("SELECT id, name FROM parent").fetchall() == [(5, "before")]


@pytest.mark.parametrize(
    ("sql", "batches"),
    [
        ("INSERT INTO parent (id) VALUES (?)", [(3,), (4,), (1,), (5,)]),
        ("INSERT INTO parent (id) VALUES (?)", [(3,), (4,), (4,), (5,)]),
        ("INSERT INTO child (id, parent_id) VALUES (?, ?)", [(1, 1), (2, 99), (3, 1)]),
        ("INSERT INTO pair VALUES (?, ?)", [(1, 1), (1, None), (1, 2)]),
        ("UPDATE parent SET id = ? WHERE id = ?", [(10, 1), (2, 10), (11, 2)]),
        ("DELETE FROM parent WHERE id = ?", [(2,), (1,)]),
        ("INSERT INTO parent (id) VALUES (abs(?))", [(20,), (-(2**63),), (21,)]),
    ],
)
def test_executemany_that_fails_keeps_the_sets_before_as_sqlite3_does(
    database: Connection, sql: str, batches: list[tuple[Any, ...]]
) -> None:
    plain = sqlite3.connect(":memory:")
    plain.execute("PRAGMA foreign_keys = ON")
    plain.executescript(SCHEMA)
    found = []
    for connection in (plain, database):
        connection.execute("INSERT INTO parent (id) VALUES (1), (2)")
        connection.execute("INSERT INTO child (id, parent_id) VALUES (9, 1)")
        with pytest.raises((sqlite3.Error, Error)) as raised:
            connection.cursor().executemany(sql, batches)
        rows = [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("parent", "child", "pair")
        ]
        found.append((type(raised.value).__name__, str(raised.value), rows))
        connection.rollback()
    plain.close()
    assert found[1] == found[0]


# What a transaction costs


def test_a_read_only_transaction_sends_nothing_at_commit(engine: Engine, database: Connection) -> None:
    add(database, 1, "x")
    database.commit()
    store = rome.store_of(engine)
    before = store.round_trips
    database.execute("BEGIN")
    database.execute("COMMIT")
    assert store.round_trips == before
    assert names(database) == ["x"]
    read = store.round_trips
    assert read - before <= 1
    database.commit()
    assert store.round_trips == read


def test_a_transaction_that_writes_many_rows_commits_in_one_round_trip(
    engine: Engine, database: Connection
) -> None:
    store = rome.store_of(engine)
    database.execute("BEGIN")
    for id in range(100, 150):
        add(database, id, "x")
    before = store.round_trips
    database.execute("COMMIT")
    assert store.round_trips == before + 1


def test_a_row_updated_by_its_key_costs_one_read_and_the_commit(engine: Engine, database: Connection) -> None:
    add(database, 1, "x")
    database.commit()
    store = rome.store_of(engine)
    before = store.round_trips
    database.execute("UPDATE parent SET name = 'y' WHERE id = 1")
    database.commit()
    assert store.round_trips - before <= 2


def test_nothing_is_read_twice_in_a_transaction(engine: Engine, database: Connection) -> None:
    database.executemany("INSERT INTO parent (id, name) VALUES (?, ?)", [(i, str(i)) for i in range(20)])
    database.commit()
    store = rome.store_of(engine)
    for sql in (
        "SELECT * FROM parent WHERE id = 3",
        "SELECT * FROM parent WHERE id BETWEEN 2 AND 9",
        "SELECT count(*) FROM parent",
        "SELECT * FROM child WHERE parent_id = 3",
    ):
        database.execute(sql).fetchall()
        before = store.round_trips
        database.execute(sql).fetchall()
        assert store.round_trips == before, sql


# Isolation levels


def test_autocommit_as_an_engine_option(open_engine: Callable[..., Engine], database: Connection) -> None:
    engine = open_engine(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        assert connection.get_isolation_level() == "AUTOCOMMIT"
        connection.execute(sa.text("INSERT INTO parent (id, name) VALUES (1, 'at once')"))
        assert names(database) == ["at once"]
        connection.rollback()
    assert names(database) == ["at once"]


def test_autocommit_as_a_connection_option_ends_with_the_connection(
    engine: Engine, database: Connection
) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("INSERT INTO parent (id) VALUES (1)"))
        connection.rollback()
    with engine.connect() as connection:
        assert connection.get_isolation_level() == "SERIALIZABLE"
        connection.execute(sa.text("INSERT INTO parent (id) VALUES (2)"))
        connection.rollback()
        assert connection.execute(sa.text("SELECT id FROM parent")).scalars().all() == [1]


def test_serializable_as_an_option_and_others_refused(open_engine: Callable[..., Engine]) -> None:
    with open_engine(isolation_level="SERIALIZABLE").connect() as connection:
        assert connection.get_isolation_level() == "SERIALIZABLE"
    with pytest.raises(sa.exc.ArgumentError, match="isolation"):
        open_engine(isolation_level="CHAOS").connect()


def test_begin_in_autocommit_makes_one_transaction_of_what_follows(
    connect: Connect, database: Connection
) -> None:
    other = connect()
    other.isolation_level = None
    add(other, 1, "alone")
    assert names(database) == ["alone"]
    database.rollback()
    other.execute("BEGIN")
    add(other, 2, "together")
    assert names(database) == ["alone"]
    database.rollback()
    other.execute("ROLLBACK")
    assert names(other) == ["alone"]


def test_a_savepoint_in_autocommit_is_a_transaction_that_its_release_commits(
    connect: Connect, database: Connection
) -> None:
    other = connect()
    other.isolation_level = None
    for statement in ("SAVEPOINT a", "SAVEPOINT b", "INSERT INTO parent VALUES (1, 'x')", "RELEASE b"):
        other.execute(statement)
    assert names(database) == []
    database.rollback()
    other.execute("RELEASE a")
    assert not other.in_transaction
    assert names(database) == ["x"]


def test_begin_within_a_transaction_is_refused(database: Connection) -> None:
    database.execute("BEGIN")
    with pytest.raises(OperationalError, match="cannot start a transaction within a transaction"):
        database.execute("BEGIN")


# How failures look


@pytest.fixture
def oslo_engine(open_engine: Callable[..., Engine], url: str, database: Connection) -> Any:
    """The database as oslo.db opens it."""
    context = enginefacade.transaction_context()
    context.configure(connection=url)
    engine = context.writer.get_engine()
    yield engine
    engine.dispose()
    rome.store_of(engine).close()


def conflicting(first: Any, second: Any) -> None:
    """Two transactions that each read what the other writes."""
    one, two = first.begin(), second.begin()
    for connection in (first, second):
        connection.execute(sa.text("SELECT sum(id) FROM parent")).all()
    first.execute(sa.text("INSERT INTO parent (id) VALUES (11)"))
    second.execute(sa.text("INSERT INTO parent (id) VALUES (12)"))
    one.commit()
    two.commit()


def test_a_conflict_is_an_operational_error(engine: Engine, database: Connection) -> None:
    with engine.connect() as first, engine.connect() as second:
        with pytest.raises(sa.exc.OperationalError, match="serialization failure") as raised:
            conflicting(first, second)
    assert not raised.value.connection_invalidated


def test_a_conflict_is_a_deadlock_to_oslo_db(oslo_engine: Engine) -> None:
    with oslo_engine.connect() as first, oslo_engine.connect() as second:
        with pytest.raises(oslo_exception.DBDeadlock):
            conflicting(first, second)


def racing(first: Any, second: Any, one_does: str, two_does: str) -> None:
    """Two transactions of which only COMMIT can tell that they do not go together."""
    one, two = first.begin(), second.begin()
    second.execute(sa.text(two_does))
    first.execute(sa.text(one_does))
    one.commit()
    two.commit()


def test_a_duplicate_that_only_commit_sees_is_also_a_deadlock_to_oslo_db(oslo_engine: Engine) -> None:
    insert = "INSERT INTO child (tag) VALUES ('a')"
    with oslo_engine.connect() as first, oslo_engine.connect() as second:
        with pytest.raises(oslo_exception.DBDuplicateEntry) as raised:
            racing(first, second, insert, insert)
    assert isinstance(raised.value, oslo_exception.DBDeadlock)
    assert raised.value.columns == ["tag"]


def test_a_reference_that_only_commit_sees_broken_is_also_a_deadlock_to_oslo_db(oslo_engine: Engine) -> None:
    with oslo_engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO parent (id) VALUES (1)"))
    with oslo_engine.connect() as first, oslo_engine.connect() as second:
        with pytest.raises(oslo_exception.DBReferenceError) as raised:
            racing(first, second, "DELETE FROM parent", "INSERT INTO child (parent_id) VALUES (1)")
    assert isinstance(raised.value, oslo_exception.DBDeadlock)


def test_a_duplicate_that_the_statement_sees_is_no_deadlock_to_oslo_db(oslo_engine: Engine) -> None:
    insert = sa.text("INSERT INTO child (tag) VALUES ('a')")
    with oslo_engine.connect() as connection, connection.begin():
        connection.execute(insert)
        with pytest.raises(oslo_exception.DBDuplicateEntry) as raised:
            connection.execute(insert)
    assert not isinstance(raised.value, oslo_exception.DBDeadlock)


def test_a_transaction_that_lost_a_conflict_can_be_run_again(engine: Engine, database: Connection) -> None:
    with engine.connect() as first, engine.connect() as second:
        with pytest.raises(sa.exc.OperationalError):
            conflicting(first, second)
        second.rollback()
        with second.begin():
            second.execute(sa.text("INSERT INTO parent (id) VALUES (12)"))
        assert second.execute(sa.text("SELECT id FROM parent ORDER BY id")).scalars().all() == [11, 12]


def in_between(engine: Engine, sql: str, meanwhile: str) -> None:
    """Run a statement, commit another one elsewhere, and only then commit."""
    with engine.connect() as connection, connection.begin():
        connection.execute(sa.text(sql))
        with engine.connect() as other, other.begin():
            other.execute(sa.text(meanwhile))


def test_a_duplicate_found_only_at_commit_is_an_integrity_error(engine: Engine, database: Connection) -> None:
    with pytest.raises(sa.exc.IntegrityError, match=r"UNIQUE constraint failed: pair\.a, pair\.b"):
        in_between(engine, "INSERT INTO pair VALUES (1, 2)", "INSERT INTO pair VALUES (1, 2)")


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("INSERT INTO pair VALUES (1, 2)", ["a", "b"]),
        ("INSERT INTO child (tag) VALUES ('same')", ["tag"]),
        ("INSERT INTO parent (id) VALUES (1)", ["id"]),
    ],
)
def test_a_duplicate_found_only_at_commit_names_its_columns_to_oslo_db(
    oslo_engine: Engine, sql: str, columns: list[str]
) -> None:
    with pytest.raises(oslo_exception.DBDuplicateEntry) as raised:
        in_between(oslo_engine, sql, sql)
    assert sorted(raised.value.columns) == columns


def test_a_parent_deleted_meanwhile_is_a_reference_error(oslo_engine: Engine, database: Connection) -> None:
    database.execute("PRAGMA foreign_keys = ON")
    add(database, 1, "x")
    database.commit()
    with pytest.raises(oslo_exception.DBReferenceError):
        in_between(oslo_engine, "INSERT INTO child (parent_id) VALUES (1)", "DELETE FROM parent WHERE id = 1")
    assert names(database) == []
    assert database.execute("SELECT count(*) FROM child").fetchall() == [(0,)]


def test_a_child_added_meanwhile_is_a_reference_error(oslo_engine: Engine, database: Connection) -> None:
    add(database, 1, "x")
    database.commit()
    with pytest.raises(oslo_exception.DBReferenceError):
        in_between(oslo_engine, "DELETE FROM parent WHERE id = 1", "INSERT INTO child (parent_id) VALUES (1)")
    assert names(database) == ["x"]


def test_two_children_of_one_parent_do_not_disturb_each_other(engine: Engine, database: Connection) -> None:
    add(database, 1, "x")
    database.commit()
    in_between(engine, "INSERT INTO child (parent_id) VALUES (1)", "INSERT INTO child (parent_id) VALUES (1)")
    in_between(
        engine, "INSERT INTO child (parent_id) VALUES (1)", "UPDATE parent SET name = 'y' WHERE id = 1"
    )
    assert database.execute("SELECT count(*) FROM child").fetchall() == [(3,)]


def test_a_lost_server_is_a_disconnect(own_server: RedisServer, open_url: Callable[..., Engine]) -> None:
    engine = open_url(own_server.url("lost"))
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE TABLE t (id INTEGER PRIMARY KEY)"))
        connection.commit()
        own_server.kill()
        with pytest.raises(sa.exc.OperationalError) as raised:
            connection.execute(sa.text("SELECT * FROM t"))
        assert raised.value.connection_invalidated
    own_server.start()
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT * FROM t")).all() == []


def test_a_lost_server_is_a_connection_error_to_oslo_db(own_server: RedisServer) -> None:
    context = enginefacade.transaction_context()
    context.configure(connection=own_server.url("lost"), max_retries=0)
    engine = context.writer.get_engine()
    try:
        with engine.connect() as connection:
            own_server.kill()
            with pytest.raises(oslo_exception.DBConnectionError):
                connection.execute(sa.text("CREATE TABLE t (id INTEGER PRIMARY KEY)"))
    finally:
        engine.dispose()
        rome.store_of(engine).close()


def test_a_transaction_that_lost_a_conflict_at_commit_is_over(connect: Connect, database: Connection) -> None:
    other = connect()
    database.execute("SELECT count(*) FROM parent").fetchall()
    add(database, 1, "loser")
    add(other, 2, "winner")
    other.commit()
    with pytest.raises(OperationalError, match="serialization failure"):
        database.commit()
    assert not database.in_transaction
    assert names(database) == ["winner"]
