"""ALTER TABLE beyond SQLite's: constraints and columns changed in place, on tables that have rows.

Each change is made on a connection, committed, and looked at by another one, which has loaded the schema
from the store; `rome check` goes through all rows and index entries afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

import rome
from rome.dbapi import Connection, IntegrityError, OperationalError
from rome.records.keys import row_prefix
from rome.stores.base import Read, Scan, Store, prefix_range
from rome.tools.check import check

Connect = Callable[..., Connection]

PARENTS = """
    CREATE TABLE p (id INTEGER PRIMARY KEY, code TEXT UNIQUE);
    INSERT INTO p VALUES (1, 'one'), (2, 'two');
"""


@pytest.fixture
def db(connect: Connect, store: Store) -> Iterator[Connection]:
    connection = connect()
    yield connection
    connection.close()
    report = check(store)
    assert report.sound, report.as_dict()


@pytest.fixture
def store(engine: Engine) -> Store:
    with engine.connect():
        return rome.store_of(engine)


def create(db: Connection, script: str) -> None:
    db.executescript(script)
    db.commit()


def alter(db: Connection, action: str, table: str = "t") -> None:
    db.execute(f"ALTER TABLE {table} {action}")
    db.commit()


def refused(db: Connection, sql: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        db.execute(sql)
    db.rollback()


def rows(db: Connection, sql: str) -> list[Any]:
    found = db.execute(sql).fetchall()
    db.rollback()
    return found


# UNIQUE


def test_an_added_unique_constraint_holds_for_old_and_new_rows(db: Connection, connect: Connect) -> None:
    create(
        db,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b); INSERT INTO t VALUES (1, 'x', 1), (2, 'y', 1)",
    )
    alter(db, "ADD CONSTRAINT u UNIQUE (a)")
    for connection in (db, connect()):
        refused(
            connection, "INSERT INTO t VALUES (3, 'x', 1)", IntegrityError, r"UNIQUE constraint failed: t\.a"
        )
        refused(
            connection, "UPDATE t SET a = 'x' WHERE id = 2", IntegrityError, r"UNIQUE constraint failed: t\.a"
        )
        assert rows(connection, "SELECT id FROM t WHERE a = 'y'") == [(2,)]


def test_a_unique_constraint_that_the_rows_break_is_refused_and_leaves_nothing(db: Connection) -> None:
    create(db, "CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 'x'), (2, 'x')")
    refused(
        db, "ALTER TABLE t ADD CONSTRAINT u UNIQUE (a)", IntegrityError, r"UNIQUE constraint failed: t\.a"
    )
    db.execute("INSERT INTO t VALUES (3, 'x')")
    db.commit()
    assert rows(db, "SELECT count(*) FROM t WHERE a = 'x'") == [(3,)]


def test_a_dropped_unique_constraint_holds_no_more_and_the_others_still_do(db: Connection) -> None:
    create(
        db,
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, c,
               CONSTRAINT ua UNIQUE (a), CONSTRAINT ub UNIQUE (b), UNIQUE (c));
        INSERT INTO t VALUES (1, 1, 1, 1), (2, 2, 2, 2)""",
    )
    alter(db, "DROP CONSTRAINT ua")
    db.execute("INSERT INTO t VALUES (3, 1, 3, 3)")
    db.commit()
    refused(db, "INSERT INTO t VALUES (4, 1, 2, 4)", IntegrityError, r"UNIQUE constraint failed: t\.b")
    refused(db, "INSERT INTO t VALUES (4, 1, 4, 2)", IntegrityError, r"UNIQUE constraint failed: t\.c")
    assert rows(db, "SELECT id FROM t WHERE b = 2") == [(2,)]
    assert rows(db, "SELECT id FROM t WHERE c = 3") == [(3,)]
    alter(db, "ADD UNIQUE (a, b)")
    refused(db, "INSERT INTO t VALUES (4, 1, 1, 9)", IntegrityError, "UNIQUE constraint failed")


# Foreign keys


def test_an_added_foreign_key_holds_for_old_and_new_rows(db: Connection, connect: Connect) -> None:
    create(
        db, PARENTS + "CREATE TABLE t (id INTEGER PRIMARY KEY, pid); INSERT INTO t VALUES (1, 1), (2, NULL)"
    )
    alter(db, "ADD CONSTRAINT f FOREIGN KEY (pid) REFERENCES p (id) ON DELETE CASCADE")
    refused(connect(), "INSERT INTO t VALUES (3, 7)", IntegrityError, "FOREIGN KEY constraint failed")
    db.execute("DELETE FROM p WHERE id = 1")
    db.commit()
    assert rows(db, "SELECT id FROM t") == [(2,)]
    alter(db, "DROP CONSTRAINT f")
    db.execute("INSERT INTO t VALUES (3, 7)")
    db.commit()


def test_a_foreign_key_that_the_rows_break_is_refused(db: Connection) -> None:
    create(db, PARENTS + "CREATE TABLE t (id INTEGER PRIMARY KEY, pid); INSERT INTO t VALUES (1, 1), (2, 9)")
    add = "ALTER TABLE t ADD FOREIGN KEY (pid) REFERENCES p"
    refused(db, add, IntegrityError, "FOREIGN KEY constraint failed")
    db.execute("INSERT INTO t VALUES (3, 8)")
    db.commit()
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute(add)
    db.commit()
    assert rows(db, "SELECT count(*) FROM t WHERE pid > 2") == [(2,)]
    create(db, "DELETE FROM t WHERE pid > 2")


def test_a_foreign_key_to_itself_and_to_a_unique_column(db: Connection) -> None:
    create(
        db,
        PARENTS
        + """CREATE TABLE t (id INTEGER PRIMARY KEY, up INTEGER, code TEXT);
        INSERT INTO t VALUES (1, NULL, 'one'), (2, 1, 'two')""",
    )
    alter(db, "ADD CONSTRAINT f1 FOREIGN KEY (up) REFERENCES t (id)")
    alter(db, "ADD CONSTRAINT f2 FOREIGN KEY (code) REFERENCES p (code) ON UPDATE CASCADE")
    refused(db, "UPDATE t SET up = 9 WHERE id = 2", IntegrityError, "FOREIGN KEY")
    db.execute("UPDATE p SET code = 'deux' WHERE id = 2")
    db.commit()
    assert rows(db, "SELECT code FROM t WHERE id = 2") == [("deux",)]


# CHECK and NOT NULL


def test_an_added_check_is_tried_on_the_rows(db: Connection) -> None:
    create(db, "CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 5), (2, NULL)")
    refused(db, "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 5)", IntegrityError, "CHECK constraint failed: c")
    alter(db, "ADD CONSTRAINT c CHECK (a > 4)")
    refused(db, "INSERT INTO t VALUES (3, 4)", IntegrityError, "CHECK constraint failed: c")
    alter(db, "DROP CONSTRAINT c")
    db.execute("INSERT INTO t VALUES (3, 4)")
    db.commit()


def test_not_null_comes_and_goes(db: Connection, connect: Connect) -> None:
    create(db, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, 'x'), (2, NULL)")
    set_not_null = "ALTER TABLE t ALTER COLUMN a SET NOT NULL"
    refused(db, set_not_null, IntegrityError, r"NOT NULL constraint failed: t\.a")
    db.execute("UPDATE t SET a = 'y' WHERE a IS NULL")
    db.execute(set_not_null)
    db.commit()
    refused(connect(), "INSERT INTO t VALUES (3, NULL)", IntegrityError, r"NOT NULL constraint failed: t\.a")
    alter(db, "ALTER a DROP NOT NULL")
    db.execute("INSERT INTO t VALUES (3, NULL)")
    db.commit()


# Columns


def test_a_changed_default_is_for_new_rows_only(db: Connection) -> None:
    create(
        db,
        """CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);
        ALTER TABLE t ADD COLUMN a TEXT DEFAULT 'old' NOT NULL""",
    )
    alter(db, "ALTER a SET DEFAULT 'it''s, new'")
    db.execute("INSERT INTO t (id) VALUES (2)")
    db.commit()
    assert rows(db, "SELECT a FROM t ORDER BY id") == [("old",), ("it's, new",)]
    alter(db, "ALTER a DROP DEFAULT")
    refused(db, "INSERT INTO t (id) VALUES (3)", IntegrityError, r"NOT NULL constraint failed: t\.a")


def test_a_wider_text_leaves_the_rows_where_they_are(db: Connection, store: Store) -> None:
    create(db, "CREATE TABLE t (id INTEGER PRIMARY KEY, a VARCHAR(5) UNIQUE); INSERT INTO t VALUES (1, 'x')")
    with closing(store.snapshot()) as snapshot:
        before = stored_rows(snapshot)
    alter(db, "ALTER COLUMN a TYPE VARCHAR(255)")
    with closing(store.snapshot()) as snapshot:
        assert stored_rows(snapshot) == before
    assert rows(db, "SELECT type FROM pragma_table_info('t') WHERE name = 'a'") == [("VARCHAR(255)",)]


def stored_rows(snapshot: Any) -> list[Any]:
    return [list(found) for found in snapshot.read(Read(scans=[Scan(prefix_range(row_prefix(1)))])).scans]


def test_another_kind_of_type_converts_the_rows(db: Connection, connect: Connect) -> None:
    create(
        db,
        PARENTS
        + """CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, pid REFERENCES p (id));
        CREATE INDEX ia ON t (a);
        INSERT INTO t VALUES (1, '10', 1), (2, '9', 2), (7, 'x', NULL);
        DELETE FROM t WHERE id = 7""",
    )
    alter(db, "ALTER COLUMN a TYPE INTEGER")
    for connection in (db, connect()):
        assert rows(connection, "SELECT id, a, typeof(a) FROM t ORDER BY a") == [
            (2, 9, "integer"),
            (1, 10, "integer"),
        ]
        assert rows(connection, "SELECT id FROM t WHERE a > 9") == [(1,)]
        assert rows(connection, "SELECT id FROM t WHERE a = 9") == [(2,)]
    db.execute("INSERT INTO t (a) VALUES ('11')")
    db.commit()
    assert rows(db, "SELECT id > 7, typeof(a) FROM t WHERE a = 11") == [(1, "integer")]
    db.execute("DELETE FROM t WHERE pid = 2")
    db.execute("DELETE FROM p WHERE id = 2")
    db.commit()
    refused(db, "DELETE FROM p WHERE id = 1", IntegrityError, "FOREIGN KEY constraint failed")


@pytest.mark.parametrize(("table", "before", "after"), [("t", "BLOB", "TEXT"), ("p", "TEXT", "BLOB")])
def test_a_conversion_that_parts_a_row_from_its_parent_is_refused(
    db: Connection, table: str, before: str, after: str
) -> None:
    create(
        db,
        f"""CREATE TABLE p (code {before} UNIQUE); INSERT INTO p VALUES (1), ('x');
        CREATE TABLE t (id INTEGER PRIMARY KEY, code BLOB REFERENCES p (code));
        INSERT INTO t VALUES (1, 'x'), (2, 1)""",
    )
    refused(
        db, f"ALTER TABLE {table} ALTER code TYPE {after}", IntegrityError, "FOREIGN KEY constraint failed"
    )
    create(db, "DELETE FROM t WHERE id = 2")
    alter(db, f"ALTER code TYPE {after}", table)
    assert rows(db, "SELECT p.code FROM p JOIN t ON t.code = p.code") == [("x",)]


def test_a_dropped_column_takes_along_what_depends_on_it(db: Connection) -> None:
    script = """CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, c REFERENCES p (id), CONSTRAINT u UNIQUE (a, b),
            CONSTRAINT k CHECK (a > 0), CONSTRAINT f FOREIGN KEY (a) REFERENCES p (id), CHECK (b > 0));
        CREATE INDEX i1 ON t (b, a); CREATE INDEX i2 ON t (b); CREATE INDEX i3 ON t (lower(a));
        CREATE INDEX i4 ON t (b) WHERE a > 3;
        INSERT INTO t VALUES (1, 1, 10, 1), (2, 2, 20, 2)"""
    create(db, PARENTS + script)
    refused(db, "ALTER TABLE t DROP COLUMN a", OperationalError, "error in|cannot drop")
    alter(db, "DROP COLUMN a CASCADE")
    assert rows(db, "SELECT * FROM t WHERE b = 20") == [(2, 20, 2)]
    names = rows(db, "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    assert names == [("i2",)]
    refused(db, "INSERT INTO t VALUES (3, 0, 1)", IntegrityError, "CHECK constraint failed")
    refused(db, "INSERT INTO t VALUES (3, 1, 9)", IntegrityError, "FOREIGN KEY")


# Primary keys


@pytest.mark.parametrize("key", ["id INTEGER NOT NULL", "id TEXT NOT NULL", "id TEXT"])
def test_a_primary_key_is_added_and_dropped(db: Connection, key: str) -> None:
    create(db, f"CREATE TABLE t ({key}, a, CONSTRAINT u UNIQUE (a)); INSERT INTO t VALUES (5, 'x'), (3, 'y')")
    alter(db, "ADD CONSTRAINT pk PRIMARY KEY (id)")
    assert rows(db, "SELECT pk FROM pragma_table_info('t')") == [(1,), (0,)]
    refused(db, "INSERT INTO t VALUES (5, 'z')", IntegrityError, r"UNIQUE constraint failed: t\.id")
    refused(db, "INSERT INTO t VALUES (6, 'x')", IntegrityError, r"UNIQUE constraint failed: t\.a")
    assert rows(db, "SELECT a FROM t WHERE id = 3") == [("y",)]
    alter(db, "DROP PRIMARY KEY")
    db.execute("INSERT INTO t VALUES (5, 'z')")
    db.commit()
    assert rows(db, "SELECT a FROM t WHERE id = 5 ORDER BY a") == [("x",), ("z",)]
    refused(db, "ALTER TABLE t ADD PRIMARY KEY (id)", IntegrityError, r"UNIQUE constraint failed: t\.id")


def test_a_wider_number_as_primary_key_keeps_the_rows(db: Connection) -> None:
    create(
        db,
        """CREATE TABLE t (id INTEGER NOT NULL, a, PRIMARY KEY (id));
        CREATE TABLE c (id INTEGER PRIMARY KEY, tid REFERENCES t (id));
        INSERT INTO t VALUES (1, 'x'), (2, 'y'); INSERT INTO c VALUES (1, 2)""",
    )
    alter(db, "ALTER id TYPE BIGINT")
    assert rows(db, "SELECT a FROM t JOIN c ON c.tid = t.id") == [("y",)]
    refused(db, "DELETE FROM t WHERE id = 2", IntegrityError, "FOREIGN KEY")
    refused(db, "INSERT INTO t (a) VALUES ('z')", IntegrityError, r"NOT NULL constraint failed: t\.id")
    alter(db, "ALTER id TYPE INTEGER")
    db.execute("INSERT INTO t (a) VALUES ('z')")
    db.commit()
    assert rows(db, "SELECT count(*), min(id) FROM t") == [(3, 1)]


# What all of them have in common


def test_alter_is_transactional(db: Connection, connect: Connect) -> None:
    create(db, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, '5')")
    db.execute("ALTER TABLE t ADD CONSTRAINT u UNIQUE (a)")
    db.execute("SAVEPOINT s")
    db.execute("ALTER TABLE t ALTER a TYPE INTEGER")
    db.execute("INSERT INTO t VALUES (2, '6')")
    assert db.execute("SELECT a FROM t ORDER BY a").fetchall() == [(5,), (6,)]
    db.execute("ROLLBACK TO s")
    assert db.execute("SELECT a FROM t").fetchall() == [("5",)]
    assert connect().execute("SELECT count(*) FROM pragma_index_list('t')").fetchall() == [(0,)]
    db.rollback()
    db.execute("INSERT INTO t VALUES (2, '5')")
    db.commit()
    assert rows(db, "SELECT typeof(a) FROM t") == [("text",), ("text",)]


def test_several_changes_in_one_transaction_with_rows_of_its_own(db: Connection, connect: Connect) -> None:
    db.executescript(
        PARENTS
        + """CREATE TABLE t (id TEXT NOT NULL, pid INTEGER, n TEXT);
        INSERT INTO t VALUES ('a', 1, '1'), ('b', 2, '2');
        ALTER TABLE t ADD PRIMARY KEY (id);
        ALTER TABLE t ALTER n TYPE INTEGER;
        ALTER TABLE t ADD FOREIGN KEY (pid) REFERENCES p (id) ON DELETE SET NULL;
        ALTER TABLE t ADD COLUMN extra TEXT DEFAULT 'e';
        ALTER TABLE t ADD CONSTRAINT u UNIQUE (n, extra);
        ALTER TABLE t RENAME COLUMN n TO m;
        ALTER TABLE t DROP CONSTRAINT u;
        DELETE FROM p WHERE id = 2"""
    )
    db.commit()
    other = connect()
    assert rows(other, "SELECT * FROM t ORDER BY id") == [("a", 1, 1, "e"), ("b", None, 2, "e")]
    assert rows(other, "SELECT id FROM t WHERE pid = 1") == [("a",)]


def test_a_writer_under_the_old_schema_conflicts(db: Connection, connect: Connect) -> None:
    create(db, "CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 'x')")
    writer = connect()
    writer.execute("INSERT INTO t VALUES (2, 'x')")
    alter(db, "ADD CONSTRAINT u UNIQUE (a)")
    with pytest.raises((IntegrityError, OperationalError), match=r"UNIQUE|serialization failure"):
        writer.commit()
    writer.rollback()
    assert rows(db, "SELECT id FROM t WHERE a = 'x'") == [(1,)]


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("DROP CONSTRAINT nothing", "no such constraint: nothing"),
        ("ADD CONSTRAINT u UNIQUE (a)", "constraint u already exists"),
        ("ADD UNIQUE (nothing)", "nothing"),
        ("ADD UNIQUE (a), UNIQUE (b)", "syntax error"),
        ("ADD UNIQUE (a)) --", "syntax error"),
        ("ADD PRIMARY KEY (a)", "more than one primary key"),
        ("DROP PRIMARY KEY x", "syntax error"),
        ("ALTER nothing SET NOT NULL", "no such column: nothing"),
        ("ALTER a SET NOTHING", "syntax error"),
        ("ALTER a TYPE INTEGER NOT NULL", "syntax error"),
        ("ALTER a SET DEFAULT 1, c INTEGER", "syntax error"),
        ("ALTER a SET DEFAULT", "incomplete input"),
        ("DROP nothing CASCADE", "no such column"),
        ("ADD CONSTRAINT", "incomplete|syntax error"),
        ("DROP CONSTRAINT", "incomplete input"),
    ],
)
def test_what_makes_no_sense_is_refused(db: Connection, action: str, text: str) -> None:
    create(db, "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, CONSTRAINT u UNIQUE (a, b))")
    before = rows(db, "SELECT sql FROM sqlite_master ORDER BY name")
    refused(db, f"ALTER TABLE t {action}", OperationalError, text)
    refused(db, f"ALTER TABLE missing {action}", OperationalError, "no such table: missing")
    assert rows(db, "SELECT sql FROM sqlite_master ORDER BY name") == before


def test_what_need_not_be_there(db: Connection) -> None:
    create(db, "CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
    for action in (
        "ADD COLUMN IF NOT EXISTS a INTEGER",
        "ADD COLUMN IF NOT EXISTS b INTEGER DEFAULT 2",
        "DROP COLUMN IF EXISTS c",
        "DROP CONSTRAINT IF EXISTS u",
        "DROP COLUMN IF EXISTS a",
    ):
        alter(db, action)
    assert rows(db, "SELECT name FROM pragma_table_info('t')") == [("id",), ("b",)]


def test_views_and_indexes_outlive_a_change_of_their_table(db: Connection, connect: Connect) -> None:
    create(
        db,
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); CREATE UNIQUE INDEX i ON t (a DESC);
        CREATE VIEW v AS SELECT a FROM t; INSERT INTO t VALUES (1, 'x')""",
    )
    alter(db, "ADD CHECK (a <> 'no')")
    alter(db, "ALTER a SET NOT NULL")
    for connection in (db, connect()):
        assert rows(connection, "SELECT a FROM v") == [("x",)]
        refused(connection, "INSERT INTO t VALUES (2, 'x')", IntegrityError, "UNIQUE")


def test_reflection_shows_the_result(engine: Engine) -> None:
    with engine.begin() as connection:
        for sql in (
            "CREATE TABLE p (id INTEGER PRIMARY KEY)",
            "CREATE TABLE t (id VARCHAR(36), a VARCHAR(5), pid INTEGER)",
            "ALTER TABLE t ALTER COLUMN id SET NOT NULL",
            "ALTER TABLE t ADD CONSTRAINT pk_t PRIMARY KEY (id)",
            "ALTER TABLE t ADD CONSTRAINT uq_a UNIQUE (a)",
            "ALTER TABLE t ADD CONSTRAINT fk_p FOREIGN KEY(pid) REFERENCES p (id) ON DELETE CASCADE",
            "ALTER TABLE t ADD CONSTRAINT ck CHECK (a > 'a')",
            "ALTER TABLE t ALTER COLUMN a TYPE VARCHAR(64)",
            "ALTER TABLE t ALTER COLUMN a SET DEFAULT 'b'",
        ):
            connection.exec_driver_sql(sql)
    inspector = sa.inspect(engine)
    assert inspector.get_pk_constraint("t") == {"constrained_columns": ["id"], "name": "pk_t"}
    assert inspector.get_unique_constraints("t") == [{"name": "uq_a", "column_names": ["a"]}]
    (foreign_key,) = inspector.get_foreign_keys("t")
    assert foreign_key["name"] == "fk_p"
    assert foreign_key["options"] == {"ondelete": "CASCADE"}
    assert inspector.get_check_constraints("t") == [{"name": "ck", "sqltext": "a > 'a'"}]
    columns = {column["name"]: column for column in inspector.get_columns("t")}
    assert str(columns["a"]["type"]) == "VARCHAR(64)"
    assert columns["a"]["default"] == "'b'"
    assert not columns["id"]["nullable"]
