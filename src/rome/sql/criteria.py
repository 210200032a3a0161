"""Where a query's WHERE clauses have ORs of comparisons, read off the tokens.

This is no parser of expressions. A span of tokens is split at its ORs and ANDs, the parts are freed
from parentheses around all of them, and what is left either is a plain comparison of a column,
token for token, or is nothing that anybody here wants to know about. SQLite's precedence makes that
safe: OR binds loosest, then AND, so what stands between them is whole, but for the AND of BETWEEN
and for CASE … END, which are minded. `END` may also be a column's name: where a text can be read in
two ways, the search gives up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rome.records.rows import Value
from rome.sql.lexer import Token, matching_parenthesis, parameter_numbers, unquoted

Parameters = Sequence[Value] | Mapping[str, Value]


class Operand(NamedTuple):
    """What a column is compared with: a parameter or a literal."""

    position: int | None
    """The parameter's place in a sequence of parameters, from 0; None for a literal."""
    name: str | None
    """The parameter's name in a mapping, if it has one."""
    literal: Value
    text: str
    """As it is to be written into the rewritten statement."""

    def value(self, parameters: Parameters) -> Value:
        """The value it stands for; None, too, for a parameter that was forgotten."""
        if self.position is None:
            return self.literal
        if isinstance(parameters, Mapping):
            return parameters.get(self.name) if self.name is not None else None
        return parameters[self.position] if self.position < len(parameters) else None


class Column(NamedTuple):
    """A column, or a CASE around it."""

    name: tuple[str, ...]
    wrapped: bool
    default: Operand | None
    """What the CASE makes of NULL."""
    written: str


class Comparison(NamedTuple):
    """The first condition of a disjunct."""

    column: Column
    operator: str
    operand: Operand


_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "==": "="}

_AFTER_WHERE = frozenset(["GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "INTERSECT", "EXCEPT", "RETURNING"])

_OPERATORS = [
    "AND",
    "OR",
    "NOT",
    "IS",
    "IN",
    "BETWEEN",
    "LIKE",
    "GLOB",
    "MATCH",
    "REGEXP",
    "ESCAPE",
    "COLLATE",
]
_NO_OPERAND = frozenset([*_OPERATORS, "CASE", "WHEN", "THEN", "ELSE", "DISTINCT", "FROM"])
"""Words that no operand ends with: an END behind them is a column's name."""

_QUERY_WORDS = ("SELECT", "VALUES", "WITH")

Span = tuple[int, int]
"""The tokens from one index up to another."""


class _Doubt(Exception):
    """The text can be read in more than one way."""


class Criteria:
    """Finds ORs of comparisons among a statement's tokens."""

    def __init__(self, found: Sequence[Token]) -> None:
        self._found = found
        self._numbers = parameter_numbers(found)

    def groups(self) -> Iterator[Span]:
        """The ORs that are a WHERE clause, or one of its conjuncts."""
        for index, token in enumerate(self._found):
            # FILTER (WHERE …) is left alone: nothing is searched by it.
            if token.word == "WHERE" and self._found[index - 2].word != "FILTER":
                try:
                    yield from self._groups_within((index + 1, self._clause_end(index + 1)))
                except _Doubt:
                    continue

    def _clause_end(self, start: int) -> int:
        depth = 0
        for index in range(start, len(self._found)):
            token = self._found[index]
            if token.text == "(":
                depth += 1
            elif token.text == ")":
                depth -= 1
                if depth < 0:
                    return index
            elif depth == 0 and (token.word in _AFTER_WHERE or token.text == ";" or self._is_window(index)):
                return index
        return len(self._found)

    def _is_window(self, index: int) -> bool:
        """WINDOW name AS (…): the word alone may be a column's name."""
        following = self._found[index + 1 : index + 4]
        return (
            self._found[index].word == "WINDOW"
            and len(following) == 3
            and following[1].word == "AS"
            and following[2].text == "("
        )

    def _groups_within(self, span: Span) -> Iterator[Span]:
        start, end = span
        if start >= end or self._found[start].word in _QUERY_WORDS:
            return
        if len(self._split(span, "OR")) > 1:
            yield span
            return
        for conjunct in self._split(span, "AND"):
            inner = self._unwrapped(conjunct)
            if inner != conjunct:
                yield from self._groups_within(inner)

    def comparisons(self, span: Span) -> list[Comparison] | None:
        """The first condition of each disjunct; None if one of them is no plain comparison."""
        try:
            disjuncts = self._split(span, "OR")
            if len(disjuncts) > 1:
                inner = [self.comparisons(self._unwrapped(disjunct)) for disjunct in disjuncts]
                if any(comparisons is None for comparisons in inner):
                    return None
                return [comparison for comparisons in inner for comparison in comparisons or ()]
            first = self._unwrapped(self._split(span, "AND")[0])
        except _Doubt:
            return None
        comparison = self._comparison(first)
        return None if comparison is None else [comparison]

    def _split(self, span: Span, separator: str) -> list[Span]:
        """What stands between the ANDs or ORs of a span, in no parentheses and no CASE."""
        parts = []
        depth = cases = betweens = 0
        begin = span[0]
        for index in range(*span):
            token = self._found[index]
            if token.text in ("(", ")"):
                depth += 1 if token.text == "(" else -1
            elif depth or not token.word:
                continue
            elif token.word == "CASE":
                cases += 1
            elif token.word == "END":
                before = self._found[index - 1]
                if (
                    cases == 0
                    or before.word in _NO_OPERAND
                    or (before.kind == "operator" and before.text != ")")
                ):
                    raise _Doubt
                cases -= 1
            elif cases:
                continue
            elif token.word == "BETWEEN":
                betweens += 1
            elif token.word == "AND" and betweens:
                betweens -= 1
            elif token.word == separator:
                parts.append((begin, index))
                begin = index + 1
        if depth or cases or betweens:
            raise _Doubt
        return [*parts, (begin, span[1])]

    def _unwrapped(self, span: Span) -> Span:
        """A span without the parentheses around all of it."""
        start, end = span
        while start < end - 1 and self._found[start].text == "(":
            if matching_parenthesis(self._found, start) != end - 1:
                break
            start, end = start + 1, end - 1
        return start, end

    def _comparison(self, span: Span) -> Comparison | None:
        """`column < operand` or `operand > column`, and nothing else in the span."""
        start, end = span
        if end - start < 3:
            return None
        operand = self._operand(self._found[start])
        if operand is not None:
            operator = _MIRRORED.get(self._found[start + 1].text)
            column = self._column((start + 2, end))
        else:
            operand = self._operand(self._found[end - 1])
            operator = _MIRRORED.get(_MIRRORED.get(self._found[end - 2].text, ""))
            column = self._column((start, end - 2))
        if operand is None or operator is None or column is None:
            return None
        return Comparison(column, operator, operand)

    def _operand(self, token: Token) -> Operand | None:
        if token.kind == "parameter":
            position = self._numbers[token.start] - 1
            name = None if token.text[0] == "?" else token.text[1:]
            return Operand(position, name, None, self.numbered(token))
        if token.kind == "string":
            return Operand(None, None, unquoted(token), token.text)
        if token.kind == "number" and token.text.isdigit() and len(token.text) < 19:
            return Operand(None, None, int(token.text), token.text)
        return None

    def numbered(self, token: Token) -> str:
        """A parameter as it may be written twice."""
        return f"?{self._numbers[token.start]}" if token.text == "?" else token.text

    def _column(self, span: Span) -> Column | None:
        """A column's name, or CASE WHEN name IS NOT NULL THEN name [ELSE operand] END."""
        start, end = span
        if end - start < 9:  # CASE WHEN name IS NOT NULL THEN name END
            return self._name(span)
        if (
            self._found[start].word != "CASE"
            or self._found[start + 1].word != "WHEN"
            or self._found[end - 1].word != "END"
        ):
            return None
        words = [token.word for token in self._found[start:end]]
        if "THEN" not in words:
            return None
        then = start + words.index("THEN")
        until, default = end - 1, None
        if self._found[end - 3].word == "ELSE":
            until, default = end - 3, self._operand(self._found[end - 2])
            if default is None:
                return None
        condition = self._unwrapped((start + 2, then))
        column = self._name(self._unwrapped((then + 1, until)))
        tested = self._name((condition[0], condition[1] - 3))
        test = [token.word for token in self._found[condition[1] - 3 : condition[1]]]
        if column is None or tested is None or tested.name != column.name or test != ["IS", "NOT", "NULL"]:
            return None
        return column._replace(wrapped=True, default=default)

    def _name(self, span: Span) -> Column | None:
        """`column`, `table.column` or `schema.table.column`."""
        part = self._found[slice(*span)]
        names, dots = part[::2], part[1::2]
        if len(names) != len(dots) + 1 or len(names) > 3 or any(token.text != "." for token in dots):
            return None
        if any(token.kind not in ("word", "quoted") for token in names):
            return None
        name = tuple(unquoted(token).lower() for token in names)
        return Column(name, False, None, "".join(token.text for token in part))
