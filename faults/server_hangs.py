"""The Redis server hangs: SIGSTOP, and some time later SIGCONT.

Connections to it are made by the system, and nothing is answered: only the time-out can tell. A hang that
is shorter than the time-out must not be noticed. During a longer one every attempt must end with an error
that says so, no later than the time-outs allow; a COMMIT that was under way may then be left open, which the
error says. When the server goes on, so do the same processes, with the same engines.
"""

from __future__ import annotations

import random
import time
from typing import Final

from faults import ledger
from faults.databases import database, problems_of
from faults.ledger import Told
from faults.registry import Report, fault
from faults.writers import writing

WRITERS: Final = 3
TIME_OUT: Final = 2.0
"""Seconds to connect, and to wait for an answer."""
SHORT: Final = 0.4
SLACK: Final = 2.0
"""Seconds that a busy machine may add."""


@fault(stores=("redis",), times=16, sample=2)
def server_hangs(store: str, times: int, seed: int) -> Report:
    """The Redis server hangs (SIGSTOP): a clear error within the time-out, and work goes on after SIGCONT."""
    report = Report()
    chance = random.Random(seed)
    parameters = {"connect_timeout": str(TIME_OUT), "read_timeout": str(TIME_OUT)}
    long_hangs: list[tuple[float, float]] = []
    slowest = 0.0
    with database(store, parameters=parameters) as made:
        ledger.prepare(made.url, range(WRITERS))
        with writing(made.url, WRITERS) as crew:
            for number in range(times):
                time.sleep(chance.uniform(0.2, 0.4))
                is_long = number % 2 == 0
                began = time.monotonic()
                made.redis.pause()
                time.sleep(chance.uniform(1.5, 2.0) * TIME_OUT if is_long else chance.uniform(0.1, SHORT))
                made.redis.resume()
                report.counts["long hangs" if is_long else "short hangs"] += 1
                seconds = crew.goes_on(2 * TIME_OUT + SLACK)
                if report.require(seconds is not None, "a writer did not go on after SIGCONT"):
                    slowest = max(slowest, seconds or 0.0)
                if is_long:
                    long_hangs.append((began, time.monotonic()))
        report.counts += ledger.counts_of(crew.all_told)
        for told in crew.all_told:
            report.problems += _unclear(told, long_hangs)
        report.problems += ledger.differences(made.url, crew.all_told)
        report.problems += problems_of(made.url)
    failed = [told for told in crew.all_told if told.error]
    report.require(len(failed) >= len(long_hangs), f"{len(failed)} errors in {len(long_hangs)} long hangs")
    report.notes.append(f"all writers were at work again {slowest:.2f} s after SIGCONT at the latest")
    report.notes.append(f"the longest transaction took {max(told.seconds for told in crew.all_told):.2f} s")
    return report


def _unclear(told: Told, long_hangs: list[tuple[float, float]]) -> list[str]:
    """What is wrong with how an attempt ended."""
    wrong = []
    if told.seconds > 2 * TIME_OUT + SLACK:
        wrong.append(f"{told.token} took {told.seconds:.1f} s")
    if told.error:
        if "within the time-out" not in told.error or not told.disconnected:
            wrong.append(f"{told.token} failed without saying why: {told.error}")
        if not any(told.began < end and told.ended > begin for begin, end in long_hangs):
            wrong.append(f"{told.token} failed in a short hang: {told.error}")
    return wrong
