"""Forks of a process that has used its engine: what the children inherit, and must not share.

A generation is eight children of a parent whose engine is in use: connections lie in the pool, one is checked
out and in the midst of a transaction, numbers for new rows are held in reserve, and in every other
generation threads of the parent are inside of statements while it forks. The children go on with the
engine they inherited, and so does the parent, at the same time and afterwards. If two processes used one
socket, or one reserve of numbers, there would be wrong answers, or numbers given twice.

A memory database is copied by a fork: there each process is judged on its own.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import Engine, create_engine, select, text

import rome
from faults import bank
from faults.children import answer_of, forked
from faults.databases import database, problems_of
from faults.registry import Report, fault

CHILDREN: Final = 8
METHODS: Final = ("fork", "spawn", "forkserver")
PATIENCE: Final = 120.0
TRANSACTIONS: Final = 5
"""Of each child, and of each thread of the parent."""


class Came(NamedTuple):
    """What a child reports."""

    done: bank.Done
    random: str
    problems: list[str]


@fault(stores=("memory", "lmdb", "redis"), times=25, sample=2)
def fork_after_use(store: str, times: int, seed: int) -> Report:
    """Eight children at once go on with the engine of their parent, as it does: every answer is judged."""
    report = Report()
    own = store == "memory"
    with database(store) as made:
        engine = create_engine(made.url, pool_size=4, max_overflow=20)
        bank.prepare(engine)
        parent = bank.Worker(engine, "parent", seed)
        threads = [bank.Worker(engine, f"thread-{n}", seed, ddl=False) for n in range(3)]
        all_done = [parent.done, *(worker.done for worker in threads)]
        drawn: Counter[str] = Counter()
        for generation in range(times):
            parent.run(2)
            with engine.connect() as held:
                before = held.execute(select(bank.accounts)).all()
                running = [threading.Thread(target=worker.run, args=(TRANSACTIONS,)) for worker in threads]
                for thread in running if generation % 2 else ():
                    thread.start()
                children = [
                    forked(partial(_child, engine, f"child-{generation}-{n}", seed, held))
                    for n in range(CHILDREN)
                ]
                parent.run(TRANSACTIONS)
                answers: list[Came | None] = [answer_of(child, PATIENCE, report) for child in children]
                for came in answers:
                    if came is None:
                        continue
                    report.problems += came.problems
                    report.counts += came.done.counts
                    drawn[came.random] += 1
                    if not own:
                        all_done.append(came.done)
                for thread in running if generation % 2 else ():
                    thread.join(PATIENCE)
                    report.require(not thread.is_alive(), "a thread of the parent hangs")
                after = held.execute(select(bank.accounts)).all()
                report.require(after == before, "the parent's transaction has lost its snapshot")
            report.counts["children"] += CHILDREN
        twice = [value for value, number in drawn.items() if number > 1]
        report.require(not twice, f"children drew the same random numbers: {twice}")
        parent.run(TRANSACTIONS)
        for done in all_done[: 1 + len(threads)]:
            report.counts += done.counts
            report.problems += done.problems
        report.problems += bank.differences(engine, all_done)
        engine.dispose()
        if not own:
            report.problems += problems_of(made.url)
    return report


def _child(engine: Engine, name: str, seed: int, inherited: Any) -> Came:
    """What a child does: it works with the engine, and ends a transaction that is its parent's."""
    problems = []
    worker = bank.Worker(engine, name, seed, ddl=False)
    worker.run(TRANSACTIONS)
    with engine.connect() as connection:
        drawn = connection.scalar(text("SELECT hex(randomblob(16))"))
    # The parent's transaction was copied; a child that rolls its copy back takes nothing from the parent.
    inherited.rollback()
    committed = rome.counters_of(engine).commits
    if committed > 3 * TRANSACTIONS + 3:
        problems.append(f"{name} counts {committed} commits: its parent's as well")
    problems += worker.done.problems
    return Came(worker.done, str(drawn), problems)


@fault(stores=("lmdb", "redis"), times=6, sample=1)
def pools_of_processes(store: str, times: int, seed: int) -> Report:
    """multiprocessing's pools, by fork, forkserver and spawn, in a process that has used its engine."""
    report = Report()
    with database(store) as made:
        engine = create_engine(made.url)
        bank.prepare(engine)
        parent = bank.Worker(engine, "parent", seed)
        all_done = [parent.done]
        for turn in range(times):
            # A sample has one of the methods: new interpreters are slow to start.
            for method in METHODS if times > 1 else (METHODS[seed % len(METHODS)],):
                parent.run(2)
                context = multiprocessing.get_context(method)
                with ProcessPoolExecutor(4, mp_context=context) as pool:
                    names = [f"{method}-{turn}-{n}" for n in range(4)]
                    futures = [pool.submit(_in_pool, made.url, name, seed) for name in names]
                    parent.run(2)
                    all_done += [future.result(PATIENCE) for future in futures]
                report.counts[f"processes by {method}"] += 4
        for done in all_done:
            report.counts += done.counts
            report.problems += done.problems
        report.problems += bank.differences(engine, all_done)
        engine.dispose()
        report.problems += problems_of(made.url)
    return report


def _in_pool(url: str, name: str, seed: int) -> bank.Done:
    engine = create_engine(url)
    try:
        return bank.Worker(engine, name, seed, ddl=False).run(TRANSACTIONS)
    finally:
        engine.dispose()
