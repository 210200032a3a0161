"""Threads on one engine, and one connection that two threads use at once.

Sixteen threads share an engine of sixteen connections and do everything at once: reads, writes, DDL,
rollbacks (`faults.bank`). A thread that does not come back is reported with where it hangs.

A connection belongs to one thread at a time. A program that gets that wrong must not get wrong answers:
who comes while another thread is inside is refused (`ProgrammingError`).
"""

from __future__ import annotations

import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from faults import bank
from faults.databases import database, problems_of
from faults.registry import Report, fault

THREADS: Final = 16
PATIENCE: Final = 120.0
"""Seconds that all threads together may take beyond a second for each transaction of one."""


def run_all(tasks: Sequence[Callable[[], object]], seconds: float) -> list[str]:
    """Run each task in a thread of its own; returns where those hang that have not ended in time."""
    threads = [threading.Thread(target=task, daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    frames = sys._current_frames()
    return [
        "a thread has not come back:\n" + "".join(traceback.format_stack(frames[thread.ident or 0]))
        for thread in threads
        if thread.is_alive()
    ]


@fault(stores=("memory", "lmdb", "redis"), times=150, sample=12)
def threads_at_once(store: str, times: int, seed: int) -> Report:
    """Sixteen threads on one engine read, write, roll back and change the schema; every answer is judged."""
    report = Report()
    with database(store) as made:
        engine = create_engine(made.url, pool_size=THREADS)
        bank.prepare(engine)
        workers = [bank.Worker(engine, f"thread-{n}", seed) for n in range(THREADS)]
        tasks = [partial(worker.run, times) for worker in workers]
        report.problems += run_all(tasks, PATIENCE + times)
        for worker in workers:
            report.counts += worker.done.counts
            report.problems += worker.done.problems
        report.problems += bank.differences(engine, [worker.done for worker in workers])
        engine.dispose()
        if store != "memory":
            report.problems += problems_of(made.url)
    return report


@fault(stores=("memory", "lmdb", "redis"), times=2000, sample=200)
def connection_shared_by_threads(store: str, times: int, seed: int) -> Report:
    """Two threads use one connection at once, wrongly: each answer is right, or a clear error."""
    report = Report()
    with database(store) as made:
        engine = create_engine(made.url)
        bank.prepare(engine)
        connection = engine.raw_connection()
        lock = threading.Lock()
        chance = random.Random(seed)

        def use(what: str) -> None:
            for _ in range(times):
                try:
                    if what == "rollback":
                        connection.rollback()
                        continue
                    cursor = connection.cursor()
                    cursor.execute("SELECT a.balance FROM accounts a JOIN accounts b ON a.id = b.id")
                    found: object = [row[0] for row in cursor.fetchall()]
                    outcome = "answers" if found == [100] * bank.ACCOUNTS else f"wrong: {found}"
                except engine.dialect.dbapi.ProgrammingError as error:  # type: ignore[union-attr]
                    outcome = "refused" if "in use" in str(error) else f"wrong: {error!r}"
                except BaseException as error:
                    outcome = f"wrong: {error!r}"
                with lock:
                    report.counts[outcome.partition(":")[0]] += 1
                    if outcome.startswith("wrong"):
                        report.problems.append(outcome)
                if outcome == "refused":
                    time.sleep(chance.uniform(0, 0.001))

        report.problems += run_all([partial(use, what) for what in ("read", "rollback", "read")], 300)
        with engine.begin() as fresh:
            report.require(fresh.scalar(text("SELECT count(*) FROM accounts")) == bank.ACCOUNTS, "rows lost")
        try:
            connection.close()
        except DBAPIError as error:
            report.problems.append(f"closing: {error!r}")
        engine.dispose()
    return report
