"""Readers of LMDB that are left behind: what a dead one costs, what a stopped one costs, too many of them.

While a snapshot is open, LMDB cannot use the pages again that were freed since, and the file grows with
every write. The slot of a process that was killed inside of a read transaction looks like an open snapshot,
until somebody clears it. So the growth is measured three times, over the same writes:

    nobody reads                 what the file needs by itself
    readers that were killed     no more than that, and a little: their slots are cleared on the way
    a reader that is stopped     grows without end; it is alive, and its snapshot is what it was promised
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

import rome
from faults.databases import Made, database, problems_of
from faults.registry import Report, fault
from rome.errors import StoreError
from rome.stores import Read, Store
from rome.stores.lmdb_environment import CLEARING_INTERVAL, MAX_READERS

WRITES: Final = 40
"""Transactions of a round, of VALUE bytes each, on KEYS rows in turn."""
KEYS: Final = 20
VALUE: Final = 50_000
ROUND_SECONDS: Final = 2 * CLEARING_INTERVAL


@fault(stores=("lmdb",), times=12, sample=1)
def reader_left_behind(store: str, times: int, seed: int) -> Report:
    """Processes are killed while they read: their slots are cleared, and the file does not grow on."""
    report = Report()
    grown = {}
    for readers in ("none", "killed", "stopped"):
        with _filled(store) as (made, engine):
            sizes = [_size(made)]
            for _ in range(times):
                if readers == "killed":
                    _end(_reader(made.url), signal.SIGKILL)
                    report.counts["readers killed"] += 1
                if readers == "stopped" and len(sizes) == 1:
                    stopped = _reader(made.url)
                _write(engine, report)
                sizes.append(_size(made))
            if readers == "stopped":
                report.require(_slots(engine) == 1, f"{_slots(engine)} readers are known, and one is stopped")
                _end(stopped, signal.SIGKILL)
            # Opening the directory clears what is left.
            engine.dispose()
            _look_in_a_new_process(made.url, report)
            report.problems += problems_of(made.url)
        grown[readers] = sizes[-1] - sizes[0]
        report.notes.append(f"readers {readers}: the file went from {_mb(sizes[0])} to {_mb(sizes[-1])}")
    written = times * WRITES * VALUE
    report.notes.append(f"{_mb(written)} were written each time")
    report.require(grown["stopped"] > grown["none"] * 1.5, "a stopped reader costs nothing: is it one?")
    report.require(
        grown["killed"] <= 3 * WRITES * VALUE,
        f"killed readers make the file grow: by {grown['killed']}, and by {grown['none']} without them",
    )
    return report


@fault(stores=("lmdb",), times=3, sample=1)
def reader_table_full(store: str, times: int, seed: int) -> Report:
    """Every slot for readers is taken: a clear error, and all goes on when one is free or its owner dead."""
    report = Report()
    with _filled(store) as (made, engine):
        opened = rome.store_of(engine)
        for _ in range(times):
            with ExitStack() as held:
                report.counts["snapshots opened at once"] += _take_all(opened, held)
                try:
                    with engine.connect() as connection:
                        connection.execute(text("SELECT count(*) FROM t"))
                    report.problems.append("one snapshot more than there is room for was opened")
                except OperationalError as error:
                    told = str(error.orig)
                    report.require(f"more than {MAX_READERS} snapshots" in told, f"not clear: {told}")
                    report.counts["readers refused"] += 1
            with engine.connect() as connection:
                found = connection.scalar(text("SELECT count(*) FROM t"))
                report.require(found == KEYS, f"{found} rows of {KEYS}")
            # The same number of slots, but of a process that is dead: whoever comes next clears them.
            _end(_reader(made.url, MAX_READERS), signal.SIGKILL)
            with engine.connect() as connection, engine.connect() as other:
                for one in (connection, other):
                    found = one.scalar(text("SELECT count(*) FROM t"))
                    report.require(found == KEYS, f"{found} rows of {KEYS}, with the slots of the dead")
            report.counts["slots of a dead process cleared"] += MAX_READERS
    return report


def _take_all(opened: Store, held: ExitStack) -> int:
    """Open snapshots until one is refused (LMDB makes some slots more than it is told to)."""
    for number in range(MAX_READERS + 200):
        snapshot = opened.snapshot()
        held.callback(snapshot.close)
        try:
            snapshot.read(Read(presence=[b"x"]))
        except StoreError:
            return number
    raise AssertionError("LMDB has no end of slots")


@contextmanager
def _filled(store: str) -> Iterator[tuple[Made, Engine]]:
    with database(store) as made:
        engine = create_engine(made.url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)"))
            for key in range(KEYS):
                connection.execute(text("INSERT INTO t VALUES (:id, zeroblob(:n))"), {"id": key, "n": VALUE})
        yield made, engine
        engine.dispose()


def _write(engine: Engine, report: Report) -> None:
    """A round: it lasts so long that the slots of the dead are looked for at least once."""
    for turn in range(WRITES):
        time.sleep(ROUND_SECONDS / WRITES)
        with engine.begin() as connection:
            changed = text("UPDATE t SET v = randomblob(:n) WHERE id = :id")
            connection.execute(changed, {"id": turn % KEYS, "n": VALUE})
        report.counts["transactions"] += 1


def _reader(url: str, snapshots: int = 1) -> int:
    """A process that stops inside of read transactions."""
    pid = os.fork()
    if pid == 0:
        try:
            opened = rome.store_of(_connected(url))
            open_ones = [opened.snapshot() for _ in range(snapshots)]
            for snapshot in open_ones:
                snapshot.read(Read(presence=[b"x"]))
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(1)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1]), "the reader has failed"
    return pid


def _connected(url: str) -> Engine:
    engine = create_engine(url)
    engine.connect().close()
    return engine


def _end(pid: int, how: signal.Signals) -> None:
    os.kill(pid, how)
    os.waitpid(pid, 0)


def _look_in_a_new_process(url: str, report: Report) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if _slots(_connected(url)) == 0 else 3
        finally:
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    report.require(code == 0, f"slots of dead readers are left, or worse: {code}")


def _slots(engine: Engine) -> int:
    snapshots = rome.store_of(engine).health()["snapshots"]
    assert isinstance(snapshots, int)
    return snapshots


def _size(made: Made) -> int:
    return (Path(urlsplit(made.url).path) / "data.mdb").stat().st_size


def _mb(number: int) -> str:
    return f"{number / 1e6:.1f} MB"
