"""A database to break: an LMDB directory or a Redis of its own, and the walk over it afterwards.

    with database("redis") as made:
        made.url      rome+redis://…, with `appendonly yes` and `appendfsync always`
        made.server   the RedisServer; None on LMDB and memory

`problems_of` walks over everything with `rome check`, in a process of its own: it sees what is in the
store, and nothing of what this process may still hold in its memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from tests.servers import RedisServer

CHECK_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Made:
    """A new, empty database."""

    url: str
    server: RedisServer | None = None

    @property
    def redis(self) -> RedisServer:
        assert self.server is not None, "this fault is for Redis"
        return self.server


@contextmanager
def database(
    store: str,
    settings: Mapping[str, str] | None = None,
    password: str | None = None,
    parameters: Mapping[str, str] | None = None,
) -> Iterator[Made]:
    """A new database of this kind. `settings` are the Redis server's, `parameters` the URL's."""
    if store == "redis":
        with RedisServer(appendonly=True, settings=settings, password=password) as server:
            url = server.url("faults") + ("?" + urlencode(parameters) if parameters else "")
            yield Made(url, server)
    elif store == "lmdb":
        with tempfile.TemporaryDirectory(prefix="rome-faults-") as directory:
            yield Made(f"rome+lmdb://{Path(directory) / 'faults'}")
    else:
        yield Made(f"rome+memory://faults-{uuid.uuid4().hex}")


def problems_of(url: str) -> list[str]:
    """What `rome check` says is wrong, in a fresh process; empty if nothing is."""
    done = subprocess.run(
        [sys.executable, "-c", "from rome.cli import main; main()", "check", "--json", url],
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return [f"rome check ended with {done.returncode}: {done.stderr[-2000:]}"]
    if answer["sound"] is None:
        return [f"rome check: {answer['reason']}"]
    return [f"rome check: {fault}" for fault in answer["faults"]]
