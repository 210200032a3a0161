"""What an acknowledged commit survives, setting by setting, as far as the end of processes goes.

(The end of a machine cannot be tried here: that rests on what LMDB, Redis and the disk promise.)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rome.errors import Conflict
from rome.stores import Read, Store, Writes, open_store
from tests.servers import RedisServer

WRITER = """
import os, signal, sys
from rome.stores import Writes, open_store
store = open_store(sys.argv[1])
for number in range(20):
    store.commit(None, Writes(puts={b"k%d" % number: b"v"}, adds={b"count": 1}))
print("acknowledged", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def write_and_die(url: str) -> None:
    """Twenty commits by a process that is killed behind the last answer."""
    ran = subprocess.run([sys.executable, "-c", WRITER, url], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.returncode) == ("acknowledged\n", -9), ran.stderr


def found(store: Store) -> tuple[int, int]:
    """How many of them are there, and what their counter says."""
    reply = store.snapshot().read(Read(keys=[b"k%d" % n for n in range(20)], counters=[b"count"]))
    return sum(entry is not None for entry in reply.values.values()), reply.counters[b"count"]


@pytest.mark.parametrize("sync", ["full", "meta", "no"])
def test_lmdb_keeps_what_was_acknowledged_when_its_writer_is_killed(tmp_path: Path, sync: str) -> None:
    url = f"rome+lmdb://{tmp_path}/db?sync={sync}"
    write_and_die(url)
    store = open_store(url)
    assert found(store) == (20, 20)
    store.close()


@pytest.mark.parametrize("appendfsync", ["always", "no"])
def test_redis_with_a_log_keeps_what_was_acknowledged_when_it_is_killed(appendfsync: str) -> None:
    # What Redis has written to the log is with the system: its own end loses nothing. (`everysec` puts off
    # writing while a sync is under way; what that loses, the faults count.)
    with RedisServer(appendonly=True, appendfsync=appendfsync) as server:
        write_and_die(server.url("db"))
        server.kill()
        server.start()
        store = open_store(server.url("db"))
        assert found(store) == (20, 20)
        store.close()


def test_redis_without_a_log_forgets_all_and_nobody_takes_the_new_state_for_the_old() -> None:
    with RedisServer() as server:
        url = server.url("db")
        store = open_store(url)
        write_and_die(url)
        snapshot = store.snapshot()
        snapshot.read(Read(keys=[b"k1"]))
        before = snapshot.version
        server.kill()
        server.start()
        assert found(store) == (0, 0)
        with pytest.raises(Conflict):
            snapshot.read(Read(keys=[b"k2"]))
        stale = store.snapshot()
        stale.read(Read(keys=[b"k3"]))
        assert before is not None
        assert store.commit(None, Writes(puts={b"k3": b"new"})) > before
        with pytest.raises(Conflict):
            store.commit(stale, Writes(puts={b"k4": b"new"}))
        store.close()
