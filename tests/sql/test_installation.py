"""Tables and views are made when a statement names them; DDL that is known is not asked twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import rome
from rome.dbapi import Connection, IntegrityError, OperationalError, connect
from rome.sql.statement import analyse
from tests.sql.beside import Beside

SCHEMA = (
    "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)",
    "CREATE TABLE u (a INTEGER PRIMARY KEY, b TEXT)",
    "CREATE VIEW tu AS SELECT t.b AS x, u.b AS y FROM t JOIN u ON t.a = u.a",
    "CREATE VIEW nested AS SELECT x FROM tu",
    "INSERT INTO t VALUES (1, 'x')",
    "INSERT INTO u VALUES (1, 'y')",
)


@pytest.fixture
def both(connection: Connection) -> Iterator[Beside]:
    pair = Beside(connection)
    for sql in SCHEMA:
        pair.run(sql)
    pair.commit()
    yield pair
    pair.close()


def made(connection: Connection) -> set[str]:
    """What the connection's query processor has."""
    processor = connection._processor
    assert processor is not None
    return {str(name) for (name,) in processor.db.execute("SELECT name FROM main.sqlite_master")}


def test_only_what_is_named_is_made(connection: Connection) -> None:
    for sql in SCHEMA[:4]:
        connection.execute(sql)
    connection.commit()
    assert made(connection) == set()
    connection.execute("SELECT * FROM u").fetchall()
    assert made(connection) == {"u"}
    connection.execute("SELECT * FROM nested").fetchall()
    assert made(connection) == {"t", "u", "tu", "nested"}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM T",
        "SELECT * FROM main.t",
        'SELECT "t".b FROM "t"',
        "SELECT * FROM [t]",
        "SELECT * FROM `t` AS other",
        "SELECT * FROM 't'",
        "SELECT * FROM 'main'.'t'",
        "SELECT * FROM u, t",
        "SELECT * FROM (u JOIN t USING (a))",
        "SELECT * FROM u WHERE (a, b) IN t",
        "SELECT 1 IN (SELECT a FROM main . t)",
        "SELECT * FROM u WHERE EXISTS (SELECT 1 FROM t)",
        "WITH w AS (SELECT * FROM t) SELECT * FROM w",
        "SELECT * FROM NESTED",
        "EXPLAIN QUERY PLAN SELECT * FROM nested, t",
    ],
)
def test_every_way_to_name_a_table(both: Beside, sql: str) -> None:
    if sql.startswith("EXPLAIN"):
        assert both.rome.execute(sql).fetchall()
    else:
        both.run(sql)


def test_names_are_found_where_tables_are_named() -> None:
    names = analyse("SELECT i.id AS instances, main.m.x FROM main.n AS i JOIN 'p q' ON i.a = \"Q\"").names
    assert {"n", "p q", "q"} <= names
    assert not names & {"i", "id", "x", "instances", "main"}


def test_a_view_over_a_table_that_was_altered(both: Beside) -> None:
    both.run("SELECT * FROM nested")
    both.run("ALTER TABLE t ADD COLUMN c")
    both.run("SELECT * FROM nested")
    both.commit()
    both.run("SELECT * FROM nested")


def test_a_temporary_view_over_a_table_that_was_altered(both: Beside) -> None:
    both.run("CREATE TEMP VIEW mine AS SELECT b FROM t")
    both.run("SELECT * FROM mine")
    both.run("ALTER TABLE t ADD COLUMN c")
    both.run("SELECT * FROM mine")
    both.commit()
    both.run("SELECT * FROM mine")


def test_what_was_made_beside_temporary_tables_outlives_a_rollback(both: Beside) -> None:
    both.run("CREATE TEMP TABLE mine (a)")
    both.commit()
    both.run("INSERT INTO mine SELECT a FROM t")
    both.run("SAVEPOINT s")
    both.run("SELECT * FROM nested")
    both.run("ROLLBACK TO s")
    both.run("SELECT * FROM nested")
    both.plain.rollback()
    both.rome.rollback()
    both.run("SELECT * FROM nested")
    both.run("SELECT * FROM mine")


def test_a_table_made_from_a_query(both: Beside) -> None:
    both.run("CREATE TABLE v AS SELECT * FROM nested, main.t")
    both.run("SELECT * FROM v")


def test_dropping_a_parent_asks_the_children(both: Beside) -> None:
    both.run("PRAGMA foreign_keys = ON")
    both.run("CREATE TABLE child (a REFERENCES t (a))")
    both.run("INSERT INTO child VALUES (1)")
    both.commit()
    fresh = connect_again(both.rome)
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        fresh.execute("DROP TABLE t")
    fresh.close()


def connect_again(connection: Connection) -> Connection:
    return Connection(connection.store)


def test_dump_and_foreign_key_check_on_a_fresh_connection(both: Beside) -> None:
    both.run("CREATE TABLE child (a REFERENCES t (a))")
    both.commit()
    fresh = connect_again(both.rome)
    assert fresh.execute("PRAGMA foreign_key_check").fetchall() == []
    fresh.rollback()
    dumped = list(connect_again(both.rome).iterdump())
    assert any(line.startswith('INSERT INTO "t"') for line in dumped)


# DDL that this process has seen before


COMPUTED = (
    "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT CHECK (b <> 'bad'))",
    "INSERT INTO t VALUES (1, 'X'), (2, 'Y')",
    "CREATE UNIQUE INDEX lowered ON t (lower(b))",
)


def test_the_same_ddl_in_two_databases() -> None:
    engines = [sa.create_engine("rome+memory://") for _ in range(2)]
    for engine in engines:
        with engine.begin() as connection:
            for sql in COMPUTED:
                connection.exec_driver_sql(sql)
            with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
                connection.exec_driver_sql("INSERT INTO t VALUES (3, 'x')")
            with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
                connection.exec_driver_sql("INSERT INTO t VALUES (3, 'bad')")
            assert connection.exec_driver_sql("PRAGMA index_list(t)").scalars(1).all() == ["lowered"]
        with engine.begin() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 2
    catalogs = [engine.dialect.store._rome_shared.newest.catalog for engine in engines]  # type: ignore[attr-defined]
    assert catalogs[0] is catalogs[1]
    for engine in engines:
        engine.dispose()


def test_ddl_that_is_known_fails_as_the_first_time() -> None:
    for _ in range(2):
        with connect("rome+memory://") as connection:
            connection.execute("CREATE TABLE t (a)")
            connection.execute("INSERT INTO t VALUES (1), (1)")
            with pytest.raises(OperationalError, match="already exists"):
                connection.execute("CREATE TABLE t (a)")
            with pytest.raises(IntegrityError, match="UNIQUE"):
                connection.execute("CREATE UNIQUE INDEX i ON t (a)")
            assert connection.execute("PRAGMA index_list(t)").fetchall() == []
            connection.execute("DELETE FROM t WHERE rowid = 2")
            connection.execute("CREATE UNIQUE INDEX i ON t (a)")
            assert len(connection.execute("PRAGMA index_list(t)").fetchall()) == 1


def test_rolled_back_ddl_leaves_nothing_in_the_shadow() -> None:
    for _ in range(2):
        with connect("rome+memory://") as connection:
            connection.execute("CREATE TABLE t (a)")
            connection.execute("PRAGMA table_info(t)").fetchall()
            connection.execute("SAVEPOINT s")
            connection.execute("ALTER TABLE t ADD COLUMN b")
            connection.execute("CREATE TABLE u (a)")
            connection.execute("ROLLBACK TO s")
            assert len(connection.execute("PRAGMA table_info(t)").fetchall()) == 1
            connection.execute("CREATE TABLE u (a, b)")
            assert len(connection.execute("PRAGMA table_info(u)").fetchall()) == 2


def test_a_catalog_that_was_stored_is_known_again(url: str) -> None:
    if url.startswith("rome+memory"):
        pytest.skip("a memory store is opened once")
    engines = []
    for number in range(2):
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            if number == 0:
                connection.exec_driver_sql("CREATE TABLE known_again (a)")
            connection.exec_driver_sql("INSERT INTO known_again VALUES (1)")
        engines.append(engine)
    shared = [rome.store_of(engine)._rome_shared for engine in engines]  # type: ignore[attr-defined]
    assert shared[0] is not shared[1]
    assert shared[0].newest.catalog is shared[1].newest.catalog
    for engine in engines:
        engine.dispose()
        rome.store_of(engine).close()
