"""EXPLAIN QUERY PLAN: the path that a scan takes, told as SQLite tells it of its own tables.

Of a virtual table SQLite can only say

    SCAN q VIRTUAL TABLE INDEX 3:SEARCH p USING INDEX ix_p_a (a=?)

the number and the text being those that the planner gave to the plan. What is meant is

    SEARCH q USING INDEX ix_p_a (a=?)

with SQLite's name for the table, which is its alias where it has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from rome.records.rows import Value

_VIRTUAL: Final = re.compile(
    r"(?:SCAN|SEARCH) (?P<alias>.*) VIRTUAL TABLE INDEX \d+:(?P<verb>SCAN|SEARCH) (?P<path>.*)", re.DOTALL
)


def plainly(rows: Iterable[tuple[Value, ...]], tables: Iterable[str]) -> list[tuple[Value, ...]]:
    """The rows of EXPLAIN QUERY PLAN, without the traces of virtual tables. `tables`: their names."""
    names = sorted(tables, key=len, reverse=True)
    return [(*row[:-1], _plain(row[-1], names)) for row in rows]


def _plain(detail: Value, tables: list[str]) -> Value:
    found = _VIRTUAL.fullmatch(detail) if isinstance(detail, str) else None
    if found is None:
        return detail
    path = found["path"]
    for name in tables:
        if path == name or path.startswith(f"{name} "):
            return f"{found['verb']} {found['alias']}{path[len(name) :]}"
    return detail
