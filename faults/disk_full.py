"""The disk is full: a small tmpfs holds the database, and a file beside it takes the rest of the space.

Each round leaves a random rest, and has rows of random size written until that is used up: a disk gets
full in the midst of a write. Nothing acknowledged may be lost, nothing of what failed may be there, and
with the file gone the same engine writes again. What can be told differs:

    disk_full on lmdb       "no space left on the disk"; reads go on, those of new processes as well
    disk_full on redis      with `appendfsync always` the server ends itself at a write that fails, and is
                            down until there is space and somebody starts it. What became of the COMMIT
                            that was under way cannot be asked within the time-out: it is left open,
                            and the error says so. Every other round it is back in time, as it is where
                            something watches over it, and nobody may notice anything.
    disk_full_everysec      the server goes on, and refuses writes (MISCONF) until it has written what
                            it holds; reads go on. What it had acknowledged since the disk got full is
                            in its memory only, which is what `everysec` means.

All of it happens in a process of its own, so that a bus error (a mapped page without a disk behind it)
would be found and told.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine

from faults import ledger
from faults.databases import problems_of
from faults.ledger import ACKNOWLEDGED, REFUSED, UNKNOWN, Told, Writer
from faults.registry import Report, Skipped, fault
from faults.server_refuses import read_error
from tests.servers import RedisServer

SIZE: Final = 48 << 20
LEFT: Final = 300_000
"""Bytes that are left on the disk, at most."""
GREATEST: Final = 40_000
"""Bytes of a row, at most."""
CHECKED: Final = 5
"""Every so many times, rows are walked against indexes while the disk is full."""
MOST: Final = 1000
"""Transactions that are enough to use that up."""
TIME_OUT: Final = 3.0
SLACK: Final = 2.0
"""Seconds that a busy machine may add."""
PATIENCE: Final = 10.0
DOWN: Final = "connection was lost.*since then.*cannot be reached|cannot be reached"


@fault(stores=("lmdb", "redis"), times=20, sample=2)
def disk_full(store: str, times: int, seed: int) -> Report:
    """The disk is full: clear error, nothing acknowledged is lost, work goes on when there is space."""
    return _apart("always" if store == "redis" else "", times, seed)


@fault(stores=("redis",), times=20, sample=2)
def disk_full_everysec(store: str, times: int, seed: int) -> Report:
    """The disk is full, with `appendfsync everysec`: the server refuses writes (MISCONF), reads go on."""
    return _apart("everysec", times, seed)


def _apart(appendfsync: str, times: int, seed: int) -> Report:
    with (
        tmpfs() as disk,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool,
    ):
        return pool.submit(_rounds, appendfsync, disk, times, seed).result()


@contextmanager
def tmpfs() -> Iterator[Path]:
    """A small disk. Raises `Skipped` where none can be mounted."""
    directory = Path(tempfile.mkdtemp(prefix="rome-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(directory)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode != 0:
            raise Skipped(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        try:
            yield directory
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=True)
    finally:
        directory.rmdir()


def _rounds(appendfsync: str, disk: Path, times: int, seed: int) -> Report:
    report = Report()
    chance = random.Random(seed)
    with ExitStack() as stack:
        server, url = None, f"rome+lmdb://{disk / 'faults'}"
        if appendfsync:
            server = RedisServer(appendonly=True, appendfsync=appendfsync, within=disk)
            stack.enter_context(server)
            url = server.url("faults", read_timeout=TIME_OUT)
        ledger.prepare(url, [0])
        engine = create_engine(url)
        writer = Writer(engine)
        for number in range(times):
            with filled(disk, chance.randrange(LEFT)):
                report.counts["filled"] += 1
                if server is not None and appendfsync == "always":
                    in_time = number % 2 == 1
                    _end_of_server(server, disk, writer, chance, in_time, report)
                else:
                    told = _write_until(writer, chance, lambda told: bool(told.error))
                    report.problems += _unclear(told, appendfsync)
                    report.require(not (error := read_error(engine)), f"a read meanwhile: {error}")
                    report.counts["reads meanwhile"] += 1
                    if number % CHECKED == 0:
                        report.problems += problems_of(url)
                        report.counts["checks meanwhile, by a new process"] += 1
            if server is not None and server.process is None:
                server.start()
            _recover(writer, report)
        report.counts += ledger.counts_of(writer.told)
        report.problems += ledger.differences(url, writer.told)
        engine.dispose()
        report.problems += problems_of(url)
    return report


@contextmanager
def filled(disk: Path, rest: int) -> Iterator[None]:
    """Leave so many bytes on the disk while the block lasts."""
    space = os.statvfs(disk)
    with (disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, space.f_bavail * space.f_frsize - rest)
    try:
        yield
    finally:
        (disk / "filler").unlink(missing_ok=True)


def _write_until(writer: Writer, chance: random.Random, enough: Callable[[Told], bool]) -> Told:
    """Rows of random size until it is enough; returns what the last attempt was told."""
    for _ in range(MOST):
        writer.padding = "x" * chance.randrange(GREATEST)
        if enough(told := writer.attempt()):
            return told
    raise AssertionError(f"{MOST} transactions have not filled the disk")


def _end_of_server(
    server: RedisServer, disk: Path, writer: Writer, chance: random.Random, in_time: bool, report: Report
) -> None:
    """Write until the server ends itself; see to it that it is back `in_time` for the COMMIT, or not."""
    back = threading.Event()

    def watch_over() -> None:
        server.running.wait()
        server.stop()
        report.counts["the server ended itself"] += 1
        if in_time:
            (disk / "filler").unlink()
            server.start()
            report.counts["and was back in time"] += 1
        back.set()

    before = len(writer.told)
    watch = threading.Thread(target=watch_over)
    watch.start()
    told = _write_until(writer, chance, lambda told: back.is_set())
    watch.join()
    if in_time:
        failed = [one for one in writer.told[before:] if one.error]
        report.problems += [f"{one.token}: the server was back, and still: {one.error}" for one in failed]
    else:
        report.problems += _unclear(told, "always")


def _unclear(told: Told, appendfsync: str) -> list[str]:
    """What is wrong with how the attempt ended that met the full disk."""
    says = {"": "no space left on the disk", "everysec": "cannot save them", "always": DOWN}[appendfsync]
    wrong = []
    if not re.search(says, told.error):
        wrong.append(f"{told.token} failed without saying why: {told.error}")
    if told.outcome != REFUSED and not (appendfsync == "always" and told.outcome == UNKNOWN):
        wrong.append(f"{told.token} was {told.outcome}: {told.error}")
    if told.seconds > 2 * TIME_OUT + SLACK:
        wrong.append(f"{told.token} took {told.seconds:.1f} s")
    return wrong


def _recover(writer: Writer, report: Report) -> None:
    """There is space again: the same engine must write soon. (everysec: the server tries once a second.)"""
    deadline = time.monotonic() + PATIENCE
    writer.padding = ""
    while (told := writer.attempt()).outcome != ACKNOWLEDGED and time.monotonic() < deadline:
        time.sleep(0.1)
    report.require(told.outcome == ACKNOWLEDGED, f"there is space again, and still: {told.error}")
    report.counts["recovered"] += 1
