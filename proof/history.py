"""What is written down of each transaction: its operations with what they returned, and how it ended.

Two kinds of objects are worked on. A *list* is one row whose text grows by `v || ?`; a *name* is a
row under a unique constraint, which is a list that takes one element at most. Every element is written
once in a whole history, so an element tells which transaction it is from, and the content of a list
tells in which order its writers committed. (Kingsbury and Alvaro, "Elle", VLDB 2020.)

How a transaction ended, as its program knows:

    committed   COMMIT returned
    failed      it was rolled back, or refused for a reason that says that nothing was written
    unknown     the answer to COMMIT was lost

Histories are files of JSON, one transaction to a line, one file to a worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

Outcome = Literal["committed", "failed", "unknown"]


class Read(msgspec.Struct, tag=True, frozen=True):
    """One object was read. No elements: its row was not there."""

    object: str
    elements: tuple[str, ...]


class RangeRead(msgspec.Struct, tag=True, frozen=True):
    """All lists from `low` to `high` (inclusive) of `at_least` elements or more were asked for."""

    low: int
    high: int
    found: dict[int, tuple[str, ...]]
    at_least: int = 1


class Append(msgspec.Struct, tag=True, frozen=True):
    """An element was added. `was_empty`: the statement told that the row was not there before."""

    object: str
    element: str
    was_empty: bool = False


class Refused(msgspec.Struct, tag=True, frozen=True):
    """An insert was refused by a unique constraint: the object has an element."""

    object: str


Operation = Read | RangeRead | Append | Refused


class Transaction(msgspec.Struct, frozen=True):
    """One transaction. `began` and `ended` are seconds of one clock that all workers share."""

    worker: int
    number: int
    began: float
    ended: float
    outcome: Outcome
    operations: tuple[Operation, ...]
    error: str = ""

    @property
    def name(self) -> str:
        return f"T{self.worker}.{self.number}"


def list_object(key: int) -> str:
    return f"list {key}"


def name_object(name: str) -> str:
    return f"name {name}"


def list_key(object: str) -> int | None:
    """The number of a list; None for a name."""
    kind, _, key = object.partition(" ")
    return int(key) if kind == "list" else None


def save(path: Path, transactions: Iterable[Transaction]) -> None:
    with path.open("wb") as file:
        for transaction in transactions:
            file.write(msgspec.json.encode(transaction) + b"\n")


def load(paths: Iterable[Path]) -> list[Transaction]:
    """The transactions of all files, by the time they began."""
    decoder = msgspec.json.Decoder(Transaction)
    found = [decoder.decode(line) for path in paths for line in path.read_bytes().splitlines()]
    return sorted(found, key=lambda transaction: transaction.began)
