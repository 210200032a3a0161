"""ALTER TABLE beyond SQLite's: constraints and columns are changed in place.

SQLite adds, drops and renames columns. Other databases change constraints, types, defaults and NOT NULL
as well, and migrations written for them do so. Here each of these becomes a change of the table's
CREATE statement; `rome.sql.schema` then sees to the rows. The grammar is PostgreSQL's, which is what
SQLAlchemy and Alembic write for a dialect that does not say otherwise:

    ADD [CONSTRAINT name] {PRIMARY KEY | UNIQUE | CHECK | FOREIGN KEY} …
    DROP CONSTRAINT [IF EXISTS] name          DROP PRIMARY KEY          DROP CHECK [IF EXISTS] (expression)
    ALTER [COLUMN] c {SET | DROP} NOT NULL    ALTER [COLUMN] c {SET DEFAULT value | DROP DEFAULT}
    ALTER [COLUMN] c [SET DATA] TYPE type
    ADD [COLUMN] IF NOT EXISTS …              DROP [COLUMN] [IF EXISTS] c [CASCADE]
    [CONVERT TO | DEFAULT] CHARACTER SET utf8… [COLLATE …_bin]

Some of these SQLite has learnt itself (3.53: CHECK and NOT NULL). It is not asked to, since it would look
for the rows in the shadow, which has none.

The last one is MySQL's, and changes nothing: text is Unicode here, and compared byte by byte. Any other
character set or collation would be a false promise, and is refused in MySQL's words.

A primary key can be dropped by its kind, and CHECK by its expression, since these often have no name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import apsw

from rome.sql.definition import CLAUSES, Clause, ColumnDefinition, Kind, TableDefinition, read_definition
from rome.sql.lexer import Cursor, Token, matching_parenthesis, tokens, unquoted


@dataclass(frozen=True, slots=True)
class Alteration:
    """What ALTER TABLE makes of a table."""

    sql: str
    """Its new CREATE statement."""
    added: Kind | None = None
    """The kind of the constraint that was added."""
    dropped_column: str | None = None
    """What else depends on this column goes with it: CASCADE."""


@dataclass(frozen=True, slots=True)
class Rest:
    """The same statement without what SQLite does not know (IF EXISTS); None: nothing is left to do."""

    sql: str | None


def is_extended(cursor: Cursor) -> bool:
    """Whether what follows `ALTER TABLE name` is for this module. Moves the cursor."""
    if cursor.accept("ADD"):
        if cursor.peek().word in ("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"):
            return True
        cursor.accept("COLUMN")
        return cursor.accept("IF", "NOT", "EXISTS")
    if cursor.accept("DROP"):
        if any(cursor.accept(*words) for words in (("CONSTRAINT",), ("PRIMARY", "KEY"), ("CHECK",))):
            return True
        cursor.accept("COLUMN")
        if cursor.accept("IF", "EXISTS"):
            return True
        return cursor.name() is not None and cursor.accept("CASCADE")
    return cursor.accept("ALTER") or _accept_character_set(cursor)


def alter(sql: str, start: int, table_sql: str) -> Alteration | Rest:
    """Read the action that begins at character `start` of an ALTER TABLE, and do it to the table's text.

    Raises `apsw.SQLError`, with SQLite's text where SQLite has one.
    """
    action = [token for token in tokens(sql) if token.start >= start]
    if action and action[-1].text == ";":
        action.pop()
    return _Reader(sql, action, read_definition(table_sql)).read()


class _Reader:
    """Reads one action and changes one definition."""

    def __init__(self, sql: str, action: list[Token], table: TableDefinition) -> None:
        self._sql = sql
        self._action = action
        self._cursor = Cursor(action)
        self._table = table

    def read(self) -> Alteration | Rest:
        cursor = self._cursor
        if cursor.accept("ADD"):
            if cursor.accept("COLUMN") or cursor.peek().word == "IF":
                return self._add_column()
            return self._add_constraint()
        if cursor.accept("DROP"):
            if cursor.accept("CONSTRAINT"):
                return self._drop_constraint()
            if cursor.accept("PRIMARY", "KEY"):
                self._end()
                return self._without_primary_key()
            if cursor.accept("CHECK"):
                return self._without_check()
            cursor.accept("COLUMN")
            return self._drop_column()
        if _accept_character_set(cursor):
            return self._character_set()
        cursor.accept("ALTER")
        cursor.accept("COLUMN")
        return self._alter_column()

    def _character_set(self) -> Rest:
        cursor = self._cursor
        cursor.accept_symbol("=")
        character_set = self._name()
        if not character_set.lower().startswith("utf8"):
            raise apsw.SQLError(f"Unknown character set: '{character_set}'")
        if cursor.accept("COLLATE"):
            cursor.accept_symbol("=")
            collation = self._name()
            if not collation.lower().endswith("_bin"):
                raise apsw.SQLError(f"Unknown collation: '{collation}'")
        self._end()
        return Rest(None)

    # Constraints

    def _add_constraint(self) -> Alteration:
        cursor = self._cursor
        begin = cursor.at
        name = cursor.name() if cursor.accept("CONSTRAINT") else None
        if name is not None:
            self._refuse_known_name(name)
        kind = _ADDED.get(cursor.peek().word)
        if kind is None:
            raise self._syntax_error()
        while cursor.peek().text:
            if cursor.peek().text in (",", ")"):
                raise self._syntax_error()
            if not cursor.skip_parentheses():
                cursor.at += 1
        text = self._sql[self._action[begin].start : self._action[-1].end]
        at = self._table.end
        sql = self._table.sql
        return Alteration(f"{sql[:at]}, \n\t{text}{sql[at:]}", added=kind)

    def _refuse_known_name(self, name: str) -> None:
        if self._named(name):
            raise apsw.SQLError(f"constraint {name} already exists")

    def _named(self, name: str) -> list[Clause]:
        return [
            clause
            for clause in self._table.all_constraints()
            if clause.name is not None and clause.name.lower() == name.lower()
        ]

    def _drop_constraint(self) -> Alteration | Rest:
        if_exists = self._cursor.accept("IF", "EXISTS")
        name = self._name()
        self._cursor.accept("CASCADE")
        self._end()
        found = self._named(name)
        if not found:
            if if_exists:
                return Rest(None)
            raise apsw.SQLError(f"no such constraint: {name}")
        return Alteration(self._table.without(found[0]))

    def _without_primary_key(self) -> Alteration:
        key = next((c for c in self._table.all_constraints() if c.kind == "primary key"), None)
        if key is None:
            raise apsw.SQLError("no such constraint: PRIMARY KEY")
        return Alteration(self._table.without(key))

    def _without_check(self) -> Alteration | Rest:
        if_exists = self._cursor.accept("IF", "EXISTS")
        expression = self._remaining()
        wanted = _folded(expression)
        for constraint in self._table.all_constraints():
            if constraint.kind == "check" and _folded(constraint.words[1:]) == wanted:
                return Alteration(self._table.without(constraint))
        if if_exists:
            return Rest(None)
        text = self._sql[expression[0].start : expression[-1].end]
        raise apsw.SQLError(f"no such constraint: CHECK {text}")

    # Columns

    def _add_column(self) -> Rest:
        cursor = self._cursor
        if not cursor.accept("IF", "NOT", "EXISTS"):
            raise self._syntax_error()
        name_at = cursor.peek().start
        if self._table.column(self._name()) is not None:
            return Rest(None)
        return Rest(f"{self._sql[: self._action[0].start]} ADD COLUMN {self._sql[name_at:]}")

    def _drop_column(self) -> Alteration | Rest:
        if_exists = self._cursor.accept("IF", "EXISTS")
        name_at = self._cursor.peek()
        name = self._name()
        cascade = self._cursor.accept("CASCADE")
        self._end()
        column = self._table.column(name)
        if column is None and if_exists:
            return Rest(None)
        if not cascade:
            return Rest(f"{self._sql[: self._action[0].start]} DROP COLUMN {name_at.text}")
        if column is None:
            raise apsw.SQLError(f'no such column: "{name}"')
        if len(self._table.columns) == 1:
            raise apsw.SQLError(f'cannot drop column "{name}": no other columns exist')
        return Alteration(self._without_column(column), dropped_column=column.name)

    def _without_column(self, column: ColumnDefinition) -> str:
        table = self._table
        while True:
            depending = next((c for c in table.constraints if _depends(c, column.name)), None)
            if depending is None:
                break
            table = read_definition(table.without(depending))
        found = table.column(column.name)
        assert found is not None
        return table.without(found)

    def _alter_column(self) -> Alteration:
        cursor = self._cursor
        name = self._name()
        column = self._table.column(name)
        if column is None:
            raise apsw.SQLError(f"no such column: {name}")
        if cursor.accept("SET", "NOT", "NULL"):
            self._end()
            return Alteration(self._with_not_null(column))
        if cursor.accept("DROP", "NOT", "NULL"):
            self._end()
            return Alteration(self._without_clauses(column, "not null"))
        if cursor.accept("DROP", "DEFAULT"):
            self._end()
            return Alteration(self._without_clauses(column, "default"))
        if cursor.accept("SET", "DEFAULT"):
            return Alteration(self._with_default(column))
        if cursor.accept("TYPE") or cursor.accept("SET", "DATA", "TYPE"):
            return Alteration(self._with_type(column))
        raise self._syntax_error()

    def _with_not_null(self, column: ColumnDefinition) -> str:
        if column.clause("not null") is not None:
            return self._table.sql
        return _put(self._without_clauses(column, "null"), column.name, "NOT NULL", at=_behind_default)

    def _with_default(self, column: ColumnDefinition) -> str:
        value = self._remaining()
        if len(value) > 1 and not (value[0].text in "+-" and len(value) == 2):
            closing = matching_parenthesis(value, 0)
            if closing != len(value) - 1:
                raise self._syntax_error()
        text = self._sql[value[0].start : value[-1].end]
        return _put(self._without_clauses(column, "default"), column.name, f"DEFAULT {text}", at=_behind_type)

    def _with_type(self, column: ColumnDefinition) -> str:
        type = self._remaining()
        for token in type:
            if token.word in CLAUSES or token.word == "USING":
                raise apsw.SQLError(f'near "{token.text}": syntax error')
        text = self._sql[type[0].start : type[-1].end]
        sql = self._table.sql
        return f"{sql[: column.name_end]} {text}{sql[column.type_end :]}"

    def _without_clauses(self, column: ColumnDefinition, kind: Kind) -> str:
        table = self._table
        while True:
            found = table.column(column.name)
            assert found is not None
            clause = found.clause(kind)
            if clause is None:
                return table.sql
            table = read_definition(table.without(clause))

    # Reading

    def _name(self) -> str:
        name = self._cursor.name()
        if name is None:
            raise self._syntax_error()
        return name

    def _remaining(self) -> list[Token]:
        """The rest of the statement: a type or a value, neither of which has a comma or a bare `)`."""
        rest = self._action[self._cursor.at :]
        depth = 0
        for token in rest:
            depth += (token.text == "(") - (token.text == ")")
            if depth < 0 or (depth == 0 and token.text in (",", ";")):
                raise apsw.SQLError(f'near "{token.text}": syntax error')
        if not rest or depth:
            raise apsw.SQLError("incomplete input")
        return rest

    def _end(self) -> None:
        if self._cursor.peek().text:
            raise self._syntax_error()

    def _syntax_error(self) -> apsw.SQLError:
        text = self._cursor.peek().text
        return apsw.SQLError(f'near "{text}": syntax error' if text else "incomplete input")


def _accept_character_set(cursor: Cursor) -> bool:
    if not cursor.accept("CONVERT", "TO"):
        cursor.accept("DEFAULT")
    return cursor.accept("CHARACTER", "SET")


_ADDED: dict[str, Kind] = {
    "PRIMARY": "primary key",
    "UNIQUE": "unique",
    "CHECK": "check",
    "FOREIGN": "foreign key",
}


def _folded(words: Sequence[Token]) -> list[str]:
    """An expression's tokens, to be compared: names without quotes and in small letters."""
    return [unquoted(token).lower() if token.kind in ("word", "quoted") else token.text for token in words]


def _depends(constraint: Clause, column: str) -> bool:
    """Whether a constraint of the table goes with this column."""
    if constraint.kind == "check":
        return constraint.mentions(column)
    return column.lower() in (name.lower() for name in constraint.columns)


def _put(sql: str, column: str, text: str, at: Callable[[ColumnDefinition], int]) -> str:
    """Put a clause into a column's definition."""
    found = read_definition(sql).column(column)
    assert found is not None
    place = at(found)
    return f"{sql[:place]} {text}{sql[place:]}"


def _behind_type(column: ColumnDefinition) -> int:
    return column.type_end


def _behind_default(column: ColumnDefinition) -> int:
    default = column.clause("default")
    return default.end if default is not None else column.type_end


def mentions(sql: str, column: str) -> bool:
    """Whether a name that could be this column's stands in the terms or the WHERE of a CREATE INDEX."""
    found = tokens(sql)
    start = next((i for i, token in enumerate(found) if token.text == "("), len(found))
    return any(
        token.kind in ("word", "quoted") and unquoted(token).lower() == column.lower()
        for token in found[start:]
    )
