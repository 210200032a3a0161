"""Ten thousand transactions of every kind, and what they leave behind: nothing.

A turn is one of: a transaction of `faults.bank` (reads, writes, rollbacks, a broken unique key), two
transactions of which one must lose, a statement that fails, an engine that is made, used and disposed of, a
connection that is invalidated, a lock. (Not DDL: a table that was dropped leaves its two counters in the
store, and what is known of a thousand steps of DDL is remembered.) After a warm-up, which fills caches, what
the process and the server hold is counted; and again at half time and at the end:

    this process     file descriptors, threads, objects known to the garbage collector, memory (RSS)
    Redis            keys, client connections
    LMDB             slots of readers, files, the size of the one with the data

The rows that the turns write are deleted again before each count: what grows then is not data.
"""

from __future__ import annotations

import gc
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import redis
from sqlalchemy import Engine, create_engine, delete, select, text, update
from sqlalchemy.exc import DBAPIError

import rome
from faults import bank
from faults.databases import Made, database, problems_of
from faults.registry import Report, fault
from rome.dbapi import SERIALIZATION_FAILURE
from rome.sql.counters import KEYS

WARM_UP: Final = 100
"""Turns before the first count, at least; a tenth of them all otherwise."""
CLEANING: Final = 200
"""Turns after which the rows they wrote are deleted."""
OBJECTS: Final = 1500
"""What the garbage collector may know more of at the end: not one for each ten of the turns."""
SETTLING: Final = ("memory in bytes", "bytes of the file")
BYTES_PER_TURN: Final = 256
BYTES: Final = 8 << 20
"""By how much memory may grow at most: allocators keep some for themselves."""


@fault(stores=("memory", "lmdb", "redis"), times=10_000, sample=300)
def nothing_leaks(store: str, times: int, seed: int) -> Report:
    """Thousands of mixed transactions leave descriptors, memory, threads, keys and slots where they were."""
    report = Report()
    chance = random.Random(seed)
    with database(store) as made:
        engine = create_engine(made.url)
        bank.prepare(engine)
        turns = Turns(made.url, engine, chance, seed)
        warm_up = max(WARM_UP, times // 10)
        turns.run(warm_up)
        before = holdings(made, engine)
        turns.run(times // 2)
        half = holdings(made, engine)
        turns.run(times - times // 2)
        after = holdings(made, engine)
        report.counts += turns.counts
        report.problems += turns.problems
        for name in sorted(before):
            told = f"{name}: {before[name]} before, {half[name]} at half, {after[name]} after"
            report.notes.append(told)
            # Of memory and of the file, the second half counts: there is always something to settle.
            since = half if name in SETTLING else before
            report.require(after[name] <= since[name] + _allowed(name, times), told)
        engine.dispose()
        if store != "memory":
            report.problems += problems_of(made.url)
    return report


def _allowed(name: str, times: int) -> int:
    """How much more there may be at the end."""
    if name == "memory in bytes":
        return BYTES + BYTES_PER_TURN * times // 2
    if name == "bytes of the file":
        return 1 << 22
    # The thread that renews locks is there for a while after the last of them.
    return {"objects": OBJECTS, "threads": 1}.get(name, 0)


def holdings(made: Made, engine: Engine) -> dict[str, int]:
    """What this process and the server hold."""
    gc.collect()
    found = {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "objects": len(gc.get_objects()),
        "memory in bytes": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"),
    }
    if made.url.startswith("rome+lmdb"):
        found["files in the directory"] = len(os.listdir(urlsplit(made.url).path))
    if made.server is not None:
        found["keys at the server"] = int(made.redis.command("DBSIZE"))
        # The one that asks is a client as well.
        found["clients at the server"] = len(made.redis.command("CLIENT", "LIST").splitlines()) - 1
        elements = ("order", "counters", "leases")
        found["elements at the server"] = sum(_cardinality(made, name) for name in elements) - _told(made)
    health = rome.store_of(engine).health()
    if "snapshots" in health:
        found["slots of readers"] = int(health["snapshots"])
        found["bytes of the file"] = int(health["bytes"])
    if "entries" in health:
        found["entries"] = int(health["entries"])
    return found


def _cardinality(made: Made, name: str) -> int:
    key = f"rome:{{faults}}:{name}"
    kind = made.redis.command("TYPE", key)
    asked = {"zset": "ZCARD", "hash": "HLEN", "none": None}[kind]
    return int(made.redis.command(asked, key)) if asked else 0


def _told(made: Made) -> int:
    """How many of the operator's counters are there: each comes with the first that it has to count."""
    with redis.Redis(port=made.redis.port) as client:
        return sum(bool(client.hexists("rome:{faults}:counters", key)) for key in KEYS.values())


class Turns:
    """Makes turns of all kinds."""

    def __init__(self, url: str, engine: Engine, chance: random.Random, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self._url = url
        self._engine = engine
        self._chance = chance
        self._worker = bank.Worker(engine, "worker", seed, ddl=False)
        self._kinds: dict[str, Callable[[], None]] = {
            "lost races": self._race,
            "failed statements": self._failure,
            "engines made and disposed of": self._other_engine,
            "connections invalidated": self._invalidate,
            "locks": self._lock,
        }

    def run(self, times: int) -> None:
        for number in range(times):
            if self._chance.random() < 0.6:
                self._worker.one()
            else:
                name = self._chance.choice(list(self._kinds))
                self._kinds[name]()
                self.counts[name] += 1
            if number % CLEANING == CLEANING - 1:
                self._clean()
        self._clean()
        self.counts["transactions of the bank"] += self._worker.done.counts["transactions"]
        self.problems += self._worker.done.problems
        self._worker.done.counts.clear()
        self._worker.done.problems.clear()

    def _clean(self) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(bank.entries))
        self._worker.done.numbers.clear()

    def _race(self) -> None:
        """Two read a row and write what they read, plus one: the second has to be refused."""
        with self._engine.connect() as one, self._engine.connect() as two:
            balance = select(bank.accounts.c.balance).where(bank.accounts.c.id == 0)
            seen = one.scalar(balance), two.scalar(balance)
            account = update(bank.accounts).where(bank.accounts.c.id == 0)
            one.execute(account.values(balance=(seen[0] or 0) + 1))
            one.execute(update(bank.accounts).where(bank.accounts.c.id == 1).values(balance=_less_one()))
            one.commit()
            try:
                two.execute(account.values(balance=(seen[1] or 0) + 1))
                two.commit()
            except DBAPIError as error:
                if SERIALIZATION_FAILURE not in str(error):
                    raise
            else:
                self.problems.append("a lost update")

    def _failure(self) -> None:
        with self._engine.connect() as connection:
            for wrong in ("SELECT * FROM nowhere", "INSERT INTO accounts VALUES (1, NULL)", "SELEC"):
                try:
                    connection.execute(text(wrong))
                except DBAPIError:
                    continue
                self.problems.append(f"not refused: {wrong}")

    def _other_engine(self) -> None:
        engine = create_engine(self._url)
        with engine.connect() as connection:
            if connection.scalar(select(bank.accounts.c.balance).where(bank.accounts.c.id == 2)) is None:
                self.problems.append("another engine does not find an account")
        engine.dispose()

    def _invalidate(self) -> None:
        with self._engine.connect() as connection:
            connection.execute(select(bank.accounts)).all()
            connection.execute(update(bank.accounts).values(balance=0))
            connection.invalidate()

    def _lock(self) -> None:
        with rome.lock(self._engine, f"lock-{self._chance.randrange(5)}", ttl=30):
            pass


def _less_one() -> object:
    return bank.accounts.c.balance - 1
