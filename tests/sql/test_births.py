"""Rows that are asked for in no order come as SQLite's do, as long as they are fetched at once."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator

import pytest

from rome.dbapi import Connection
from tests.sql.beside import Beside

SCHEMA = """CREATE TABLE agents (
    id VARCHAR(36) NOT NULL PRIMARY KEY, kind TEXT, host TEXT, parent VARCHAR(36) REFERENCES agents (id),
    load INTEGER DEFAULT 0, UNIQUE (kind, host)
);
CREATE INDEX by_host ON agents (host);
CREATE TABLE ports (id VARCHAR(36) NOT NULL PRIMARY KEY, net TEXT, mac TEXT, UNIQUE (net, mac));
CREATE INDEX by_net ON ports (net);
CREATE TABLE bindings (a VARCHAR(9) NOT NULL, b VARCHAR(9) NOT NULL, n INTEGER, PRIMARY KEY (a, b))"""

QUERIES = [
    "SELECT * FROM agents",
    "SELECT * FROM agents LIMIT 1",
    "SELECT * FROM agents LIMIT 5 OFFSET 7",
    "SELECT * FROM agents WHERE load = 0 LIMIT 1",
    "SELECT * FROM agents WHERE host = 'h1'",
    "SELECT * FROM agents WHERE host = 'h1' LIMIT 1 OFFSET 0",
    "SELECT * FROM agents WHERE host IN ('h2', 'h0')",
    "SELECT * FROM agents WHERE host > 'h0'",
    "SELECT * FROM agents WHERE kind IS NULL",
    "SELECT * FROM agents WHERE parent = (SELECT max(parent) FROM agents)",
    "SELECT * FROM agents ORDER BY host",
    "SELECT * FROM agents ORDER BY load",
    "SELECT * FROM ports WHERE net = 'a1'",
    "SELECT id FROM ports WHERE net = 'a1' AND mac LIKE '%1%'",
    "SELECT * FROM ports WHERE net = 'a1' ORDER BY mac",
    "SELECT * FROM ports WHERE net = 'a1' ORDER BY mac DESC",
    "SELECT * FROM bindings",
    "SELECT * FROM bindings WHERE a = 'a1'",
    "SELECT * FROM bindings WHERE n > 0",
    "SELECT bindings.*, agents.* FROM bindings JOIN agents ON agents.host = 'h' || bindings.n",
]


@pytest.fixture
def both(connection: Connection) -> Iterator[Beside]:
    beside = Beside(connection)
    beside.script(SCHEMA)
    yield beside
    beside.close()


def fill(both: Beside, rows: int) -> None:
    seed = random.randrange(10**9)
    print("seed", seed)
    dice = random.Random(seed)
    ids: list[str] = []
    for number in range(rows):
        ids.append(str(uuid.UUID(int=dice.getrandbits(128))))
        kind = f"k{number}" if number % 3 else None
        row = (ids[-1], kind, f"h{dice.randrange(4)}", dice.choice(ids))
        both.run("INSERT INTO agents (id, kind, host, parent) VALUES (?, ?, ?, ?)", row)
        pair = (f"a{dice.randrange(4)}", f"b{number}", dice.randrange(3))
        both.run("INSERT INTO bindings VALUES (?, ?, ?)", pair)
        port = (str(uuid.UUID(int=dice.getrandbits(128))), pair[0], f"{dice.getrandbits(48):x}")
        both.run("INSERT INTO ports VALUES (?, ?, ?)", port)


def test_rows_come_in_sqlites_order(both: Beside) -> None:
    fill(both, 40)
    for query in QUERIES:
        both.run(query)
    both.commit()
    for query in QUERIES:
        both.run(query)
        both.commit()


ORDERED = [
    "SELECT id FROM agents WHERE host = 'h1' ORDER BY id",
    "SELECT id FROM agents WHERE host = 'h1' ORDER BY id DESC LIMIT 7",
    "SELECT id FROM agents ORDER BY host, id",
    "SELECT id FROM agents ORDER BY host DESC, id DESC LIMIT 9",
    "SELECT id FROM agents WHERE host IN ('h0', 'h2') ORDER BY host, id",
    "SELECT id FROM agents WHERE host > 'h0' ORDER BY host, id",
    "SELECT id FROM agents WHERE host = 'h2' AND id > '5' ORDER BY id LIMIT 5",
    "SELECT max(id) FROM agents WHERE host = 'h3'",
    "SELECT host, min(id) FROM agents GROUP BY host",
    "SELECT kind, id FROM agents WHERE kind IS NULL ORDER BY host, id",
]


def test_an_order_that_is_asked_for_is_kept(both: Beside) -> None:
    """The keys of an index end with the primary key, so that SQLite leaves ORDER BY to them."""
    fill(both, 60)
    for query in ORDERED:
        both.run(query)
    both.commit()
    for query in ORDERED:
        both.run(query)
        both.commit()


def test_an_update_does_not_make_a_row_younger(both: Beside) -> None:
    fill(both, 10)
    both.run("UPDATE agents SET load = 1 WHERE host = 'h1'")
    both.run("UPDATE bindings SET b = 'moved' WHERE b = 'b3'")
    both.commit()
    both.run("SELECT * FROM agents")
    both.run("SELECT * FROM bindings")


def test_a_row_that_comes_back_is_a_new_one(both: Beside) -> None:
    fill(both, 10)
    both.run("INSERT INTO bindings VALUES ('a0', 'x', 1)")
    both.run("INSERT INTO bindings VALUES ('a0', 'y', 2)")
    both.run("DELETE FROM bindings WHERE b = 'x'")
    both.run("INSERT INTO bindings VALUES ('a0', 'x', 1)")
    both.run("SELECT * FROM bindings")
    both.run("INSERT OR REPLACE INTO bindings VALUES ('a0', 'y', 3)")
    both.commit()
    both.run("SELECT * FROM bindings")


def test_the_order_outlives_another_primary_key(connection: Connection) -> None:
    connection.execute("CREATE TABLE t (a VARCHAR(9) NOT NULL PRIMARY KEY, b VARCHAR(9) NOT NULL)")
    rows = [("q", "1"), ("b", "9"), ("z", "5"), ("a", "7")]
    connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
    connection.execute("ALTER TABLE t DROP PRIMARY KEY")
    connection.execute("ALTER TABLE t ADD PRIMARY KEY (b)")
    connection.commit()
    assert connection.execute("SELECT * FROM t").fetchall() == rows


def test_two_connections_see_one_order(connect: Callable[..., Connection]) -> None:
    one, other = connect(), connect()
    one.execute("CREATE TABLE t (a VARCHAR(9) NOT NULL PRIMARY KEY)")
    one.commit()
    for number, key in enumerate("qbzay"):
        writer = (one, other)[number % 2]
        writer.execute("INSERT INTO t (a) VALUES (?)", (key,))
        writer.commit()
    assert one.execute("SELECT a FROM t").fetchall() == [(key,) for key in "qbzay"]


def test_a_table_without_rowid_is_in_the_order_of_its_key(both: Beside) -> None:
    both.run("CREATE TABLE w (a VARCHAR(9) NOT NULL PRIMARY KEY, n INTEGER) WITHOUT ROWID")
    for key in "qbzay":
        both.run("INSERT INTO w VALUES (?, 1)", (key,))
    both.run("SELECT * FROM w")
    both.commit()
    assert both.run("SELECT a FROM w WHERE n = 1")[0] == [(key,) for key in sorted("qbzay")]
