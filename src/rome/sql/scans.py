"""A scan: from a plan and its values to what is asked of the store, and to the rows.

    Search      the key ranges (or the one key) that answer a plan for some values
    scan_rows   fetches them, in chunks
    known_rows  the first of those chunks, if the transaction has fetched it already

A scan asks for more than one row at a time: with a LIMIT in sight a few, growing; otherwise
thousands. SQLite stops when it has what it wants. Whoever fetches ahead has to ask for the very
same first chunk, which is why the size of it is part of the search.

**Order.** A plan may promise rows in order. Key order is value order except where a value was cut
(see rome.records.keys), or where a constraint of the plan could not be used after all; then all
the rows are fetched and sorted by the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

from rome.records.keys import KeyColumn, KeyLayout
from rome.records.rows import Value
from rome.sql import births
from rome.sql.affinity import UNDECIDED, Undecided, lookup
from rome.sql.catalog import Row, Table
from rome.sql.planner import Plan, Term
from rome.sql.session import Session
from rome.stores.base import Range, Scan

_FIRST_CHUNK_LOCAL: Final = 256
_FIRST_CHUNK_REMOTE: Final = 5000
_FIRST_CHUNK_UNDER_LIMIT: Final = 64
_LEAST_TO_ORDER: Final = 64
"""With a LIMIT as well, so many rows are fetched where they are to be put in order by their birth."""
_GREATEST_CHUNK: Final = 20_000
_GROWTH: Final = 4

KeyedRow = tuple[bytes, Row]


@dataclass(slots=True)
class Search:
    """What a scan asks of the store. It brings a superset of the rows that are wanted."""

    keys: list[bytes]
    """The one row's key, or none if nothing can match, where the plan finds a row by its key."""
    scans: list[Scan]
    """Otherwise: the first chunk of every range."""
    exact: bool
    """Whether all terms of the plan were used."""


def search(table: Table, session: Session, plan: Plan, arguments: Sequence[Any]) -> Search:
    """What a plan asks of the store for these values."""
    ranges, exact = plan_ranges(table, plan, arguments)
    if plan.path.index is None and plan.single and exact:
        return Search([range.start for range in ranges], [], exact)
    size = _first_chunk(session, plan, arguments)
    if table.has_births and not plan.order:
        size = max(size, _LEAST_TO_ORDER)
    follow = plan.path.index is not None
    return Search([], [Scan(range, size, plan.reverse, follow) for range in ranges], exact)


def scan_rows(
    table: Table, session: Session, plan: Plan, arguments: Sequence[Any]
) -> Iterator[list[KeyedRow]]:
    """The rows of a plan, in chunks."""
    found = search(table, session, plan, arguments)
    if found.keys:
        return _point(table, session, found.keys)
    chunks = _chunks(table, session, found.scans)
    if plan.order and not found.exact:
        return iter([_sorted(table, plan, [row for rows in chunks for row in rows])])
    if table.has_births:
        chunks = (births.ordered(plan, rows) for rows in chunks)
    if plan.order:
        return _in_order(table, plan, chunks)
    return chunks


def known_rows(table: Table, session: Session, found: Search) -> list[KeyedRow] | None:
    """The rows of a search's first chunks, if they are all there without asking the store."""
    transaction = session.transaction
    if not all(map(transaction.knows_value, found.keys)) or not all(map(transaction.knows_scan, found.scans)):
        return None
    rows = [row for chunk in _point(table, session, found.keys) for row in chunk]
    for scan in found.scans:
        rows += _decoded(table, session, scan, transaction.scan(*scan).entries)
    return rows


def plan_ranges(table: Table, plan: Plan, arguments: Sequence[Any]) -> tuple[list[Range], bool]:
    """The key ranges that answer a plan for these values; and whether all its terms were used."""
    path = plan.path
    if plan.plain:
        single = _plain_range(table, plan, arguments)
        if single is not None:
            return single, True
    choices: list[list[Value]] = []
    exact = True
    for term, ordinal in zip(plan.equal, path.columns, strict=False):
        values = term_values(term, arguments, table.affinities[ordinal])
        if values is None:
            exact = False
            break
        choices.append(values)
    low = high = None
    if exact and (plan.low is not None or plan.high is not None):
        affinity = table.affinities[path.columns[len(plan.equal)]]
        bounds = [_bound(term, arguments, affinity) for term in (plan.low, plan.high)]
        if any(bound is not None and bound[0] is None for bound in bounds):
            return [], True
        exact = not any(bound is not None and bound[0] is UNDECIDED for bound in bounds)
        low, high = (None if bound is None or bound[0] is UNDECIDED else bound for bound in bounds)
    layout = path.layout
    ranges = [layout.range(values, low, high) for values in product(*choices)]
    if len(ranges) > 1:
        ranges = sorted(set(ranges))
    return ranges, exact


def _plain_range(table: Table, plan: Plan, arguments: Sequence[Any]) -> list[Range] | None:
    """The range of a plan with plain equalities, which is most of them; None if one cannot be used."""
    values: list[Value] = []
    for term, ordinal in zip(plan.equal, plan.path.columns, strict=False):
        value = arguments[term.argument]
        if value is None:
            if not term.null_matches:
                return []
        else:
            value = lookup(value, table.affinities[ordinal])
            if isinstance(value, Undecided):
                return None
        values.append(value)
    return [plan.path.layout.range(values)]


def _bound(term: Term | None, arguments: Sequence[Any], affinity: str) -> tuple[Any, bool] | None:
    return None if term is None else (lookup(arguments[term.argument], affinity), term.inclusive)


def term_values(term: Term, arguments: Sequence[Any], affinity: str) -> list[Value] | None:
    """The key values that an equality asks for; None if the key cannot answer for them."""
    argument = arguments[term.argument]
    found = []
    for value in argument if term.many else (argument,):
        if value is None and not term.null_matches:
            continue
        converted = lookup(value, affinity)
        if converted is UNDECIDED:
            return None
        found.append(converted)
    return found  # type: ignore[return-value]


def _first_chunk(session: Session, plan: Plan, arguments: Sequence[Any]) -> int:
    if plan.limit >= 0 and isinstance(arguments[plan.limit], int) and arguments[plan.limit] >= 0:
        offset = arguments[plan.offset] if plan.offset >= 0 else 0
        return int(arguments[plan.limit]) + max(0, int(offset or 0)) + 1
    if session.has_limit and not plan.reads_all:
        return _FIRST_CHUNK_UNDER_LIMIT
    return _FIRST_CHUNK_REMOTE if session.remote else _FIRST_CHUNK_LOCAL


def _point(table: Table, session: Session, keys: list[bytes]) -> Iterator[list[KeyedRow]]:
    for key in keys:
        data = session.transaction.get(key)
        if data is not None:
            yield [(key, session.row(table, key, data))]


def _chunks(table: Table, session: Session, scans: list[Scan]) -> Iterator[list[KeyedRow]]:
    """What is at hand comes in one piece, so that who fetches ahead sees all of it at once."""
    transaction = session.transaction
    if len(scans) > 1:
        transaction.load(scans=scans)
    ready: list[KeyedRow] = []
    for range, size, reverse, follow in scans:
        rest: Range | None = range
        limit = size
        while rest is not None:
            scan = Scan(rest, limit, reverse, follow)
            if ready and not transaction.knows_scan(scan):
                yield ready
                ready = []
            entries, rest = transaction.scan(*scan)
            ready += _decoded(table, session, scan, entries)
            limit = min((limit or _GREATEST_CHUNK) * _GROWTH, _GREATEST_CHUNK)
    if ready:
        yield ready


def _decoded(
    table: Table, session: Session, scan: Scan, entries: list[tuple[bytes, bytes]]
) -> list[KeyedRow]:
    """The rows of entries of the table itself, or of an index, whose values are keys of rows."""
    if scan.follow:
        return [(key, session.fetch(table, key)) for _, key in entries]
    return [(key, session.row(table, key, data)) for key, data in entries]


# Order


def _in_order(table: Table, plan: Plan, chunks: Iterator[list[KeyedRow]]) -> Iterator[list[KeyedRow]]:
    """The chunks as they are, until a cut value shows up; then the rest is sorted as a whole."""
    limit = plan.path.layout.cut_limit // 4
    ordinals = [
        ordinal for ordinal, _ in plan.order if ordinal >= 0 and table.affinities[ordinal] != "INTEGER"
    ]
    if not ordinals:
        yield from chunks
        return
    held: list[KeyedRow] = []
    for rows in chunks:
        if not held and not any(_long(row[ordinal], limit) for _, row in rows for ordinal in ordinals):
            yield rows
        else:
            held += rows
    if held:
        # What was handed out before cannot belong behind any of these: keys agree in the order
        # of all that is not cut, and a cut value's neighbours with the same beginning are cut too,
        # but for those that end just there, which come first in either direction of the values.
        yield _sorted(table, plan, held)


def _long(value: Value, limit: int) -> bool:
    return isinstance(value, str | bytes) and len(value) > limit


def _sorted(table: Table, plan: Plan, rows: list[KeyedRow]) -> list[KeyedRow]:
    key = sort_key(table, plan.order)
    return sorted(rows, key=lambda keyed: key(keyed[1]))


def sort_key(table: Table, order: Sequence[tuple[int, bool]]) -> Callable[[Row], bytes]:
    """A function that gives a row's sort key in SQLite's order of the values."""
    rowid = table.key_columns[0]
    ordinals = [ordinal if ordinal >= 0 else rowid for ordinal, _ in order]
    collations = [table.columns[o].collation if o < len(table.columns) else "BINARY" for o in ordinals]
    layout = KeyLayout(
        b"", [KeyColumn(c, d) for c, (_, d) in zip(collations, order, strict=True)], unlimited=True
    )
    return lambda row: layout.encode([row[ordinal] for ordinal in ordinals])
