"""The program that `faults.greenlets` runs, in a process where all was patched before this is imported.

Fifty greenlets work on one engine, five of them with DDL, while others are killed: in the midst of
statements that would leave the database wrong, and around COMMIT, of which all or nothing must be left. With
oslo.db, ten more work as nova does: through the enginefacade, and run again for DBDeadlock by its decorator.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sqlalchemy import create_engine, insert, update

from faults import bank

GREENLETS: Final = 50
WITH_DDL: Final = 5
OF_NOVA: Final = 10
RETRIES: Final = 100

Spawn = Callable[..., Any]


def main(library: str, arguments: list[str]) -> None:
    """Run the greenlets, and print what came of it as JSON."""
    url, times, chance, facade = arguments[0], int(arguments[1]), random.Random(arguments[2]), arguments[3]
    spawn, kill = _library(library)
    if facade == "1":
        manager = _enginefacade(url)
        engine = manager.writer.get_engine()
    else:
        engine = create_engine(url, pool_size=GREENLETS, max_overflow=20)
    bank.prepare(engine)
    ticking = Ticking()
    ticker = spawn(ticking.run)
    workers = [bank.Worker(engine, f"greenlet-{n}", n, ddl=n < WITH_DDL) for n in range(GREENLETS)]
    tasks: list[Callable[[], object]] = [partial(worker.run, times) for worker in workers]
    problems: list[str] = []
    if facade == "1":
        tasks += [partial(_as_nova, manager, times, n, problems) for n in range(OF_NOVA)]
    ended: list[None] = []
    for task in tasks:
        spawn(_then, task, ended)
    killed = sum(_kill_one(engine, spawn, kill, chance, number) for number in range(times * 3))
    while len(ended) < len(tasks):
        time.sleep(0.01)
    kill(ticker)
    time.sleep(0.1)
    problems += [problem for worker in workers for problem in worker.done.problems]
    problems += bank.differences(engine, [worker.done for worker in workers])
    # With oslo.db a greenlet can be killed in a listener of the pool (it yields when a connection is
    # returned), and SQLAlchemy loses count; so it is on sqlite.
    if facade != "1" and engine.pool.checkedout():
        problems.append(f"{engine.pool.checkedout()} connections were never returned")
    counts: Counter[str] = Counter({"greenlets killed in a transaction": killed})
    for worker in workers:
        counts += worker.done.counts
    if facade == "1":
        counts["transactions through the enginefacade"] = OF_NOVA * times
    print(json.dumps({"counts": counts, "problems": problems, "gap": ticking.longest}), flush=True)
    os._exit(0)


def _then(task: Callable[[], object], ended: list[None]) -> None:
    try:
        task()
    finally:
        ended.append(None)


class Ticking:
    """Notices how long nobody had a turn."""

    def __init__(self) -> None:
        self.longest = 0.0

    def run(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(0.005)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now


def _library(library: str) -> tuple[Spawn, Callable[[Any], None]]:
    """How to begin and to kill a greenlet; and a look whether all is patched."""
    if library == "eventlet":
        import eventlet
        from eventlet import patcher

        assert patcher.is_monkey_patched("thread")
        assert patcher.is_monkey_patched("socket")
        return eventlet.spawn, eventlet.kill
    import gevent
    from gevent import monkey

    assert monkey.is_module_patched("threading")
    assert monkey.is_module_patched("socket")
    return gevent.spawn, lambda greenlet: greenlet.kill(block=False)


def _kill_one(engine: Any, spawn: Spawn, kill: Callable[[Any], None], chance: random.Random, n: int) -> int:
    """Let a greenlet begin a transaction, and kill it at some moment; returns 1 if it was still at it."""
    done: list[None] = []
    victim = spawn(_ruin if n % 2 else _commit_in_doubt, engine, n, done)
    time.sleep(chance.uniform(0, 0.03))
    kill(victim)
    time.sleep(0)
    return not done


def _ruin(engine: Any, number: int, done: list[None]) -> None:
    with engine.connect() as connection:
        connection.execute(update(bank.accounts).values(balance=0))
        for n in range(50):
            row = {"worker": f"killed-{number}", "n": n, "kind": bank.NEVER}
            connection.execute(insert(bank.entries).values(row))
            time.sleep(0.001)
        time.sleep(60)
        done.append(None)


def _commit_in_doubt(engine: Any, number: int, done: list[None]) -> None:
    with engine.begin() as connection:
        bank.doubtful(connection, number)
    done.append(None)


# oslo.db


def _enginefacade(url: str) -> Any:
    """What a service's configuration makes: an engine with oslo.db's filters, listeners and pool."""
    from oslo_db.sqlalchemy import enginefacade

    manager = enginefacade.transaction_context()
    manager.configure(connection=url, max_pool_size=GREENLETS, max_overflow=20)
    return manager


def _as_nova(manager: Any, times: int, number: int, problems: list[str]) -> None:
    """Transactions as nova.db has them: a session from the facade, and a decorator that runs them again."""
    from oslo_db.api import wrap_db_retry
    from oslo_db.sqlalchemy import enginefacade

    @enginefacade.transaction_context_provider
    class Context:
        """A request's."""

    @wrap_db_retry(max_retries=RETRIES, retry_interval=0, retry_on_deadlock=True)  # type: ignore[untyped-decorator]
    def move(context: Any, source: int, target: int) -> None:
        with manager.writer.using(context) as session:
            for account, change in ((source, -1), (target, 1)):
                query = session.query(bank.accounts.c.balance).filter(bank.accounts.c.id == account)
                balance = query.with_for_update().scalar()
                moved = update(bank.accounts).where(bank.accounts.c.id == account)
                session.execute(moved.values(balance=balance + change))

    @wrap_db_retry(max_retries=RETRIES, retry_interval=0, retry_on_deadlock=True)  # type: ignore[untyped-decorator]
    def total(context: Any) -> Any:
        with manager.reader.using(context) as session:
            return sum(balance for (balance,) in session.query(bank.accounts.c.balance))

    for turn in range(times):
        context = Context()
        try:
            move(context, (number + turn) % bank.ACCOUNTS, (number + 7 * turn + 1) % bank.ACCOUNTS)
            if (found := total(context)) != bank.TOTAL:
                problems.append(f"through the enginefacade the sum is {found}")
        except Exception as error:
            problems.append(f"through the enginefacade: {error!r}")
        time.sleep(0)
