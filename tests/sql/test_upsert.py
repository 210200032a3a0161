"""UPSERT gives on every store what it gives on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Engine

from rome.dbapi import Connection, IntegrityError, NotSupportedError, OperationalError

Connect = Callable[..., Connection]

SCHEMA = """
    CREATE TABLE n (id INTEGER PRIMARY KEY, k TEXT UNIQUE, a INTEGER DEFAULT 7, b TEXT, UNIQUE (a, b));
    CREATE TABLE c (x TEXT NOT NULL, y INTEGER NOT NULL, v, PRIMARY KEY (x, y));
    CREATE TABLE h (k TEXT UNIQUE, v);
    INSERT INTO n VALUES (1, 'one', 1, 'x'), (2, 'two', 2, 'x');
    INSERT INTO c VALUES ('p', 1, 'old'), ('it''s', 2, 'old');
    INSERT INTO h VALUES ('one', 1);
"""

STATEMENTS: list[tuple[str, tuple[Any, ...]]] = [
    ("INSERT INTO n (k, a) VALUES ('one', 5) ON CONFLICT DO NOTHING", ()),
    ("INSERT INTO n (k, a) VALUES ('one', 5), ('new', 6) ON CONFLICT (k) DO NOTHING", ()),
    ("INSERT INTO n (k, a) VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET a = excluded.a", ("one", 5)),
    (
        "INSERT INTO n (k, a) VALUES ('one', 5) ON CONFLICT (k) DO UPDATE SET a = n.a + excluded.a, b = ?",
        ("y",),
    ),
    ("INSERT INTO n (k) VALUES ('one') ON CONFLICT (k) DO UPDATE SET a = excluded.a", ()),
    ("INSERT INTO n (k, a) VALUES ('one', 5) ON CONFLICT (k) DO UPDATE SET a = 9 WHERE n.a > 1", ()),
    ("INSERT INTO n (k, a) VALUES ('one', ?) ON CONFLICT (k) DO UPDATE SET a = ? WHERE n.a = ?", (5, 9, 1)),
    ("INSERT INTO n (k, a) VALUES ('z', 1), ('z', 2), ('z', 3) ON CONFLICT (k) DO UPDATE SET a = a + 10", ()),
    ("INSERT INTO n AS t (k, a) VALUES ('two', 5) ON CONFLICT (k) DO UPDATE SET a = t.a * 100", ()),
    ("INSERT INTO n (id, k) VALUES (1, 'other') ON CONFLICT (id) DO UPDATE SET k = excluded.k", ()),
    ("INSERT INTO n (a, b) VALUES (2, 'x') ON CONFLICT (b, a) DO UPDATE SET k = 'both'", ()),
    ("INSERT INTO n (k) SELECT k FROM h WHERE true ON CONFLICT (k) DO UPDATE SET b = 'seen'", ()),
    (
        "INSERT INTO c VALUES ('p', 1, 'new'), ('p', 2, 'new')"
        " ON CONFLICT (x, y) DO UPDATE SET v = excluded.v",
        (),
    ),
    ("INSERT INTO c VALUES ('it''s', 2, 'new') ON CONFLICT (x, y) DO UPDATE SET v = v || excluded.v", ()),
    ("INSERT INTO h VALUES ('one', 5), ('two', 6) ON CONFLICT (k) DO UPDATE SET v = v + excluded.v", ()),
    (
        "INSERT INTO h VALUES ('one', 5), ('two', 6)"
        " ON CONFLICT (k) DO UPDATE SET v = excluded.v RETURNING k, v",
        (),
    ),
    ("INSERT INTO h VALUES ('one', ?) ON CONFLICT (k) DO UPDATE SET v = ? RETURNING v + ?", (1, 2, 3)),
    ("INSERT INTO h VALUES ('one', 5), ('two', 6) ON CONFLICT DO NOTHING RETURNING k", ()),
]


@pytest.fixture
def beside(connect: Connect) -> tuple[Connection, sqlite3.Connection]:
    ours, theirs = connect(), sqlite3.connect(":memory:", isolation_level=None)
    ours.executescript(SCHEMA)
    ours.commit()
    theirs.executescript(SCHEMA)
    return ours, theirs


def tables(connection: Any) -> list[Any]:
    return [
        connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()
        for table, columns in (("n", "k, a, b"), ("c", "*"), ("h", "*"))
    ]


@pytest.mark.parametrize(("sql", "parameters"), STATEMENTS)
def test_upsert_does_what_sqlite_does(
    beside: tuple[Connection, sqlite3.Connection], sql: str, parameters: tuple[Any, ...]
) -> None:
    ours, theirs = beside
    found, expected = ours.execute(sql, parameters), theirs.execute(sql, parameters)
    assert sorted(found.fetchall()) == sorted(expected.fetchall())
    if "RETURNING" not in sql:
        assert found.rowcount == expected.rowcount
    assert tables(ours) == tables(theirs)
    ours.commit()
    assert tables(ours) == tables(theirs)


def test_a_conflict_elsewhere_than_in_the_target_fails(beside: tuple[Connection, sqlite3.Connection]) -> None:
    ours, _ = beside
    before = tables(ours)
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: n\.k"):
        ours.execute("INSERT INTO n (id, k) VALUES (1, 'two') ON CONFLICT (id) DO NOTHING")
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: n\.k"):
        ours.execute("INSERT INTO n (id, k) VALUES (1, 'new') ON CONFLICT (id) DO UPDATE SET k = 'two'")
    assert tables(ours) == before


def test_a_target_without_a_constraint_is_refused(beside: tuple[Connection, sqlite3.Connection]) -> None:
    with pytest.raises(OperationalError, match="does not match any PRIMARY KEY or UNIQUE constraint"):
        beside[0].execute("INSERT INTO n (b) VALUES ('x') ON CONFLICT (b) DO NOTHING")


def test_what_is_not_there_is_said(beside: tuple[Connection, sqlite3.Connection]) -> None:
    with pytest.raises(NotSupportedError, match="ON CONFLICT"):
        beside[0].execute(
            "INSERT INTO n (id, k) VALUES (1, 'one')"
            " ON CONFLICT (id) DO UPDATE SET a = 3 ON CONFLICT (k) DO UPDATE SET a = 4"
        )


def test_sqlalchemys_upsert(engine: Engine) -> None:
    metadata = sa.MetaData()
    table = sa.Table(
        "t",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("k", sa.String, unique=True),
        sa.Column("v", sa.Integer),
    )
    metadata.create_all(engine)
    statement = insert(table).values([{"k": "a", "v": 1}, {"k": "b", "v": 2}])
    upsert = statement.on_conflict_do_update(
        index_elements=["k"], set_={"v": table.c.v + statement.excluded.v}
    )
    with engine.begin() as connection:
        connection.execute(upsert)
        found = connection.execute(upsert.returning(table.c.k, table.c.v)).all()
    assert sorted(map(tuple, found)) == [("a", 2), ("b", 4)]


def test_named_parameters_serve_both_parts(beside: tuple[Connection, sqlite3.Connection]) -> None:
    sql = "INSERT INTO h VALUES (:k, :v) ON CONFLICT (k) DO UPDATE SET v = v + excluded.v * :f WHERE v < :m"
    for connection in beside:
        connection.execute(sql, {"k": "one", "v": 5, "f": 10, "m": 2})
    assert tables(beside[0]) == tables(beside[1])
