"""What a transaction says about the states it saw, with its own writes taken out.

Inside a transaction, what it reads must fit together by itself: its own appends stand at the end of
what it reads, and what it reads twice has not changed. What is left then are statements about the
database as others had made it:

    prefix    the object held exactly these elements
    at_least  the object held that many elements or more
    at_most   the object held that many elements or fewer (a range read did not find it)

Transactions that failed saw one consistent snapshot, too, so what they say counts as well. Only that
an insert found nothing in its way does not: that is left to COMMIT to look at, and theirs failed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from proof.history import Append, RangeRead, Read, Refused, Transaction, list_key, list_object

Elements = tuple[str, ...]


@dataclass(slots=True)
class Observations:
    """What one transaction saw of others, and what it wrote."""

    transaction: Transaction
    prefix: dict[str, Elements] = field(default_factory=dict)
    at_least: dict[str, int] = field(default_factory=dict)
    at_most: dict[str, int] = field(default_factory=dict)
    written: dict[str, list[str]] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    """What does not fit together inside the transaction."""


def observe(transaction: Transaction, lists: set[int]) -> Observations:
    """What a transaction saw. `lists` are the keys of all lists that were ever written to."""
    seen = Observations(transaction)
    for operation in transaction.operations:
        match operation:
            case Read(object, elements):
                _saw(seen, object, elements)
            case RangeRead():
                _saw_range(seen, operation, lists)
            case Append(object, element, was_empty):
                own = seen.written.setdefault(object, [])
                if was_empty and transaction.outcome != "failed":
                    _saw(seen, object, tuple(own))
                own.append(element)
            case Refused(object):
                if not seen.written.get(object):
                    seen.at_least[object] = 1
    return seen


def _saw_range(seen: Observations, read: RangeRead, lists: set[int]) -> None:
    for key, elements in read.found.items():
        if not read.low <= key <= read.high or len(elements) < read.at_least:
            seen.contradictions.append(f"list {key} {elements} does not belong into {read}")
        _saw(seen, list_object(key), elements)
    for key in range(read.low, read.high + 1):
        if key in lists and key not in read.found:
            _saw_at_most(seen, list_object(key), read.at_least - 1)


def _saw(seen: Observations, object: str, elements: Elements) -> None:
    own = tuple(seen.written.get(object, ()))
    others = elements[: len(elements) - len(own)]
    if others + own != elements:
        seen.contradictions.append(f"{object} is {elements}, without its own {own} at the end")
        return
    before = seen.prefix.setdefault(object, others)
    if before != others:
        seen.contradictions.append(f"fuzzy read: {object} was {before}, then {others}")
    if seen.at_least.get(object, 0) > len(others) or seen.at_most.get(object, len(others)) < len(others):
        seen.contradictions.append(f"fuzzy read: {object} is {others}, other reads say otherwise")


def _saw_at_most(seen: Observations, object: str, most: int) -> None:
    most -= len(seen.written.get(object, ()))
    if most < 0 or len(seen.prefix.get(object, ())) > most:
        seen.contradictions.append(f"{object} is missing in a range that it belongs to")
        return
    seen.at_most[object] = min(most, seen.at_most.get(object, most))


def written_lists(transactions: Collection[Transaction]) -> set[int]:
    """The keys of all lists that were written to, with or without success."""
    operations = (operation for transaction in transactions for operation in transaction.operations)
    keys = {list_key(operation.object) for operation in operations if isinstance(operation, Append)}
    return {key for key in keys if key is not None}
