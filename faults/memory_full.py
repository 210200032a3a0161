"""The Redis server's memory is full: maxmemory is reached, and the policy is noeviction.

Each round leaves the server a little memory, at random, and has rows of random size written until it is
used up. That happens in any of a transaction's commands. The error must say so and leave nothing open, and
nothing of the transaction may be there; reads go on, and so does DELETE, which is how a program makes
room by itself. With more memory the same engine writes again.
"""

from __future__ import annotations

import random
import re
from typing import Final

from sqlalchemy import create_engine, delete, insert

from faults import ledger
from faults.databases import database, problems_of
from faults.ledger import ACKNOWLEDGED, Writer
from faults.registry import Report, fault
from faults.server_refuses import read_error, setting, wrong_refusal
from tests.servers import RedisServer

LEFT: Final = 400_000
"""Bytes that the server may still take, at most."""
GREATEST: Final = 60_000
"""Bytes of a row, at most."""
SPARE: Final = 1000
"""Tallies from this number on belong to no writer: they are there to be deleted."""
MOST: Final = 400
"""Transactions that are enough to use that up."""


@fault(stores=("redis",), times=20, sample=3)
def memory_full(store: str, times: int, seed: int) -> Report:
    """The server's memory is full (maxmemory, noeviction): clear error, while reads and DELETE go on."""
    report = Report()
    chance = random.Random(seed)
    with database(store) as made:
        ledger.prepare(made.url, [0])
        engine = create_engine(made.url)
        writer = Writer(engine)
        for number in range(times):
            spare = SPARE + number
            with engine.begin() as connection:
                connection.execute(insert(ledger.tallies), {"writer": spare, "n": 0})
            setting(made.redis, "maxmemory", str(_used(made.redis) + chance.randrange(LEFT)))
            report.counts["filled"] += 1
            for _ in range(MOST):
                writer.padding = "x" * chance.randrange(GREATEST)
                if writer.attempt().outcome != ACKNOWLEDGED:
                    break
            report.problems += wrong_refusal(writer.told[-1], "out of memory")
            report.require(not (error := read_error(engine)), f"a read meanwhile: {error}")
            with engine.begin() as connection:
                gone = connection.execute(delete(ledger.tallies).where(ledger.tallies.c.writer == spare))
                report.require(gone.rowcount == 1, "a DELETE meanwhile found nothing to delete")
            report.counts["reads and deletes meanwhile"] += 1
            setting(made.redis, "maxmemory", "0")
            told = writer.attempt()
            report.require(told.outcome == ACKNOWLEDGED, f"there is memory again, and still: {told.error}")
        report.counts += ledger.counts_of(writer.told)
        report.problems += ledger.differences(made.url, writer.told)
        engine.dispose()
        report.problems += problems_of(made.url)
    report.notes += sorted({f"the error says: {one.error}" for one in writer.told if one.error})
    return report


def _used(server: RedisServer) -> int:
    found = re.search(r"used_memory:(\d+)", server.command("INFO", "memory"))
    assert found is not None
    return int(found[1])
