"""Alembic's operations on ROME: in place, with batches or without, and never on another engine's account."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.ddl.impl import DefaultImpl
from alembic.ddl.sqlite import SQLiteImpl
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, OperationalError

import rome
from rome.migrations.implementation import RomeImpl
from rome.tools.check import check


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection with two tables and rows; in the end the database must be sound."""
    with engine.connect() as connection:
        for statement in (
            "CREATE TABLE p (id INTEGER NOT NULL PRIMARY KEY, code VARCHAR(8))",
            "CREATE TABLE t (id INTEGER NOT NULL, pid INTEGER, name VARCHAR(8) NOT NULL,"
            " CONSTRAINT pk_t PRIMARY KEY (id), CONSTRAINT uq_name UNIQUE (name))",
            "CREATE INDEX ix_pid ON t (pid)",
            "INSERT INTO p VALUES (1, 'one'), (2, 'two')",
            "INSERT INTO t VALUES (1, 1, 'a'), (2, 2, 'b')",
        ):
            connection.exec_driver_sql(statement)
        connection.commit()
        yield connection
    report = check(rome.store_of(engine))
    assert report.sound, report.as_dict()


@pytest.fixture
def op(connection: Connection) -> Operations:
    return Operations(MigrationContext.configure(connection))


@pytest.fixture
def statements(engine: Engine) -> list[str]:
    """What is sent to the database from now on."""
    seen: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    return seen


def rows(connection: Connection, sql: str) -> list[Any]:
    return [tuple(row) for row in connection.exec_driver_sql(sql)]


def refused(connection: Connection, sql: str, text: str) -> None:
    nested = connection.begin_nested()
    with pytest.raises(IntegrityError, match=text):
        connection.exec_driver_sql(sql)
    nested.rollback()


# Which implementation


def test_only_romes_engines_are_altered_in_place(engine: Engine, tmp_path: Path) -> None:
    sqlite = sa.create_engine(f"sqlite:///{tmp_path / 'real.sqlite'}")
    with engine.connect() as ours, sqlite.connect() as theirs:
        assert type(MigrationContext.configure(ours).impl) is RomeImpl
        context = MigrationContext.configure(theirs)
        assert type(context.impl) is SQLiteImpl
        theirs.exec_driver_sql("CREATE TABLE t (id INTEGER)")
        with pytest.raises(NotImplementedError, match="No support for ALTER of constraints"):
            Operations(context).create_unique_constraint("u", "t", ["id"])
    sqlite.dispose()


def test_a_programs_own_implementation_for_sqlite_can_be_derived_from_what_is_registered() -> None:
    registered = DefaultImpl.get_by_dialect(sa.create_engine("sqlite://").dialect)

    class Own(registered):  # type: ignore[misc, valid-type]
        """A program's own, not registered here (it has no __dialect__ of its own)."""

    own = Own(sa.create_engine("sqlite://").dialect, None, True, None, StringIO(), {})
    assert isinstance(own, Own)
    assert isinstance(own, SQLiteImpl)


ORDERS = {
    "alembic first": "from alembic.migration import MigrationContext\nimport sqlalchemy as sa\n"
    "engine = sa.create_engine('rome+memory://')\n",
    "engine first": "import sqlalchemy as sa\nengine = sa.create_engine('rome+memory://')\n"
    "from alembic.migration import MigrationContext\n",
    "connected first": "import sqlalchemy as sa\nengine = sa.create_engine('rome+memory://')\n"
    "engine.connect().close()\nfrom alembic.migration import MigrationContext\n",
    "without plugins": "from importlib import metadata\nmetadata.entry_points = lambda group: []\n"
    "import sqlalchemy.dialects as dialects\nfrom rome.dialect import MemoryDialect\n"
    "dialects.registry.impls['rome.memory'] = lambda: MemoryDialect\n"
    "import sqlalchemy as sa\nengine = sa.create_engine('rome+memory://')\n"
    "from alembic.migration import MigrationContext\n",
}


@pytest.mark.parametrize("order", ORDERS)
def test_whatever_is_imported_first(order: str) -> None:
    """From Alembic 1.18 on. Before that, it has to be imported before the engine connects."""
    program = (
        ORDERS[order]
        + "with engine.connect() as c:\n    print(type(MigrationContext.configure(c).impl).__name__)\n"
        + "with sa.create_engine('sqlite://').connect() as c:\n"
        + "    print(type(MigrationContext.configure(c).impl).__name__)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["RomeImpl", "SQLiteImpl"], ended.stderr


# Operations


def test_constraints_are_added_and_dropped(op: Operations, connection: Connection) -> None:
    op.create_foreign_key("fk_p", "t", "p", ["pid"], ["id"], ondelete="CASCADE")
    op.create_unique_constraint("uq_pid", "t", ["pid", "name"])
    op.create_check_constraint("ck_name", "t", sa.text("name <> ''"))
    refused(connection, "INSERT INTO t VALUES (3, 9, 'c')", "FOREIGN KEY")
    refused(connection, "INSERT INTO t VALUES (3, 1, '')", "CHECK constraint failed: ck_name")
    op.drop_constraint("ck_name", "t", type_="check")
    op.drop_constraint("uq_name", "t", type_="unique")
    op.drop_constraint("fk_p", "t", type_="foreignkey")
    connection.exec_driver_sql("INSERT INTO t VALUES (3, 9, ''), (4, 9, 'a')")
    refused(connection, "INSERT INTO t VALUES (5, 9, 'a')", r"UNIQUE constraint failed: t\.pid, t\.name")


def test_a_primary_key_is_replaced(op: Operations, connection: Connection) -> None:
    op.drop_constraint("pk_t", "t", type_="primary")
    op.create_primary_key("pk_new", "t", ["pid", "name"])
    assert sa.inspect(connection).get_pk_constraint("t") == {
        "constrained_columns": ["pid", "name"],
        "name": "pk_new",
    }
    refused(connection, "INSERT INTO t VALUES (1, NULL, 'z')", r"NOT NULL constraint failed: t\.pid")
    assert rows(connection, "SELECT id FROM t WHERE pid = 2 AND name = 'b'") == [(2,)]


def test_columns_are_altered(op: Operations, connection: Connection) -> None:
    op.alter_column("t", "pid", nullable=False, server_default="1", existing_type=sa.Integer())
    op.alter_column("t", "name", type_=sa.String(255), existing_nullable=False, comment="ignored")
    op.alter_column("t", "name", new_column_name="title", existing_type=sa.String(255))
    connection.exec_driver_sql("INSERT INTO t (id, title) VALUES (3, 'c')")
    assert rows(connection, "SELECT pid, title FROM t WHERE id = 3") == [(1, "c")]
    refused(connection, "INSERT INTO t VALUES (4, NULL, 'd')", r"NOT NULL constraint failed: t\.pid")
    op.alter_column("t", "pid", server_default=None, nullable=True)
    connection.exec_driver_sql("INSERT INTO t (id, title) VALUES (4, 'd')")
    columns = {column["name"]: column for column in sa.inspect(connection).get_columns("t")}
    assert str(columns["title"]["type"]) == "VARCHAR(255)"
    assert columns["pid"]["nullable"]
    assert columns["pid"]["default"] is None


def test_a_dropped_column_takes_its_index_and_constraints_along(
    op: Operations, connection: Connection
) -> None:
    op.create_foreign_key("fk_p", "t", "p", ["pid"], ["id"])
    op.drop_column("t", "pid")
    inspector = sa.inspect(connection)
    assert inspector.get_indexes("t") == []
    assert inspector.get_foreign_keys("t") == []
    assert rows(connection, "SELECT * FROM t ORDER BY id") == [(1, "a"), (2, "b")]


def test_an_added_column_brings_its_constraints(op: Operations, connection: Connection) -> None:
    op.add_column("t", sa.Column("other", sa.Integer, sa.ForeignKey("p.id", name="fk_other")))
    op.add_column("t", sa.Column("once", sa.String(5), unique=True, index=False))
    connection.exec_driver_sql("UPDATE t SET once = 'x', other = 1 WHERE id = 1")
    refused(connection, "UPDATE t SET once = 'x' WHERE id = 2", r"UNIQUE constraint failed: t\.once")
    refused(connection, "UPDATE t SET other = 7", "FOREIGN KEY")


def test_constraints_that_nobody_named_can_be_looked_up_and_dropped(
    op: Operations, connection: Connection
) -> None:
    op.create_table(
        "u",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("a", sa.Integer, sa.ForeignKey("p.id"), unique=True),
        sa.Column("b", sa.Integer),
        sa.ForeignKeyConstraint(["b"], ["t.id"]),
        sa.UniqueConstraint("a", "b"),
    )
    inspector = sa.inspect(connection)
    names = {key["name"] for key in inspector.get_foreign_keys("u")}
    names |= {key["name"] for key in inspector.get_unique_constraints("u")}
    assert names == {"u_a_fkey", "u_b_fkey", "u_a_key", "u_a_b_key"}
    for key in inspector.get_foreign_keys("u"):
        op.drop_constraint(key["name"], "u", type_="foreignkey")
    connection.exec_driver_sql("INSERT INTO u VALUES (1, 70, 70)")


def test_a_key_declared_as_bigint_is_numbered(op: Operations, connection: Connection) -> None:
    table = op.create_table(
        "big",
        sa.Column("id", sa.BigInteger, autoincrement=True),
        sa.Column("other", sa.BigInteger),
        sa.PrimaryKeyConstraint("id"),
    )
    assert table is not None
    number = connection.execute(table.insert().values(other=2**40)).inserted_primary_key
    assert number == (1,)
    op.alter_column("t", "id", type_=sa.BigInteger(), existing_type=sa.Integer(), autoincrement=True)
    connection.exec_driver_sql("INSERT INTO t (pid, name) VALUES (1, 'numbered')")
    assert rows(connection, "SELECT typeof(id) FROM t WHERE name = 'numbered'") == [("integer",)]
    columns = {column["name"]: str(column["type"]) for column in sa.inspect(connection).get_columns("big")}
    assert columns == {"id": "INTEGER", "other": "BIGINT"}


def test_the_columns_of_a_primary_key_are_not_null(op: Operations, connection: Connection) -> None:
    op.create_table("n", sa.Column("a", sa.String(5), nullable=True), sa.PrimaryKeyConstraint("a"))
    refused(connection, "INSERT INTO n VALUES (NULL)", r"NOT NULL constraint failed: n\.a")


def test_what_is_compared_with_models_is_what_differs(op: Operations, connection: Connection) -> None:
    op.create_table(
        "m",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("size", sa.BigInteger),
        sa.Column("refers", sa.BigInteger),
        sa.Column("empty", sa.String(5), server_default=""),
        sa.Column("number", sa.Integer, server_default="5"),
    )
    connection.exec_driver_sql("CREATE UNIQUE INDEX u ON m (number)")
    assert [index["unique"] is True for index in sa.inspect(connection).get_indexes("m")] == [True]
    metadata = sa.MetaData()
    sa.Table(
        "m",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("size", sa.Integer),
        sa.Column("refers", sa.BigInteger().with_variant(sa.Integer(), "sqlite")),
        sa.Column("empty", sa.String(5), server_default=""),
        sa.Column("number", sa.Integer, server_default="6"),
        sa.Index("u", "number", unique=True),
    )
    options = {
        "compare_server_default": True,
        "include_name": lambda name, kind, _: kind != "table" or name == "m",
    }
    found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    differences = sorted((change[0][0], change[0][3]) for change in found)
    assert differences == [("modify_default", "number"), ("modify_type", "size")]


def test_a_check_that_belongs_to_a_type_changes_with_it(op: Operations, connection: Connection) -> None:
    small = sa.Enum("a", "b", name="kind", create_constraint=True)
    op.create_table("k", sa.Column("kind", small))
    op.create_table("s", sa.Column("flag", sa.Boolean(create_constraint=True)))
    connection.exec_driver_sql("INSERT INTO k VALUES ('a')")
    larger = sa.Enum("a", "b", "c", name="kind", create_constraint=True)
    op.alter_column("k", "kind", existing_type=small, type_=larger)
    connection.exec_driver_sql("INSERT INTO k VALUES ('c')")
    refused(connection, "INSERT INTO k VALUES ('d')", "CHECK constraint failed")
    op.alter_column("s", "flag", existing_type=sa.Boolean(create_constraint=True), type_=sa.Integer())
    connection.exec_driver_sql("INSERT INTO s VALUES (7)")


def test_mysqls_character_sets(op: Operations) -> None:
    op.execute("ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    op.execute("ALTER TABLE t CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    with pytest.raises(OperationalError, match="Unknown collation: 'utf8mb4_general_ci'"):
        op.execute("ALTER TABLE t DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_general_ci")


# Batches


def test_a_batch_copies_nothing(op: Operations, connection: Connection, statements: list[str]) -> None:
    with op.batch_alter_table("t") as batch:
        batch.add_column(sa.Column("extra", sa.String(5), server_default="e"))
        batch.alter_column("name", type_=sa.Text(), nullable=True)
        batch.drop_constraint("uq_name", type_="unique")
        batch.create_unique_constraint("uq_extra", ["extra", "id"])
        batch.create_foreign_key("fk_p", "p", ["pid"], ["id"])
        batch.drop_index("ix_pid")
        batch.create_index("ix_new", ["extra"])
    assert not [statement for statement in statements if "_alembic_tmp" in statement]
    assert rows(connection, "SELECT * FROM t ORDER BY id") == [(1, 1, "a", "e"), (2, 2, "b", "e")]
    refused(connection, "UPDATE t SET pid = 9", "FOREIGN KEY")
    connection.exec_driver_sql("INSERT INTO t (id, name) VALUES (3, 'a'), (4, NULL)")


@pytest.mark.parametrize("kind", ["always", "by convention", "in the middle", "computed"])
def test_a_batch_copies_what_cannot_be_said_otherwise(
    op: Operations, connection: Connection, statements: list[str], kind: str
) -> None:
    connection.exec_driver_sql("CREATE TABLE c (id INTEGER PRIMARY KEY, a INTEGER, UNIQUE (a))")
    connection.exec_driver_sql("INSERT INTO c VALUES (1, 5)")
    convention = {"uq": "uq_%(table_name)s_%(column_0_name)s"} if kind == "by convention" else None
    recreate = "always" if kind in ("always", "in the middle") else "auto"
    with op.batch_alter_table("c", recreate=recreate, naming_convention=convention) as batch:  # type: ignore[arg-type]
        if kind == "always":
            batch.alter_column("a", nullable=False)
        elif kind == "by convention":
            batch.drop_constraint("uq_c_a", type_="unique")
        elif kind == "in the middle":
            batch.add_column(sa.Column("between", sa.Integer), insert_after="id")
        else:
            batch.add_column(sa.Column("twice", sa.Integer, sa.Computed("a * 2", persisted=True)))
    assert [statement for statement in statements if "_alembic_tmp" in statement]
    assert rows(connection, "SELECT id, a FROM c") == [(1, 5)]
    if kind == "by convention":
        connection.exec_driver_sql("INSERT INTO c VALUES (2, 5)")
    if kind == "computed":
        assert rows(connection, "SELECT twice FROM c") == [(10,)]


# A whole environment of migrations

ENVIRONMENT = """
from alembic import context
connection = context.config.attributes.get("connection")
if connection is None:
    context.configure(url="rome+memory://", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""

REVISION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = {revision!r}, {down!r}

def upgrade():
    {upgrade}

def downgrade():
    {downgrade}
"""

REVISIONS = {
    "one": (
        'op.create_table("hosts", sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=True),'
        ' sa.Column("name", sa.String(10)))\n'
        '    op.create_table("vms", sa.Column("uuid", sa.String(36), nullable=False),'
        ' sa.Column("host", sa.BigInteger, sa.ForeignKey("hosts.id")), sa.Column("state", sa.String(5)))\n'
        "    op.execute(\"INSERT INTO hosts (name) VALUES ('h1'), ('h2')\")\n"
        "    op.execute(\"INSERT INTO vms VALUES ('u1', 1, '7'), ('u2', 2, '8')\")",
        'op.drop_table("vms"); op.drop_table("hosts")',
    ),
    "two": (
        'op.create_primary_key("pk_vms", "vms", ["uuid"])\n'
        '    op.alter_column("vms", "state", type_=sa.Integer(), nullable=False)\n'
        '    op.create_unique_constraint("uq_hosts", "hosts", ["name"])',
        'op.drop_constraint("uq_hosts", "hosts", type_="unique")\n'
        '    op.alter_column("vms", "state", type_=sa.String(5), existing_type=sa.Integer(), nullable=True)\n'
        '    op.drop_constraint("pk_vms", "vms", type_="primary")',
    ),
    "three": (
        'name = sa.inspect(op.get_bind()).get_foreign_keys("vms")[0]["name"]\n'
        '    op.drop_constraint(name, "vms", type_="foreignkey")\n'
        '    op.create_foreign_key("fk_host", "vms", "hosts", ["host"], ["id"], ondelete="CASCADE")\n'
        '    op.alter_column("vms", "host", nullable=False)',
        'op.drop_constraint("fk_host", "vms", type_="foreignkey")\n'
        '    op.create_foreign_key(None, "vms", "hosts", ["host"], ["id"])\n'
        '    op.alter_column("vms", "host", nullable=True)',
    ),
}


@pytest.fixture
def configuration(tmp_path: Path) -> Config:
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENVIRONMENT)
    down = None
    for revision, (upgrade, downgrade) in REVISIONS.items():
        text = REVISION.format(revision=revision, down=down, upgrade=upgrade, downgrade=downgrade)
        (folder / "versions" / f"{revision}.py").write_text(text)
        down = revision
    configuration = Config()
    configuration.set_main_option("script_location", str(folder))
    configuration.set_main_option("path_separator", "os")
    return configuration


def models() -> sa.MetaData:
    metadata = sa.MetaData()
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    sa.Table(
        "hosts",
        metadata,
        sa.Column("id", big, primary_key=True),
        sa.Column("name", sa.String(10)),
        sa.UniqueConstraint("name", name="uq_hosts"),
    )
    sa.Table(
        "vms",
        metadata,
        sa.Column("uuid", sa.String(36), primary_key=True),
        sa.Column("host", sa.BigInteger, sa.ForeignKey("hosts.id", ondelete="CASCADE"), nullable=False),
        sa.Column("state", sa.Integer, nullable=False),
    )
    return metadata


def migrate(engine: Engine, configuration: Config, to: Callable[[Config], None]) -> None:
    with engine.begin() as connection:
        configuration.attributes["connection"] = connection
        to(configuration)


def revision(connection: Connection) -> list[Any]:
    return rows(connection, "SELECT version_num FROM alembic_version")


def test_upgrades_end_where_the_models_are_and_downgrades_lead_back(
    engine: Engine, configuration: Config
) -> None:
    migrate(engine, configuration, lambda c: command.upgrade(c, "head"))
    with engine.connect() as connection:
        assert revision(connection) == [("three",)]
        assert compare_metadata(MigrationContext.configure(connection), models()) == []
        assert rows(connection, "SELECT uuid, host, state FROM vms ORDER BY uuid") == [
            ("u1", 1, 7),
            ("u2", 2, 8),
        ]
        connection.exec_driver_sql("DELETE FROM hosts WHERE name = 'h1'")
        assert rows(connection, "SELECT uuid FROM vms") == [("u2",)]
        connection.commit()
    migrate(engine, configuration, lambda c: command.downgrade(c, "one"))
    with engine.connect() as connection:
        assert rows(connection, "SELECT uuid, host, state FROM vms") == [("u2", 2, "8")]
        connection.exec_driver_sql("INSERT INTO vms VALUES ('u2', NULL, NULL)")
        refused(connection, "INSERT INTO vms VALUES ('u3', 9, NULL)", "FOREIGN KEY")
    migrate(engine, configuration, lambda c: command.downgrade(c, "base"))
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]
    report = check(rome.store_of(engine))
    assert report.sound, report.as_dict()


def test_a_migration_that_fails_leaves_nothing(engine: Engine, configuration: Config) -> None:
    migrate(engine, configuration, lambda c: command.upgrade(c, "one"))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE hosts SET name = 'same'")
        before = rows(connection, "SELECT sql FROM sqlite_master ORDER BY name")
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: hosts\.name"):
        migrate(engine, configuration, lambda c: command.upgrade(c, "head"))
    with engine.begin() as connection:
        assert revision(connection) == [("one",)]
        assert rows(connection, "SELECT sql FROM sqlite_master ORDER BY name") == before
        assert rows(connection, "SELECT state FROM vms ORDER BY uuid") == [("7",), ("8",)]
        connection.exec_driver_sql("UPDATE hosts SET name = 'h' || id")
    migrate(engine, configuration, lambda c: command.upgrade(c, "head"))
    with engine.connect() as connection:
        assert revision(connection) == [("three",)]


def test_offline_migrations_are_written_as_sql_that_rome_takes(engine: Engine, configuration: Config) -> None:
    (Path(str(configuration.get_main_option("script_location"))) / "versions" / "three.py").unlink()
    configuration.output_buffer = buffer = StringIO()
    command.upgrade(configuration, "two", sql=True)
    with engine.begin() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        raw.executescript(buffer.getvalue())  # type: ignore[attr-defined]
    with engine.connect() as connection:
        assert revision(connection) == [("two",)]
        assert rows(connection, "SELECT uuid, state FROM vms ORDER BY uuid") == [("u1", 7), ("u2", 8)]
