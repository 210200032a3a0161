"""Replay: a lost race is run again where the program could not tell, and raised where it could."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy.engine import Engine

import rome
import rome.dbapi
from rome.dbapi import Connection, OperationalError
from rome.dbapi.replay import MAX_STEPS, ReplayLimits
from rome.tools import check

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


def lose_a_race(first: Connection, second: Connection) -> None:
    """What the first transaction has read of row 1, unseen by its program, is changed by the second."""
    increment(first)
    increment(second)
    second.commit()


def fails(connection: Connection) -> None:
    with pytest.raises(OperationalError, match="serialization failure"):
        connection.commit()
    connection.rollback()


CLOCK = "CAST(strftime('%f') * 1000 AS INTEGER)"
"""The milliseconds of a clock that goes on between two runs."""


@pytest.mark.parametrize(
    "seen",
    [
        f"SELECT {CLOCK}",
        "SELECT julianday('now')",
        "SELECT id FROM t WHERE random() IS NOT NULL ORDER BY random() % 2, randomblob(8)",
        f"INSERT INTO t (n) VALUES ({CLOCK}) RETURNING n",
        "UPDATE t SET n = random() WHERE id = 1 RETURNING n",
    ],
)
def test_a_clock_or_a_random_number_that_was_seen_is_not_repeated_wrongly(
    pair: tuple[Connection, Connection], seen: str
) -> None:
    first, second = pair
    second.executemany("INSERT INTO t (n) VALUES (?)", [(number,) for number in range(50)])
    second.commit()
    first.execute(seen).fetchall()
    lose_a_race(first, second)
    time.sleep(0.002)
    fails(first)


def test_a_clock_and_a_random_number_that_nobody_has_seen_are_those_of_the_last_run(
    pair: tuple[Connection, Connection],
) -> None:
    first, second = pair
    first.execute("CREATE TABLE s (id INTEGER PRIMARY KEY, at DEFAULT (julianday('now')), r)")
    first.commit()
    first.execute("INSERT INTO s (r) VALUES (random())")
    lose_a_race(first, second)
    before = second.execute("SELECT julianday('now')").fetchone()
    second.rollback()
    first.commit()
    ((at, number),) = first.execute("SELECT at, r FROM s").fetchall()
    assert before is not None
    assert at >= before[0]
    assert isinstance(number, int)


def test_what_was_written_by_a_clock_and_then_seen_is_not_contradicted(
    pair: tuple[Connection, Connection],
) -> None:
    first, second = pair
    first.execute("UPDATE t SET u = julianday('now') WHERE id = 1")
    first.execute("SELECT u FROM t WHERE id = 1").fetchall()
    second.execute("UPDATE t SET n = 100 WHERE id = 1")
    second.commit()
    time.sleep(0.002)
    fails(first)


@pytest.mark.parametrize("table", ["k (id INTEGER PRIMARY KEY AUTOINCREMENT, n)", "k (n)"])
def test_executemany_is_run_again_with_its_numbers(pair: tuple[Connection, Connection], table: str) -> None:
    first, second = pair
    first.execute(f"CREATE TABLE {table}")
    first.commit()
    first.executemany("INSERT INTO k (n) VALUES (?)", [(number,) for number in range(40)])
    seen = first.execute("SELECT rowid, n FROM k ORDER BY n").fetchall()
    second.executemany("INSERT INTO k (n) VALUES (?)", [(number,) for number in range(100, 110)])
    second.rollback()
    lose_a_race(first, second)
    first.commit()
    assert first.execute("SELECT rowid, n FROM k ORDER BY n").fetchall() == seen


def test_what_returning_gave_is_what_is_there(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    seen = first.execute("INSERT INTO t (n, u) VALUES (7, 'seven'), (8, 'eight') RETURNING id, n").fetchall()
    lose_a_race(first, second)
    first.commit()
    assert first.execute("SELECT id, n FROM t WHERE id <> 1 ORDER BY n").fetchall() == seen


def test_parameters_are_those_of_the_first_run(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    values, named, blob = [10], {"n": 20}, bytearray(b"thirty")
    many = [[40], [50]]
    first.execute("INSERT INTO t (n) VALUES (?)", values)
    first.execute("INSERT INTO t (n) VALUES (:n)", named)
    first.execute("INSERT INTO t (n, u) VALUES (30, ?)", (blob,))
    first.executemany("INSERT INTO t (n) VALUES (?)", many)
    values[0], named["n"], many[1][0] = -1, -2, -3
    blob[:] = b"broken"
    lose_a_race(first, second)
    first.commit()
    found = first.execute("SELECT n, u FROM t WHERE id <> 1 ORDER BY n").fetchall()
    assert found == [(10, None), (20, None), (30, b"thirty"), (40, None), (50, None)]


def test_an_object_that_an_adapter_makes_a_value_of_is_taken_as_it_was(
    pair: tuple[Connection, Connection],
) -> None:
    class Names(list[str]):
        def __conform__(self, protocol: object) -> str:
            return ",".join(self)

    first, second = pair
    names = Names(["a"])
    first.execute("INSERT INTO t (n, u) VALUES (5, ?)", (names,))
    names.append("b")
    lose_a_race(first, second)
    first.commit()
    assert first.execute("SELECT u FROM t WHERE n = 5").fetchall() == [("a",)]


def test_ddl_is_part_of_the_replay(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    first.execute("CREATE TABLE made (id INTEGER PRIMARY KEY, n)")
    first.execute("INSERT INTO made (n) SELECT n FROM t")
    first.execute("ALTER TABLE t ADD COLUMN later DEFAULT 'x'")
    first.execute("CREATE INDEX t_later ON t (later, n)")
    lose_a_race(first, second)
    first.commit()
    assert second.execute("SELECT n FROM made").fetchall() == [(2,)]
    assert second.execute("SELECT n FROM t WHERE later = 'x' AND n = 3").fetchall() == [(3,)]
    assert check(second.store).sound


def test_temporary_tables_are_part_of_the_replay(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    first.execute("CREATE TEMP TABLE before (n)")
    first.execute("INSERT INTO before VALUES (1)")
    first.commit()
    first.execute("UPDATE before SET n = n + 1")
    first.execute("CREATE TEMP TABLE within (n)")
    first.execute("INSERT INTO within VALUES (7)")
    lose_a_race(first, second)
    first.commit()
    assert first.execute("SELECT before.n, within.n FROM before, within").fetchall() == [(2, 7)]


def test_nested_savepoints_are_part_of_the_replay(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    for sql in (
        "INSERT INTO t (n) VALUES (10)",
        "SAVEPOINT outer",
        "INSERT INTO t (n) VALUES (20)",
        "SAVEPOINT inner",
        "INSERT INTO t (n) VALUES (30)",
        "ROLLBACK TO inner",
        "INSERT INTO t (n) VALUES (40)",
        "RELEASE outer",
    ):
        first.execute(sql)
    with pytest.raises(OperationalError, match="no such savepoint"):
        first.execute("RELEASE outer")
    lose_a_race(first, second)
    first.commit()
    assert first.execute("SELECT n FROM t ORDER BY n").fetchall() == [(3,), (10,), (20,), (40,)]


def test_pragmas_that_ask_are_part_of_the_replay(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    assert first.execute("PRAGMA foreign_keys").fetchall() == [(1,)]
    assert len(first.execute("PRAGMA table_info(t)").fetchall()) == 3
    lose_a_race(first, second)
    first.commit()
    first.execute("PRAGMA table_info(t)").fetchall()
    increment(first)
    second.execute("ALTER TABLE t ADD COLUMN later TEXT")
    second.commit()
    fails(first)


def test_a_statement_whose_meaning_was_changed_since_is_not_run_again(
    pair: tuple[Connection, Connection],
) -> None:
    first, second = pair
    first.execute("INSERT INTO t (n) SELECT 5 FROM t WHERE u LIKE 'ONE'")
    first.execute("PRAGMA case_sensitive_like = ON")
    lose_a_race(first, second)
    fails(first)
    first.create_function("twice", 1, lambda number: 2 * number)
    first.execute("INSERT INTO t (n) VALUES (twice(4))")
    first.create_function("twice", 1, lambda number: 3 * number)
    lose_a_race(first, second)
    fails(first)
    first.execute("INSERT INTO t (n) VALUES (twice(4))")
    lose_a_race(first, second)
    first.commit()
    assert first.execute("SELECT n FROM t WHERE id <> 1").fetchall() == [(12,)]


def test_what_was_read_by_iterdump_is_not_contradicted(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    assert any("'one'" in line for line in first.iterdump())
    first.execute("INSERT INTO t (n) VALUES (5)")
    increment(second)
    second.commit()
    fails(first)


def test_iterdump_sees_the_newest_schema(pair: tuple[Connection, Connection]) -> None:
    first, second = pair
    second.execute("ALTER TABLE t ADD COLUMN later DEFAULT 'x'")
    second.commit()
    assert any("later" in line for line in first.iterdump())


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
