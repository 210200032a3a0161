"""A fail-over to a replica, and a crash of a server that does not write its log at once: what they lose.

Redis acknowledges before its replica has heard of it, so a fail-over loses what the primary had not sent.
With `appendfsync everysec`, what it acknowledged is in the hands of the system (mostly at once, two seconds
later if the disk is slow), and on the disk a second later: the end of the server loses little or nothing,
the end of its machine, which cannot be tried here, up to two seconds. No client can mend that. What must
hold nevertheless, and is looked for:

    only the last      what is lost was acknowledged in the last moments before the crash, and of two
                       transactions the earlier is never lost alone: what is left is a state that there was
    never in part      rows, indexes, counts and tallies agree
    never twice        a COMMIT under way is done once, on the old server or on the new one
    no wrong answer    programs that were at work keep no snapshot, number or schema of the lost state

How much was lost is counted. The writers reach the servers through a proxy, which is turned to the new
primary as an address is that moves along.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from typing import Final

from faults import ledger
from faults.databases import database, problems_of
from faults.ledger import ACKNOWLEDGED, Told
from faults.proxy import Proxy
from faults.registry import Report, fault
from faults.server_refuses import said, until
from faults.writers import writing
from tests.servers import RedisServer

WRITERS: Final = 3
TIME_OUT: Final = 10.0
LAGGING: Final = 0.2
"""Seconds that the primary works on, cut off from its replica, before it dies; every other time."""
SETTLING: Final = 0.5
"""Seconds without an acknowledgement, after which all that the dead server had sent has been read. Only what
its successor says is later than the crash then, however slow the machine is."""
LAST_MOMENTS: Final = 3.0
"""Seconds before a crash in which something may be lost: everysec may take 2, and a busy machine some."""


@fault(stores=("redis",), times=20, sample=3)
def failover(store: str, times: int, seed: int) -> Report:
    """The primary dies, its replica is promoted: only the last writes are lost, none is torn or doubled."""
    report = Report()
    chance = random.Random(seed)
    crashes: list[float] = []
    with ExitStack() as stack:
        primary = stack.enter_context(RedisServer(appendonly=True))
        replica = stack.enter_context(RedisServer(appendonly=True))
        proxy = stack.enter_context(Proxy(primary.port))
        url = proxy.through(primary.url("faults"))
        ledger.prepare(url, range(WRITERS))
        with writing(url, WRITERS) as crew:
            for number in range(times):
                follow(replica, primary)
                report.require(crew.goes_on(TIME_OUT) is not None, "a writer has stopped")
                time.sleep(chance.uniform(0, 0.3))
                said(replica, "REPLICAOF", "NO", "ONE")
                if number % 2 == 0:
                    time.sleep(LAGGING)
                primary.kill()
                crew.be_quiet(SETTLING)
                crashes.append(time.monotonic())
                proxy.turn_to(replica.port)
                report.counts["fail-overs"] += 1
                primary, replica = replica, primary
                report.require(crew.goes_on(TIME_OUT) is not None, "a writer did not go on")
                replica.start()
        _judge(report, url, crew.told, crashes)
    report.require(report.counts["acknowledged and lost"] > 0, "nothing was lost: the replica was not behind")
    return report


@fault(stores=("redis",), times=30, sample=3)
def server_killed_everysec(store: str, times: int, seed: int) -> Report:
    """The server, with `appendfsync everysec`, is killed under load: only the last moments may be lost."""
    report = Report()
    chance = random.Random(seed)
    crashes: list[float] = []
    with database(store, settings={"appendfsync": "everysec"}) as made:
        ledger.prepare(made.url, range(WRITERS))
        with writing(made.url, WRITERS) as crew:
            for _ in range(times):
                time.sleep(chance.uniform(0.1, 0.5))
                made.redis.kill()
                crew.be_quiet(SETTLING)
                crashes.append(time.monotonic())
                made.redis.start()
                report.counts["crashes"] += 1
                report.require(crew.goes_on(TIME_OUT) is not None, "a writer did not go on")
        _judge(report, made.url, crew.told, crashes)
    return report


def follow(replica: RedisServer, primary: RedisServer) -> None:
    """Have one server follow the other, and wait until it has everything."""
    said(replica, "REPLICAOF", "127.0.0.1", str(primary.port))
    until(lambda: "master_link_status:up" in replica.command("INFO", "replication"), patience=30.0)


def _judge(report: Report, url: str, told: list[list[Told]], crashes: list[float]) -> None:
    """The ledger and the indexes must agree, but for writes of the last moments before a crash."""
    everything = [one for of_writer in told for one in of_writer]
    lost = ledger.lost(url, everything)
    report.counts += ledger.counts_of(everything)
    report.counts["acknowledged and lost"] = len(lost)
    report.notes += sorted({f"an error said: {one.error}" for one in everything if one.error})[:5]
    report.problems += ledger.differences(url, [one for one in everything if one.token not in lost])
    report.problems += problems_of(url)
    for crash, before in zip(crashes, [0.0, *crashes], strict=False):
        within = [one for one in everything if one.outcome == ACKNOWLEDGED and before < one.ended < crash]
        gone = [one for one in within if one.token in lost]
        first = min((one.ended for one in gone), default=crash)
        report.require(crash - first < LAST_MOMENTS, f"lost {crash - first:.1f} s before the crash")
        report.problems += [
            f"{one.token} is there, and what was acknowledged {one.began - first:.3f} s before it is lost"
            f" ({first - before:.3f} s after the crash before, {crash - first:.3f} s before this one)"
            for one in within
            if one.began > first and one.token not in lost
        ]
        lost -= {one.token for one in gone}
    report.problems += [f"{token} is lost, and there was no crash" for token in lost]
