"""How a race is run: many do the same at once, and what they were told is compared with what is there.

A race prepares its tables, runs `tries` attempts in each worker, and then adds up. An attempt that lost
with an error that says "run the transaction again" is run again, as oslo.db does, and counted: `retried`.
The races themselves are in `proof.races`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from proof import workers
from rome.dbapi import SERIALIZATION_FAILURE, Connection, OperationalError, connect

Value = TypeVar("Value")
Open = Callable[[str], Connection]

RETRIES: Final = 10_000


@dataclass(slots=True)
class Result:
    """What one worker was told."""

    counts: Counter[str] = field(default_factory=Counter)
    taken: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Client:
    """One worker: its connection, and transactions that are run again when they lose a race."""

    number: int
    tries: int
    connection: Connection
    choice: random.Random
    result: Result = field(default_factory=Result)

    def transaction(self, body: Callable[[Connection], Value]) -> Value:
        """Run a transaction until it is committed. `IntegrityError` is the caller's, rolled back."""
        for _ in range(RETRIES):
            try:
                value = body(self.connection)
                self.connection.commit()
                self.result.counts["committed"] += 1
                return value
            except OperationalError as error:
                self.connection.rollback()
                if not str(error).startswith(SERIALIZATION_FAILURE):
                    raise
                self.result.counts["retried"] += 1
            except BaseException:
                self.connection.rollback()
                raise
        raise AssertionError(f"a transaction lost {RETRIES} races in a row")

    def __iter__(self) -> Iterator[int]:
        """The numbers of the attempts."""
        for number in range(self.tries):
            self.result.counts["tries"] += 1
            yield number


class Race(ABC):
    """A situation: its tables, what each worker does, and what must be true when all are done."""

    schema: tuple[str, ...]

    def prepare(self, connection: Connection, tries: int) -> None:  # noqa: B027 - many need none
        """Rows to begin with. `tries`: how many attempts all workers will make together."""

    @abstractmethod
    def work(self, client: Client) -> None: ...

    @abstractmethod
    def wrong(self, connection: Connection, results: list[Result]) -> list[str]:
        """What is not as it must be."""


@dataclass(slots=True)
class Outcome:
    """How a race went."""

    counts: Counter[str]
    wrong: list[str]


def run(url: str, race: Race, *, tries: int, seed: int, clients: int = 8, open: Open = connect) -> Outcome:
    """Run a race on an empty database: `tries` attempts in each of the workers.

    `open` makes each worker's connection.
    """
    connection = open(url)
    try:
        for statement in race.schema:
            connection.execute(statement)
        race.prepare(connection, tries * clients)
        connection.commit()
        results = workers.run(url, clients, partial(_work, url, race, tries, seed, open))
        counts: Counter[str] = Counter()
        for result in results:
            counts.update(result.counts)
        return Outcome(counts, race.wrong(connection, results))
    finally:
        connection.close()


def _work(url: str, race: Race, tries: int, seed: int, open: Open, number: int, begin: float) -> Result:
    connection = open(url)
    try:
        client = Client(number, tries, connection, random.Random(f"{seed} {number}"))
        race.work(client)
        return client.result
    finally:
        connection.close()


def total(results: list[Result], name: str) -> int:
    return sum(result.counts[name] for result in results)


def differences(told: list[Any], found: list[Any]) -> list[str]:
    lost, unknown = set(told) - set(found), set(found) - set(told)
    wrong = [f"{len(lost)} acknowledged but not there, {sorted(lost)[0]} among them"] if lost else []
    wrong += (
        [f"{len(unknown)} there but not acknowledged, {sorted(unknown)[0]} among them"] if unknown else []
    )
    return wrong or ([] if len(told) == len(found) else [f"{len(told)} acknowledged, {len(found)} there"])


def sum_differs(connection: Connection, sql: str, told: int) -> list[str]:
    ((found,),) = connection.execute(sql).fetchall()
    return [] if found == told else [f"{sql}: {found}, acknowledged: {told}"]
