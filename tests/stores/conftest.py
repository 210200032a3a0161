"""The stores under test: one suite for memory, LMDB and Redis.

`make_store` opens the database under test again, as another connection would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from rome.stores import Store, open_store
from rome.stores.redis import RedisStore
from tests.servers import RedisServer

KINDS = ("memory", "lmdb", "redis")


@pytest.fixture(params=KINDS)
def store_url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    return url_of(request.param)


@pytest.fixture
def make_store(store_url: str) -> Iterator[Callable[[], Store]]:
    stores: list[Store] = []

    def make() -> Store:
        stores.append(open_store(store_url))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: Callable[[], Store]) -> Store:
    return make_store()


@pytest.fixture
def connect() -> Iterator[Callable[[str], RedisStore]]:
    """Open Redis stores by URL; they are closed when the test is over."""
    stores: list[Store] = []

    def make(url: str) -> RedisStore:
        store = open_store(url)
        assert isinstance(store, RedisStore)
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A durable Redis for one test, which may stop it, fill it, or set it as it likes."""
    with RedisServer(appendonly=True) as server:
        yield server
