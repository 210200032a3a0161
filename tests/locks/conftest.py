"""The stores under the tests of locks: memory, LMDB and Redis.

url               the database under test
shared_url        the same, but for memory, which a process has for itself
engine            an engine on it
open_engine       more of them
child             start another process on it (see tests.locks.children)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

import rome
from tests.locks.children import Child
from tests.servers import RedisServer


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A durable Redis for one test, which may stop it, fill it or let it hang."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture(params=["memory", "lmdb", "redis"])
def url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    return url_of(request.param)


@pytest.fixture(params=["lmdb", "redis"])
def shared_url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    return url_of(request.param)


@pytest.fixture
def open_url() -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def make(url: str, **options: Any) -> Engine:
        engines.append(rome.create_engine(url, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()
        rome.store_of(engine).close()


def _engine_with_a_table(open_url: Callable[..., Engine], url: str) -> Engine:
    engine = open_url(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)"))
        connection.execute(text("INSERT INTO t VALUES (1, 0)"))
    return engine


@pytest.fixture
def engine(open_url: Callable[..., Engine], url: str) -> Engine:
    return _engine_with_a_table(open_url, url)


@pytest.fixture
def open_engine(open_url: Callable[..., Engine], url: str) -> Callable[..., Engine]:
    return partial(open_url, url)


@pytest.fixture
def shared_engine(open_url: Callable[..., Engine], shared_url: str) -> Engine:
    return _engine_with_a_table(open_url, shared_url)


@pytest.fixture
def child(shared_url: str) -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def start(program: str, first: str = "") -> Child:
        children.append(Child(shared_url, program, first))
        return children[-1]

    yield start
    for one in children:
        one.close()
