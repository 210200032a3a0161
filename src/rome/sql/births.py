"""In which order rows come that are asked for in none.

SQL leaves it open, but programs and their tests get used to what a database does, and SQLite hands out
the rows of a table as they were inserted (by rowid), and rows that an index does not tell apart as well.
Tables whose rows have a number do the same here. The rows of a clustered table lie in the order of their
primary key, which is no order at all if the keys are UUIDs. So each of them carries its birth, the time at
which it was inserted, and the rows of a scan are put in the order in which SQLite would have come by them:

    of the whole table                  by birth
    of an index                         by the columns of the index, then by birth
    of an index that only ROME has      by birth (SQLite would go through the whole table)
    of the first columns of an index    by birth, if there is an index on just these

Where SQLite relies on an order that names more than the columns of the index (`ORDER BY a, id` by an index
on a), the keys are in that order, and nothing is moved.

This is done with what is fetched at once. The rows of a large table come in pieces, each in such an order.
"""

from __future__ import annotations

import time
from itertools import groupby
from operator import itemgetter
from threading import Lock

from rome.sql.catalog import Row
from rome.sql.planner import Plan

_lock = Lock()
_latest = 0


def now() -> int:
    """A number greater than any before it in this process: nanoseconds since 1970."""
    global _latest
    with _lock:
        _latest = max(_latest + 1, time.time_ns())
        return _latest


def ordered(plan: Plan, rows: list[tuple[bytes, Row]]) -> list[tuple[bytes, Row]]:
    """Rows that came in the order of the plan's keys, in the order of SQLite."""
    if len(rows) < 2:
        return rows
    index = plan.path.index
    if index is None:
        searched = plan.equal or plan.low is not None or plan.high is not None
        return rows if searched or plan.order else sorted(rows, key=_birth)
    if any(ordinal not in index.columns for ordinal, _ in plan.order):
        return rows
    if plan.is_plainer_elsewhere:
        return sorted(rows, key=_birth)
    one_value = len(plan.equal) == len(index.columns) and not any(term.many for term in plan.equal)
    if one_value or (index.for_foreign_key and not plan.order):
        return sorted(rows, key=_birth, reverse=plan.reverse and not index.for_foreign_key)
    told_apart = itemgetter(*index.columns)
    found: list[tuple[bytes, Row]] = []
    for _, alike in groupby(rows, key=lambda keyed: told_apart(keyed[1])):
        found += sorted(alike, key=_birth, reverse=plan.reverse and not index.for_foreign_key)
    return found


def of(row: Row) -> int:
    """The birth of a row; 0 if it was written before rows had one."""
    birth = row[-1]
    return birth if isinstance(birth, int) else 0


def _birth(keyed: tuple[bytes, Row]) -> int:
    return of(keyed[1])
