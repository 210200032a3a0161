"""The counters of transactions: in the process, and in the database as the sum over all processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import pytest
import sqlalchemy
from sqlalchemy import Engine

import rome
from rome.sql import counters
from rome.sql.counters import NAMES, Tally
from rome.stores import Store, Writes
from rome.tools import check, status
from rome.tools.opening import parsed

COMMITTER = """
import sys, sqlalchemy
engine = sqlalchemy.create_engine(sys.argv[1])
for number in range(int(sys.argv[2])):
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t (n) VALUES (0)")
"""
FORKING = """
import os, sys, sqlalchemy
engine = sqlalchemy.create_engine(sys.argv[1])
def commit(times):
    for number in range(times):
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO t (n) VALUES (0)")
commit(5)
child = os.fork()
commit(2 if child else 3)
if not child:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def told(url: str) -> dict[str, int]:
    """What an operator sees."""
    return status(parsed(url)).counters


def run(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", program, *arguments], check=True, timeout=60)


def make_table(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)")
        connection.exec_driver_sql("INSERT INTO t (id, n) VALUES (1, 0), (2, 0)")


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit tells."""
    monkeypatch.setattr(counters, "INTERVAL", 0.0)


@pytest.fixture
def table(engine: Engine) -> Engine:
    make_table(engine)
    return engine


def test_a_commit_past_other_commits_is_counted_as_an_extension(table: Engine) -> None:
    before = asdict(rome.counters_of(table))
    with table.begin() as first:
        first.exec_driver_sql("UPDATE t SET n = 1 WHERE id = 1")
        with table.begin() as second:
            second.exec_driver_sql("UPDATE t SET n = 1 WHERE id = 2")
    with table.begin() as alone:
        alone.exec_driver_sql("UPDATE t SET n = 2 WHERE id = 1")
    after = asdict(rome.counters_of(table))
    assert {name: after[name] - before[name] for name in NAMES} == {
        "commits": 3,
        "conflicts": 0,
        "extensions": 1,
        "replays": 0,
        "raised": 0,
    }


def test_conflicts_are_counted_whether_they_are_absorbed_or_raised(table: Engine) -> None:
    before = asdict(rome.counters_of(table))
    with table.connect() as first:
        first.exec_driver_sql("SELECT n FROM t WHERE id = 1").fetchall()
        first.exec_driver_sql("UPDATE t SET n = 5 WHERE id = 1")
        with table.begin() as second:
            second.exec_driver_sql("UPDATE t SET n = n + 1 WHERE id = 1")
        with pytest.raises(sqlalchemy.exc.OperationalError, match="serialization failure"):
            first.commit()
    with table.begin() as first:
        first.exec_driver_sql("UPDATE t SET n = n + 1 WHERE id = 1")
        with table.begin() as second:
            second.exec_driver_sql("UPDATE t SET n = n + 1 WHERE id = 1")
    after = asdict(rome.counters_of(table))
    assert {name: after[name] - before[name] for name in NAMES} == {
        "commits": 3,
        "conflicts": 2,
        "extensions": 0,
        "replays": 2,
        "raised": 1,
    }


def test_the_first_commit_tells_of_itself_and_the_next_ones_wait_a_second(
    table: Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(url)["commits"] == 1
    for _ in range(5):
        with table.begin() as connection:
            connection.exec_driver_sql("UPDATE t SET n = n + 1")
    assert told(url)["commits"] == 1
    now = counters.time.monotonic()
    monkeypatch.setattr(counters.time, "monotonic", lambda: now + counters.INTERVAL)
    with table.begin() as connection:
        connection.exec_driver_sql("UPDATE t SET n = n + 1")
    monkeypatch.undo()
    assert told(url)["commits"] == rome.counters_of(table).commits == 7


def test_a_transaction_that_only_reads_tells_nothing(table: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Tally, "due", lambda tally: asked.append(tally) or {})
    with table.begin() as connection:
        connection.exec_driver_sql("SELECT n FROM t").fetchall()
    assert asked == []
    with table.begin() as connection:
        connection.exec_driver_sql("UPDATE t SET n = n + 1")
    assert len(asked) == 1


def test_telling_costs_no_round_trip(untimed: None, table: Engine, url: str) -> None:
    store = rome.store_of(table)

    def cost() -> int:
        before = store.round_trips
        with table.begin() as connection:
            connection.exec_driver_sql("UPDATE t SET n = n + 1 WHERE id = 1")
        return store.round_trips - before

    cost()
    telling, before = cost(), told(url)["commits"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tally, "due", lambda tally: {})
        silent = cost()
    assert telling == silent
    assert told(url)["commits"] == before == 3


def test_a_conflict_tells_nothing_and_the_next_commit_tells_all(
    untimed: None, table: Engine, url: str
) -> None:
    with table.begin() as first:
        first.exec_driver_sql("UPDATE t SET n = n + 1 WHERE id = 1")
        with table.begin() as second:
            second.exec_driver_sql("UPDATE t SET n = n + 1 WHERE id = 1")
    with table.begin() as second:
        second.exec_driver_sql("UPDATE t SET n = n + 1 WHERE id = 1")
    assert told(url) == asdict(rome.counters_of(table))
    assert told(url)["conflicts"] == 1


def test_what_cannot_be_told_now_is_told_later(table: Engine) -> None:
    tally = Tally(rome.store_of(table))
    tally.count("raised", 3)
    first = tally.due()
    assert first == {counters.KEYS["raised"]: 3, counters.KEYS["commits"]: 1}
    assert tally.due() == {}
    tally.take_back(first)
    assert tally.due() == first


@pytest.mark.parametrize("program", [COMMITTER, FORKING])
def test_processes_that_ended_are_counted_to_the_last_commit(visible_url: str, program: str) -> None:
    with sqlalchemy.create_engine(visible_url).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)")
    before = told(visible_url)
    run(program, visible_url, "10")
    run(program, visible_url, "10")
    after = told(visible_url)
    # What is sent in passing, without waiting for an answer, may still be on its way.
    for _ in range(100):
        if after["commits"] >= before["commits"] + 20:
            break
        counters.time.sleep(0.05)
        after = told(visible_url)
    assert after["commits"] - before["commits"] == 20


def test_counters_disturb_neither_row_counts_nor_the_check(
    untimed: None, filled: Engine, url: str, store: Store
) -> None:
    with filled.begin() as connection:
        connection.exec_driver_sql("INSERT INTO event VALUES ('boot', 99)")
    found = status(parsed(url))
    assert found.counters["commits"] > 0
    assert [(table.name, table.rows) for table in found.tables] == [
        ("event", 29),
        ("image", 30),
        ("site", 30),
    ]
    report = check(store)
    assert report.sound
    assert report.findings.notes == []


def test_a_wiped_database_begins_to_count_again(table: Engine, url: str, store: Store) -> None:
    assert told(url)["commits"] == 1
    store.wipe()
    assert set(told(url).values()) == {0}


def test_a_store_that_is_gone_keeps_no_process_from_ending(table: Engine) -> None:
    store = rome.store_of(table)
    tally = Tally(store)
    tally.count("commits")
    store.close()
    tally.farewell()
    with pytest.raises(rome.RomeError):
        store.commit(None, Writes(adds={b"x": 1}))
