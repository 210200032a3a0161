"""Keyset pagination: the one range that a page's OR implies, said aloud for the planner.

A program that asks for the page behind a marker writes

    WHERE (a < ? OR a = ? AND b < ?) ORDER BY a DESC, b DESC LIMIT 25

SQLite offers an OR to a virtual table only piece by piece, so the page would be found by reading
from the top. But every piece says that `a` is not above the marker, and that can be added:

    WHERE ((a < ?1 OR a = ?2 AND b < ?3) AND a <= ?1) ORDER BY a DESC, b DESC LIMIT ?4

which holds for just the same rows, provided that ?1 and ?2 are bound to the same value. That is known
only when the statement runs: `Keyset.applies` says whether the rewritten text may stand in for the
original with these parameters.

**Never wrong.** The text is taken apart by its tokens, not by a grammar, so what is recognised is
narrow, and whatever leaves a doubt is left alone. The group must be a conjunct of a WHERE clause, in no
NOT and no other OR, each of its disjuncts must begin with a comparison of the same column, and in a
WHERE clause a conjunct that is implied by another changes nothing, whatever is joined or grouped.

**CASE.** oslo.db and Glance wrap the column, to give NULL a place in the order:

    CASE WHEN (a IS NOT NULL) THEN a END < ?          the same as a < ?, but for two things:
    CASE WHEN (a IS NOT NULL) THEN a ELSE '' END > ?

such an expression has neither the column's collation (so the range is written `a COLLATE BINARY`) nor
its affinity: SQLite would turn the bound of `a <= '5'` into a number for a numeric column, but not the
bound of the CASE. With ELSE, NULL stands for a value; the range leaves it out, which is right for
`>` if that value lies below the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from rome.records.rows import Value
from rome.sql.affinity import looks_numeric
from rome.sql.criteria import Comparison, Criteria, Operand, Parameters
from rome.sql.lexer import Token, tokens
from rome.sql.statement import analyse


class Bound(NamedTuple):
    """The end of an implied range."""

    operand: Operand
    upper: bool
    """The column is not above it (else: not below it)."""
    wrapped: bool
    """The column stood in a CASE, so that no affinity was applied to the comparison."""
    defaults: tuple[Operand, ...]
    """What that CASE, and those of the other disjuncts, make of NULL."""

    def holds(self, parameters: Parameters) -> bool:
        """Whether the range, with these parameters, leaves out no row that the group selects."""
        if not self.wrapped:
            return True
        bound = self.operand.value(parameters)
        if not all(_below(default.value(parameters), bound) for default in self.defaults):
            return False
        # A column's affinity makes numbers of texts, or texts of numbers, and so moves the bound to
        # another storage class. That loses no row where it makes the range larger.
        if isinstance(bound, str):
            return not (self.upper and looks_numeric(bound))
        return self.upper or isinstance(bound, bytes)


@dataclass(frozen=True, slots=True)
class Keyset:
    """A statement with the ranges written into it that its keyset criteria imply."""

    sql: str
    """The rewritten text. It takes the same parameters."""
    equal_params: tuple[tuple[Operand, Operand], ...]
    """Parameters that must have equal values of one type."""
    bounds: tuple[Bound, ...]

    def applies(self, parameters: Parameters) -> bool:
        """Whether the rewritten text has the same result as the original, with these parameters."""
        for one, other in self.equal_params:
            value = one.value(parameters)
            if type(value) not in _COMPARABLE:
                return False
            again = other.value(parameters)
            if type(value) is not type(again) or value != again:
                return False
        return all(bound.holds(parameters) for bound in self.bounds)


_COMPARABLE = (int, float, str, bytes)


def _below(one: Value, other: Value) -> bool:
    """Whether a value surely comes before another in SQLite's order."""
    if isinstance(one, str) and isinstance(other, str):
        return one.encode() < other.encode()
    return isinstance(one, int | float) and isinstance(other, int | float) and one < other


@lru_cache(maxsize=4096)
def find(sql: str) -> Keyset | None:
    """The statement with its implied ranges; None if there are none, or in any doubt."""
    found = tokens(sql)
    if not any(token.word == "OR" for token in found) or not _is_one_query(sql, found):
        return None
    if any(token.kind == "illegal" for token in found):
        return None
    return _rewritten(sql, found)


def _is_one_query(sql: str, found: Sequence[Token]) -> bool:
    statement = analyse(sql)
    if statement.tail is not None:
        return False
    if statement.verb == "explain":
        return any(token.word in ("SELECT", "WITH") for token in found[1:4])
    return statement.verb == "select"


def _rewritten(sql: str, found: Sequence[Token]) -> Keyset | None:
    parameters = [token for token in found if token.kind == "parameter"]
    plain = [token for token in parameters if token.text == "?"]
    if plain and (len(plain) < len(parameters) or _names_a_result(found, plain)):
        return None
    criteria = Criteria(found)
    # To be bound twice, a parameter needs a number, and then all must have theirs.
    edits = [(token.start, token.end, criteria.numbered(token)) for token in plain]
    equal: list[tuple[Operand, Operand]] = []
    bounds: list[Bound] = []
    for start, end in criteria.groups():
        comparisons = criteria.comparisons((start, end))
        if not comparisons or not _share_a_range(comparisons):
            continue
        column, operator, operand = comparisons[0]
        if column.wrapped and any(token.word == "COLLATE" for token in found):
            # The name may stand for an expression of the SELECT list, whose COLLATE the CASE would take on.
            continue
        upper = operator[0] == "<"
        defaults = tuple(each.column.default for each in comparisons if each.column.default)
        bounds.append(Bound(operand, upper, column.wrapped, defaults))
        if operand.position is not None:
            equal += [(operand, later.operand) for later in comparisons[1:]]
        written = column.written + " COLLATE BINARY" * column.wrapped
        implied = f") AND {written} {'<=' if upper else '>='} {operand.text} "
        first, last = found[start], found[end - 1]
        edits += [(first.start, first.start, "("), (last.end, last.end, implied)]
    if not bounds:
        return None
    return Keyset(_edited(sql, edits), tuple(dict.fromkeys(equal)), tuple(bounds))


def _names_a_result(found: Sequence[Token], parameters: Sequence[Token]) -> bool:
    """Whether a parameter stands in a SELECT list: `SELECT a + ?` names its column by this very text."""
    starts = {token.start for token in parameters}
    in_list = [False]
    for index, token in enumerate(found):
        if token.text == "(":
            in_list.append(False)
        elif token.text == ")" and len(in_list) > 1:
            in_list.pop()
        elif token.word == "SELECT":
            in_list[-1] = True
        elif token.word == "FROM" and found[index - 1].word != "DISTINCT":
            in_list[-1] = False
        elif token.start in starts and any(in_list):
            return True
    return False


def _share_a_range(comparisons: Sequence[Comparison]) -> bool:
    """Whether each comparison keeps the column on the first one's side of the first one's operand."""
    column, operator, operand = comparisons[0]
    if operator == "=" or len(comparisons) < 2:
        return False
    if operator[0] == "<" and any(each.column.default for each in comparisons):
        return False
    for later in comparisons[1:]:
        if (later.column.name, later.column.wrapped) != (column.name, column.wrapped):
            return False
        if later.operator != "=" and later.operator[0] != operator[0]:
            return False
        if (later.operand.position is None) != (operand.position is None):
            return False
        if operand.position is None and later.operand.text != operand.text:
            return False
    return True


def _edited(sql: str, edits: list[tuple[int, int, str]]) -> str:
    """The text with the given stretches (start, end, new text) replaced."""
    pieces = []
    at = 0
    for start, end, text in sorted(edits, key=lambda edit: edit[:2]):
        pieces += [sql[at:start], text]
        at = end
    return "".join([*pieces, sql[at:]])
