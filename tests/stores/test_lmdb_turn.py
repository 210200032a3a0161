"""Turns of writers on LMDB: whoever holds up the others is told of, and waiting for it has an end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from rome.errors import StoreBusy
from rome.stores import Read, Store, Writes, open_store

PATIENCE = 0.5


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"rome+lmdb://{tmp_path / 'db'}?write_timeout={PATIENCE}")
    store.commit(None, Writes(puts={b"before": b""}))
    yield store
    store.close()


@contextmanager
def stopped_writer(directory: str) -> Iterator[int]:
    """A child that was stopped (SIGSTOP) in the middle of a COMMIT."""
    pid = os.fork()
    if pid == 0:
        try:
            store = open_store(f"rome+lmdb://{directory}")

            def stop(txn: lmdb.Transaction) -> None:
                txn.put(b"half", b"written")
                os.kill(os.getpid(), signal.SIGSTOP)

            store.write(stop)  # type: ignore[attr-defined]
        finally:
            os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def present(store: Store, key: bytes) -> bool:
    snapshot = store.snapshot()
    try:
        return snapshot.read(Read(presence=[key])).presence[key]
    finally:
        snapshot.close()


def test_waiting_behind_a_stopped_writer_ends_with_its_name(store: Store, tmp_path: Path) -> None:
    with stopped_writer(f"{tmp_path}/db") as pid:
        began = time.monotonic()
        with pytest.raises(StoreBusy, match=f"process {pid} has kept others from writing for 0.5 seconds"):
            store.commit(None, Writes(puts={b"after": b""}))
        assert PATIENCE <= time.monotonic() - began < PATIENCE + 5
        assert present(store, b"before"), "readers do not wait"
        assert not present(store, b"after")
        os.kill(pid, signal.SIGCONT)
        store.commit(None, Writes(puts={b"after": b""}))
    assert present(store, b"after")


def test_a_writer_killed_while_it_writes_holds_up_nobody(store: Store, tmp_path: Path) -> None:
    with stopped_writer(f"{tmp_path}/db"):
        pass
    store.commit(None, Writes(puts={b"after": b""}))
    assert present(store, b"after")
    assert not present(store, b"half")


def test_opening_behind_a_stopped_writer_ends_as_well(store: Store, tmp_path: Path) -> None:
    with stopped_writer(f"{tmp_path}/db"):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                open_store(f"rome+lmdb://{tmp_path / 'db'}?write_timeout={PATIENCE}").commit(None, Writes())
            except StoreBusy:
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0


def test_who_waits_for_another_process_keeps_no_thread_from_forking(store: Store, tmp_path: Path) -> None:
    refused: list[StoreBusy] = []

    def wait() -> None:
        try:
            store.commit(None, Writes(puts={b"after": b""}))
        except StoreBusy as error:
            refused.append(error)

    with stopped_writer(f"{tmp_path}/db"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(PATIENCE / 5)
        child = os.fork()
        if child == 0:
            os._exit(0)
        forked_while_waiting = waiting.is_alive()
        waiting.join()
        os.waitpid(child, 0)
    assert forked_while_waiting
    assert len(refused) == 1


def test_what_a_process_would_leave_behind_at_its_end_does_not_wait(store: Store, tmp_path: Path) -> None:
    with stopped_writer(f"{tmp_path}/db"):
        began = time.monotonic()
        store.add_in_passing({b"count": 1})
        assert time.monotonic() - began < PATIENCE
    store.add_in_passing({b"count": 1})
    snapshot = store.snapshot()
    assert snapshot.read(Read(counters=[b"count"])).counters[b"count"] == 1
    snapshot.close()


def test_a_program_of_lmdb_that_knows_of_no_turns_still_excludes_writers(
    store: Store, tmp_path: Path
) -> None:
    """`python -m lmdb`, say: ROME waits for it as LMDB does."""
    child = os.fork()
    if child == 0:
        with lmdb.open(f"{tmp_path}/db", max_dbs=8, map_size=1 << 30) as other, other.begin(write=True):
            time.sleep(PATIENCE * 2)
        os._exit(0)
    time.sleep(PATIENCE)
    began = time.monotonic()
    store.commit(None, Writes(puts={b"after": b""}))
    assert time.monotonic() - began > PATIENCE / 4
    os.waitpid(child, 0)
    assert present(store, b"after")
