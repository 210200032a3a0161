"""Keyset criteria get the range that they imply, and the rows stay the same: SQLite is the judge."""

from __future__ import annotations

import re
from typing import Any

import apsw
import apsw.ext
import pytest
from hypothesis import assume, event, example, given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, Table, and_, case, or_, select
from sqlalchemy.dialects import sqlite

from rome.records.rows import Value
from rome.sql.keyset import find


def implied(sql: str) -> str | None:
    """The condition that was added, with its parameters numbered."""
    keyset = find(sql)
    if keyset is None:
        return None
    (added,) = re.findall(r"\) AND (\S+(?: COLLATE BINARY)? [<>]= \S+) ", keyset.sql)
    assert isinstance(added, str)
    return added


WRAPPED = "CASE WHEN (a IS NOT NULL) THEN a END"
DEFAULTED = "CASE WHEN a IS NOT NULL THEN a ELSE ? END"


@pytest.mark.parametrize(
    ("where", "added"),
    [
        ("(a < ? OR a = ? AND b < ?)", "a <= ?1"),
        ("(a < ? OR (a = ? AND b < ?))", "a <= ?1"),
        ("((a < ?) OR (a = ? AND (b < ? OR b = ? AND c < ?)))", "a <= ?1"),
        ("(a > ? OR a = ? AND b > ? OR a = ? AND b = ? AND c > ?)", "a >= ?1"),
        ("(a < ? OR (a = ? AND b < ?) OR (a = ? AND b = ? AND c < ?))", "a <= ?1"),
        ("(a <= ? OR a = ? AND b < ?)", "a <= ?1"),
        ("a < ? OR a = ? AND b < ?", "a <= ?1"),
        ("c = 1 AND ((a > ? OR a = ? AND b > ?)) AND c < 9", "a >= ?1"),
        ("(c = 1 AND (a > ? OR a = ? AND b > ?))", "a >= ?1"),
        ("c = ? AND (a > ? OR a = ? AND b > ?)", "a >= ?2"),
        ('(t."a" > ? OR T.A = ? AND b > ?)', 't."a" >= ?1'),
        ("(? > a OR ? = a AND b < ?)", "a <= ?1"),
        ("(a < ? OR ? == a AND b < ?)", "a <= ?1"),
        ("(a < :m OR a = :m AND b < :n)", "a <= :m"),
        ("(a < :m OR a = :m_1 AND b < :n)", "a <= :m"),
        ("(a < ?2 OR a = ?1 AND b < ?3)", "a <= ?2"),
        ("(a < 5 OR a = 5 AND b < 7)", "a <= 5"),
        ("(a < 'x' OR a = 'x' AND b < 'y')", "a <= 'x'"),
        ("c BETWEEN 1 AND 2 AND (a < ? OR a = ? AND b BETWEEN ? AND ?)", "a <= ?1"),
        ("(a < ? OR a = ? AND CASE WHEN b OR c THEN 1 ELSE 0 END)", "a <= ?1"),
        (f"({WRAPPED} < ? OR {WRAPPED} = ? AND b < ?)", "a COLLATE BINARY <= ?1"),
        (f"({DEFAULTED} > ? OR {DEFAULTED} = ? AND b)", "a COLLATE BINARY >= ?2"),
    ],
)
def test_criteria_that_imply_a_range(where: str, added: str) -> None:
    assert implied(f"SELECT a FROM t WHERE {where} ORDER BY a LIMIT 5") == added


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM t WHERE NOT (a < ? OR a = ? AND b < ?)",
        "SELECT * FROM t WHERE c OR (a < ? OR a = ? AND b < ?)",
        "SELECT * FROM t WHERE (a < ? OR a = ? AND b < ?) OR c",
        "SELECT * FROM t WHERE (a < ? OR a = ? AND b < ?) IS NULL",
        "SELECT * FROM t WHERE c = (a < ? OR a = ? AND b < ?)",
        "SELECT * FROM t WHERE c BETWEEN 0 AND (a < ? OR a = ? AND b < ?)",
        "SELECT * FROM t WHERE (a < ? OR a = ? AND b < ? OR c)",
        "SELECT * FROM t WHERE (a < ? OR (a = ? AND b < ? OR c))",
        "SELECT * FROM t WHERE (a < ? OR b = ? AND a < ?)",
        "SELECT * FROM t WHERE (a < ? OR t.a = ? AND b < ?)",
        "SELECT * FROM t WHERE (a < ? OR a > ? AND b < ?)",
        "SELECT * FROM t WHERE (a = ? OR a < ? AND b < ?)",
        "SELECT * FROM t WHERE (a < ? OR NOT a = ? AND b < ?)",
        "SELECT * FROM t WHERE (a < ? OR a = ? + 1 AND b < ?)",
        "SELECT * FROM t WHERE (a < -? OR a = ? AND b < ?)",
        "SELECT * FROM t WHERE (a < ? OR c BETWEEN b AND a = ?)",
        "SELECT * FROM t WHERE (a < ? COLLATE NOCASE OR a = ? AND b < ?)",
        "SELECT * FROM t WHERE (a < 5 OR a = 6 AND b < ?)",
        "SELECT * FROM t WHERE (a < ? OR a = 6 AND b < ?)",
        "SELECT * FROM t WHERE (a < ?)",
        "SELECT * FROM t WHERE (a < ?1 OR a = ? AND b < ?)",
        "SELECT * FROM t WHERE c = 'x OR' AND a < ?",
        "SELECT a FROM t GROUP BY a HAVING (a < ? OR a = ? AND b < ?)",
        "SELECT (a < ? OR a = ? AND b < ?) FROM t",
        "SELECT a + ? FROM t WHERE (a < ? OR a = ? AND b < ?)",
        "SELECT (SELECT a FROM t WHERE c = ?) FROM t WHERE (a < ? OR a = ? AND b < ?)",
        "SELECT * FROM t LEFT JOIN u ON (a < ? OR a = ? AND b < ?)",
        "SELECT * FROM t WHERE window OR (a < ? OR a = ? AND b < ?)",
        "SELECT * FROM t WHERE (a < ? OR a = ? AND b < ?) AND window OR c",
        "SELECT * FROM t WHERE CASE WHEN end THEN 1 END AND (a < ? OR a = ? AND b < ?)",
        "SELECT * FROM t WHERE (SELECT c = 1 AND (a < ? OR a = ? AND b < ?))",
        "SELECT count(*) FILTER (WHERE a < ? OR a = ? AND b < ?) FROM t",
        "SELECT * FROM t WHERE (a < ? OR a = ? AND b < ?); SELECT 1",
        "INSERT INTO t SELECT * FROM t WHERE (a < ? OR a = ? AND b < ?)",
        f"SELECT * FROM t WHERE ({WRAPPED} < 5 OR {WRAPPED} = 5 AND b < ?)".replace("THEN a", "THEN b"),
        f"SELECT * FROM t WHERE ({WRAPPED} < 5 OR {WRAPPED} = 5 AND b < ?)".replace("IS NOT", "IS"),
        f"SELECT * FROM t WHERE (a < ? OR {WRAPPED} = ? AND b < ?)",
        f"SELECT a COLLATE NOCASE AS a FROM t WHERE ({WRAPPED} < :a OR {WRAPPED} = :a AND b)",
        f"SELECT * FROM t WHERE ({DEFAULTED} < ? OR {DEFAULTED} = ? AND b < ?)",
        "SELECT * FROM t WHERE (a < ? OR a = ? AND b < ?",
        "SELECT * FROM t WHERE a < ? OR a = 'open",
        "SELECT * FROM t WHERE a < ? OR CASE",
        "",
    ],
)
def test_what_leaves_a_doubt_is_left_alone(sql: str) -> None:
    assert find(sql) is None


def test_every_parameter_keeps_its_place() -> None:
    keyset = find("SELECT * FROM t WHERE c = ? AND (? > a OR a = ? AND b < ?)ORDER BY a LIMIT ?")
    assert keyset is not None
    assert keyset.sql == (
        "SELECT * FROM t WHERE c = ?1 AND ((?2 > a OR a = ?3 AND b < ?4) AND a <= ?2 )ORDER BY a LIMIT ?5"
    )
    assert [(one.position, other.position) for one, other in keyset.equal_params] == [(1, 2)]


def test_the_rewriting_needs_equal_parameters_of_one_type() -> None:
    keyset = find("SELECT * FROM t WHERE (a < ? OR a = ? AND b < ?)")
    assert keyset is not None
    assert keyset.applies((5, 5, 1))
    assert keyset.applies(("x", "x", None))
    assert not keyset.applies((5, 6, 1))
    assert not keyset.applies((5, 5.0, 1))
    assert not keyset.applies((1, True, 1))
    assert not keyset.applies((None, None, 1))
    assert not keyset.applies(())
    assert not keyset.applies({"a": 5})


def test_named_parameters_are_found_by_name() -> None:
    keyset = find("SELECT * FROM t WHERE (a < :m OR a = :n AND b < :o)")
    assert keyset is not None
    assert keyset.applies({"m": 5, "n": 5, "o": 1})
    assert keyset.applies((5, 5, 1))
    assert not keyset.applies({"m": 5, "n": 6, "o": 1})
    assert not keyset.applies({"m": 5})


def test_a_case_compares_without_affinity_so_some_bounds_are_refused() -> None:
    down = find(f"SELECT * FROM t WHERE ({WRAPPED} < ? OR {WRAPPED} = ? AND b < 1)")
    up = find(f"SELECT * FROM t WHERE ({WRAPPED} > ? OR {WRAPPED} = ? AND b < 1)")
    assert down is not None
    assert up is not None
    for value, below, above in [
        ("2026-11-21 01:29", True, True),
        ("5", False, True),
        (5, True, False),
        (b"5", True, True),
    ]:
        assert down.applies((value, value)) == below
        assert up.applies((value, value)) == above


def test_explain_shows_the_plan_of_the_rewritten_statement() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t (a, b); CREATE INDEX i ON t (a, b)")
    sql = (
        "EXPLAIN QUERY PLAN SELECT * FROM t WHERE (a < ? OR a = ? AND b < ?) ORDER BY a DESC, b DESC LIMIT 5"
    )
    keyset = find(sql)
    assert keyset is not None
    assert "SCAN" in str(list(connection.execute(sql, (1, 1, 1))))
    assert "SEARCH t USING COVERING INDEX i (a<?)" in str(list(connection.execute(keyset.sql, (1, 1, 1))))


# What programs write.

metadata = MetaData()
things = Table(
    "things", metadata, Column("id", Integer, primary_key=True), Column("a", Integer), Column("b", Integer)
)


def test_what_sqlalchemy_writes_for_keyset_criteria() -> None:
    a, b, key = things.c.a, things.c.b, things.c.id
    criteria = or_(a < 5, and_(a == 5, or_(b < 3, and_(b == 3, key < 9))))
    statement = select(things).where(key > 0, criteria).order_by(a.desc(), b.desc(), key.desc()).limit(5)
    for paramstyle, added in [("qmark", "things.a <= ?2"), ("named", "things.a <= :a_1")]:
        assert implied(str(statement.compile(dialect=sqlite.dialect(paramstyle=paramstyle)))) == added


def test_what_oslo_db_and_glance_write_for_a_marker() -> None:
    """paginate_query's criteria, in a subquery that eager loading puts around it."""

    def wrapped(column: Column[Any], default: int | None) -> Any:
        return case((column.isnot(None), column), else_=default)

    a, key = things.c.a, things.c.id
    criteria = or_(wrapped(a, None) < 5, and_(wrapped(a, None) == 5, wrapped(key, 0) < 9))
    page = select(things).where(things.c.b == 1, criteria).order_by(a.desc(), key.desc()).limit(25).offset(0)
    anonymous = page.subquery()
    statement = select(anonymous).outerjoin(things, anonymous.c.id == things.c.id)
    sql = str(statement.compile(dialect=sqlite.dialect()))
    assert "CASE WHEN (things.a IS NOT NULL) THEN things.a END < ?" in sql
    assert implied(sql) == "things.a COLLATE BINARY <= ?2"


# Random statements, on tables with every affinity and collation.

TYPES = ["INTEGER", "TEXT", "TEXT COLLATE NOCASE", "DATETIME", "REAL", "BLOB", ""]
scalars = st.sampled_from([0, 1, 5, 10, 1.5, "", "5", "10", " 5", "a", "B", "b", "1e1", "2026-1", b"5"])
stored = st.none() | scalars


@st.composite
def wrappers(draw: st.DrawFn, column: str) -> str:
    style = draw(st.sampled_from(["{0}", "CASE WHEN ({0} IS NOT NULL) THEN {0} END", "ELSE"]))
    if style == "ELSE":
        default = draw(st.sampled_from(["''", "0", "'5'", "?"]))
        style = "CASE WHEN {0} IS NOT NULL THEN {0} ELSE " + default + " END"
    return style.format(column)


@st.composite
def criteria(draw: st.DrawFn) -> str:
    """A keyset's OR over the columns a, b and c, in any of its spellings; often a broken one."""
    first, second, third = (
        draw(wrappers(draw(st.sampled_from(["a", "t.a", '"a"'])))),
        draw(wrappers("b")),
        "c",
    )
    down = draw(st.booleans())
    strict = "<" if down else ">"
    operator = draw(st.sampled_from([strict, strict, strict + "="]))
    bound = draw(st.sampled_from(["?", "?", "?", "5", "'b'", "'5'"]))
    text = draw(
        st.sampled_from(
            [
                "{x} {o} {p} OR {x} = {p} AND {y} {s} ?",
                "{x} {o} {p} OR ({x} = {p} AND {y} {s} ?)",
                "({x} {o} {p}) OR ({x} = {p} AND ({y} {s} ? OR {y} = ? AND {z} {s} ?))",
                "({x} {o} {p}) OR ({x} = {p} AND {y} {s} ?) OR ({x} = {p} AND {y} = ? AND {z} {s} ?)",
                "{p} {m} {x} OR {p} = {x} AND {y} {s} ?",
                "{x} {o} {p} OR {x} = {p}",
                "{x} {o} {p} OR {x} {o} {p} AND {z} {s} ? OR {x} == {p}",
                "{x} {o} {p} OR {x} = {p} AND {y} BETWEEN ? AND ?",
                "{x} {o} {p} OR {y} = {p} AND {x} {s} ?",
                "{x} {o} {p} OR {x} = {p} AND {z} OR {z} = ?",
            ]
        )
    )
    mirrored = operator.replace("<", "#").replace(">", "<").replace("#", ">")
    return text.format(x=first, y=second, z=third, o=operator, s=strict, m=mirrored, p=bound)


placements = st.sampled_from(
    [
        "SELECT a, b, c FROM t WHERE {0}",
        "SELECT a, b, c FROM t WHERE ({0})",
        "SELECT a, b, c FROM t WHERE c = ? AND ({0}) ORDER BY a, b, c LIMIT 99",
        "SELECT a, b, c FROM t WHERE ({0}) AND c BETWEEN ? AND ? ORDER BY a DESC, b, c",
        "SELECT a, b, c FROM t WHERE ({0}) IS NULL",
        "SELECT a, b, c FROM t WHERE NOT ({0})",
        "SELECT a, b, c FROM t WHERE ({0}) OR c > ?",
        "SELECT a, b, c FROM t WHERE c = 1 OR ({0}) AND b > 1",
        "SELECT a, b, c FROM t WHERE c BETWEEN 0 AND ({0})",
        "SELECT a, b, c FROM t WHERE CASE WHEN c THEN ({0}) ELSE ({0}) END",
        "SELECT o.a, s.a FROM t AS o LEFT JOIN (SELECT a FROM t WHERE c > ? AND ({0})) AS s ON o.a = s.a",
        "SELECT e, t.a FROM (SELECT a AS d, c AS e FROM t) LEFT JOIN t ON d = t.b WHERE ({0}) AND e > 0",
        "SELECT c FROM t AS o WHERE EXISTS (SELECT 1 FROM t WHERE t.c = o.c AND ({0}))",
        "SELECT count(*) FROM t WHERE {0} GROUP BY a HAVING count(*) >= 1",
        "SELECT a, b FROM t WHERE {0} UNION ALL SELECT b, a FROM t WHERE ({0})",
        "SELECT a AS x, c FROM t WHERE (x = 1 OR x > 0) AND ({0})",
        "SELECT a, b, c FROM (SELECT c AS a, b, a AS c FROM t) AS t WHERE {0}",
    ]
)
tables = st.tuples(*[st.sampled_from(TYPES)] * 3)


@given(
    tables,
    st.lists(st.tuples(stored, stored, stored), min_size=1, max_size=8),
    criteria().flatmap(lambda group: placements.map(lambda sql: sql.format(group))),
    st.booleans(),
    st.data(),
)
@example(
    ("TEXT COLLATE NOCASE", "", ""),
    [("a", 1, 1), ("B", 1, 1), ("b", 0, 1)],
    f"SELECT a, b, c FROM t WHERE ({WRAPPED} > 'B' OR {WRAPPED} = 'B' AND b)",
    True,
    None,
)
def test_a_rewritten_statement_has_the_same_rows(
    types: tuple[str, str, str],
    rows: list[tuple[Value, Value, Value]],
    sql: str,
    indexed: bool,
    data: st.DataObject | None,
) -> None:
    keyset = find(sql)
    event("rewritten" if keyset else "left alone")
    assume(keyset is not None)
    assert keyset is not None
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE t (a {types[0]}, b {types[1]}, c {types[2]})")
    if indexed:
        connection.execute("CREATE INDEX i ON t (a, b); CREATE INDEX j ON t (b)")
    connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    count = apsw.ext.query_info(connection, sql).bindings_count
    marker = data.draw(scalars) if data else None
    parameters = [
        data.draw(st.just(marker) | st.just(marker) | scalars) if data else None for _ in range(count)
    ]
    for one, other in keyset.equal_params:
        assert one.position is not None
        assert other.position is not None
        if data and data.draw(st.integers(0, 3)):
            parameters[other.position] = parameters[one.position]
    event("applies" if keyset.applies(parameters) else "does not apply")
    assume(keyset.applies(parameters))
    query_names = [column[0] for column in apsw.ext.query_info(connection, sql).description]
    assert [column[0] for column in apsw.ext.query_info(connection, keyset.sql).description] == query_names
    original = list(connection.execute(sql, parameters))
    rewritten = list(connection.execute(keyset.sql, parameters))
    event(f"rows: {bool(original)}")
    assert sorted(map(repr, rewritten)) == sorted(map(repr, original))


keywords = [
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "IS",
    "NOT",
    "OR",
    "AND",
    "BETWEEN",
    "WHERE",
    "SELECT",
    "FROM",
]


@given(
    st.lists(
        st.sampled_from([*"()?.,;'<>=", *keywords, "FILTER", "a", '"a"', "a < ?", "a = ?", "5", WRAPPED]),
        max_size=15,
    )
)
@example(["WHERE"])
def test_no_text_is_too_strange_to_search(words: list[str]) -> None:
    find("SELECT a FROM t WHERE a < ? OR " + " ".join(words))
