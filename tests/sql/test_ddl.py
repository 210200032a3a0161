"""DDL: transactional, seen by all connections, and reflected as SQLite reflects it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.engine import Engine

from rome.dbapi import (
    Connection,
    DataError,
    Error,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    connect,
)
from tests.sql.beside import Beside

Connect = Callable[..., Connection]


@pytest.fixture
def both(connection: Connection) -> Iterator[Beside]:
    pair = Beside(connection)
    yield pair
    pair.close()


def tables(connection: Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows]


# CREATE, ALTER, DROP


def test_the_life_of_a_table(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL);
        INSERT INTO t (a) VALUES ('x'), ('y');
        ALTER TABLE t ADD COLUMN b INTEGER DEFAULT 7;
        INSERT INTO t (a) VALUES ('z');
        SELECT * FROM t ORDER BY id;
        ALTER TABLE t RENAME COLUMN a TO renamed;
        ALTER TABLE t RENAME TO u;
        UPDATE u SET b = b + 1 WHERE renamed = 'x';
        SELECT * FROM u ORDER BY id;
        ALTER TABLE u DROP COLUMN renamed;
        ALTER TABLE u ADD COLUMN renamed TEXT;
        SELECT * FROM u ORDER BY id;
        SELECT * FROM t;
        DROP TABLE u;
        SELECT * FROM u;
        CREATE TABLE u (x);
        SELECT * FROM u"""
    )
    both.commit()


def test_ddl_is_refused_as_sqlite_refuses_it(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a);
        CREATE TABLE t (id INTEGER PRIMARY KEY);
        CREATE TABLE IF NOT EXISTS t (other);
        CREATE TABLE u (id INTEGER PRIMARY KEY, id);
        CREATE TABLE v (a CHECK;
        DROP TABLE missing;
        DROP TABLE IF EXISTS missing;
        DROP INDEX missing;
        CREATE INDEX ix ON missing (a);
        CREATE INDEX ix ON t (missing);
        CREATE INDEX ix ON t (a);
        CREATE INDEX ix ON t (id);
        ALTER TABLE t ADD COLUMN a;
        ALTER TABLE t ADD COLUMN u UNIQUE;
        ALTER TABLE t DROP COLUMN a;
        ALTER TABLE t RENAME COLUMN missing TO b;
        ALTER TABLE missing RENAME TO b;
        INSERT INTO t VALUES (1, 2);
        ALTER TABLE t ADD COLUMN n NOT NULL;
        ALTER TABLE t ADD COLUMN n NOT NULL DEFAULT 3;
        SELECT * FROM t"""
    )


@pytest.mark.parametrize(
    "key",
    ["id INTEGER PRIMARY KEY", "id VARCHAR(9) NOT NULL PRIMARY KEY", "id", "id INTEGER, PRIMARY KEY (id, a)"],
)
def test_rows_survive_columns_that_come_and_go(both: Beside, key: str) -> None:
    columns, _, constraint = key.partition(", ")
    both.run(f"CREATE TABLE t ({columns}, a NOT NULL, b{', ' + constraint if constraint else ''})")
    both.run("INSERT INTO t VALUES (1, 2, 3), (4, 5, 6)")
    both.commit()
    for sql in (
        "ALTER TABLE t ADD COLUMN c DEFAULT 'c'",
        "INSERT INTO t VALUES (7, 8, 9, 10)",
        "ALTER TABLE t DROP COLUMN b",
        "ALTER TABLE t ADD COLUMN b DEFAULT 'new'",
        "UPDATE t SET c = 'changed' WHERE id = 1",
        "INSERT INTO t VALUES (11, 12, 13, 14)",
    ):
        both.run(sql)
        both.commit()
        both.run("SELECT * FROM t ORDER BY id")


def test_indexes_on_tables_with_rows(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a, b);
        INSERT INTO t (a, b) VALUES (1, 'x'), (1, 'y'), (2, NULL), (NULL, 'z');
        CREATE UNIQUE INDEX ux ON t (a);
        CREATE UNIQUE INDEX ux ON t (a, b);
        INSERT INTO t (a, b) VALUES (1, 'y');
        CREATE INDEX ix ON t (b DESC) WHERE a IS NOT NULL;
        SELECT id FROM t WHERE b = 'y' AND a IS NOT NULL;
        DROP INDEX ux;
        INSERT INTO t (id, a, b) VALUES (9, 1, 'y');
        SELECT * FROM t ORDER BY id"""
    )


def test_nothing_of_a_dropped_table_comes_back(both: Beside) -> None:
    for kind in ("INTEGER PRIMARY KEY", "TEXT NOT NULL PRIMARY KEY"):
        both.run(f"CREATE TABLE t (id {kind}, a UNIQUE)")
        both.run("SELECT * FROM t")
        both.run("INSERT INTO t VALUES (1, 'x'), (2, 'y')")
        both.commit()
        both.run("DROP TABLE t")
    both.commit()


def test_dropping_a_parent_with_children_is_refused(both: Beside) -> None:
    both.script(
        """CREATE TABLE p (id INTEGER PRIMARY KEY);
        CREATE TABLE c (p INTEGER REFERENCES p);
        INSERT INTO p VALUES (1);
        INSERT INTO c VALUES (1)"""
    )
    both.fails("DROP TABLE p", "FOREIGN KEY constraint failed")
    both.run("DELETE FROM c")
    both.run("DROP TABLE p")


def test_views(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a);
        INSERT INTO t (a) VALUES (1), (2);
        CREATE VIEW v AS SELECT id, a * 10 AS tenfold FROM t;
        CREATE VIEW IF NOT EXISTS v AS SELECT 1;
        CREATE VIEW w (n) AS SELECT count(*) FROM v WHERE tenfold > 10;
        SELECT * FROM v ORDER BY id;
        SELECT n FROM w;
        INSERT INTO v VALUES (1, 1);
        ALTER TABLE t RENAME COLUMN a TO renamed;
        SELECT * FROM v ORDER BY id;
        DROP VIEW v;
        SELECT * FROM v;
        SELECT name, type FROM sqlite_master ORDER BY name"""
    )


def test_create_table_as(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a VARCHAR(10));
        INSERT INTO t (a) VALUES ('x'), ('y');
        CREATE TABLE copy AS SELECT id, a, a || id AS both_of_them FROM t;
        SELECT * FROM copy ORDER BY id;
        CREATE TABLE IF NOT EXISTS copy AS SELECT 1;
        SELECT count(*) FROM copy"""
    )
    both.commit()
    both.same("copy")


def test_temporary_tables_belong_to_their_connection(connect: Connect, both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a);
        INSERT INTO t (a) VALUES (1), (2);
        CREATE TEMPORARY TABLE scratch (id INTEGER PRIMARY KEY, a UNIQUE);
        INSERT INTO scratch (a) SELECT a * 2 FROM t;
        SELECT t.a, scratch.a FROM t JOIN scratch ON scratch.id = t.id ORDER BY t.id;
        INSERT INTO t (a) SELECT a FROM scratch;
        SELECT * FROM t ORDER BY id"""
    )
    both.commit()
    both.run("INSERT INTO scratch (a) VALUES (100)")
    both.run("SELECT count(*) FROM scratch")
    both.rome.rollback()
    both.plain.rollback()
    both.run("SELECT count(*) FROM scratch")
    with pytest.raises(OperationalError, match="no such table: scratch"):
        connect().execute("SELECT * FROM scratch")
    both.run("DROP TABLE scratch")
    both.run("SELECT * FROM scratch")


# Transactions


def test_ddl_is_rolled_back_with_its_transaction(connection: Connection) -> None:
    connection.execute("CREATE TABLE kept (id INTEGER PRIMARY KEY, a)")
    connection.execute("INSERT INTO kept (a) VALUES (1)")
    connection.commit()
    for sql in (
        "CREATE TABLE undone (id)",
        "CREATE INDEX ix ON kept (a)",
        "ALTER TABLE kept ADD COLUMN b",
        "UPDATE kept SET b = 5",
        "ALTER TABLE kept RENAME TO other",
        "DROP TABLE other",
    ):
        connection.execute(sql)
    connection.rollback()
    assert tables(connection) == ["kept"]
    assert connection.execute("SELECT * FROM kept").fetchall() == [(1, 1)]
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchall() == [(1,)]


def test_ddl_is_rolled_back_to_a_savepoint(connection: Connection) -> None:
    connection.execute("CREATE TABLE a (id INTEGER PRIMARY KEY, v)")
    connection.execute("INSERT INTO a (v) VALUES ('x')")
    connection.execute("SAVEPOINT s")
    connection.execute("DROP TABLE a")
    connection.execute("CREATE TABLE b (id)")
    connection.execute("SAVEPOINT t")
    connection.execute("CREATE TABLE c (id)")
    assert tables(connection) == ["b", "c"]
    connection.execute("ROLLBACK TO t")
    assert tables(connection) == ["b"]
    connection.execute("ROLLBACK TO s")
    assert tables(connection) == ["a"]
    connection.execute("RELEASE s")
    connection.commit()
    assert connection.execute("SELECT * FROM a").fetchall() == [(1, "x")]


def test_a_failing_ddl_statement_leaves_the_schema_as_it_was(connection: Connection) -> None:
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
    connection.execute("INSERT INTO t (a) VALUES (1), (1)")
    with pytest.raises(Error, match=r"UNIQUE constraint failed: t\.a"):
        connection.execute("CREATE UNIQUE INDEX ux ON t (a)")
    connection.execute("INSERT INTO t (a) VALUES (1)")
    connection.commit()
    assert connection.execute("PRAGMA index_list(t)").fetchall() == []
    assert connection.execute("SELECT count(*) FROM t WHERE a = 1").fetchall() == [(3,)]


def test_ddl_that_is_not_committed_is_not_seen_elsewhere(connect: Connect) -> None:
    one, two = connect(), connect()
    one.execute("CREATE TABLE t (id)")
    with pytest.raises(OperationalError, match="no such table: t"):
        two.execute("SELECT * FROM t")
    two.rollback()
    one.commit()
    assert two.execute("SELECT * FROM t").fetchall() == []


def test_of_two_that_create_one_table_one_fails(connect: Connect) -> None:
    one, two = connect(), connect()
    one.execute("CREATE TABLE t (a)")
    two.execute("CREATE TABLE t (b)")
    one.commit()
    with pytest.raises(OperationalError, match="serialization failure"):
        two.commit()
    with pytest.raises(OperationalError, match="already exists"):
        two.execute("CREATE TABLE t (b)")


def test_a_write_under_a_schema_that_changed_meanwhile_is_done_under_the_new_one(connect: Connect) -> None:
    one, two = connect(), connect()
    one.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
    one.commit()
    two.execute("INSERT INTO t (a) VALUES (1)")
    one.execute("CREATE UNIQUE INDEX ux ON t (a)")
    one.commit()
    two.commit()
    with pytest.raises(IntegrityError, match="UNIQUE constraint failed"):
        one.execute("INSERT INTO t (a) VALUES (1)")


# Seen by others


def test_another_connection_sees_the_new_schema(connect: Connect) -> None:
    one, two = connect(), connect()
    one.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
    one.commit()
    assert two.execute("SELECT * FROM t").fetchall() == []
    two.commit()
    one.execute("ALTER TABLE t ADD COLUMN b DEFAULT 5")
    one.execute("INSERT INTO t (a) VALUES (1)")
    one.commit()
    assert two.execute("SELECT * FROM t").fetchall() == [(1, 1, 5)]
    two.execute("DROP TABLE t")
    two.commit()
    with pytest.raises(OperationalError, match="no such table"):
        one.execute("SELECT * FROM t")


def test_another_engine_sees_the_new_schema(engine: Engine, open_engine: Callable[..., Engine]) -> None:
    other = open_engine()
    for number in range(3):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY)")
            connection.exec_driver_sql(f"INSERT INTO t{number} DEFAULT VALUES")
        with other.begin() as connection:
            assert connection.exec_driver_sql(f"SELECT * FROM t{number}").all() == [(1,)]
            connection.exec_driver_sql(f"ALTER TABLE t{number} ADD COLUMN b")
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE t{number} SET b = 3")
        assert len(sa.inspect(other).get_columns(f"t{number}")) == 2


def _change_the_schema(url: str) -> None:
    with connect(url) as connection:
        connection.execute("ALTER TABLE t ADD COLUMN b DEFAULT 'from afar'")
        connection.execute("CREATE TABLE u (id)")


def test_another_process_changes_the_schema(url: str, connection: Connection) -> None:
    if url.startswith("rome+memory"):
        pytest.skip("a memory store lives in one process")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    connection.execute("INSERT INTO t DEFAULT VALUES")
    connection.commit()
    process = multiprocessing.get_context("spawn").Process(target=_change_the_schema, args=(url,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert connection.execute("SELECT * FROM t").fetchall() == [(1, "from afar")]
    assert tables(connection) == ["t", "u"]


# Reflection and migrations

REFLECTED = """CREATE TABLE parent (id INTEGER NOT NULL, code VARCHAR(20) NOT NULL, PRIMARY KEY (id),
    CONSTRAINT uq_code UNIQUE (code));
CREATE TABLE child (id INTEGER NOT NULL PRIMARY KEY, parent_id INTEGER NOT NULL, code VARCHAR(20) DEFAULT 'x',
    amount NUMERIC(10, 2), at DATETIME DEFAULT CURRENT_TIMESTAMP, double_amount INTEGER
    GENERATED ALWAYS AS (amount * 2),
    CONSTRAINT fk_parent FOREIGN KEY (parent_id) REFERENCES parent (id) ON DELETE CASCADE,
    CONSTRAINT ck_amount CHECK (amount > 0));
CREATE UNIQUE INDEX ux_child ON child (parent_id, code);
CREATE INDEX ix_partial ON child (code) WHERE amount > 10;
CREATE VIEW old AS SELECT * FROM parent"""


def reflection(engine: Engine) -> dict[str, Any]:
    inspector = sa.inspect(engine)
    found: dict[str, Any] = {
        "tables": inspector.get_table_names(),
        "views": inspector.get_view_names(),
        "definition": inspector.get_view_definition("old"),
    }
    for table in ("parent", "child"):
        found[table] = {
            "columns": [{**column, "type": repr(column["type"])} for column in inspector.get_columns(table)],
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": inspector.get_foreign_keys(table),
            "indexes": [
                {**index, "dialect_options": {k: str(v) for k, v in index["dialect_options"].items()}}
                for index in inspector.get_indexes(table)
            ],
            "unique": inspector.get_unique_constraints(table),
            "check": inspector.get_check_constraints(table),
        }
    return found


def test_reflection_is_that_of_sqlite(engine: Engine) -> None:
    plain = sa.create_engine("sqlite://")
    for one in (engine, plain):
        with one.begin() as connection:
            for sql in REFLECTED.split(";\n"):
                connection.exec_driver_sql(sql)
    assert reflection(engine) == reflection(plain)
    assert len(sa.MetaData().tables) == 0
    metadata = sa.MetaData()
    metadata.reflect(engine)
    assert sorted(metadata.tables) == ["child", "parent"]
    plain.dispose()


def test_reflected_metadata_can_be_created_again(engine: Engine) -> None:
    with engine.begin() as connection:
        for sql in REFLECTED.split(";\n"):
            connection.exec_driver_sql(sql)
        connection.exec_driver_sql("DROP VIEW old")
    metadata = sa.MetaData()
    metadata.reflect(engine)
    metadata.drop_all(engine)
    assert sa.inspect(engine).get_table_names() == []
    metadata.create_all(engine)
    assert sa.inspect(engine).get_table_names() == ["child", "parent"]


def test_alembic_operations(engine: Engine) -> None:
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        op.create_table(
            "account", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(20))
        )
        op.bulk_insert(sa.table("account", sa.column("name")), [{"name": "a"}, {"name": "b"}])
        op.add_column("account", sa.Column("size", sa.Integer, server_default="3"))
        op.create_index("ix_name", "account", ["name"], unique=True)
        op.execute("UPDATE account SET size = 4 WHERE name = 'a'")
        op.rename_table("account", "accounts")
        op.drop_index("ix_name")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT id, name, size FROM accounts ORDER BY id").all()
    assert rows == [(1, "a", 4), (2, "b", 3)]


def test_alembic_batch_alter_table(engine: Engine) -> None:
    with engine.begin() as connection:
        for sql in REFLECTED.split(";\n")[:4]:
            connection.exec_driver_sql(sql)
        connection.exec_driver_sql("INSERT INTO parent VALUES (1, 'one'), (2, 'two')")
        connection.exec_driver_sql(
            "INSERT INTO child (parent_id, code, amount) VALUES (1, 'x', 20), (2, 'y', 30)"
        )
    with engine.begin() as connection:
        op = Operations(MigrationContext.configure(connection))
        with op.batch_alter_table("child") as batch:
            batch.alter_column("code", new_column_name="label", type_=sa.String(50), nullable=False)
            batch.drop_column("at")
            batch.drop_column("double_amount")
            batch.add_column(sa.Column("note", sa.Text, server_default="none"))
            batch.drop_constraint("fk_parent", type_="foreignkey")
            batch.create_unique_constraint("uq_parent", ["parent_id"])
    columns = {column["name"]: column for column in sa.inspect(engine).get_columns("child")}
    assert list(columns) == ["id", "parent_id", "label", "amount", "note"]
    assert not columns["label"]["nullable"]
    assert sa.inspect(engine).get_foreign_keys("child") == []
    with engine.begin() as connection:
        rows = connection.exec_driver_sql("SELECT id, label, amount, note FROM child ORDER BY id").all()
        assert rows == [(1, "x", 20, "none"), (2, "y", 30, "none")]
        with pytest.raises(sa.exc.IntegrityError, match=r"child\.parent_id"):
            connection.exec_driver_sql("UPDATE child SET parent_id = 1")


def test_create_all_and_drop_all_cost_few_round_trips(engine: Engine) -> None:
    metadata = sa.MetaData()
    for number in range(10):
        sa.Table(f"t{number}", metadata, sa.Column("id", sa.Integer, primary_key=True))
    metadata.create_all(engine)
    store = engine.dialect.store  # type: ignore[attr-defined]
    before = store.round_trips
    metadata.create_all(engine)
    assert store.round_trips - before <= 2


def test_a_table_can_be_dropped_after_temporary_tables_made_sqlite_roll_back(connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE b (a INTEGER)")
    connection.execute("CREATE TABLE c (a INTEGER)")
    connection.commit()
    connection.execute("CREATE TEMPORARY VIEW v AS SELECT a FROM c")
    connection.rollback()
    connection.execute("CREATE TEMPORARY TABLE t (a INTEGER)")
    connection.execute("DROP TABLE c")
    connection.rollback()
    connection.execute("DROP TABLE b")
    connection.commit()
    assert connection.execute("SELECT a FROM c").fetchall() == []
    with pytest.raises(OperationalError, match="no such table: b"):
        connection.execute("SELECT a FROM b")


def test_a_schema_cannot_depend_on_a_function_that_only_one_program_has(connect: Connect) -> None:
    connection = connect()
    connection.create_function("twice", 1, lambda n: 2 * n, deterministic=True)
    connection.execute("CREATE TABLE t (a INTEGER CHECK (a REGEXP '^[0-9]+$'))")
    with pytest.raises(NotSupportedError, match="no such function: twice"):
        connection.execute("CREATE INDEX i ON t (twice(a))")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.commit()
    other = connect()
    assert other.execute("SELECT a FROM t").fetchall() == [(1,)]
    with pytest.raises(IntegrityError):
        other.execute("INSERT INTO t VALUES ('x')")


def test_an_index_of_too_many_columns_is_refused_when_it_is_made(connect: Callable[..., Any]) -> None:
    connection = connect()
    names = [f"c{n}" for n in range(16)]
    connection.execute(f"CREATE TABLE wide (id INTEGER PRIMARY KEY, {', '.join(names)})")
    connection.execute(f"CREATE INDEX fits ON wide ({', '.join(names[:15])})")
    with pytest.raises(DataError, match="at most 16 columns"):
        connection.execute(f"CREATE INDEX too_wide ON wide ({', '.join(names)})")
    connection.execute("INSERT INTO wide (c0) VALUES (1)")
    connection.commit()
    assert connection.execute("SELECT count(*) FROM wide").fetchall() == [(1,)]
