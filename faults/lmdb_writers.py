"""Writers of LMDB that are in each other's way: a map that all grow at once, a lock whose holder is gone.

the map grows at once       processes begin with a map of 64 kB and write more and more: each of them
                            finds it full, or grown by another, all the time
a writer is killed          inside of its write transaction: the lock is free at once, nothing of it is there
a writer is stopped         inside of its write transaction: the others are told which process holds them
                            up, after `write_timeout`, and go on as soon as it does, or is ended
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import create_engine

import rome
from faults import ledger
from faults.databases import database, problems_of
from faults.ledger import ACKNOWLEDGED, Writer
from faults.registry import Report, fault
from faults.writers import writing

SMALL_MAP: Final = 1 << 16
WRITERS: Final = 4
PADDING: Final = 20_000
"""Bytes of each order, so that the map is soon full."""
TIMEOUT: Final = 0.3
PATIENCE: Final = 30.0


@fault(stores=("lmdb",), times=10, sample=1)
def map_grown_at_once(store: str, times: int, seed: int) -> Report:
    """Four processes grow the map of LMDB at once, from 64 kB, under load: nothing acknowledged is lost."""
    report = Report()
    for turn in range(times):
        with database(store) as made:
            url = f"{made.url}?map_size={SMALL_MAP}"
            ledger.prepare(url, range(WRITERS))
            with writing(url, WRITERS, turn, padding="x" * PADDING) as crew:
                _until_large(made.url, SMALL_MAP * 64)
            report.counts += ledger.counts_of(crew.all_told)
            report.problems += [f"{one.token}: {one.error}" for one in crew.all_told if one.error]
            report.problems += ledger.differences(url, crew.all_told)
            engine = create_engine(made.url)
            engine.connect().close()
            size = rome.store_of(engine).health()["map_bytes"]
            engine.dispose()
            report.problems += problems_of(made.url)
        report.notes.append(f"the map went from {SMALL_MAP // 1024} kB to {int(size) // 1024} kB")
    return report


def _until_large(url: str, size: int) -> None:
    data = Path(urlsplit(url).path) / "data.mdb"
    end = time.monotonic() + PATIENCE
    while data.stat().st_size < size and time.monotonic() < end:
        time.sleep(0.02)


@fault(stores=("lmdb",), times=100, sample=5)
def writer_killed_with_lock(store: str, times: int, seed: int) -> Report:
    """A process is killed while it holds LMDB's write lock: the others go on, nothing of it is there."""
    report = Report()
    with database(store) as made:
        ledger.prepare(made.url, range(2))
        with writing(made.url, 2) as crew:
            for _ in range(times):
                with _holding(made.url) as pid:
                    os.kill(pid, signal.SIGKILL)
                took = crew.goes_on(PATIENCE)
                report.require(took is not None, "the lock of a killed writer stays taken")
                report.counts["writers killed"] += 1
        report.counts += ledger.counts_of(crew.all_told)
        report.problems += [f"{one.token}: {one.error}" for one in crew.all_told if one.error]
        report.problems += ledger.differences(made.url, crew.all_told)
        report.problems += _traces(made.url)
        report.problems += problems_of(made.url)
    return report


@fault(stores=("lmdb",), times=20, sample=2)
def writer_stopped_with_lock(store: str, times: int, seed: int) -> Report:
    """A process is stopped while it holds LMDB's write lock: a clear error in time, and all go on with it."""
    report = Report()
    chance = random.Random(seed)
    with database(store) as made:
        url = f"{made.url}?write_timeout={TIMEOUT}"
        ledger.prepare(made.url, [0])
        engine = create_engine(url)
        writer = Writer(engine, 0)
        for _ in range(times):
            report.require(writer.attempt().outcome == ACKNOWLEDGED, "a write with nobody in the way failed")
            with _holding(made.url) as pid:
                told = writer.attempt()
                clear = f"process {pid} has kept others from writing" in told.error
                report.require(clear, f"not clear: {told.outcome} {told.error}")
                report.require(not told.disconnected, "the connection was taken for lost")
                report.require(told.seconds < TIMEOUT + PATIENCE / 2, f"it took {told.seconds:.1f} s")
                report.counts["writers told who holds them up"] += 1
                with engine.connect() as connection:
                    connection.exec_driver_sql("SELECT count(*) FROM orders").scalar_one()
                if chance.random() < 0.5:
                    os.kill(pid, signal.SIGCONT)
                    report.counts["writers continued"] += 1
            took = writer.attempt()
            report.require(took.outcome == ACKNOWLEDGED, f"it does not go on: {took.error}")
        report.counts += ledger.counts_of(writer.told)
        report.problems += ledger.differences(made.url, writer.told)
        report.problems += _traces(made.url)
        engine.dispose()
        report.problems += problems_of(made.url)
    return report


@contextmanager
def _holding(url: str) -> Iterator[int]:
    """A process that was stopped inside of a write transaction; it is ended afterwards."""
    pid = os.fork()
    if pid == 0:
        try:
            engine = create_engine(url)
            engine.connect().close()
            opened: Any = rome.store_of(engine)

            def stop(txn: Any) -> None:
                environment = opened.environment
                txn.put(b"half a transaction", bytes(8), db=environment.entries)
                os.kill(os.getpid(), signal.SIGSTOP)
                raise SystemExit

            opened.write(stop)
        finally:
            os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _traces(url: str) -> list[str]:
    """What is left of those that were killed in the middle."""
    from rome.stores import Read, open_store

    opened = open_store(url)
    snapshot = opened.snapshot()
    try:
        found = snapshot.read(Read(presence=[b"half a transaction"])).presence[b"half a transaction"]
    finally:
        snapshot.close()
        opened.close()
    return ["half of a transaction is there, of a writer that was killed"] if found else []
