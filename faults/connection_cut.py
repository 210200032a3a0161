"""The connection is cut after every single byte of a transaction's questions and answers.

A proxy stands between the program and Redis. A whole transaction is measured once: so many bytes up, so
many down. Then each attempt has its connection cut after the next byte of them, in one direction and
then in the other; the COMMIT and its reply are the last of them. Every third time the connection made in
its place is cut after as many bytes again. Whatever is cut, the program is told the truth: an
acknowledged transaction is there once, a failed one is not there. Since the server is well and can be
asked, no outcome may be left open, and one cut alone must not even be noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Engine, create_engine, select

from faults import ledger
from faults.databases import database, problems_of
from faults.ledger import ACKNOWLEDGED, UNKNOWN, Told, Writer
from faults.proxy import Proxy
from faults.registry import Report, fault

EVERY: Final = 100_000
"""More than a transaction has bytes: a cut at each of them."""
LAST: Final = 40
"""Bytes at the end of each direction that are always cut one by one; a reply of COMMIT has 22."""


@fault(stores=("redis",), times=EVERY, sample=120)
def connection_cut(store: str, times: int, seed: int) -> Report:
    """The connection is cut after each byte of a transaction, up and down: the truth is told."""
    report = Report()
    with database(store) as made, Proxy(made.redis.port) as proxy:
        ledger.prepare(made.url, [0])
        through, direct = create_engine(proxy.through(made.url)), create_engine(made.url)
        writer = Writer(through)
        for what, cut, length in _directions(proxy, writer):
            for after in places(length, times // 2, seed):
                cuts = proxy.cuts
                twice = after % 3 == 0
                cut(after, 2 if twice else 1)
                told = writer.attempt()
                proxy.disarm()
                how = f"cut {what}, {'twice' if proxy.cuts - cuts == 2 else 'once'}"
                where = f"{how}, after {after} of {length} bytes"
                report.counts["cut"] += proxy.cuts > cuts
                report.counts[f"{how}: {told.outcome}"] += 1
                report.problems += _untrue(direct, told, where)
                report.require(twice or told.outcome == ACKNOWLEDGED, f"{where}: noticed: {told.error}")
                if told.outcome != ACKNOWLEDGED:
                    recovered = writer.attempt()
                    report.require(recovered.outcome == ACKNOWLEDGED, f"{where}: not over: {recovered.error}")
                    report.counts["recoveries"] += 1
            report.notes.append(f"a transaction has {length} bytes {what}")
        report.counts += ledger.counts_of(writer.told)
        direct.dispose()
        through.dispose()
        report.problems += ledger.differences(made.url, writer.told)
        report.problems += problems_of(made.url)
    tried = report.counts["tried"] - report.counts["recoveries"]
    report.require(report.counts["cut"] > 0.9 * tried, f"only {report.counts['cut']} of {tried} were cut")
    return report


def _directions(proxy: Proxy, writer: Writer) -> list[tuple[str, Callable[[int, int], None], int]]:
    """Both directions: how to cut, and how many bytes a transaction has on a connection that is warm."""
    for _ in range(3):
        up, down = proxy.upward, proxy.downward
        writer.attempt()
        up, down = proxy.upward - up, proxy.downward - down
    return [("up", proxy.cut_question_after, up), ("down", proxy.cut_answer_after, down)]


def places(length: int, times: int, seed: int) -> list[int]:
    """Where to cut: everywhere, or, with fewer tries, the end byte by byte and the rest here and there."""
    if times >= length:
        return list(range(length))
    last = min(LAST, times // 2, length)
    step = (length - last) / (times - last)
    shift = seed % 97 / 97
    return [int((n + shift) * step) for n in range(times - last)] + list(range(length - last, length))


def _untrue(direct: Engine, told: Told, where: str) -> list[str]:
    """What is wrong with what the program was told, by way of another connection."""
    with direct.begin() as connection:
        found = connection.execute(
            select(ledger.orders.c.id).where(ledger.orders.c.token == told.token)
        ).all()
    if told.outcome == UNKNOWN:
        return [f"{where}: the outcome was left open: {told.error}"]
    if bool(found) != (told.outcome == ACKNOWLEDGED):
        return [f"{where}: {told.outcome} ({told.error}), and {len(found)} are there"]
    return []
