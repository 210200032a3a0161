"""Replay: a lost race is run again where the program could not tell, and raised where it could."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy.engine import Engine

import rome
import rome.dbapi
from rome.dbapi import Connection, OperationalError
from rome.dbapi.replay import MAX_STEPS, ReplayLimits

Connect = Callable[..., Connection]


@pytest.fixture
def pair(connect: Connect) -> tuple[Connection, Connection]:
    """Two connections to a database with one row, n = 1."""
    first, second = connect(), connect()
    first.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, u TEXT UNIQUE)")
    first.execute("INSERT INTO t (id, n, u) VALUES (1, 1, 'one')")
    first.commit()
    return first, second


def increment(connection: Connection) -> None:
    connection.execute("UPDATE t SET n = n + 1 WHERE id = 1")


def value(connection: Connection) -> int:
    (found,) = connection.execute("SELECT n FROM t WHERE id = 1").fetchone() or (None,)
    connection.rollback()
    assert isinstance(found, int)
    return found


def test_an_update_whose_result_was_not_seen_is_run_again(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    increment(first)
    increment(second)
    second.commit()
    first.commit()
    assert value(first) == 3


def test_what_the_program_has_seen_is_never_contradicted(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    first.execute("SELECT n FROM t WHERE id = 1").fetchall()
    first.execute("UPDATE t SET n = 10 WHERE id = 1")
    increment(second)
    second.commit()
    with pytest.raises(OperationalError, match="serialization failure"):
        first.commit()
    first.rollback()
    assert value(first) == 2


def test_a_row_count_that_was_seen_has_to_come_out_again(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    assert first.execute("UPDATE t SET n = 5 WHERE n = 1").rowcount == 1
    increment(second)
    second.commit()
    with pytest.raises(OperationalError, match="serialization failure"):
        first.commit()
    first.rollback()
    assert value(first) == 2


def test_generated_numbers_are_the_same_in_the_second_run(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    number = first.execute("INSERT INTO t (n) VALUES (7)").lastrowid
    increment(first)
    increment(second)
    second.commit()
    first.commit()
    assert first.execute("SELECT n FROM t WHERE id = ?", (number,)).fetchone() == (7,)
    first.rollback()
    assert first.execute("INSERT INTO t (n) VALUES (8)").lastrowid != number


def test_a_random_number_that_was_seen_is_not_repeated_wrongly(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    first.execute("SELECT random()").fetchall()
    increment(first)
    increment(second)
    second.commit()
    with pytest.raises(OperationalError, match="serialization failure"):
        first.commit()


def test_savepoints_and_errors_are_part_of_the_replay(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    first.execute("SAVEPOINT a")
    first.execute("UPDATE t SET n = n + 100 WHERE id = 1")
    with pytest.raises(rome.dbapi.IntegrityError):
        first.execute("INSERT INTO t (id, u) VALUES (2, 'one')")
    first.execute("ROLLBACK TO a")
    first.execute("RELEASE a")
    increment(first)
    increment(second)
    second.commit()
    first.commit()
    assert value(first) == 3


def test_a_schema_that_changed_under_way_is_replayed_on(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    increment(first)
    second.execute("ALTER TABLE t ADD COLUMN later TEXT DEFAULT 'x'")
    second.commit()
    first.commit()
    assert first.execute("SELECT n, later FROM t WHERE id = 1").fetchone() == (2, "x")


def test_replay_can_be_switched_off(pair: tuple[Connection, Connection], connect: Connect) -> None:
    first, second = connect(replay=ReplayLimits(tries=0)), pair[1]
    increment(first)
    increment(second)
    second.commit()
    with pytest.raises(OperationalError, match="serialization failure"):
        first.commit()


def test_a_transaction_too_long_to_remember_is_not_replayed(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    increment(first)
    for _ in range(MAX_STEPS):
        first.execute("SELECT 1")
    increment(second)
    second.commit()
    with pytest.raises(OperationalError, match="serialization failure"):
        first.commit()


def test_writers_of_one_counter_lose_nothing_and_raise_nothing(
    pair: tuple[Connection, Connection], connect: Connect
) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        connection = connect(replay=ReplayLimits(tries=1000, seconds=60.0))
        try:
            for _ in range(25):
                increment(connection)
                connection.commit()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert value(pair[0]) == 101


def test_what_became_of_transactions_is_counted(engine: Engine) -> None:
    before = replace(rome.counters_of(engine))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n INTEGER)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    with engine.begin() as first:
        first.exec_driver_sql("UPDATE t SET n = n + 1")
        with engine.begin() as second:
            second.exec_driver_sql("UPDATE t SET n = n + 1")
    after = rome.counters_of(engine)
    assert (after.commits - before.commits, after.conflicts - before.conflicts) == (3, 1)
    assert (after.replays - before.replays, after.raised - before.raised) == (1, 0)
