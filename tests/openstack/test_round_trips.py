"""How often Glance's real database API goes to Redis: never more often than this.

Each operation runs in a process of its own beside the tests (bench/glance/operations.py, which the
benchmark uses too), on 300 images with 3 properties, 2 tags and a location each. The connection is
open and the schema known; nothing is remembered from one transaction to the next. The limits are
those of the design; MariaDB's own counts on the same operations stand beside them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer

OPERATIONS = Path(__file__).parent.parent.parent / "bench" / "glance" / "operations.py"
IMAGES = 300

LIMITS = {
    # operation: at most (MariaDB's count)
    "image_get": 2,  # 4
    "tags_read": 2,  # 4
    "list_25": 4,  # 5
    "image_create": 8,  # 14
    "image_update": 6,  # 15
    "member_create": 3,  # 4
    "tags_set": 4,  # 6
    "tags_replace": 5,  # 10
    "image_destroy": 6,  # 11
    "namespace_create": 3,  # 4
    "namespace_get": 2,  # 4
    "namespace_list": 2,  # 4
}

Count = Callable[[str], list[int]]


@pytest.fixture(scope="module")
def count(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Count]:
    """Runs an operation three times on Glance's tables in Redis; returns the round trips of each."""
    log = tmp_path_factory.mktemp("round_trips") / "errors"
    with RedisServer() as server, log.open("w") as errors:
        worker = subprocess.Popen(
            [sys.executable, str(OPERATIONS), server.url("glance"), "--images", str(IMAGES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        assert worker.stdin is not None
        assert worker.stdout is not None

        def ask(operation: str) -> list[int]:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(f"{operation} 3\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            assert line, f"the process that runs Glance ended:\n{log.read_text()[-3000:]}"
            counts: list[int] = json.loads(line)["round_trips"]
            return counts

        try:
            assert worker.stdout.readline() == "ready\n", log.read_text()[-3000:]
            yield ask
        finally:
            worker.stdin.close()
            worker.stdout.close()
            worker.kill()
            worker.wait()


@pytest.mark.parametrize("operation", LIMITS)
def test_an_operation_takes_no_more_round_trips_than_its_limit(operation: str, count: Count) -> None:
    counts = count(operation)
    # Nothing at all would mean that the counter does not count.
    assert min(counts) > 0
    assert max(counts) <= LIMITS[operation], f"{operation}: {counts} round trips"
