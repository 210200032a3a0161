"""UPSERT: INSERT … ON CONFLICT DO NOTHING and DO UPDATE, which SQLite lacks on virtual tables.

The clause is cut off and the INSERT runs. A row whose conflict target is taken is held back, with
the key of the row that is in its way, instead of failing; and when the INSERT is through, each row
that was held back becomes

    UPDATE <the table> SET <the clause's> WHERE <the key in its way> AND <the clause's>

with a parameter for each `excluded.x`, one after the other, so that a later one sees what an
earlier one did. What differs from SQLite: all rows that are new are inserted before the first of
the others is updated; and there can be one ON CONFLICT clause only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from rome.records.rows import Value
from rome.sql.binding import split
from rome.sql.catalog import Row, Table
from rome.sql.errors import NotSupported
from rome.sql.lexer import Token, is_name, matching_parenthesis, tokens, unquoted
from rome.sql.returning import Returning
from rome.sql.session import HeldBack, Session
from rome.sql.shadow import quote
from rome.sql.statement import Statement

Parameters = Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Clause:
    target: tuple[str, ...] | None
    assignments: str | None
    """From SET on, without WHERE; None: DO NOTHING."""
    condition: str | None
    alias: str | None


class Upsert:
    """The ON CONFLICT clauses of one connection."""

    def __init__(self, session: Session, returning: Returning) -> None:
        self._session = session
        self._returning = returning

    def run(
        self,
        table: Table,
        statement: Statement,
        execute: Callable[[str, Parameters], Any],
        sql: str,
        parameters: Parameters,
    ) -> Any:
        """Run an INSERT with its ON CONFLICT clause, RETURNING aside; the result has the count."""
        assert statement.upsert_at is not None
        end = statement.returning_at if statement.returning_at is not None else statement.tail
        head = sql[: statement.upsert_at]
        clause = _read(sql, head, statement.upsert_at, end)
        held = HeldBack(_targets(table, clause.target))
        context = self._session.statement
        context.held_back = held
        for_head, for_clause = split(sql, statement.upsert_at, parameters)
        try:
            result = execute(head, for_head)
        finally:
            context.held_back = None
        result.changed = self._returning.changes()
        if clause.assignments is not None:
            for key, row in held.rows:
                result.changed += self._update(table, clause, key, row, for_clause, execute)
        return result

    def _update(
        self,
        table: Table,
        clause: _Clause,
        key: bytes,
        row: Row,
        parameters: Parameters,
        execute: Callable[[str, Parameters], Any],
    ) -> int:
        existing = self._session.fetch(table, key)
        name = quote(clause.alias or table.name)
        update = _Text(table, row, parameters)
        update.add(f"UPDATE main.{quote(table.name)}{f' AS {name}' if clause.alias else ''} ")
        update.add_clause(clause.assignments or "")
        update.add(" WHERE ")
        if table.key_kind == "clustered":
            for place, ordinal in enumerate(table.key_columns):
                update.add(f"{' AND ' if place else ''}{name}.{quote(table.columns[ordinal].name)} IS ")
                update.add_value(existing[ordinal])
        else:
            update.add(f"{name}.rowid = ")
            update.add_value(existing[table.key_columns[0]])
        if clause.condition is not None:
            update.add(" AND (")
            update.add_clause(clause.condition)
            update.add(")")
        execute(update.sql(), update.parameters())
        return self._returning.changes()


class _Text:
    """The UPDATE as it is put together: the clause's text, with parameters for what `excluded.x` says."""

    def __init__(self, table: Table, row: Row, parameters: Parameters) -> None:
        self._table = table
        self._row = row
        self._pieces: list[str] = []
        self._named = dict(parameters) if isinstance(parameters, Mapping) else None
        self._given = iter(() if isinstance(parameters, Mapping) else parameters)
        self._values: list[Any] = []

    def add(self, text: str) -> None:
        self._pieces.append(text)

    def add_value(self, value: Value) -> None:
        if self._named is None:
            self._values.append(value)
            self._pieces.append("?")
            return
        name = f"rome_upsert_{len(self._pieces)}"
        self._named[name] = value
        self._pieces.append(f":{name}")

    def add_clause(self, text: str) -> None:
        found = tokens(text)
        behind = 0
        for at, token in enumerate(found):
            if token.kind == "parameter" and token.text[0] == "?":
                if token.text != "?":
                    raise NotSupported("numbered parameters in ON CONFLICT")
                self._values.append(next(self._given))
            elif token.word == "EXCLUDED" and at + 2 < len(found) and found[at + 1].text == ".":
                self._pieces.append(text[behind : token.start])
                self._add_excluded(unquoted(found[at + 2]))
                behind = found[at + 2].end
        self._pieces.append(text[behind:])

    def _add_excluded(self, name: str) -> None:
        ordinal = self._table.ordinals.get(name.lower())
        if ordinal is None:
            raise apsw.SQLError(f"no such column: excluded.{name}")
        self.add_value(self._row[ordinal])

    def sql(self) -> str:
        return "".join(self._pieces)

    def parameters(self) -> Parameters:
        return self._named if self._named is not None else tuple(self._values)


def _read(sql: str, head: str, start: int, end: int | None) -> _Clause:
    """The clause's parts. SQLite is not asked, so what is not understood is refused."""
    found = [token for token in tokens(sql[:end]) if token.start >= start and token.text != ";"]
    at = 2  # behind ON CONFLICT
    target = None
    if found[at].text == "(":
        close = matching_parenthesis(found, at)
        if close is None:
            raise apsw.SQLError("incomplete input")
        target = tuple(unquoted(token) for token in found[at + 1 : close] if is_name(token))
        if len(target) != sum(token.text == "," for token in found[at + 1 : close]) + 1:
            raise NotSupported("ON CONFLICT over expressions or collations")
        at = close + 1
    if found[at].word == "WHERE":
        raise NotSupported("ON CONFLICT with a WHERE in its target")
    words = [token.word for token in found[at:]]
    if words[:2] == ["DO", "NOTHING"] and len(words) == 2:
        return _Clause(target, None, None, None)
    if words[:3] != ["DO", "UPDATE", "SET"]:
        raise NotSupported("more than one ON CONFLICT clause, or one that is not understood")
    where = _top_level_where(found, at + 2)
    last = len(sql) if end is None else min(end, len(sql))
    until = found[where].start if where is not None else last
    condition = sql[found[where].end : last].rstrip("; \n\t") if where is not None else None
    assignments = sql[found[at + 2].start : until].rstrip("; \n\t")
    return _Clause(target, assignments, condition, _alias(head))


def _top_level_where(found: Sequence[Token], at: int) -> int | None:
    depth = 0
    for index in range(at, len(found)):
        depth += (found[index].text == "(") - (found[index].text == ")")
        if depth == 0 and found[index].word == "WHERE":
            return index
        if depth == 0 and found[index].word == "CONFLICT" and found[index - 1].word == "ON":
            raise NotSupported("more than one ON CONFLICT clause")
    return None


def _alias(head: str) -> str | None:
    """The name that INSERT INTO … AS gives the table."""
    found = tokens(head)
    into = next((i for i, token in enumerate(found) if token.word == "INTO"), None)
    if into is None:
        return None
    at = into + 2
    while at < len(found) and found[at].text == ".":
        at += 2
    if at + 1 < len(found) and found[at].word == "AS":
        return unquoted(found[at + 1])
    return None


def _targets(table: Table, names: tuple[str, ...] | None) -> frozenset[int] | None:
    """The unique constraints that a conflict target means. Raises SQLite's error if there is none."""
    if names is None:
        return None
    ordinals = {table.ordinals.get(name.lower(), -1) for name in names}
    found = {
        index.id
        for index in table.indexes
        if index.unique and not index.computed and set(index.columns) == ordinals
    }
    if table.key_kind != "hidden" and set(table.key_columns) == ordinals:
        found.add(-1)
    if not found:
        raise apsw.SQLError("ON CONFLICT clause does not match any PRIMARY KEY or UNIQUE constraint")
    return frozenset(found)
