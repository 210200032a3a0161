"""A join costs one round trip for each level, and gives what SQLite gives.

Every statement runs three times: on SQLite's own tables, on a store where a read costs a round
trip, and there again without fetching ahead, which shows that the number would otherwise be greater.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from rome.dbapi.connection import Connection
from rome.stores.memory import MemoryStore

SCHEMA = """
CREATE TABLE images (id VARCHAR(36) NOT NULL PRIMARY KEY, name VARCHAR(30), owner VARCHAR(30), size INTEGER);
CREATE INDEX ix_images_owner ON images (owner);
CREATE INDEX ix_images_name ON images (name);
CREATE TABLE properties (id INTEGER PRIMARY KEY, image_id VARCHAR(36) NOT NULL, name VARCHAR(30), value TEXT,
    FOREIGN KEY (image_id) REFERENCES images (id));
CREATE INDEX ix_properties_image_id ON properties (image_id);
CREATE TABLE locations (id INTEGER PRIMARY KEY, image_id VARCHAR(36) NOT NULL, url TEXT,
    FOREIGN KEY (image_id) REFERENCES images (id));
CREATE INDEX ix_locations_image_id ON locations (image_id);
CREATE TABLE notes (id INTEGER PRIMARY KEY, property_id INTEGER, text TEXT,
    FOREIGN KEY (property_id) REFERENCES properties (id));
CREATE INDEX ix_notes_property_id ON notes (property_id);
CREATE TABLE "odd table (a) USING b" (id INTEGER PRIMARY KEY, image_id VARCHAR(36));
CREATE INDEX ix_odd ON "odd table (a) USING b" (image_id);
CREATE TABLE nodes (id INTEGER PRIMARY KEY, parent INTEGER);
CREATE INDEX ix_nodes_parent ON nodes (parent);
CREATE VIEW image_properties AS SELECT images.id, value FROM images
    LEFT JOIN properties ON properties.image_id = images.id;
"""

IMAGES = 25


class RemoteStore(MemoryStore):
    """A memory store that is spoken to as if it were far away."""

    characteristics = replace(MemoryStore.characteristics, remote=True)


@dataclass
class Pair:
    """The same tables in SQLite and in a store."""

    plain: sqlite3.Connection
    store: RemoteStore
    remote: Connection

    def both(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        self.plain.executemany(sql, rows)
        self.remote.cursor().executemany(sql, rows)
        self.plain.commit()
        self.remote.commit()

    def round_trips(self, sql: str, parameters: Any = (), *, ahead: bool = True) -> int:
        """Of one statement in a new transaction, whose rows are compared with SQLite's."""
        session = self.remote._processor.session  # type: ignore[union-attr]
        prefetcher = session.prefetcher
        assert prefetcher is not None
        if not ahead:
            session.prefetcher = None
        before = self.store.round_trips
        try:
            rows = self.remote.cursor().execute(sql, parameters).fetchall()
        finally:
            session.prefetcher = prefetcher
        spent = self.store.round_trips - before
        self.remote.rollback()
        expected = self.plain.execute(sql, parameters).fetchall()
        assert sorted(map(tuple, rows), key=repr) == sorted(expected, key=repr)
        if "ORDER BY" in sql:
            assert list(map(tuple, rows)) == expected
        return spent

    def ranges_read(self, sql: str, parameters: Any) -> int:
        """How many ranges one statement read."""
        self.remote.cursor().execute(sql, parameters).fetchall()
        snapshot = self.remote._processor.session.transaction._snapshot  # type: ignore[union-attr]
        self.remote.rollback()
        return len(snapshot.reads.ranges)


@pytest.fixture
def pair() -> Iterator[Pair]:
    store = RemoteStore()
    found = Pair(sqlite3.connect(":memory:"), store, Connection(store))
    for sql in SCHEMA.split(";\n"):
        if sql.strip():
            found.plain.execute(sql)
            found.remote.cursor().execute(sql)
    found.remote.commit()
    ids = [f"image-{number:03}" for number in range(IMAGES)]
    found.both(
        "INSERT INTO images VALUES (?, ?, ?, ?)",
        [(id, f"name {(n * 7) % IMAGES:03}", f"owner {n % 3}", n) for n, id in enumerate(ids)],
    )
    properties = [(n * 3 + k, id, f"p{k}", f"{n}") for n, id in enumerate(ids) for k in range(3) if n % 5]
    found.both("INSERT INTO properties VALUES (?, ?, ?, ?)", properties)
    found.both(
        "INSERT INTO locations VALUES (?, ?, ?)", [(n, id, f"file:{n}") for n, id in enumerate(ids) if n % 4]
    )
    found.both(
        "INSERT INTO notes VALUES (?, ?, ?)",
        [(p[0] * 2 + k, p[0], f"n{k}") for p in properties for k in (0, 1)],
    )
    found.both('INSERT INTO "odd table (a) USING b" VALUES (?, ?)', list(enumerate(ids)))
    found.both("INSERT INTO nodes VALUES (?, ?)", [(n, (n - 1) // 2 if n else None) for n in range(31)])
    yield found
    found.remote.close()
    found.plain.close()


CHILDREN = """
    LEFT OUTER JOIN properties ON properties.image_id = {0}.id
    LEFT OUTER JOIN locations ON locations.image_id = {0}.id
"""

SHAPES = {
    "one level": ("SELECT * FROM images", (), 1),
    "join": ("SELECT * FROM images JOIN properties ON properties.image_id = images.id", (), 2),
    "two children": ("SELECT * FROM images " + CHILDREN.format("images"), (), 2),
    "two children of a point": (
        "SELECT * FROM images " + CHILDREN.format("images") + " WHERE images.id = ?",
        ("image-007",),
        1,
    ),
    "two children of a point, named": (
        "SELECT * FROM images " + CHILDREN.format("images") + " WHERE images.id = :id",
        {"id": "image-007"},
        1,
    ),
    "two children of a point, as a constant": (
        "SELECT * FROM images " + CHILDREN.format("images") + " WHERE images.id = 'image-007'",
        (),
        1,
    ),
    "two children of a few points": (
        "SELECT * FROM images " + CHILDREN.format("images") + " WHERE images.id IN (?, ?, ?)",
        ("image-001", "image-002", "image-003"),
        1,
    ),
    "children of an owner's": (
        "SELECT * FROM images " + CHILDREN.format("images") + " WHERE images.owner = ?",
        ("owner 1",),
        2,
    ),
    "three levels": (
        "SELECT * FROM images LEFT JOIN properties ON properties.image_id = images.id"
        " LEFT JOIN notes ON notes.property_id = properties.id",
        (),
        3,
    ),
    "three levels of a point": (
        "SELECT * FROM images LEFT JOIN properties ON properties.image_id = images.id"
        " LEFT JOIN notes ON notes.property_id = properties.id WHERE images.id = ?",
        ("image-007",),
        2,
    ),
    "page in index order": (
        "SELECT * FROM (SELECT * FROM images ORDER BY name LIMIT 10) AS page "
        + CHILDREN.format("page")
        + " ORDER BY page.name, properties.id",
        (),
        2,
    ),
    "page that is sorted": (
        "SELECT * FROM (SELECT * FROM images ORDER BY size * -1 LIMIT 10) AS page "
        + CHILDREN.format("page")
        + " ORDER BY page.size, properties.id",
        (),
        2,
    ),
    "materialised": (
        "WITH page AS MATERIALIZED (SELECT * FROM images ORDER BY size LIMIT 10) SELECT * FROM page "
        + CHILDREN.format("page")
        + " ORDER BY page.size, properties.id",
        (),
        2,
    ),
    "correlated EXISTS": (
        "SELECT * FROM images WHERE EXISTS"
        " (SELECT 1 FROM properties WHERE properties.image_id = images.id AND properties.name = ?)",
        ("p1",),
        2,
    ),
    "correlated scalar subquery": (
        "SELECT id, (SELECT count(*) FROM properties WHERE image_id = images.id),"
        " (SELECT max(url) FROM locations WHERE image_id = images.id) FROM images",
        (),
        2,
    ),
    "IN (SELECT)": (
        "SELECT * FROM properties WHERE image_id IN (SELECT id FROM images WHERE owner = ?)",
        ("owner 2",),
        2,
    ),
    "self join": (
        "SELECT * FROM nodes AS a JOIN nodes AS b ON b.parent = a.id",
        (),
        2,
    ),
    "self join, three levels by one plan": (
        "SELECT * FROM nodes AS a LEFT JOIN nodes AS b ON b.parent = a.id"
        " LEFT JOIN nodes AS c ON c.parent = b.id LEFT JOIN nodes AS d ON d.parent = c.id",
        (),
        2,
    ),
    "UNION": (
        "SELECT images.id, p.name FROM images JOIN properties p ON p.image_id = images.id WHERE images.id = ?"
        " UNION SELECT images.id, url FROM images JOIN locations ON image_id = images.id WHERE owner = ?",
        ("image-003", "owner 1"),
        2,
    ),
    "join with a UNION ALL": (
        "SELECT * FROM (SELECT image_id AS i FROM properties WHERE name = 'p1' UNION ALL"
        " SELECT image_id FROM locations LIMIT 40) AS u JOIN images ON images.id = u.i",
        (),
        4,
    ),
    "aggregate": (
        "SELECT owner, count(*), max(notes.id) FROM images JOIN properties ON properties.image_id = images.id"
        " JOIN notes ON notes.property_id = properties.id GROUP BY owner",
        (),
        3,
    ),
    "recursive": (
        "WITH RECURSIVE tree(id, depth) AS (SELECT id, 0 FROM nodes WHERE parent IS NULL"
        " UNION ALL SELECT nodes.id, depth + 1 FROM tree JOIN nodes ON nodes.parent = tree.id)"
        " SELECT * FROM tree",
        (),
        6,
    ),
    "a name that reads like a plan": (
        'SELECT * FROM images JOIN "odd table (a) USING b" AS odd ON odd.image_id = images.id',
        (),
        2,
    ),
    "a view": ("SELECT * FROM image_properties", (), 2),
    "an expression feeds": (
        "SELECT * FROM images JOIN locations ON locations.id = images.size + 0 WHERE images.owner = ?",
        ("owner 1",),
        None,
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_statement_costs_a_round_trip_for_each_level(shape: str, pair: Pair) -> None:
    sql, parameters, limit = SHAPES[shape]
    spent = [pair.round_trips(sql, parameters) for _ in range(3)]
    alone = pair.round_trips(sql, parameters, ahead=False)
    print(f"{shape}: {spent} round trips, {alone} without fetching ahead")
    if limit is not None:
        assert max(spent) <= limit
    assert max(spent) <= alone


def test_a_page_fetches_children_for_its_own_rows_only(pair: Pair) -> None:
    sql = (
        "SELECT * FROM (SELECT * FROM images ORDER BY name LIMIT ? OFFSET ?) AS page"
        " LEFT JOIN locations ON locations.image_id = page.id ORDER BY page.name"
    )
    assert pair.ranges_read(sql, (5, 2)) == 1 + 5
    assert pair.round_trips(sql, (5, 2)) == 2


def test_a_page_of_filtered_rows_learns_to_look_further(pair: Pair) -> None:
    sql = (
        "SELECT * FROM (SELECT * FROM images WHERE size % 3 = 0 ORDER BY name LIMIT 6) AS page"
        " LEFT JOIN locations ON locations.image_id = page.id ORDER BY page.name"
    )
    spent = [pair.round_trips(sql) for _ in range(3)]
    assert spent == [3, 2, 2]


def test_more_rows_than_a_batch_holds(pair: Pair) -> None:
    ids = [f"more-{number:04}" for number in range(1200)]
    pair.both("INSERT INTO images VALUES (?, ?, 'many', 1)", [(id, id) for id in ids])
    pair.both("INSERT INTO locations VALUES (?, ?, ?)", [(5000 + n, id, id) for n, id in enumerate(ids)])
    sql = "SELECT * FROM images LEFT JOIN locations ON locations.image_id = images.id WHERE owner = 'many'"
    assert pair.round_trips(sql) == 1 + 3


def test_many_children_of_one_row(pair: Pair) -> None:
    """More than one chunk of them: what was fetched ahead is not fetched again."""
    rows = [(9000 + n, f"image-{n % 2:03}", "many", "x") for n in range(300)]
    pair.both("INSERT INTO properties VALUES (?, ?, ?, ?)", rows)
    notes = [(9000 + n, 9000 + n, "note") for n in range(300)]
    pair.both("INSERT INTO notes VALUES (?, ?, ?)", notes)
    sql = (
        "SELECT * FROM images JOIN properties ON properties.image_id = images.id"
        " LEFT JOIN notes ON notes.property_id = properties.id WHERE images.owner IN ('owner 0', 'owner 1')"
    )
    assert pair.round_trips(sql) == 3
    assert pair.round_trips(f"SELECT * FROM ({sql}) LIMIT 1000") <= 12


def test_what_the_transaction_wrote_is_found_and_its_deleted_rows_are_not(pair: Pair) -> None:
    for connection in (pair.plain, pair.remote):
        cursor = connection.cursor()
        cursor.execute("INSERT INTO images VALUES ('new', 'n', 'owner 1', 5)")
        cursor.execute("INSERT INTO locations VALUES (777, 'new', 'here')")
        cursor.execute("DELETE FROM locations WHERE image_id = 'image-007'")
        cursor.execute("UPDATE locations SET image_id = 'new' WHERE image_id = 'image-001'")
    sql = "SELECT * FROM images LEFT JOIN locations ON locations.image_id = images.id WHERE owner = 'owner 1'"
    rows = pair.remote.cursor().execute(sql).fetchall()
    expected = pair.plain.execute(sql).fetchall()
    assert sorted(map(tuple, rows), key=repr) == sorted(expected, key=repr)


def test_nothing_is_fetched_twice_in_a_transaction(pair: Pair) -> None:
    cursor = pair.remote.cursor()
    sql = "SELECT * FROM images LEFT JOIN locations ON locations.image_id = images.id"
    cursor.execute(sql).fetchall()
    before = pair.store.round_trips
    cursor.execute(sql).fetchall()
    cursor.execute(sql + " WHERE images.id = 'image-009'").fetchall()
    assert pair.store.round_trips == before


def test_a_large_table_is_not_read_on_a_guess(pair: Pair) -> None:
    """The second query of a UNION ALL is foreseen, but it may never run, and it is everything."""
    session = pair.remote._processor.session  # type: ignore[union-attr]
    sql = "SELECT id FROM images WHERE id = 'image-001' UNION ALL SELECT text FROM notes"
    assert pair.round_trips(sql) == 1
    notes = pair.remote._processor.schema.installation.virtual("notes").table  # type: ignore[union-attr]
    session.counts[notes.count_key] = 100_000
    assert pair.round_trips(sql) == 2


def test_a_changed_schema_is_noticed(pair: Pair) -> None:
    sql = "SELECT * FROM images JOIN nodes ON nodes.id = images.size"
    assert pair.round_trips(sql) == 2
    for connection in (pair.plain, pair.remote):
        connection.cursor().execute("ALTER TABLE nodes ADD COLUMN colour TEXT DEFAULT 'red'")
        connection.cursor().execute("CREATE INDEX ix_size ON images (size)")
        connection.commit()
    assert pair.round_trips(sql) == 2


@pytest.mark.parametrize(
    ("sql", "limit"),
    [
        ("DELETE FROM locations WHERE EXISTS (SELECT 1 FROM images WHERE id = image_id AND size > 9)", 2),
        ("UPDATE locations SET url = (SELECT name FROM images WHERE id = image_id)", 2),
        # One more, to see that the numbers are free.
        ("INSERT INTO nodes SELECT l.id + 99, size FROM locations l JOIN images ON images.id = image_id", 3),
    ],
)
def test_statements_that_write_fetch_ahead_too(sql: str, limit: int, pair: Pair) -> None:
    before = pair.store.round_trips
    count = pair.remote.cursor().execute(sql).rowcount
    spent = pair.store.round_trips - before
    pair.remote.rollback()
    assert count == pair.plain.execute(sql).rowcount
    assert spent == limit


@pytest.mark.parametrize("seed", range(60))
def test_random_joins_give_what_sqlite_gives(seed: int, pair: Pair) -> None:
    choose = random.Random(seed)
    columns = {
        "images": ["id", "name", "owner", "size"],
        "properties": ["id", "image_id", "name", "value"],
        "locations": ["id", "image_id", "url"],
        "notes": ["id", "property_id", "text"],
        "nodes": ["id", "parent"],
    }
    tables = [choose.choice(list(columns)) for _ in range(choose.randint(2, 4))]

    def column(place: int) -> str:
        return f"t{place}.{choose.choice(columns[tables[place]])}"

    sql = f"SELECT * FROM {tables[0]} AS t0"
    for place in range(1, len(tables)):
        kind = choose.choice(["JOIN", "LEFT JOIN"])
        terms = [f"{column(place)} = {column(choose.randrange(place))}" for _ in range(choose.randint(1, 2))]
        sql += f" {kind} {tables[place]} AS t{place} ON {' AND '.join(terms)}"
    where = choose.choice(["", " WHERE t0.id = ?", " WHERE t0.id IN (?, 2, 'image-004')", " WHERE t0.id > ?"])
    sql += where
    if choose.random() < 0.4:
        inner = choose.choice(list(columns))
        test = f"x.{choose.choice(columns[inner])} = {column(choose.randrange(len(tables)))}"
        sql += (" AND" if where else " WHERE") + f" EXISTS (SELECT 1 FROM {inner} AS x WHERE {test})"
    parameters = (choose.choice([1, 3, "image-003", "7"]),) if "?" in sql else ()
    spent = pair.round_trips(sql, parameters)
    assert spent <= pair.round_trips(sql, parameters, ahead=False), sql
