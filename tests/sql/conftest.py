"""The stores under the SQL suite: every test that asks for `url` or `engine` runs on each of them.

url       the database under test
engine    SQLAlchemy's view of it
open_engine, connect   more engines on it, and DBAPI connections, as other processes would have them
open_url  an engine on any URL
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.engine import Engine

import rome
from rome.dbapi import Connection
from tests.servers import RedisServer

KINDS = ("memory", "lmdb", "redis")


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A durable Redis for one test, which may stop it or let it hang."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    return url_of(request.param)


@pytest.fixture
def open_url() -> Iterator[Callable[..., Engine]]:
    """Open engines on any URL; all is closed when the test is over."""
    engines: list[Engine] = []

    def make(url: str, **options: Any) -> Engine:
        engines.append(sqlalchemy.create_engine(url, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()
        rome.store_of(engine).close()


@pytest.fixture
def open_engine(url: str, open_url: Callable[..., Engine]) -> Callable[..., Engine]:
    """Open another engine on the database under test."""
    return partial(open_url, url)


@pytest.fixture
def engine(open_engine: Callable[..., Engine]) -> Engine:
    return open_engine()


@pytest.fixture
def connect(engine: Engine) -> Iterator[Callable[..., Connection]]:
    """Open DBAPI connections on the engine's store."""
    connections: list[Connection] = []

    def make(**options: Any) -> Connection:
        with engine.connect():  # SQLAlchemy's first connection opens the store
            connections.append(Connection(rome.store_of(engine), **options))
        return connections[-1]

    yield make
    for connection in connections:
        connection.close()


@pytest.fixture
def connection(connect: Callable[..., Connection]) -> Connection:
    return connect()
