"""Work whose every answer can be judged: what threads, greenlets and forked processes do at once.

    accounts    money is moved between them; their sum never changes
    entries     numbered by the store (autoincrement); (worker, n) is unique

A `Worker` runs transactions of seven kinds at random: moving money, reading everything twice, bulk
inserts, a unique key broken on purpose, savepoints, rollbacks, and DDL on a table of its own. Each answer is
compared with what must hold whatever the others do: a snapshot is consistent, a transaction sees its
own writes and nobody's unfinished ones, what was rolled back is never seen. What it was told is kept in
`Done`, from which `differences` says at the end what must be there, row for row.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    func,
    insert,
    inspect,
    select,
    update,
)

from rome.dbapi import SERIALIZATION_FAILURE

ACCOUNTS: Final = 50
TOTAL: Final = ACCOUNTS * 100
BULK: Final = 20
NEVER: Final = "never"
"""The kind of entries that are rolled back."""
DOUBTFUL: Final = "doubtful"
"""What the names of workers begin with that never learnt what became of their one transaction."""
PIECES: Final = 3
"""The entries of such a transaction: all of them are there, or none."""

metadata = MetaData()
accounts = Table(
    "accounts", metadata, Column("id", Integer, primary_key=True), Column("balance", Integer, nullable=False)
)
entries = Table(
    "entries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("worker", String(30), nullable=False),
    Column("n", Integer, nullable=False),
    Column("kind", String(20), nullable=False, index=True),
    UniqueConstraint("worker", "n"),
)


class Wrong(Exception):
    """An answer that must not be."""


@dataclass(slots=True)
class Done:
    """What one worker has done, as far as it was told. Can be sent between processes."""

    worker: str
    counts: Counter[str] = field(default_factory=Counter)
    numbers: dict[int, int] = field(default_factory=dict)
    """n → the id that the store gave; the entries of committed transactions."""
    problems: list[str] = field(default_factory=list)


def prepare(engine: Engine) -> None:
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(accounts), [{"id": n, "balance": 100} for n in range(ACCOUNTS)])


class Worker:
    """Makes transactions one after the other, and judges what it sees."""

    def __init__(self, engine: Engine, name: str, seed: int, ddl: bool = True) -> None:
        self.done = Done(name)
        self._engine = engine
        self._chance = random.Random(f"{seed} {name}")
        self._next = 0
        kinds = [self._move, self._move, self._move, self._audit, self._audit, self._bulk]
        kinds += [self._duplicate, self._savepoint, self._undone]
        self._kinds: list[Callable[[], None]] = [*kinds, self._scratch] if ddl else kinds

    def run(self, transactions: int) -> Done:
        for _ in range(transactions):
            self.one()
            time.sleep(0)  # greenlets have their turn, as they have in any program that does more than this
        return self.done

    def one(self) -> None:
        """One transaction; a lost race is run again, as any program does."""
        act = self._chance.choice(self._kinds)
        while True:
            try:
                act()
            except Exception as error:
                if SERIALIZATION_FAILURE in str(error):  # oslo.db has its own class for it
                    self.done.counts["lost races run again"] += 1
                    continue
                self.done.problems.append(f"{self.done.worker}: {act.__name__}: {error!r}")
            else:
                self.done.counts["transactions"] += 1
            return

    def _entry(self, connection: Connection, kind: str) -> tuple[int, int]:
        n, self._next = self._next, self._next + 1
        row = {"worker": self.done.worker, "n": n, "kind": kind}
        inserted = connection.execute(insert(entries).values(row)).inserted_primary_key
        assert inserted is not None
        found = connection.execute(select(entries.c.worker, entries.c.n).where(entries.c.id == inserted[0]))
        _same("its own entry", found.one(), (self.done.worker, n))
        return n, inserted[0]

    def _move(self) -> None:
        source, target = self._chance.sample(range(ACCOUNTS), 2)
        amount = self._chance.randrange(1, 10)
        with self._engine.begin() as connection:
            before = _balances(connection, source, target)
            for account, change in ((source, -amount), (target, amount)):
                moved = update(accounts).where(accounts.c.id == account)
                changed = connection.execute(moved.values(balance=accounts.c.balance + change)).rowcount
                _same("rows of one account", changed, 1)
            n, number = self._entry(connection, "move")
            after = _balances(connection, source, target)
            _same("source", after[source], before[source] - amount)
            _same("target", after[target], before[target] + amount)
        self.done.numbers[n] = number

    def _audit(self) -> None:
        with self._engine.connect() as connection:
            first = _balances(connection), connection.execute(select(entries).order_by(entries.c.id)).all()
            _same("the sum", sum(first[0].values()), TOTAL)
            _same("the sum by SQL", connection.scalar(select(func.sum(accounts.c.balance))), TOTAL)
            _same("undone entries", [row for row in first[1] if row.kind == NEVER], [])
            mine = {row.n: row.id for row in first[1] if row.worker == self.done.worker}
            _same("its own entries", mine, self.done.numbers)
            second = _balances(connection), connection.execute(select(entries).order_by(entries.c.id)).all()
            _same("the same question again", second, first)

    def _bulk(self) -> None:
        first, self._next = self._next, self._next + BULK
        rows = [{"worker": self.done.worker, "n": first + i, "kind": "bulk"} for i in range(BULK)]
        with self._engine.begin() as connection:
            connection.execute(insert(entries), rows)
            mine = select(entries.c.n, entries.c.id).where(entries.c.worker == self.done.worker)
            given = {row.n: row.id for row in connection.execute(mine.where(entries.c.n >= first))}
            _same("rows in bulk", len(given), BULK)
        self.done.numbers |= given

    def _duplicate(self) -> None:
        with self._engine.connect() as connection:
            n, _ = self._entry(connection, NEVER)
            row = {"worker": self.done.worker, "n": n, "kind": NEVER}
            try:
                connection.execute(insert(entries).values(row))
            except Exception as error:
                if "UNIQUE constraint failed" not in str(error):
                    raise
                connection.rollback()
                return
            raise Wrong("a unique key was given twice")

    def _savepoint(self) -> None:
        with self._engine.begin() as connection:
            n, number = self._entry(connection, "savepoint")
            inner = connection.begin_nested()
            self._entry(connection, NEVER)
            connection.execute(update(accounts).values(balance=0))
            inner.rollback()
            _same("the sum after ROLLBACK TO", sum(_balances(connection).values()), TOTAL)
        self.done.numbers[n] = number

    def _undone(self) -> None:
        with self._engine.connect() as connection:
            connection.execute(update(accounts).values(balance=-1))
            self._entry(connection, NEVER)
            _same("its own writes", set(_balances(connection).values()), {-1})
            if self._chance.random() < 0.5:
                connection.rollback()

    def _scratch(self) -> None:
        """CREATE, fill, read and DROP a table of its own; half the time all in one transaction."""
        table = Table(
            f"scratch_{self.done.worker}".replace("-", "_"),
            MetaData(),
            Column("id", Integer, primary_key=True),
            Column("word", String(20), index=True),
        )
        together = self._chance.random() < 0.5
        with self._engine.connect() as connection:
            table.create(connection, checkfirst=True)  # it is there if DROP lost a race
            if not together:
                connection.commit()
            words = [f"w{i}" for i in range(5)]
            connection.execute(insert(table), [{"word": word} for word in words])
            found = select(table.c.word).where(table.c.word >= "w2").order_by(table.c.word)
            _same("words", sorted(set(connection.execute(found).scalars())), words[2:])
            table.drop(connection)
            connection.commit()


def _balances(connection: Connection, *some: int) -> dict[int, int]:
    wanted = select(accounts).where(accounts.c.id.in_(some)) if some else select(accounts)
    return {row.id: row.balance for row in connection.execute(wanted)}


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise Wrong(f"{what}: {found!r}, and not {expected!r}")


def doubtful(connection: Connection, number: int) -> None:
    """The statements of a transaction that something is going to happen to."""
    source, target = number % ACCOUNTS, (number + 1) % ACCOUNTS
    for account, change in ((source, -1), (target, 1)):
        moved = update(accounts).where(accounts.c.id == account)
        connection.execute(moved.values(balance=accounts.c.balance + change))
    for n in range(PIECES):
        row = {"worker": f"{DOUBTFUL}-{number}", "n": n, "kind": DOUBTFUL}
        connection.execute(insert(entries).values(row))


def differences(engine: Engine, all_done: Iterable[Done]) -> list[str]:
    """Everything that is not as the workers were told; empty if nothing is wrong."""
    wrong: list[str] = []
    with engine.connect() as connection:
        found = connection.execute(select(entries)).all()
        total = sum(_balances(connection).values())
    if total != TOTAL:
        wrong.append(f"the sum of all accounts is {total}, and not {TOTAL}")
    there = {(row.worker, row.n): row.id for row in found if not row.worker.startswith(DOUBTFUL)}
    pieces = Counter(row.worker for row in found if row.worker.startswith(DOUBTFUL))
    wrong += [f"{worker} left {n} of {PIECES} entries" for worker, n in pieces.items() if n != PIECES]
    told = {(done.worker, n): number for done in all_done for n, number in done.numbers.items()}
    wrong += [f"entry {key} was acknowledged and is lost" for key in told.keys() - there.keys()]
    wrong += [f"entry {key} was never acknowledged and is there" for key in there.keys() - told.keys()]
    wrong += [
        f"entry {key} has number {there[key]}, and was told {told[key]}"
        for key in told.keys() & there.keys()
        if told[key] != there[key]
    ]
    numbers = Counter(row.id for row in found)
    wrong += [f"number {number} was given {times} times" for number, times in numbers.items() if times > 1]
    left = [name for name in inspect(engine).get_table_names() if name not in metadata.tables]
    dropped_late = {f"scratch_{done.worker}".replace("-", "_") for done in all_done}
    wrong += [f"table {name} was left behind" for name in left if name not in dropped_late]
    return wrong
