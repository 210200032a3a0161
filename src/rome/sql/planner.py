"""Choosing the access path: which index, unique constraint or key answers a virtual table's scan.

SQLite offers the constraints and the order that it would like (xBestIndex); this module weighs
every path of the table and takes the cheapest:

    equal     the leading columns of the path that are compared by =, IS, IN or IS NULL
    bounds    on the next column, by <, <=, >, >=
    order     whether the path then yields the rows in the order asked for, perhaps in reverse

A constraint counts only if it compares by the path's collation. What a value turns out to be is
known only when the scan starts, and a value that the key order cannot answer for is then left out
(`rome.sql.affinity.lookup`); so SQLite always checks each row again, and the search only has to
bring a superset.

Costs are in rows fetched. They are honest about counts, but never make a scan of the whole table
look cheaper than an index that applies: a table that is small when a statement is planned need
not stay small while the plan is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import apsw

from rome.sql.affinity import always_decided
from rome.sql.catalog import Index, Path, Table

_EQ: Final = apsw.SQLITE_INDEX_CONSTRAINT_EQ
_IS: Final = apsw.SQLITE_INDEX_CONSTRAINT_IS
_ISNULL: Final = apsw.SQLITE_INDEX_CONSTRAINT_ISNULL
_LIMIT: Final = apsw.SQLITE_INDEX_CONSTRAINT_LIMIT
_OFFSET: Final = apsw.SQLITE_INDEX_CONSTRAINT_OFFSET
_LOW: Final = {apsw.SQLITE_INDEX_CONSTRAINT_GT: False, apsw.SQLITE_INDEX_CONSTRAINT_GE: True}
_HIGH: Final = {apsw.SQLITE_INDEX_CONSTRAINT_LT: False, apsw.SQLITE_INDEX_CONSTRAINT_LE: True}
_SYMBOL: Final = {_EQ: "=", _IS: "IS", _ISNULL: "IS NULL"}

_LEAST_ROWS: Final = 1000
_ROWS_BEFORE_LIMIT: Final = 50
_SHARE_OF_IDENTIFIER: Final = 1 / 100
_SHARE_OF_PROPERTY: Final = 1 / 4
"""Guesses: an equality with a key finds few rows, one with a state or an owner may find many."""
_SCAN_UNIQUE: Final = apsw.SQLITE_INDEX_SCAN_UNIQUE


@dataclass(frozen=True, slots=True)
class Term:
    """A constraint in a plan: the position of its value among the scan's arguments."""

    argument: int
    """IS NULL has one too, which is NULL: SQLite takes a constraint without for one that was not used."""
    many: bool = False
    """The argument is a set: IN."""
    null_matches: bool = False
    """IS and IS NULL find NULL; = does not."""
    inclusive: bool = False


@dataclass(frozen=True)
class Plan:
    """What one scan does; chosen when the statement is prepared, kept as long as the table is."""

    path: Path
    equal: tuple[Term, ...]
    low: Term | None
    high: Term | None
    reverse: bool
    order: tuple[tuple[int, bool], ...]
    """The order that SQLite relies on, as (ordinal, descending); empty if it sorts by itself."""
    limit: int
    """The arguments of LIMIT and OFFSET, a hint; -1: none."""
    offset: int
    single: bool
    """At most one row."""
    reads_all: bool
    """SQLite sorts the rows by itself, so it reads all of them, whatever the LIMIT."""
    text: str
    """For EXPLAIN QUERY PLAN."""
    is_plainer_elsewhere: bool = False
    """There is an index on just the columns that are equal, which SQLite would have taken."""

    @cached_property
    def repeatable(self) -> bool:
        """Whether a join is likely to ask for the very same again: an equality, small and hashable."""
        return bool(self.equal) and self.limit < 0 and not any(term.many for term in self.equal)

    @cached_property
    def plain(self) -> bool:
        """Only equalities with single values."""
        return self.repeatable and self.low is None and self.high is None


class Hints(Protocol):
    """What the planner asks of its surroundings."""

    def row_count(self, table: Table) -> int: ...

    @property
    def has_limit(self) -> bool: ...

    @property
    def in_subquery(self) -> bool: ...


@dataclass(slots=True)
class _Constraint:
    position: int
    column: int
    op: int
    collation: str


class Planner:
    """The plans of one virtual table."""

    def __init__(self, table: Table, hints: Hints) -> None:
        self._table = table
        self._hints = hints
        self._identifiers = _identifiers(table)
        self.plans: list[Plan] = []
        self._numbers: dict[Plan, int] = {}

    def best_index(self, info: apsw.IndexInfo) -> bool:
        """xBestIndex: choose a path and say so."""
        constraints: list[_Constraint] = []
        limit = offset = -1
        for i in range(info.nConstraint):
            op = info.get_aConstraint_op(i)
            if op == _LIMIT:
                limit = i if info.get_aConstraint_usable(i) else -1
            elif op == _OFFSET:
                offset = i if info.get_aConstraint_usable(i) else -1
            elif info.get_aConstraint_usable(i):
                column = info.get_aConstraint_iColumn(i)
                constraints.append(_Constraint(i, column, op, info.get_aConstraint_collation(i)))
        order = [(info.get_aOrderBy_iColumn(i), info.get_aOrderBy_desc(i)) for i in range(info.nOrderBy)]
        many = {c.position for c in constraints if c.op == _EQ and info.get_aConstraintUsage_in(c.position)}
        best = min(
            (self._weigh(path, constraints, order, many, limit >= 0) for path in self._table.paths),
            key=lambda choice: choice.cost,
        )
        self._announce(info, best, many, limit, offset, order)
        return True

    def _weigh(
        self,
        path: Path,
        constraints: list[_Constraint],
        order: list[tuple[int, bool]],
        many: set[int],
        has_limit: bool,
    ) -> _Choice:
        rowid_ordinal = self._table.key_columns[0] if self._table.key_kind != "clustered" else None
        by_column: dict[int, list[_Constraint]] = {}
        for constraint in constraints:
            column = constraint.column
            if column == -1 and rowid_ordinal is not None:
                column = rowid_ordinal
            by_column.setdefault(column, []).append(constraint)
        equal: list[_Constraint] = []
        low = high = None
        for ordinal, collation in zip(path.searched, path.collations, strict=False):
            usable = [c for c in by_column.get(ordinal, ()) if _agrees(c, collation)]
            found = min(
                (c for c in usable if c.op in _SYMBOL),
                key=lambda c: (c.position in many, c.op != _EQ),
                default=None,
            )
            if found is not None:
                equal.append(found)
                continue
            low = next((c for c in usable if c.op in _LOW), None)
            high = next((c for c in usable if c.op in _HIGH), None)
            break
        ordered, reverse = _order(path, equal, order, many)
        single = (
            0 < path.unique_columns <= len(equal)
            and not any(c.position in many for c in equal)
            and (path.index is None or all(c.op == _EQ for c in equal[: path.unique_columns]))
        )
        left_out = [c for c in constraints if c.op in _SYMBOL and c not in equal]
        wanted = ordered and bool(order)
        limited = has_limit or self._hints.has_limit
        # To sort all that an equality finds, for the sake of a few, is only cheap if that is not much.
        cautious = limited and bool(order) and not ordered
        cost, rows = self._cost(path, equal, (low, high), many, single, wanted, limited, cautious, left_out)
        if order and not ordered:
            cost += rows * math.log2(rows + 2) * 0.05
        # Of equally good paths, the unique one also answers the checks of later inserts.
        cost -= 0.001 * bool(path.unique_columns)
        return _Choice(path, equal, low, high, ordered, reverse, single, cost, rows)

    def _cost(
        self,
        path: Path,
        equal: list[_Constraint],
        bounds: tuple[_Constraint | None, _Constraint | None],
        many: set[int],
        single: bool,
        ordered: bool,
        limited: bool,
        cautious: bool,
        left_out: list[_Constraint],
    ) -> tuple[float, float]:
        total = float(max(self._hints.row_count(self._table), _LEAST_ROWS))
        a_row = 1.0 if path.index is None else 1.5
        if single:
            return a_row, 1.0
        rows = total
        for place, constraint in enumerate(equal):
            if cautious:
                rows *= self._share(constraint)
            else:
                rows = max(1.0, rows / 100) if place == 0 else max(1.0, rows / 4)
            if constraint.position in many:
                rows *= 5
        if 0 < path.unique_columns <= len(equal):
            rows = 5.0
        for bound in bounds:
            if bound is not None:
                rows = max(1.0, rows / 4)
        rows = min(rows, total)
        if not equal and bounds == (None, None):
            cost = total * 3 * a_row
        else:
            cost = 1 + rows * a_row
        if ordered and limited:
            # So many rows have to be gone through until LIMIT of them match what the path leaves out.
            expected = _ROWS_BEFORE_LIMIT / math.prod(map(self._share, left_out))
            cost = min(cost, expected * a_row)
        return cost, rows

    def _share(self, constraint: _Constraint) -> float:
        """What share of the rows an equality is expected to find: less where the column tells rows apart."""
        return _SHARE_OF_IDENTIFIER if constraint.column in self._identifiers else _SHARE_OF_PROPERTY

    def _announce(
        self,
        info: apsw.IndexInfo,
        best: _Choice,
        many: set[int],
        limit: int,
        offset: int,
        order: list[tuple[int, bool]],
    ) -> None:
        numbers: dict[int, int] = {}

        def argument(position: int) -> int:
            # An index on a column of the key has that column twice: one argument serves both.
            number = numbers.setdefault(position, len(numbers))
            info.set_aConstraintUsage_argvIndex(position, number + 1)
            return number

        equal = []
        for constraint in best.equal:
            # SQLite fails to hand over an IN (SELECT …) that is empty: there it loops by itself.
            is_many = constraint.position in many and not self._hints.in_subquery
            if is_many:
                info.set_aConstraintUsage_in(constraint.position, True)
            equal.append(Term(argument(constraint.position), is_many, constraint.op in (_IS, _ISNULL)))
        low = high = None
        if best.low is not None:
            low = Term(argument(best.low.position), inclusive=_LOW[best.low.op])
        if best.high is not None:
            high = Term(argument(best.high.position), inclusive=_HIGH[best.high.op])
        consumed = best.ordered and bool(order)
        reads_all = bool(order) and not consumed
        if reads_all:
            limit = -1
        plan = Plan(
            best.path,
            tuple(equal),
            low,
            high,
            best.reverse and consumed,
            tuple(order) if consumed else (),
            argument(limit) if limit >= 0 else -1,
            argument(offset) if limit >= 0 and offset >= 0 else -1,
            best.single,
            reads_all,
            self._describe(best, consumed),
            not consumed and self._is_plainer_elsewhere(best.path.index, equal, low, high),
        )
        number = self._numbers.get(plan)
        if number is None:
            number = self._numbers[plan] = len(self.plans)
            self.plans.append(plan)
        info.idxNum = number
        info.idxStr = plan.text
        info.orderByConsumed = consumed
        info.estimatedCost = best.cost
        info.estimatedRows = max(1, int(best.rows))
        affinities = [self._table.affinities[ordinal] for ordinal in best.path.columns[: len(best.equal)]]
        if best.single and all(map(always_decided, affinities)):
            # Only then: SQLite looks at no more than the first row that it is given.
            info.idxFlags = _SCAN_UNIQUE

    def _is_plainer_elsewhere(
        self, index: Index | None, equal: list[Term], low: Term | None, high: Term | None
    ) -> bool:
        if index is None or low or high or not equal or any(term.many for term in equal):
            return False
        columns = index.columns[: len(equal)]
        return any(o is not index and not o.computed and o.columns == columns for o in self._table.indexes)

    def _describe(self, best: _Choice, ordered: bool) -> str:
        columns = self._table.columns
        conditions = [f"{_name(columns, c.column)}{_spaced(_SYMBOL[c.op])}" for c in best.equal] + [
            f"{_name(columns, c.column)}{symbol}?" for c, symbol in ((best.low, ">"), (best.high, "<")) if c
        ]
        verb = f"SEARCH {self._table.name}" if conditions else f"SCAN {self._table.name}"
        by = f" USING {'PRIMARY KEY' if best.path.index is None else 'INDEX ' + best.path.name}"
        return (
            verb
            + (by if conditions or ordered else "")
            + (f" ({' AND '.join(conditions)})" if conditions else "")
            + (" IN ORDER" if ordered else "")
        )


def _identifiers(table: Table) -> frozenset[int]:
    """The columns that tell rows apart, or name a row elsewhere: of keys, and of foreign keys."""
    found = set(table.primary_key) | set(table.key_columns)
    for index in table.indexes:
        if index.unique:
            found.update(index.columns)
    for foreign_key in table.foreign_keys:
        found.update(foreign_key.columns)
    return frozenset(found)


@dataclass(slots=True)
class _Choice:
    path: Path
    equal: list[_Constraint]
    low: _Constraint | None
    high: _Constraint | None
    ordered: bool
    reverse: bool
    single: bool
    cost: float
    rows: float


def _agrees(constraint: _Constraint, collation: str) -> bool:
    return constraint.op == _ISNULL or constraint.collation.upper() == collation


def _name(columns: tuple[object, ...], ordinal: int) -> str:
    return getattr(columns[ordinal], "name", "rowid") if 0 <= ordinal < len(columns) else "rowid"


def _spaced(symbol: str) -> str:
    return f"{symbol}?" if symbol == "=" else f" {symbol}" + ("" if symbol.endswith("NULL") else " ?")


def _order(
    path: Path, equal: list[_Constraint], order: list[tuple[int, bool]], many: set[int]
) -> tuple[bool, bool]:
    """Whether the path yields the order asked for, and whether it is to be read in reverse.

    Columns that are equal to one value are in every order; those equal to one of many are not.
    """
    if any(constraint.position in many for constraint in equal):
        return False, False
    fixed = set(path.columns[: len(equal)])
    wanted = [(ordinal, descending) for ordinal, descending in order if ordinal not in fixed]
    available = list(zip(path.columns[len(equal) :], path.descending[len(equal) :], strict=True))
    if not wanted:
        return True, False
    reverse = wanted[0][1] != available[0][1] if available else False
    seen: set[int] = set()
    unique_at = path.unique_columns - len(equal) if path.index is None else None
    position = 0
    for ordinal, descending in wanted:
        if ordinal in seen:
            continue
        if unique_at is not None and position >= unique_at:
            return True, reverse
        while position < len(available) and available[position][0] in seen | fixed:
            position += 1
        if position >= len(available) or available[position][0] != ordinal:
            return False, False
        if (descending != available[position][1]) != reverse:
            return False, False
        seen.add(ordinal)
        position += 1
    return True, reverse
