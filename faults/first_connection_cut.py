"""The connection is cut in the midst of a program's first use of a server, at many bytes.

Before the first statement there are AUTH and SELECT, then the schema is read, then come the statements and
COMMIT: all on a connection that is new, in a store that knows nothing yet. Each attempt has an engine of
its own. An error is allowed here, where `connection_cut` allows none: a connection that is cut as soon as
it was made is not made again. But the error must say that the connection was lost, tell no password, and be
true; and the engine must work when it is used again.
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import create_engine

from faults import ledger
from faults.connection_cut import places
from faults.databases import database, problems_of
from faults.ledger import ACKNOWLEDGED, UNKNOWN, Told, Writer
from faults.proxy import Proxy
from faults.registry import Report, fault

PASSWORD: Final = "the-secret"


@fault(stores=("redis",), times=1000, sample=20)
def first_connection_cut(store: str, times: int, seed: int) -> Report:
    """The connection is cut in the midst of a program's first use, AUTH and SELECT included."""
    report = Report()
    told: list[Told] = []
    with (
        database(store, password=PASSWORD, parameters={"db": "3"}) as made,
        Proxy(made.redis.port) as proxy,
    ):
        ledger.prepare(made.url, [0])
        url = proxy.through(made.url)
        _first_use(url, told, report)
        lengths = _lengths(url, told, proxy)
        cuts = (proxy.cut_question_after, proxy.cut_answer_after)
        for what, cut, length in zip(("up", "down"), cuts, lengths, strict=True):
            for after in places(length, times // 2, seed):
                cut(after)
                first = _first_use(url, told, report)
                proxy.disarm()
                report.counts[f"cut {what}: {first.outcome}"] += 1
                report.problems += [f"cut {what} after {after} bytes: {wrong}" for wrong in _unclear(first)]
            report.notes.append(f"a first use has {length} bytes {what}")
        report.counts["cut"] = proxy.cuts
        report.counts += ledger.counts_of(told)
        report.problems += ledger.differences(made.url, told)
        report.problems += problems_of(made.url)
    report.require(proxy.cuts > 0.9 * len(told) / 2 - 2, f"only {proxy.cuts} were cut")
    return report


def _first_use(url: str, told: list[Told], report: Report) -> Told:
    """Two transactions of a new engine; the second must go well, and the first is returned."""
    engine = create_engine(url)
    writer = Writer(engine, name=str(len(told)))
    first, second = writer.attempt(), writer.attempt()
    report.require(second.outcome == ACKNOWLEDGED, f"the engine did not recover: {second.error}")
    told += writer.told
    engine.dispose()
    engine.dialect.store.close()  # type: ignore[attr-defined]
    return first


def _lengths(url: str, told: list[Told], proxy: Proxy) -> tuple[int, int]:
    """How many bytes the first transaction of a new engine sends, and is sent."""
    up, down = proxy.upward, proxy.downward
    engine = create_engine(url)
    writer = Writer(engine, name=str(len(told)))
    writer.attempt()
    told += writer.told
    engine.dispose()
    engine.dialect.store.close()  # type: ignore[attr-defined]
    return proxy.upward - up, proxy.downward - down


def _unclear(first: Told) -> list[str]:
    wrong = []
    if first.outcome == UNKNOWN:
        wrong.append(f"the outcome was left open: {first.error}")
    if first.error and not re.search("connection was lost|cannot be reached", first.error):
        wrong.append(f"an error that does not say why: {first.error}")
    if PASSWORD in first.error:
        wrong.append("the error tells the password")
    return wrong
