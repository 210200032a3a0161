"""What all tests share: the switches of hypothesis, and empty databases on each store.

redis_server   one Redis for the whole run: each test has databases of its own there
url_of         the URL of another empty database of a kind of store, at each call
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import RedisServer

# `make fuzz` is the long run; `make test` takes a sample of it. A failure prints the blob that
# repeats it (@reproduce_failure), so random tests need no seed of their own.
settings.register_profile(
    "sample", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("sample"), max_examples=1000)
settings.load_profile(os.environ.get("ROME_FUZZ", "sample"))

_serial = count()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    def url(kind: str) -> str:
        name = f"test{next(_serial)}"
        if kind == "memory":
            return f"rome+memory://{name}"
        if kind == "lmdb":
            return f"rome+lmdb://{tmp_path / name}"
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.url(name)

    return url
