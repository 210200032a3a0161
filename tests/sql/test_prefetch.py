"""A join costs one round trip for each level, and gives what SQLite gives.

Every statement runs three times: on SQLite's own tables, on a store where a read costs a round
trip, and there again without fetching ahead, which shows that the number would otherwise be greater.
"""

from __future__ import annotations

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
        "INSERT INTO notes VALUES (?, ?, ?)", [(p[0] * 2 + k, p[0], f"n{k}") for p in properties for k in (0, 1)]
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
