"""Tokens are where SQLite sees them."""

from __future__ import annotations

import apsw
import apsw.ext
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rome.sql.lexer import Cursor, parameter_numbers, tokens, unquoted


def kinds(sql: str) -> list[tuple[str, str]]:
    return [(token.kind, token.text) for token in tokens(sql)]


def test_every_kind_of_token() -> None:
    assert kinds(
        """SELECT "a""b", `c`, [d e], 'it''s', x'0aFF', 1.5e-3, .5, 0x1F, 10_000, ?, ?12, :n, @m, $p"""
    ) == [
        ("word", "SELECT"),
        ("quoted", '"a""b"'),
        ("operator", ","),
        ("quoted", "`c`"),
        ("operator", ","),
        ("quoted", "[d e]"),
        ("operator", ","),
        ("string", "'it''s'"),
        ("operator", ","),
        ("blob", "x'0aFF'"),
        ("operator", ","),
        ("number", "1.5e-3"),
        ("operator", ","),
        ("number", ".5"),
        ("operator", ","),
        ("number", "0x1F"),
        ("operator", ","),
        ("number", "10_000"),
        ("operator", ","),
        ("parameter", "?"),
        ("operator", ","),
        ("parameter", "?12"),
        ("operator", ","),
        ("parameter", ":n"),
        ("operator", ","),
        ("parameter", "@m"),
        ("operator", ","),
        ("parameter", "$p"),
    ]


def test_operators_are_read_as_long_as_they_are() -> None:
    sql = "a->>b->c||d<=e<>f<<g==h!=i>=j>>k<l-m"
    assert [token.text for token in tokens(sql) if token.kind == "operator"] == [
        "->>", "->", "||", "<=", "<>", "<<", "==", "!=", ">=", ">>", "<", "-"
    ]  # fmt: skip


def test_comments_are_no_tokens_and_strings_are_no_comments() -> None:
    assert kinds("a -- ' b\n/* c ' */ '-- d' /* open") == [("word", "a"), ("string", "'-- d'")]


def test_minus_minus_begins_a_comment_and_minus_arrow_does_not() -> None:
    assert kinds("1 - -1 --x") == [("number", "1"), ("operator", "-"), ("operator", "-"), ("number", "1")]


def test_what_sqlite_refuses_is_illegal_and_not_lost() -> None:
    assert kinds("a 'open ; b") == [("word", "a"), ("illegal", "'open ; b")]
    assert kinds("a ^ b")[1] == ("illegal", "^")


def test_names_of_other_alphabets_are_words() -> None:
    assert kinds("größe_1$") == [("word", "größe_1$")]


@pytest.mark.parametrize(
    ("text", "name"),
    [("a", "a"), ('"a""b"', 'a"b'), ("`a``b`", "a`b"), ("[a b]", "a b"), ("'a''b'", "a'b"), ('""', "")],
)
def test_unquoted_names(text: str, name: str) -> None:
    assert unquoted(tokens(text)[0]) == name


@given(st.text())
def test_tokens_lie_side_by_side_in_any_text(sql: str) -> None:
    end = 0
    for token in tokens(sql):
        assert token.start >= end
        assert sql[token.start : token.end] == token.text != ""
        end = token.end


pieces = st.sampled_from(
    [
        "?",
        "?3",
        ":a",
        ":b",
        "@a",
        "$a",
        "'?'",
        '"?"',
        "`:a`",
        "[?]",
        "1",
        "x'3f'",
        "-- ?\n",
        "/* :a */",
        "1.5",
    ]
)


@given(st.lists(pieces, min_size=1, max_size=8))
def test_parameters_are_numbered_as_sqlite_numbers_them(operands: list[str]) -> None:
    sql = "SELECT 1 " + "".join(
        f", {piece} 2 " if piece[:2] in ("--", "/*") else f", {piece} " for piece in operands
    )
    connection = apsw.Connection(":memory:")
    connection.execute('CREATE TABLE t ("?", ":a")')
    sql += " FROM t"
    info = apsw.ext.query_info(connection, sql)
    numbers = parameter_numbers(tokens(sql))
    assert max(numbers.values(), default=0) == info.bindings_count
    for token in tokens(sql):
        if token.kind == "parameter" and token.text[0] != "?":
            assert info.bindings_names[numbers[token.start] - 1] == token.text[1:]


def test_a_cursor_behind_the_last_token_finds_nothing() -> None:
    cursor = Cursor(tokens("a.b"))
    assert cursor.qualified_name() == ("a", "b")
    assert not cursor.accept("A")
    assert not cursor.accept_symbol("")
    assert cursor.name() is None
