"""Generated numbers: those in reserve that turn out to be used, and a store that has lost its last writes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

import rome
from rome.stores.redis import RedisStore
from tests.servers import RedisServer

CREATE = text("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)")
INSERT = text("INSERT INTO t (n) VALUES (0) RETURNING id")


def inserted(engine: Engine) -> int:
    with engine.begin() as connection:
        number: int = connection.execute(INSERT).scalar_one()
    return number


def test_numbers_in_reserve_that_another_program_used_cost_one_transaction(
    url: str, open_url: Callable[..., Engine]
) -> None:
    first, second = open_url(f"{url}?sequence_cache=16"), open_url(url)
    with first.begin() as connection:
        connection.execute(CREATE)
    assert inserted(first) == 1
    with second.begin() as connection:
        for number in range(2, 30):
            connection.execute(text("INSERT INTO t VALUES (:number, 1)"), {"number": number})
    began = time.monotonic()
    with pytest.raises(OperationalError, match="serialization failure"):
        inserted(first)
    assert time.monotonic() - began < 2
    assert inserted(first) == 30


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_number_that_is_used_is_no_broken_constraint_of_what_was_built_on_it(
    url: str, open_url: Callable[..., Engine], when: str
) -> None:
    first, second = open_url(f"{url}?sequence_cache=16"), open_url(url)
    part = text("INSERT INTO parts VALUES (:number, 0)")

    def take(number: int) -> None:
        with second.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (:number, 1)"), {"number": number})
            connection.execute(part, {"number": number})

    def insert() -> None:
        with first.begin() as connection:
            number = connection.execute(INSERT).scalar_one()
            connection.execute(part, {"number": number})
            if when == "meanwhile":
                take(number)

    with first.begin() as connection:
        connection.execute(CREATE)
        connection.execute(text("CREATE TABLE parts (t INTEGER, number INTEGER, UNIQUE (t, number))"))
    assert inserted(first) == 1
    if when == "before":
        take(2)
    with pytest.raises(OperationalError, match="serialization failure"):
        insert()


def test_a_lost_server_may_give_its_last_numbers_out_again(
    own_server: RedisServer, open_url: Callable[..., Engine]
) -> None:
    """As after a fail-over: the counter is where it was before this process reserved its numbers."""
    first, second = open_url(own_server.url("name")), open_url(own_server.url("name"))
    with first.begin() as connection:
        connection.execute(CREATE)
    assert inserted(first) == 1
    store = rome.store_of(second)
    assert isinstance(store, RedisStore)
    own_server.restart()
    counters = own_server.command("HGETALL", "rome:{name}:counters")
    assert "16" in counters.split(), counters
    counter = store.server.ask(("HKEYS", "rome:{name}:counters"))
    (sequence,) = [name for name in counter if name.startswith(b"\x01")]
    store.server.ask(("HSET", "rome:{name}:counters", sequence, 1))
    assert [inserted(second) for _ in range(3)] == [2, 3, 4]
    with first.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 4
    assert inserted(first) == 18


def test_a_commit_that_reaches_the_server_after_its_sequence_was_lost_raises_it_again(
    own_server: RedisServer, open_url: Callable[..., Engine]
) -> None:
    """As when a COMMIT finds the successor of the server that its numbers are from."""
    first, second = open_url(own_server.url("name")), open_url(own_server.url("name"))
    with first.begin() as connection:
        connection.execute(CREATE)
    assert inserted(first) == 1
    store = rome.store_of(second)
    assert isinstance(store, RedisStore)
    with first.begin() as connection:
        drawn = [connection.execute(INSERT).scalar_one() for _ in range(3)]
        names = store.server.ask(("HKEYS", "rome:{name}:counters"))
        (sequence,) = [name for name in names if name.startswith(b"\x01")]
        store.server.ask(("HSET", "rome:{name}:counters", sequence, 1))
    assert drawn == [2, 3, 4]
    assert inserted(second) == 5
