"""The client process is killed while it makes a database: opens it for the first time, and creates tables.

A new database each time. The process is killed (SIGKILL) after a random part of the time that the whole
usually takes: while LMDB's files are made, between that and CREATE TABLE, in the COMMIT of the schema, or
in the first rows' COMMIT. Whoever comes next must be able to use what is there: all tables or none, all of
the first rows or none, and everything works from there on.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection as Pipe
from statistics import median
from typing import Final

from sqlalchemy import create_engine, func, inspect, select

from faults import ledger
from faults.databases import database, problems_of
from faults.ledger import ACKNOWLEDGED, Writer
from faults.registry import Report, fault

PATIENCE: Final = 60.0
WHOLE: Final = 3
"""Databases that are made in peace first, to see how long that takes."""
CHECKED: Final = 5
"""Every so many databases, rows are walked against indexes."""


@fault(stores=("lmdb", "redis"), times=100, sample=6)
def newborn_killed(store: str, times: int, seed: int) -> Report:
    """A client is killed (SIGKILL) while it makes a database: all tables or none, and it can be used."""
    report = Report()
    chance = random.Random(seed)
    with database(store) as made:
        lengths = [_make_until(f"{made.url}-{number}", None) for number in range(WHOLE)]
        for number in range(WHOLE, WHOLE + times):
            url = f"{made.url}-{number}"
            _make_until(url, chance.uniform(0, 1.1 * median(lengths)))
            report.counts["kills"] += 1
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
                counts, problems = pool.submit(_use, url).result()
            report.counts += counts
            report.problems += problems
            if number % CHECKED == 0:
                report.problems += problems_of(url)
                report.counts["checks of rows and indexes"] += 1
    report.notes.append(f"to make a database took {median(lengths) * 1000:.0f} ms in the middle")
    return report


def _make_until(url: str, seconds: float | None) -> float:
    """Have a process make a database, and kill it after so long (None: let it finish); returns how long."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_make, args=(url, theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(PATIENCE):
            raise TimeoutError("a process does not begin")
        began: float = ours.recv()
        if seconds is None:
            if not ours.poll(PATIENCE):
                raise TimeoutError("a process makes a database for ever")
            ended: float = ours.recv()
            return ended - began
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        return seconds
    finally:
        process.kill()
        process.join()
        ours.close()
        theirs.close()


def _make(url: str, pipe: Pipe) -> None:
    pipe.send(time.monotonic())
    ledger.prepare(url, [0])
    pipe.send(time.monotonic())
    time.sleep(PATIENCE)


def _use(url: str) -> tuple[Counter[str], list[str]]:
    """What the killed process has left, and whether it can be used; runs in a process of its own."""
    counts: Counter[str] = Counter()
    problems: list[str] = []
    engine = create_engine(url)
    tables = len(inspect(engine).get_table_names())
    rows = 0
    if tables:
        with engine.begin() as connection:
            rows = connection.scalar(select(func.count()).select_from(ledger.tallies)) or 0
    counts[f"left behind: {tables} tables, {rows} rows"] += 1
    if (tables, rows) not in ((0, 0), (3, 0), (3, 2)):
        problems.append(f"{tables} tables and {rows} rows were left behind")
    if not rows:
        ledger.prepare(url, [0])
    writer = Writer(engine)
    told = writer.attempt()
    if told.outcome != ACKNOWLEDGED:
        problems.append(f"a transaction afterwards: {told.error}")
    problems += ledger.differences(url, writer.told)
    engine.dispose()
    return counts, problems
