"""The text of a CREATE TABLE taken apart: its columns, their clauses, its constraints, and where each stands.

SQLite keeps a table's CREATE statement as it was written, and that text is the schema. ALTER TABLE
therefore changes the text. Here are the places in it:

    CREATE TABLE t (id INTEGER NOT NULL, name VARCHAR(5) DEFAULT 'x', CONSTRAINT u UNIQUE (name))
                    ├───── column ─────┤ ├──────── column ─────────┤ ├─────── constraint ───────┤
                       ├type─┤ ├clause┤       ├──type──┤ ├─clause──┤

SQLite has accepted the statement before this reads it, so nothing is checked here; the grammar is that
of SQLite's documentation of CREATE TABLE. `rome.sql.alteration` says what becomes of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rome.sql.lexer import Cursor, Token, is_name, matching_parenthesis, tokens, unquoted

Kind = Literal[
    "primary key", "unique", "check", "foreign key", "not null", "null", "default", "collate", "generated"
]

_TABLE_CONSTRAINTS = frozenset(["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"])
CLAUSES = frozenset(
    "CONSTRAINT PRIMARY NOT NULL UNIQUE CHECK DEFAULT COLLATE REFERENCES GENERATED AS".split()
)
"""The words that end a column's type."""


@dataclass(frozen=True, slots=True)
class Clause:
    """A constraint of the table, or a constraint or other clause of a column: `sql[start:end]`."""

    kind: Kind
    name: str | None
    """What CONSTRAINT names it."""
    start: int
    end: int
    words: tuple[Token, ...]
    """Its tokens, without CONSTRAINT and the name."""
    columns: tuple[str, ...] = ()
    """The columns in the first parentheses of a constraint of the table (not of CHECK)."""

    def mentions(self, column: str) -> bool:
        """Whether a name that could be this column's stands anywhere in it."""
        return any(is_name(token) and unquoted(token).lower() == column.lower() for token in self.words)


@dataclass(frozen=True, slots=True)
class ColumnDefinition:
    name: str
    start: int
    name_end: int
    type_end: int
    """Where the type ends; `name_end` if there is none."""
    end: int
    clauses: tuple[Clause, ...]

    def clause(self, kind: Kind) -> Clause | None:
        return next((clause for clause in self.clauses if clause.kind == kind), None)


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """One CREATE TABLE."""

    sql: str
    columns: tuple[ColumnDefinition, ...]
    constraints: tuple[Clause, ...]

    def column(self, name: str) -> ColumnDefinition | None:
        return next((column for column in self.columns if column.name.lower() == name.lower()), None)

    def all_constraints(self) -> list[Clause]:
        """Those of the table and those of its columns."""
        return [*self.constraints, *(clause for column in self.columns for clause in column.clauses)]

    @property
    def end(self) -> int:
        """Behind the last column or constraint."""
        parts: list[Clause | ColumnDefinition] = [*self.columns, *self.constraints]
        return max(part.end for part in parts)

    def without(self, part: Clause | ColumnDefinition) -> str:
        """The text without a column, a constraint of the table, or a clause of a column."""
        if isinstance(part, Clause) and part not in self.constraints:
            return self._before(part.start) + self.sql[part.end :]
        parts: list[Clause | ColumnDefinition] = sorted(
            [*self.columns, *self.constraints], key=lambda one: one.start
        )
        position = next(i for i, one in enumerate(parts) if one.start == part.start)
        rest = tokens(self.sql[part.end :])
        if position == 0:
            # Something follows: a table has one column at least.
            return self.sql[: part.start] + self.sql[parts[1].start :]
        if rest[0].text in (",", ")"):
            return self.sql[: parts[position - 1].end] + self.sql[part.end :]
        # SQLite takes constraints without a comma between them.
        return self._before(part.start) + self.sql[part.end :]

    def _before(self, place: int) -> str:
        """The text up to the last token before a place. A comment goes, lest it swallow what comes next."""
        return self.sql[: tokens(self.sql[:place])[-1].end]


def read_definition(sql: str) -> TableDefinition:
    """Take a CREATE TABLE apart, as it stands in sqlite_master."""
    found = tokens(sql)
    opening = next(i for i, token in enumerate(found) if token.text == "(")
    closing = matching_parenthesis(found, opening)
    assert closing is not None, "SQLite has accepted this text"
    columns: list[ColumnDefinition] = []
    constraints: list[Clause] = []
    for part in _parts(found[opening + 1 : closing]):
        if part[0].word in _TABLE_CONSTRAINTS:
            constraints += _table_constraints(part)
        else:
            columns.append(_column(part))
    return TableDefinition(sql, tuple(columns), tuple(constraints))


def _parts(found: list[Token]) -> list[list[Token]]:
    """What stands between the commas that are in no further parentheses."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in found:
        depth += (token.text == "(") - (token.text == ")")
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _table_constraints(part: list[Token]) -> list[Clause]:
    """The constraints of one part; SQLite takes several without a comma."""
    found: list[Clause] = []
    cursor = Cursor(part)
    while cursor.peek().text:
        first = cursor.at
        name = cursor.name() if cursor.accept("CONSTRAINT") else None
        begin = cursor.at
        cursor.at += 1
        while cursor.peek().text and cursor.peek().word not in _TABLE_CONSTRAINTS:
            if not cursor.skip_parentheses():
                cursor.at += 1
        words = tuple(part[begin : cursor.at])
        if not words:
            break
        found.append(
            Clause(_KINDS[words[0].word], name, part[first].start, words[-1].end, words, _columns(words))
        )
    return found


_KINDS: dict[str, Kind] = {
    "PRIMARY": "primary key",
    "UNIQUE": "unique",
    "CHECK": "check",
    "FOREIGN": "foreign key",
    "REFERENCES": "foreign key",
    "NULL": "null",
    "NOT": "not null",
    "DEFAULT": "default",
    "COLLATE": "collate",
    "GENERATED": "generated",
    "AS": "generated",
}


def _columns(words: tuple[Token, ...]) -> tuple[str, ...]:
    if words[0].word == "CHECK":
        return ()
    opening = next(i for i, token in enumerate(words) if token.text == "(")
    closing = matching_parenthesis(words, opening)
    terms = _parts(list(words[opening + 1 : closing]))
    return tuple(unquoted(term[0]) for term in terms if term)


def _column(part: list[Token]) -> ColumnDefinition:
    cursor = Cursor(part)
    cursor.at = 1
    while cursor.peek().text and cursor.peek().word not in CLAUSES:
        if not cursor.skip_parentheses():
            cursor.at += 1
    type_end = part[cursor.at - 1].end
    clauses = []
    while cursor.peek().text:
        clauses.append(_clause(part, cursor))
    return ColumnDefinition(
        unquoted(part[0]), part[0].start, part[0].end, type_end, part[-1].end, tuple(clauses)
    )


def _clause(part: list[Token], cursor: Cursor) -> Clause:
    first = cursor.at
    name = cursor.name() if cursor.accept("CONSTRAINT") else None
    begin = cursor.at
    word = cursor.peek().word
    cursor.at += 1
    if word == "DEFAULT":
        # A group in parentheses, or one token behind its sign.
        if not cursor.skip_parentheses():
            _ = cursor.accept_symbol("-") or cursor.accept_symbol("+")
            cursor.at += 1
    else:
        if word == "NOT":
            cursor.accept("NULL")
        elif word in ("COLLATE", "REFERENCES"):
            cursor.name()
        _skip_to_next_clause(cursor)
    words = tuple(part[begin : cursor.at])
    return Clause(_KINDS.get(word, "null"), name, part[first].start, words[-1].end, words)


def _skip_to_next_clause(cursor: Cursor) -> None:
    """To where the next clause of a column begins; NOT, NULL and AS may also be part of this one."""
    while cursor.peek().text:
        if (
            cursor.accept("NOT", "DEFERRABLE")
            or cursor.accept("SET", "NULL")
            or cursor.accept("SET", "DEFAULT")
        ):
            continue
        if cursor.accept("ALWAYS", "AS"):
            continue
        if cursor.peek().word in CLAUSES:
            return
        if not cursor.skip_parentheses():
            cursor.at += 1
