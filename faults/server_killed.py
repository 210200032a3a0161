"""The Redis server is killed and started again under load.

`server_killed` kills it (SIGKILL) at random instants while four processes write. Nothing acknowledged may
be lost. What was under way is asked again; a COMMIT is resolved by its identity, whether it happened
before the end of the server or not. A server that is back within the time-out has not been missed: no
writer may be told of an error.

`commit_resolved_after_restart` aims at the worst moment: the server is killed and started again after
it has made a commit durable and before its answer has reached the client (or, every other time, just
before the commit has reached the server). The client must find out by itself which of the two it was, from
what the *restarted* server remembers.
"""

from __future__ import annotations

import random
import time
from functools import partial
from typing import Final

from sqlalchemy import create_engine, func, select

from faults import ledger
from faults.databases import database, problems_of
from faults.ledger import ACKNOWLEDGED, Writer
from faults.proxy import Proxy
from faults.registry import Report, fault
from faults.writers import writing

WRITERS: Final = 4
TIME_OUT: Final = 10.0
"""Seconds to wait for an answer (the default), and for a server that was there to come back."""


@fault(stores=("redis",), times=50, sample=3)
def server_killed(store: str, times: int, seed: int) -> Report:
    """The Redis server is killed (SIGKILL) and restarted under load: nothing lost, nothing doubled."""
    report = Report()
    chance = random.Random(seed)
    slowest = 0.0
    with database(store, parameters={"connect_timeout": str(TIME_OUT)}) as made:
        ledger.prepare(made.url, range(WRITERS))
        with writing(made.url, WRITERS) as crew:
            report.require(crew.goes_on(TIME_OUT) is not None, "the writers did not begin")
            for _ in range(times):
                time.sleep(chance.uniform(0.05, 0.4))
                if chance.random() < 0.3:
                    made.redis.command("BGREWRITEAOF")
                    report.counts["killed while it rewrites its file"] += 1
                made.redis.kill()
                time.sleep(chance.choice([0.0, chance.uniform(0, 0.5)]))
                made.redis.start()
                report.counts["restarts"] += 1
                seconds = crew.goes_on(TIME_OUT)
                if report.require(seconds is not None, f"a writer was not back within {TIME_OUT:g} s"):
                    slowest = max(slowest, seconds or 0.0)
        report.counts += ledger.counts_of(crew.all_told)
        report.problems += [f"{one.token}: {one.error}" for one in crew.all_told if one.error]
        report.problems += ledger.differences(made.url, crew.all_told)
        report.problems += problems_of(made.url)
    report.notes.append(f"all writers were at work again {slowest:.2f} s after a start at the latest")
    longest = max(one.seconds for one in crew.all_told)
    report.require(longest < TIME_OUT, f"a transaction took {longest:.1f} s")
    return report


@fault(stores=("redis",), times=50, sample=4)
def commit_resolved_after_restart(store: str, times: int, seed: int) -> Report:
    """The server dies between a durable commit and its answer: its successor tells the client the truth."""
    report = Report()
    with database(store) as made, Proxy(made.redis.port) as proxy:
        ledger.prepare(made.url, [0])
        engine, direct = create_engine(proxy.through(made.url)), create_engine(made.url)
        writer = Writer(engine)
        report.require(writer.attempt().outcome == ACKNOWLEDGED, "the proxy does not work")

        def restart(token: str) -> None:
            with direct.begin() as connection:
                there = connection.scalar(select(func.count()).where(ledger.orders.c.token == token))
            report.counts["restarted after COMMIT" if there else "restarted before COMMIT"] += 1
            made.redis.kill()
            made.redis.start()

        for number in range(times):
            arm = proxy.hold_answer if number % 2 == 0 else proxy.hold_question
            told = writer.attempt(lambda token, arm=arm: arm(partial(restart, token)))  # type: ignore[misc]
            proxy.disarm()
            report.require(told.outcome == ACKNOWLEDGED, f"{told.token}: {told.outcome}: {told.error}")
        after, before = report.counts["restarted after COMMIT"], report.counts["restarted before COMMIT"]
        report.require(after == before + times % 2, f"{after} restarts after COMMIT, and {before} before")
        report.require(proxy.cuts == times, f"the proxy has cut {proxy.cuts} times, not {times}")
        report.counts += ledger.counts_of(writer.told)
        engine.dispose()
        direct.dispose()
        report.problems += ledger.differences(made.url, writer.told)
        report.problems += problems_of(made.url)
    return report
