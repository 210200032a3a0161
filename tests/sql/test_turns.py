"""turns=on: transactions that will write wait for each other; nobody else waits, and none is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from rome.sql import turns

READ = sa.text("SELECT n FROM counters WHERE id = 1")
LOOK = sa.text("SELECT count(*) FROM counters")
WRITE = sa.text("UPDATE counters SET n = :n WHERE id = 1")


@pytest.fixture
def in_turn(url: str, open_url: Callable[..., Engine]) -> Engine:
    engine = open_url(f"{url}?turns=on", pool_size=10)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE counters (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
        connection.exec_driver_sql("INSERT INTO counters VALUES (1, 0)")
    return engine


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def add_one(engine: Engine) -> int:
    """What the program has worked out from what it has read: no replay can hide that it has changed."""
    with engine.begin() as connection:
        number = connection.execute(READ).scalar_one()
        time.sleep(0.001)
        connection.execute(WRITE, {"n": number + 1})
    return int(number)


def look(engine: Engine) -> int:
    with engine.begin() as connection:
        return int(connection.execute(LOOK).scalar_one())


def is_waiting(future: Future[Any]) -> bool:
    time.sleep(0.2)
    return not future.done()


def test_nobody_is_refused_on_a_hot_row(in_turn: Engine, elsewhere: ThreadPoolExecutor) -> None:
    seen = list(elsewhere.map(lambda _: add_one(in_turn), range(80)))
    assert sorted(seen) == list(range(80))


def test_who_will_write_waits_before_it_reads(in_turn: Engine, elsewhere: ThreadPoolExecutor) -> None:
    with in_turn.begin() as connection:
        connection.execute(READ)
        second = elsewhere.submit(add_one, in_turn)
        assert is_waiting(second)
        connection.execute(WRITE, {"n": 41})
    assert second.result(10) == 41


def test_a_transaction_that_rolls_back_gives_back_its_turn(
    in_turn: Engine, elsewhere: ThreadPoolExecutor
) -> None:
    with in_turn.connect() as connection:
        connection.execute(READ)
        second = elsewhere.submit(add_one, in_turn)
        assert is_waiting(second)
        connection.rollback()
        assert second.result(10) == 0


def test_what_only_reads_is_learned_and_waits_for_nobody(
    in_turn: Engine, elsewhere: ThreadPoolExecutor
) -> None:
    for _ in range(10):
        look(in_turn)
    with in_turn.begin() as connection:
        connection.execute(READ)
        assert elsewhere.submit(look, in_turn).result(5) == 1


def test_what_was_taken_for_a_reader_and_writes_waits_from_then_on(
    in_turn: Engine, elsewhere: ThreadPoolExecutor
) -> None:
    for _ in range(10):
        look(in_turn)
    with in_turn.begin() as connection:
        connection.execute(LOOK)
        connection.execute(WRITE, {"n": 1})
    with in_turn.begin() as connection:
        connection.execute(READ)
        second = elsewhere.submit(look, in_turn)
        assert is_waiting(second)
    assert second.result(10) == 1


def read_twice(engine: Engine) -> tuple[int, int]:
    with engine.begin() as connection:
        count = int(connection.execute(LOOK).scalar_one())
        return count, int(connection.execute(READ).scalar_one())


def test_who_reads_twice_waits_only_where_a_snapshot_can_be_lost(
    url: str, in_turn: Engine, elsewhere: ThreadPoolExecutor
) -> None:
    for _ in range(10):
        read_twice(in_turn)
    with in_turn.begin() as connection:
        connection.execute(READ)
        second = elsewhere.submit(read_twice, in_turn)
        if url.startswith("rome+redis"):
            assert is_waiting(second)
        else:
            assert second.result(5) == (1, 0)
        connection.execute(WRITE, {"n": 1})
    assert second.result(10) == (1, 1 if url.startswith("rome+redis") else 0)


def test_a_thread_does_not_wait_for_itself(in_turn: Engine) -> None:
    begun = time.monotonic()
    with in_turn.begin() as outer, in_turn.connect() as inner:
        outer.execute(READ)
        assert inner.execute(READ).scalar_one() == 0
    assert time.monotonic() - begun < turns.PATIENCE_SECONDS / 2


def test_who_has_waited_too_long_goes_ahead_and_is_validated(
    in_turn: Engine, elsewhere: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.2)
    with in_turn.begin() as connection:
        connection.execute(READ)
        assert elsewhere.submit(add_one, in_turn).result(10) == 0
        connection.execute(WRITE, {"n": 7})
        with pytest.raises(sa.exc.OperationalError, match="serialization failure"):
            connection.commit()


def test_a_turn_that_lasts_too_long_is_the_next_ones(
    in_turn: Engine, elsewhere: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LEASE_SECONDS", 0.3)
    with in_turn.begin() as connection:
        connection.execute(READ)
        assert elsewhere.submit(add_one, in_turn).result(5) == 0
        connection.rollback()


def test_threads_of_different_engines_take_turns_too(
    url: str, in_turn: Engine, open_url: Callable[..., Engine], elsewhere: ThreadPoolExecutor
) -> None:
    other = open_url(f"{url}?turns=on")
    begun = threading.Barrier(2)

    def many(engine: Engine) -> list[int]:
        begun.wait()
        return [add_one(engine) for _ in range(15)]

    both = [elsewhere.submit(many, engine) for engine in (in_turn, other)]
    assert sorted(both[0].result(60) + both[1].result(60)) == list(range(30))


def test_another_value_is_refused(open_url: Callable[..., Engine]) -> None:
    with pytest.raises(sa.exc.ArgumentError, match="on, off"):
        open_url("rome+memory://?turns=maybe")
