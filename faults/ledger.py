"""What writers were told, and what must therefore be found: the bookkeeping of all faults.

One transaction, named by a token, writes to three tables with secondary and unique indexes:

    orders    a new row with the token (unique); the writer's order before it changes from "new" to "old"
    lines     three new rows that belong to it
    tallies   UPDATE … SET n = n + 1 on the writer's row, and on one that all writers share

So a transaction that is there in part, or twice, cannot be overlooked: an order has exactly its lines,
a writer's tally is the number of its orders, and its newest order alone is "new". Since all writers
move one row, they conflict, and replay at COMMIT is at work all the time. What a writer was told is one
of three, and each says what must be found:

    acknowledged   COMMIT returned: it is there
    refused        an error that does not leave it open: it is not there
    unknown        an error that says "may or may not have happened": either, but never in part
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from rome.dbapi import SERIALIZATION_FAILURE

LINES: Final = 3
SHARED: Final = -1
"""The tally of all writers together."""
ACKNOWLEDGED, REFUSED, UNKNOWN = "acknowledged", "refused", "unknown"

metadata = MetaData()
orders = Table(
    "orders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("token", String(40), nullable=False, unique=True),
    Column("writer", Integer, nullable=False),
    Column("state", String(10), nullable=False),
    Column("padding", String),
    Index("orders_writer_state", "writer", "state"),
)
lines = Table(
    "lines",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("order_id", ForeignKey("orders.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("label", String(50), nullable=False, index=True),
    UniqueConstraint("order_id", "number"),
)
tallies = Table(
    "tallies",
    metadata,
    Column("writer", Integer, primary_key=True, autoincrement=False),
    Column("n", Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one transaction, as far as its writer was told; times are time.monotonic's."""

    token: str
    outcome: str
    error: str
    began: float
    ended: float
    disconnected: bool = False

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def prepare(url: str, writers: Iterable[int]) -> None:
    """Make the tables, and a tally of 0 for each writer."""
    engine = create_engine(url)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(tallies), [{"writer": writer, "n": 0} for writer in (SHARED, *writers)])
    engine.dispose()


def write(connection: Connection, writer: int, token: str, padding: str = "") -> None:
    """The statements of one transaction; COMMIT is the caller's."""
    connection.execute(
        update(orders).where(orders.c.writer == writer, orders.c.state == "new").values(state="old")
    )
    row = {"token": token, "writer": writer, "state": "new", "padding": padding}
    inserted = connection.execute(insert(orders).values(row)).inserted_primary_key
    assert inserted is not None
    rows = [{"order_id": inserted[0], "number": n, "label": f"{token}/{n}"} for n in range(LINES)]
    connection.execute(insert(lines), rows)
    changed = connection.execute(
        update(tallies).where(tallies.c.writer.in_((writer, SHARED))).values(n=tallies.c.n + 1)
    ).rowcount
    assert changed == 2, f"{changed} tallies of writer {writer}"


class Writer:
    """Makes transactions one after the other, and keeps what it was told of each."""

    def __init__(self, engine: Engine, number: int = 0, padding: str = "", name: str = "") -> None:
        self.engine = engine
        self.number = number
        self.padding = padding
        self.told: list[Told] = []
        self._name = name or str(number)

    def attempt(self, before_commit: Callable[[str], None] = lambda token: None) -> Told:
        """One transaction. A lost race is run again, as any program does; other errors are kept.

        `before_commit` is called with the token when all but COMMIT is done.
        """
        token = f"{self._name}-{len(self.told)}"
        began = time.monotonic()
        outcome, text, disconnected = ACKNOWLEDGED, "", False
        while True:
            try:
                with self.engine.begin() as connection:
                    write(connection, self.number, token, self.padding)
                    before_commit(token)
            except DBAPIError as error:
                if str(error.orig).startswith(SERIALIZATION_FAILURE):
                    continue
                text = str(error.orig)
                outcome = UNKNOWN if "may or may not have happened" in text else REFUSED
                disconnected = error.connection_invalidated
            told = Told(token, outcome, text, began, time.monotonic(), disconnected)
            self.told.append(told)
            return told


def counts_of(told: Iterable[Told]) -> Counter[str]:
    counts = Counter(one.outcome for one in told)
    counts["tried"] = counts.total()
    return counts


def lost(url: str, told: Sequence[Told]) -> set[str]:
    """The tokens of transactions that were acknowledged and are not there, for stores that may lose some."""
    engine = create_engine(url)
    with engine.begin() as connection:
        there = set(connection.execute(select(orders.c.token)).scalars())
    engine.dispose()
    return {one.token for one in told if one.outcome == ACKNOWLEDGED} - there


def differences(url: str, told: Sequence[Told]) -> list[str]:
    """Everything that is not as the writers were told; empty if nothing is wrong."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            return _differences(connection, told)
    finally:
        engine.dispose()


def _differences(connection: Connection, told: Sequence[Told]) -> list[str]:
    wrong: list[str] = []
    found = connection.execute(select(orders.c.id, orders.c.token, orders.c.writer, orders.c.state)).all()
    tokens = Counter(order.token for order in found)
    for one in told:
        there = tokens[one.token] > 0
        if one.outcome == ACKNOWLEDGED and not there:
            wrong.append(f"{one.token} was acknowledged and is lost")
        if one.outcome == REFUSED and there:
            wrong.append(f"{one.token} failed ({one.error}) and is there")
    known = {one.token for one in told}
    wrong += [f"{token} was never told of and is there" for token in tokens if token not in known]
    wrong += [f"{token} is there {times} times" for token, times in tokens.items() if times > 1]

    token_of = {order.id: order.token for order in found}
    belonging: dict[int, list[str]] = {order: [] for order in token_of}
    for order, label in connection.execute(select(lines.c.order_id, lines.c.label)):
        if order in belonging:
            belonging[order].append(label)
        else:
            wrong.append(f"a line of order {order}, which is not there")
    for order, labels in belonging.items():
        if sorted(labels) != [f"{token_of[order]}/{n}" for n in range(LINES)]:
            wrong.append(f"{token_of[order]} is there in part: its lines are {sorted(labels)}")

    written = Counter(order.writer for order in found)
    written[SHARED] = len(found)
    newest = {order.writer: order.id for order in sorted(found, key=lambda order: _place(order.token))}
    for writer, n in connection.execute(select(tallies.c.writer, tallies.c.n)):
        if n != written[writer]:
            wrong.append(f"writer {writer} has counted {n} orders, and {written[writer]} are there")
        of_writer = select(orders.c.id).where(orders.c.writer == writer, orders.c.state == "new")
        new = connection.execute(of_writer).scalars().all()
        if new != ([newest[writer]] if writer in newest else []):
            wrong.append(f"the new orders of writer {writer} are {[token_of[order] for order in new]}")
    return wrong


def _place(token: str) -> list[int]:
    """The place of a token among those of its writer: the numbers in it, in order."""
    return [int(number) for number in re.findall(r"\d+", token)]
