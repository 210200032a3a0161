"""What a CREATE statement says that SQLite's PRAGMAs do not repeat, found between its tokens.

SQLite has parsed and accepted the statement before this is asked, so only landmarks are looked
for: the terms of an index and its WHERE clause, and which foreign keys are deferred.
"""

from __future__ import annotations

from rome.sql.lexer import Token, tokens

_CHECKED = frozenset(["CHECK", "STRICT", "CONFLICT"])


def index_terms(sql: str) -> tuple[list[str], str | None]:
    """The terms between the parentheses of CREATE INDEX (without COLLATE, ASC, DESC), and WHERE."""
    all_tokens = tokens(sql)
    on = next(i for i, token in enumerate(all_tokens) if _is(token, "ON"))
    start = next(i for i in range(on, len(all_tokens)) if all_tokens[i].text == "(")
    terms: list[str] = []
    depth = 0
    begin = start + 1
    position = start
    for position in range(start, len(all_tokens)):
        text = all_tokens[position].text
        depth += (text == "(") - (text == ")")
        if (text == "," and depth == 1) or depth == 0:
            terms.append(_term(sql, all_tokens[begin:position]))
            begin = position + 1
            if depth == 0:
                break
    tail = all_tokens[position + 1 :]
    if tail and _is(tail[0], "WHERE"):
        return terms, sql[tail[0].end :].strip()
    return terms, None


def _term(sql: str, term: list[Token]) -> str:
    while term and (_is(term[-1], "ASC") or _is(term[-1], "DESC")):
        term = term[:-1]
    if len(term) > 2 and _is(term[-2], "COLLATE"):
        term = term[:-2]
    return sql[term[0].start : term[-1].end]


def deferred_references(sql: str) -> list[bool]:
    """For each REFERENCES of a CREATE TABLE, in order, whether it is INITIALLY DEFERRED; [] if none is."""
    if "DEFERRED" not in sql.upper():
        return []
    found: list[bool] = []
    negated = False
    previous: Token | None = None
    for token in tokens(sql):
        if _is(token, "REFERENCES"):
            found.append(False)
            negated = False
        elif _is(token, "DEFERRABLE"):
            negated = previous is not None and _is(previous, "NOT")
        elif found and _is(token, "DEFERRED") and previous is not None and _is(previous, "INITIALLY"):
            found[-1] = not negated
        previous = token
    return found


def needs_sqlite(sql: str) -> bool:
    """Whether rows of this table have to be put to SQLite: CHECK, STRICT, ON CONFLICT."""
    text = sql.upper()
    if not any(word in text for word in _CHECKED):
        return False
    words = {token.text.upper() for token in tokens(sql) if token.kind == "word"}
    return bool(words & _CHECKED)


def _is(token: Token, word: str) -> bool:
    return token.kind == "word" and token.text.upper() == word
