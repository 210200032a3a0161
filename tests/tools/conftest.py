"""A database worth checking, on each store, and the means to break it on purpose.

url        where it is
engine     SQLAlchemy's view of it, foreign keys off, so that orphans can be made
filled     the same with tables and rows of every kind
store      its store, opened again, for raw commits
breaker    finds and breaks keys of its tables and indexes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy
from sqlalchemy import Engine, text

import rome
from rome.sql.catalog import Index, Table
from rome.stores import Entry, Read, Scan, Store, Writes, open_store, prefix_range
from rome.tools.reader import Reader, StoredSchema, read_schema

KINDS = ("memory", "lmdb", "redis")

SCHEMA = """
CREATE TABLE site (id INTEGER PRIMARY KEY, name VARCHAR NOT NULL UNIQUE, region VARCHAR);
CREATE INDEX site_by_region ON site (region DESC);
CREATE TABLE image (
    id VARCHAR NOT NULL PRIMARY KEY, site_id INTEGER REFERENCES site (id), title VARCHAR, deleted INTEGER
);
CREATE INDEX image_by_title ON image (lower(title));
CREATE UNIQUE INDEX image_live ON image (title) WHERE deleted = 0;
CREATE TABLE event (what VARCHAR, at FLOAT);
CREATE INDEX event_by_time ON event (at, what)
"""


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    return url_of(request.param)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = sqlalchemy.create_engine(f"{url}?foreign_keys=off")
    engine.connect().close()
    yield engine
    engine.dispose()
    rome.store_of(engine).close()


def fill(engine: Engine) -> None:
    with engine.begin() as connection:
        for statement in SCHEMA.split(";"):
            connection.execute(text(statement))
        connection.execute(text("CREATE TABLE gone (n INTEGER)"))
        connection.execute(text("DROP TABLE gone"))
        for n in range(1, 31):
            connection.execute(
                text("INSERT INTO site (name, region) VALUES (:name, :region)"),
                {"name": f"site {n}", "region": None if n % 5 == 0 else f"region {n % 3}"},
            )
            connection.execute(
                text("INSERT INTO image VALUES (:id, :site, :title, :deleted)"),
                {"id": f"id-{n}", "site": n if n % 4 else None, "title": f"Title {n}", "deleted": n % 2},
            )
            connection.execute(text("INSERT INTO event VALUES ('boot', :at)"), {"at": n / 4})
        connection.execute(text("DELETE FROM event WHERE at > 7"))


@pytest.fixture
def filled(engine: Engine) -> Engine:
    fill(engine)
    return engine


@pytest.fixture
def store(filled: Engine, url: str) -> Iterator[Store]:
    store = open_store(url)
    yield store
    store.close()


class Breaker:
    """Raw commits under the feet of SQL."""

    def __init__(self, store: Store) -> None:
        self.store = store
        with Reader(store) as reader:
            self.schema: StoredSchema = read_schema(reader)

    def table(self, name: str) -> Table:
        return self.schema.catalog.tables[name]

    def index(self, table: str, *columns: str) -> Index:
        """The index of a table by its columns, or by its name."""
        owner = self.table(table)
        for index in owner.indexes:
            names = tuple(owner.columns[ordinal].name for ordinal in index.columns)
            if columns in ((index.name,), names):
                return index
        raise LookupError(columns)

    def scan(self, prefix: bytes) -> list[Entry]:
        with Reader(self.store) as reader:
            return reader.ask(Read(scans=[Scan(prefix_range(prefix))])).scans[0]

    def rows(self, table: str) -> list[Entry]:
        return self.scan(self.table(table).row_layout.prefix)

    def entries(self, table: str, *columns: str) -> list[Entry]:
        return self.scan(self.table(table).index_layouts[self.index(table, *columns).id].prefix)

    def counter(self, key: bytes) -> int:
        with Reader(self.store) as reader:
            return reader.ask(Read(counters=[key])).counters[key]

    def put(self, key: bytes, value: bytes) -> None:
        self.store.commit(None, Writes(puts={key: value}))

    def delete(self, *keys: bytes) -> None:
        self.store.commit(None, Writes(deletes=set(keys)))

    def add(self, counter: bytes, amount: int) -> None:
        self.store.commit(None, Writes(adds={counter: amount}))

    def everything(self) -> list[tuple[bytes, bytes]]:
        """All keys and values: what a repair must bring back."""
        return [(e.key, e.value) for first in range(5) for e in self.scan(bytes([first]))]


@pytest.fixture
def breaker(store: Store) -> Breaker:
    return Breaker(store)


@pytest.fixture(params=("lmdb", "redis"))
def visible_url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    """A database that another process could see, filled; nobody has it open."""
    url = url_of(request.param)
    with opened_engine(url) as engine:
        fill(engine)
    return url


@contextmanager
def opened_engine(url: str) -> Iterator[Engine]:
    engine = sqlalchemy.create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()
        rome.store_of(engine).close()


@pytest.fixture
def break_at() -> Iterator[Callable[[str], Breaker]]:
    """A breaker for a URL; its store is closed when the test is over."""
    stores: list[Store] = []

    def make(url: str) -> Breaker:
        stores.append(open_store(url))
        return Breaker(stores[-1])

    yield make
    for store in stores:
        store.close()
