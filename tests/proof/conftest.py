"""The stores under proof: `new_url` gives the URL of another empty database of the store at each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proof.run import databases


@pytest.fixture(params=["memory", "lmdb", "redis"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    with databases(request.param, tmp_path) as make:
        yield make
