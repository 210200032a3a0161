"""What a statement is, before SQLite is asked: its verb, its object, and a few landmarks.

The connection has to know beforehand whether a text begins a transaction, changes the schema, or
uses what SQLite does not offer on virtual tables (RETURNING, UPSERT). That is read off the tokens,
and no more is: a text that makes no sense yields a `Statement` that says little, and SQLite
then says what is wrong with it.

A program runs few different texts, many times each, so the analysis is kept by text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import apsw

from rome.sql.alteration import is_extended
from rome.sql.lexer import Cursor, Token, is_name, matching_parenthesis, parameter_numbers, tokens, unquoted


@dataclass(frozen=True, slots=True)
class Statement:
    """What is known of one SQL text. Names are unquoted, offsets are characters of the text."""

    verb: str = "other"
    """select, values, insert, replace, update, delete, create, drop, alter, pragma, begin, commit,
    rollback, savepoint, release, rollback_to, explain, analyze, reindex, vacuum, attach, detach, or
    other. Behind WITH the verb is that of the main statement."""
    kind: str | None = None
    """The kind of a DDL statement's object: table, index, view, trigger or virtual table."""
    name: str | None = None
    """The name of a DDL statement's object, or of a PRAGMA."""
    schema: str | None = None
    """The schema that the object or table is named with, in small letters ("temp" for CREATE TEMP)."""
    if_exists: bool = False
    """IF EXISTS or IF NOT EXISTS was said."""
    table: str | None = None
    """The table that is written to, or that a table, index or trigger statement is about."""
    alteration_at: int | None = None
    """Where the action of an ALTER TABLE begins that SQLite does not know (rome.sql.alteration)."""
    as_select_at: int | None = None
    """Where the query of CREATE TABLE … AS begins."""
    insert_columns: tuple[str, ...] | None = None
    """The columns that INSERT names; None: no list; (): DEFAULT VALUES."""
    columns_at: int | None = None
    """Where an INSERT without a list of columns could have one."""
    conflict_mode: str | None = None
    """The word behind INSERT OR or UPDATE OR, in small letters; "replace" for REPLACE."""
    returning_at: int | None = None
    """Where the statement's own RETURNING begins."""
    upsert_at: int | None = None
    """Where the first ON CONFLICT of an INSERT begins."""
    savepoint: str | None = None
    pragma_value: str | None = None
    """What a PRAGMA is set to, or called with."""
    has_limit: bool = False
    limit: int | None = None
    """The last LIMIT in the text, if it is a number."""
    limit_parameter: int | None = None
    """The number (from 1) of the parameter that is the last LIMIT in the text."""
    names: frozenset[str] = frozenset()
    """What may name a table or a view, in small letters; among it much that does not."""
    mentions_catalog: bool = False
    """sqlite_master or another table of SQLite's own is named, or a pragma_… table function."""
    is_repeatable: bool = True
    """No clock, no random number and no state of the connection is asked for by name (the defaults of
    columns are not looked at)."""
    in_subquery: bool = False
    """There may be an IN with a query or a table behind it."""
    param_count: int = 0
    has_named_parameters: bool = False
    tail: int | None = None
    """Where the next statement of the text begins."""

    @property
    def is_ddl(self) -> bool:
        return self.verb in ("create", "drop", "alter")

    @property
    def temporary(self) -> bool:
        return self.schema == "temp"


_IN_SUBQUERY = re.compile(r"\bIN\s*(\(\s*(SELECT|WITH|VALUES)\b|[^\s(])", re.IGNORECASE)


@lru_cache(maxsize=4096)
def analyse(sql: str) -> Statement:
    """Find out what a text's first statement is. Never raises: SQLite reports what is wrong."""
    found = tokens(sql)
    while found and found[0].text == ";":
        del found[0]
    end = _statement_end(found, 0)
    tail = next((token.start for token in found[end:] if token.text != ";"), None)
    found = found[:end]
    cursor = Cursor(found)
    statement = _dispatch(cursor, found)
    numbers = parameter_numbers(found)
    has_limit, limit, limit_parameter = _limit(found, numbers)
    return replace(
        statement,
        tail=tail,
        param_count=max(numbers.values(), default=0),
        has_named_parameters=any(token.kind == "parameter" and token.text[0] != "?" for token in found),
        in_subquery=_IN_SUBQUERY.search(sql) is not None,
        names=_names(found),
        mentions_catalog=any(map(_is_catalog_name, found)),
        is_repeatable=_is_repeatable(found),
        has_limit=has_limit,
        limit=limit,
        limit_parameter=limit_parameter,
    )


def split_script(sql: str) -> list[str]:
    """The statements of a script, without the semicolons between them."""
    return list(_split(sql))


@lru_cache(maxsize=4)
def _split(sql: str) -> tuple[str, ...]:
    found = tokens(sql)
    statements = []
    start = 0
    while start < len(found):
        end = _statement_end(found, start)
        if end > start:
            statements.append(sql[found[start].start : found[end - 1].end])
        start = end + 1
    return tuple(statements)


def _statement_end(found: Sequence[Token], start: int) -> int:
    """The index of the semicolon that ends a statement. A trigger's last is the one of `; END ;`."""
    cursor = Cursor(found, start)
    if cursor.accept("EXPLAIN"):
        cursor.accept("QUERY", "PLAN")
    is_trigger = False
    if cursor.accept("CREATE"):
        _ = cursor.accept("TEMP") or cursor.accept("TEMPORARY")
        is_trigger = cursor.accept("TRIGGER")
    for index in range(start, len(found)):
        if found[index].text == ";" and (
            not is_trigger or (found[index - 1].word == "END" and found[index - 2].text == ";")
        ):
            return index
    return len(found)


def _dispatch(cursor: Cursor, found: Sequence[Token]) -> Statement:
    _skip_with(cursor)
    word = cursor.peek().word
    if word in ("INSERT", "REPLACE"):
        return _insert(cursor, found)
    if word in ("UPDATE", "DELETE"):
        return _update_or_delete(cursor, found)
    cursor.at += 1
    if word == "CREATE":
        return _create(cursor)
    if word in ("DROP", "ALTER"):
        return _drop_or_alter(word.lower(), cursor)
    if word == "PRAGMA":
        return _pragma(cursor)
    if word in ("SAVEPOINT", "RELEASE", "ROLLBACK"):
        return _savepoint(word, cursor)
    if word == "END":
        return Statement("commit")
    if word in _PLAIN_VERBS:
        return Statement(word.lower())
    return Statement()


_PLAIN_VERBS = frozenset(
    ["SELECT", "VALUES", "BEGIN", "COMMIT", "EXPLAIN", "ANALYZE", "REINDEX", "VACUUM", "ATTACH", "DETACH"]
)


def _skip_with(cursor: Cursor) -> None:
    """Step over WITH and its common table expressions, to the verb."""
    if not cursor.accept("WITH"):
        return
    cursor.accept("RECURSIVE")
    while cursor.name() is not None:
        cursor.skip_parentheses()
        if not cursor.accept("AS"):
            return
        cursor.accept("NOT")
        cursor.accept("MATERIALIZED")
        cursor.skip_parentheses()
        if not cursor.accept_symbol(","):
            return


def _insert(cursor: Cursor, found: Sequence[Token]) -> Statement:
    verb = cursor.peek().word.lower()
    cursor.at += 1
    mode = "replace" if verb == "replace" else _conflict_mode(cursor)
    cursor.accept("INTO")
    schema, table = _object_name(cursor)
    if cursor.accept("AS"):
        cursor.name()
    columns: tuple[str, ...] | None = None
    columns_at = None
    opening = cursor.at
    if cursor.accept("DEFAULT", "VALUES"):
        columns = ()
    elif cursor.skip_parentheses():
        columns = tuple(unquoted(token) for token in found[opening + 1 : cursor.at - 1] if token.text != ",")
    else:
        columns_at = found[opening - 1].end
    top_level = _top_level(found, cursor.at)
    return Statement(
        verb,
        schema=schema,
        table=table,
        insert_columns=columns,
        columns_at=columns_at,
        conflict_mode=mode,
        returning_at=_returning(top_level),
        upsert_at=_upsert(top_level),
    )


def _update_or_delete(cursor: Cursor, found: Sequence[Token]) -> Statement:
    verb = cursor.peek().word.lower()
    cursor.at += 1
    mode = _conflict_mode(cursor)
    cursor.accept("FROM")
    schema, table = _object_name(cursor)
    returning_at = _returning(_top_level(found, cursor.at))
    return Statement(verb, schema=schema, table=table, conflict_mode=mode, returning_at=returning_at)


def _conflict_mode(cursor: Cursor) -> str | None:
    if not cursor.accept("OR"):
        return None
    mode = cursor.peek().word.lower()
    cursor.at += 1
    return mode


def _object_name(cursor: Cursor) -> tuple[str | None, str | None]:
    """`name` or `schema.name`, the schema in small letters: SQLite ignores its case."""
    schema, name = cursor.qualified_name()
    return schema and schema.lower(), name


def _top_level(found: Sequence[Token], start: int) -> list[Token]:
    """The tokens from `start` on that stand in no parentheses."""
    depth = 0
    outside = []
    for token in found[start:]:
        if token.text == "(":
            depth += 1
        elif token.text == ")":
            depth -= 1
        elif depth == 0:
            outside.append(token)
    return outside


def _returning(top_level: Sequence[Token]) -> int | None:
    return next((token.start for token in top_level if token.word == "RETURNING"), None)


def _upsert(top_level: Sequence[Token]) -> int | None:
    """ON CONFLICT; what follows keeps it apart from a join ON a column named `conflict`."""
    for index, token in enumerate(top_level):
        if token.word == "ON":
            following = [later.word for later in top_level[index + 1 : index + 3]]
            if following in (["CONFLICT", "DO"], ["CONFLICT", "WHERE"]):
                return token.start
    return None


def _create(cursor: Cursor) -> Statement:
    temporary = cursor.accept("TEMP") or cursor.accept("TEMPORARY")
    cursor.accept("UNIQUE")
    virtual = cursor.accept("VIRTUAL")
    kind = _kind(cursor)
    if_exists = cursor.accept("IF", "NOT", "EXISTS")
    schema, name = _object_name(cursor)
    table = name if kind == "table" else None
    as_select_at = None
    if kind == "table" and cursor.accept("AS"):
        as_select_at = cursor.peek().start
    if kind == "index" and cursor.accept("ON"):
        table = cursor.name()
    if kind == "trigger":
        table = _trigger_table(cursor)
    return Statement(
        "create",
        kind="virtual table" if virtual else kind,
        name=name,
        schema="temp" if temporary else schema,
        if_exists=if_exists,
        table=table,
        as_select_at=as_select_at,
    )


def _kind(cursor: Cursor) -> str | None:
    for word in ("TABLE", "INDEX", "VIEW", "TRIGGER"):
        if cursor.accept(word):
            return word.lower()
    return None


def _trigger_table(cursor: Cursor) -> str | None:
    """The name behind ON, the first in CREATE TRIGGER … [UPDATE OF columns] ON table."""
    while cursor.peek().text and cursor.peek().word != "BEGIN":
        if cursor.accept("ON"):
            return cursor.name()
        cursor.at += 1
    return None


def _drop_or_alter(verb: str, cursor: Cursor) -> Statement:
    kind = _kind(cursor)
    if_exists = cursor.accept("IF", "EXISTS")
    schema, name = _object_name(cursor)
    table = name if kind == "table" else None
    action = cursor.peek().start
    extended = verb == "alter" and table is not None and is_extended(cursor)
    return Statement(
        verb,
        kind=kind,
        name=name,
        schema=schema,
        if_exists=if_exists,
        table=table,
        alteration_at=action if extended else None,
    )


def _pragma(cursor: Cursor) -> Statement:
    schema, name = _object_name(cursor)
    value = None
    if cursor.accept_symbol("=") or cursor.accept_symbol("("):
        sign = "-" if cursor.accept_symbol("-") else ""
        token = cursor.peek()
        value = sign + (unquoted(token) if token.kind in ("quoted", "string") else token.text)
    return Statement("pragma", name=name and name.lower(), schema=schema, pragma_value=value)


def _savepoint(word: str, cursor: Cursor) -> Statement:
    if word == "ROLLBACK":
        cursor.accept("TRANSACTION")
        if not cursor.accept("TO"):
            return Statement("rollback")
        word = "ROLLBACK_TO"
    if word != "SAVEPOINT" and cursor.peek(1).text:
        cursor.accept("SAVEPOINT")
    return Statement(word.lower(), savepoint=cursor.name())


@cache
def _catalog_tables() -> frozenset[str]:
    """SQLite's own tables, and the table functions that it makes of its pragmas."""
    own = ["sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema", "sqlite_sequence"]
    pragmas = apsw.Connection(":memory:").execute("PRAGMA pragma_list")
    return frozenset([*own, *(f"pragma_{name}" for (name,) in pragmas)])


def _is_catalog_name(token: Token) -> bool:
    return token.kind in ("word", "quoted") and unquoted(token).lower() in _catalog_tables()


def _names(found: Sequence[Token]) -> frozenset[str]:
    """All names but columns behind their table and what stands behind AS.

    What is before a period is a schema, or a table that is named elsewhere, too.
    """
    names = set()
    for index, token in enumerate(found):
        if not is_name(token) or (index + 1 < len(found) and found[index + 1].text == "."):
            continue
        before = found[index - 1] if index else None
        if before is not None and before.text == ".":
            if index < 2 or unquoted(found[index - 2]).lower() not in ("main", "temp"):
                continue
        elif before is not None and before.word == "AS":
            continue
        names.add(unquoted(token).lower())
    return frozenset(names)


_CLOCK_WORDS = frozenset(["CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME"])
_CLOCK_FUNCTIONS = frozenset(["date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff"])
_STATE_FUNCTIONS = frozenset(["random", "randomblob", "last_insert_rowid", "changes", "total_changes"])


def _is_repeatable(found: Sequence[Token]) -> bool:
    for index, token in enumerate(found):
        if token.word in _CLOCK_WORDS:
            return False
        if token.text != "(" or found[index - 1].kind not in ("word", "quoted"):
            continue
        function = unquoted(found[index - 1]).lower()
        if function in _STATE_FUNCTIONS:
            return False
        if function in _CLOCK_FUNCTIONS:
            closing = matching_parenthesis(found, index) or len(found)
            if _asks_the_clock(function, found[index + 1 : closing]):
                return False
    return True


def _asks_the_clock(function: str, arguments: Sequence[Token]) -> bool:
    """Date functions use the clock if no time is given and for 'now', which a parameter may be too."""
    return len(arguments) <= (function == "strftime") or any(
        token.kind == "parameter" or (token.kind == "string" and unquoted(token).lower() == "now")
        for token in arguments
    )


def _limit(found: Sequence[Token], numbers: dict[int, int]) -> tuple[bool, int | None, int | None]:
    """The last LIMIT (`LIMIT n`, `LIMIT n OFFSET m`, `LIMIT m, n`): is there one, its number or parameter."""
    at = max((index for index, token in enumerate(found) if token.word == "LIMIT"), default=None)
    if at is None:
        return False, None, None
    cursor = Cursor(found, at + 1)
    if cursor.peek(1).text == ",":
        cursor.at += 2
    token, following = cursor.peek(), cursor.peek(1)
    if following.text not in ("", ")") and following.word != "OFFSET":
        return True, None, None
    if token.kind == "number" and token.text.isdigit():
        return True, int(token.text), None
    return True, None, numbers.get(token.start)
