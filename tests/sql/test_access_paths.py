"""Access paths: no statement reads a whole table where a key, an index or a foreign key answers it.

Two things are asserted: what EXPLAIN QUERY PLAN says, and how many entries the store handed out. The
second is counted at the store's snapshots, below everything that could remember or guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rome.dbapi import Connection, connect
from rome.stores.base import Read, Reply, Snapshot
from tests.sql.conftest import KINDS

ROWS = 2000
GROUPS = 100
SCHEMA = """
CREATE TABLE groups (id INTEGER PRIMARY KEY, name VARCHAR(20) UNIQUE);
CREATE TABLE p (id VARCHAR(36) NOT NULL PRIMARY KEY, number INTEGER NOT NULL UNIQUE, a INTEGER, b INTEGER,
    name VARCHAR(20), group_id INTEGER REFERENCES groups (id), free INTEGER);
CREATE INDEX ix_p_a_b ON p (a, b);
CREATE INDEX ix_p_b_desc_id ON p (b ASC, id DESC);
CREATE INDEX ix_p_name ON p (name);
CREATE INDEX ix_p_even ON p (number) WHERE free = 1;
CREATE TABLE n (id INTEGER PRIMARY KEY, v INTEGER)
"""


class Counter:
    """How many entries the store has handed out."""

    def __init__(self) -> None:
        self.entries = 0

    def add(self, reply: Reply) -> None:
        self.entries += sum(map(len, reply.scans)) + sum(entry is not None for entry in reply.values.values())


Fetched = Callable[..., int]


@pytest.fixture(scope="module", params=KINDS)
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connection]:
    """Filled once for all tests, none of which commits."""
    urls = {"memory": "rome+memory://", "lmdb": f"rome+lmdb://{tmp_path_factory.mktemp('paths')}"}
    if request.param == "redis":
        urls["redis"] = request.getfixturevalue("redis_server").url("paths")
    connection = connect(urls[request.param])
    for sql in SCHEMA.split(";\n"):
        connection.execute(sql)
    connection.executemany(
        "INSERT INTO groups VALUES (?, ?)", [(number, f"group{number}") for number in range(GROUPS + 1)]
    )
    connection.executemany(
        "INSERT INTO p VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(f"id{i:05}", i, i // 10, i * 7 % ROWS, f"name{i:05}", i % GROUPS, i % 2) for i in range(ROWS)],
    )
    connection.executemany("INSERT INTO n VALUES (?, ?)", [(i, i) for i in range(ROWS)])
    connection.commit()
    yield connection
    connection.close()


@pytest.fixture
def fetched(database: Connection, monkeypatch: pytest.MonkeyPatch) -> Fetched:
    """Run a statement in a transaction of its own: how many entries the store handed out for it."""
    counter = Counter()
    fetch = Snapshot.read

    def read(self: Snapshot, request: Read) -> Reply:
        reply = fetch(self, request)
        counter.add(reply)
        return reply

    monkeypatch.setattr(Snapshot, "read", read)

    def run(sql: str, parameters: Any = (), rows: int | None = None) -> int:
        database.rollback()
        counter.entries = 0
        found = database.execute(sql, parameters)
        count = len(found.fetchall()) if found.description else found.rowcount
        if rows is not None:
            assert count == rows, sql
        database.rollback()
        return counter.entries

    return run


@pytest.fixture(autouse=True)
def _nothing_is_kept(database: Connection) -> Iterator[None]:
    yield
    database.rollback()


def plan(connection: Connection, sql: str, parameters: Any = ()) -> list[str]:
    return [row[-1] for row in connection.execute("EXPLAIN QUERY PLAN " + sql, parameters)]


# What EXPLAIN QUERY PLAN says


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM p WHERE id = ?", "SEARCH p USING PRIMARY KEY (id=?)"),
        ("SELECT * FROM n WHERE id = ?", "SEARCH n USING PRIMARY KEY (id=?)"),
        ("SELECT * FROM n WHERE rowid = ?", "SEARCH n USING PRIMARY KEY (rowid=?)"),
        ("SELECT * FROM p WHERE number = ?", "SEARCH p USING INDEX sqlite_autoindex_p_2 (number=?)"),
        ("SELECT * FROM p WHERE name = ?", "SEARCH p USING INDEX ix_p_name (name=?)"),
        ("SELECT * FROM p AS q WHERE a = ? AND q.b > ?", "SEARCH q USING INDEX ix_p_a_b (a=? AND b>?)"),
        ("SELECT * FROM p WHERE group_id = ?", "SEARCH p USING INDEX FOREIGN KEY (group_id) (group_id=?)"),
        ("DELETE FROM p WHERE name = ?", "SEARCH p USING INDEX ix_p_name (name=?)"),
        ("UPDATE p SET free = 0 WHERE id = ?", "SEARCH p USING PRIMARY KEY (id=?)"),
        ("SELECT * FROM p WHERE free = ?", "SCAN p"),
    ],
)
def test_explain_query_plan_names_the_path(database: Connection, sql: str, expected: str) -> None:
    assert plan(database, sql, (1,) * sql.count("?")) == [expected]


def test_explain_query_plan_of_a_join_shows_both_sides(database: Connection) -> None:
    assert plan(database, "SELECT * FROM groups g JOIN p ON p.group_id = g.id WHERE g.name = 'x'") == [
        "SEARCH g USING INDEX sqlite_autoindex_groups_1 (name=?)",
        "SEARCH p USING INDEX FOREIGN KEY (group_id) (group_id=?)",
    ]


def test_explain_query_plan_shows_no_sorting_where_an_index_gives_the_order(database: Connection) -> None:
    assert not any("TEMP B-TREE" in line for line in plan(database, "SELECT * FROM p ORDER BY a, b LIMIT 5"))
    assert any("TEMP B-TREE" in line for line in plan(database, "SELECT * FROM p ORDER BY free LIMIT 5"))


# How much is read. An index entry and its row are two entries; the guard of the schema is one more.


@pytest.mark.parametrize(
    ("sql", "parameters", "rows", "most"),
    [
        ("SELECT * FROM p WHERE id = ?", ("id00077",), 1, 2),
        ("SELECT * FROM p WHERE id = ?", ("nowhere",), 0, 2),
        ("SELECT * FROM n WHERE id = ?", (77,), 1, 2),
        ("SELECT * FROM n WHERE id = ?", ("77",), 1, 2),
        ("SELECT * FROM p WHERE number = ?", (77,), 1, 3),
        ("SELECT * FROM p WHERE name = ?", ("name00077",), 1, 3),
        ("SELECT * FROM p WHERE a = ?", (7,), 10, 21),
        ("SELECT * FROM p WHERE a = ? AND b IS NOT NULL", (7,), 10, 21),
        ("SELECT * FROM p WHERE group_id = ?", (7,), 20, 41),
        ("SELECT * FROM p WHERE id IN (?, ?, ?)", ("id00001", "id01000", "nowhere"), 2, 4),
        ("SELECT * FROM p WHERE number IN (?, ?, ?)", (1, 2, 99999), 2, 6),
        ("SELECT * FROM p WHERE a IN (1, 2) AND b < 100000", (), 20, 41),
        ("SELECT * FROM p WHERE id BETWEEN ? AND ?", ("id00010", "id00019"), 10, 11),
        ("SELECT * FROM p WHERE number >= ? AND number < ?", (10, 20), 10, 21),
        ("SELECT * FROM p WHERE id > ?", ("id01989",), 10, 11),
        ("SELECT * FROM p WHERE name IS NULL", (), 0, 1),
        ("SELECT count(*) FROM p WHERE a = ?", (7,), 1, 21),
        ("SELECT max(id) FROM n WHERE id < ?", (1000,), 1, 1001),
        ("SELECT * FROM p JOIN groups ON groups.id = p.group_id WHERE p.id = ?", ("id00005",), 1, 4),
        ("SELECT * FROM groups g JOIN p ON p.group_id = g.id WHERE g.id = ?", (5,), 20, 42),
        (
            "SELECT * FROM p WHERE EXISTS (SELECT 1 FROM groups g WHERE g.id = p.a) AND p.id = ?",
            ("id00005",),
            1,
            4,
        ),
        ("SELECT * FROM p WHERE id IN (SELECT id FROM p WHERE number = 5)", (), 1, 6),
        ("SELECT * FROM p WHERE number = 5 OR number = 6", (), 2, 8),
        ("UPDATE p SET free = 2 WHERE id = ?", ("id00005",), 1, 2),
        ("UPDATE p SET free = 2 WHERE a = ?", (7,), 10, 21),
        ("DELETE FROM p WHERE number = ?", (7,), 1, 3),
        ("DELETE FROM groups WHERE id = ?", (GROUPS,), 1, 3),
    ],
)
def test_a_statement_reads_what_its_path_holds(
    fetched: Fetched, sql: str, parameters: Any, rows: int, most: int
) -> None:
    assert fetched(sql, parameters, rows) <= most


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT * FROM p ORDER BY id LIMIT 10", ()),
        ("SELECT * FROM p ORDER BY id DESC LIMIT 10", ()),
        ("SELECT * FROM n ORDER BY id DESC LIMIT 10", ()),
        ("SELECT * FROM p ORDER BY name LIMIT 10", ()),
        ("SELECT * FROM p ORDER BY name DESC LIMIT ?", (10,)),
        ("SELECT * FROM p ORDER BY a, b LIMIT 10", ()),
        ("SELECT * FROM p ORDER BY a DESC, b DESC LIMIT 10", ()),
        ("SELECT * FROM p ORDER BY a, b, id LIMIT 10", ()),
        ("SELECT * FROM p ORDER BY b, id DESC LIMIT 10", ()),
        ("SELECT * FROM p ORDER BY b DESC, id LIMIT 10", ()),
        ("SELECT * FROM p WHERE a >= 50 ORDER BY a, b LIMIT 10", ()),
        ("SELECT * FROM p WHERE a < 50 ORDER BY a DESC, b DESC LIMIT 10", ()),
        ("SELECT * FROM p WHERE group_id = 3 ORDER BY id LIMIT 10", ()),
        ("SELECT * FROM p ORDER BY id LIMIT 10 OFFSET 20", ()),
        ("SELECT * FROM p ORDER BY name DESC LIMIT 10 OFFSET 20", ()),
        ("SELECT * FROM p LIMIT 10", ()),
        ("SELECT id FROM p WHERE id > 'id00500' ORDER BY id LIMIT 10", ()),
        # keyset pagination
        (
            "SELECT * FROM p WHERE (a < ? OR (a = ? AND b < ?)) ORDER BY a DESC, b DESC LIMIT 10",
            (100, 100, 1000),
        ),
        ("SELECT * FROM p WHERE a > ? OR (a = ? AND b > ?) ORDER BY a, b LIMIT 10", (100, 100, 1000)),
        (
            "SELECT * FROM p WHERE (b > ? OR (b = ? AND id < ?)) ORDER BY b, id DESC LIMIT 10",
            (700, 700, "id00100"),
        ),
        (
            "SELECT * FROM p WHERE a > ? OR (a = ? AND b > ?) OR (a = ? AND b = ? AND id > ?)"
            " ORDER BY a, b, id LIMIT 10",
            (100, 100, 1000, 100, 1000, "id00100"),
        ),
        ("SELECT * FROM p WHERE (a, b) > (?, ?) ORDER BY a, b LIMIT 10", (100, 1000)),
        (
            "SELECT * FROM (SELECT * FROM p WHERE a > ? OR (a = ? AND b > ?) ORDER BY a, b LIMIT 10) AS page"
            " LEFT JOIN groups ON groups.id = page.group_id",
            (100, 100, 1000),
        ),
    ],
)
def test_order_by_and_limit_read_about_as_many_rows(fetched: Fetched, sql: str, parameters: Any) -> None:
    """Ten rows are wanted of two thousand; an entry and its row for each, some more for what is skipped."""
    assert fetched(sql, parameters, 10) <= 150


def test_what_no_path_answers_reads_the_table(fetched: Fetched) -> None:
    """So that the numbers above are known to count something."""
    assert fetched("SELECT * FROM p WHERE free = ?", (0,), ROWS // 2) >= ROWS
    assert fetched("SELECT * FROM p ORDER BY free LIMIT 10", (), 10) >= ROWS


def test_order_and_limit_give_the_right_rows(database: Connection) -> None:
    rows = database.execute("SELECT number, a, b, id FROM p").fetchall()
    for sql, expected in (
        ("SELECT number FROM p ORDER BY b, id DESC LIMIT 5", sorted(rows, key=lambda r: r[2])[:5]),
        (
            "SELECT number FROM p ORDER BY a DESC, b DESC LIMIT 5",
            sorted(rows, key=lambda r: (-r[1], -r[2]))[:5],
        ),
        ("SELECT number FROM p ORDER BY id DESC LIMIT 5 OFFSET 3", sorted(rows, key=lambda r: -r[0])[3:8]),
        (
            "SELECT number FROM p WHERE a < 100 OR (a = 100 AND b < 1010) ORDER BY a DESC, b DESC LIMIT 5",
            sorted((r for r in rows if (r[1], r[2]) < (100, 1010)), key=lambda r: (-r[1], -r[2]))[:5],
        ),
    ):
        assert database.execute(sql).fetchall() == [(row[0],) for row in expected], sql


def test_pages_by_keyset_visit_every_row_once(database: Connection) -> None:
    seen: list[str] = []
    marker: tuple[Any, ...] = (-1, -1, "")
    while True:
        page = database.execute(
            "SELECT a, b, id FROM p WHERE a > ? OR (a = ? AND b > ?) OR (a = ? AND b = ? AND id > ?)"
            " ORDER BY a, b, id LIMIT 300",
            (marker[0], *marker[:2], *marker),
        ).fetchall()
        if not page:
            break
        seen += [row[2] for row in page]
        marker = page[-1]
    assert len(seen) == len(set(seen)) == ROWS
