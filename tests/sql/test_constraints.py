"""Constraints: NOT NULL, UNIQUE, CHECK, DEFAULT and foreign keys do what they do in SQLite.

Every statement runs on a store and on sqlite3; rows, row counts and error texts must agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from rome.dbapi import Connection, IntegrityError
from tests.sql.beside import Beside


@pytest.fixture
def both(connection: Connection) -> Iterator[Beside]:
    pair = Beside(connection)
    yield pair
    pair.close()


# NOT NULL, CHECK, DEFAULT


def test_not_null(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (a INTEGER NOT NULL, b TEXT NOT NULL DEFAULT 'd');
        INSERT INTO t (a) VALUES (1)"""
    )
    both.fails("INSERT INTO t (b) VALUES ('x')", "NOT NULL constraint failed: t.a")
    both.fails("INSERT INTO t VALUES (1, NULL)", "NOT NULL constraint failed: t.b")
    both.fails("UPDATE t SET a = NULL", "NOT NULL constraint failed: t.a")
    both.run("INSERT OR IGNORE INTO t VALUES (NULL, 'x'), (2, 'y')")
    both.run("INSERT OR REPLACE INTO t VALUES (3, NULL)")
    both.same("t")


def test_primary_keys(both: Beside) -> None:
    both.script(
        """CREATE TABLE n (id INTEGER PRIMARY KEY, v);
        CREATE TABLE s (id TEXT NOT NULL PRIMARY KEY, v);
        CREATE TABLE two (a INTEGER NOT NULL, b TEXT NOT NULL, v, PRIMARY KEY (a, b));
        CREATE TABLE loose (id TEXT PRIMARY KEY, v);
        INSERT INTO n VALUES (1, 'x');
        INSERT INTO s VALUES ('a', 1);
        INSERT INTO two VALUES (1, 'a', 1), (1, 'b', 2);
        INSERT INTO loose VALUES (NULL, 1), (NULL, 2), ('x', 3)"""
    )
    both.fails("INSERT INTO n VALUES (1, 'y')", "UNIQUE constraint failed: n.id")
    both.fails("INSERT INTO n VALUES ('text', 'y')", "datatype mismatch")
    both.run("INSERT INTO n VALUES ('7', 'seven')")
    both.run("INSERT INTO n (v) VALUES ('eight')")
    both.fails("INSERT INTO s VALUES ('a', 2)", "UNIQUE constraint failed: s.id")
    both.fails("INSERT INTO two VALUES (1, 'b', 3)", "UNIQUE constraint failed: two.a, two.b")
    both.fails("UPDATE two SET b = 'a'", "UNIQUE constraint failed: two.a, two.b")
    both.fails("INSERT INTO loose VALUES ('x', 4)", "UNIQUE constraint failed: loose.id")
    both.run("UPDATE n SET id = id + 100")
    both.run("UPDATE s SET id = id || '!'")
    both.same("n", "s", "two", "loose")


def test_unique_takes_many_nulls(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a, b, UNIQUE (a, b));
        INSERT INTO t (a, b) VALUES (1, NULL), (1, NULL), (NULL, 1), (NULL, 1), (NULL, NULL), (1, 1)"""
    )
    both.fails("INSERT INTO t (a, b) VALUES (1, 1)", "UNIQUE constraint failed: t.a, t.b")
    both.fails("UPDATE t SET b = 1 WHERE a = 1", "UNIQUE constraint failed: t.a, t.b")
    both.run("UPDATE t SET b = 2 WHERE a = 1 AND b = 1")
    both.run("INSERT INTO t (id, a, b) VALUES (9, 1, 1)")
    both.same("t")


def test_unique_compares_as_the_column_does(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (i INTEGER UNIQUE, f REAL UNIQUE, s TEXT COLLATE NOCASE UNIQUE, x UNIQUE);
        INSERT INTO t VALUES (1, 1.0, 'Word', 1)"""
    )
    both.fails("INSERT INTO t (i) VALUES ('1')", "UNIQUE constraint failed: t.i")
    both.fails("INSERT INTO t (f) VALUES (1)", "UNIQUE constraint failed: t.f")
    both.fails("INSERT INTO t (s) VALUES ('wORD')", "UNIQUE constraint failed: t.s")
    both.fails("INSERT INTO t (x) VALUES (1.0)", "UNIQUE constraint failed: t.x")
    both.run("INSERT INTO t (x) VALUES ('1'), (x'31')")
    both.same("t")


def test_rows_may_exchange_unique_values_in_one_statement_as_far_as_sqlite_lets_them(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE);
        INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)"""
    )
    both.fails("UPDATE t SET a = a + 1", "UNIQUE constraint failed: t.a")
    both.run("UPDATE t SET a = a - 1")
    both.run("UPDATE t SET a = 5 - a WHERE id = 1")
    both.same("t")


def test_unique_values_freed_in_the_same_transaction_can_be_taken(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE);
        INSERT INTO t VALUES (1, 'x')"""
    )
    both.commit()
    both.script(
        """DELETE FROM t WHERE id = 1;
        INSERT INTO t VALUES (2, 'x');
        UPDATE t SET a = 'y';
        INSERT INTO t VALUES (1, 'x')"""
    )
    both.commit()
    both.same("t")


def test_unique_partial_index(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, deleted BOOLEAN);
        CREATE UNIQUE INDEX ux ON t (name) WHERE deleted = 0;
        INSERT INTO t (name, deleted) VALUES ('a', 1), ('a', 1), ('a', 0)"""
    )
    both.fails("INSERT INTO t (name, deleted) VALUES ('a', 0)", "UNIQUE constraint failed: t.name")
    both.fails("UPDATE t SET deleted = 0 WHERE id = 1", "UNIQUE constraint failed: t.name")
    both.run("UPDATE t SET deleted = 1 WHERE id = 3")
    both.run("UPDATE t SET deleted = 0 WHERE id = 1")
    both.run("SELECT id FROM t WHERE name = 'a' AND deleted = 0")
    both.same("t")


def test_unique_expression_index(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);
        CREATE UNIQUE INDEX ux ON t (lower(name));
        INSERT INTO t (name) VALUES ('Ab'), (NULL), (NULL)"""
    )
    both.fails("INSERT INTO t (name) VALUES ('aB')", "UNIQUE constraint failed: index 'ux'")
    both.run("UPDATE t SET name = 'AB' WHERE id = 1")
    both.run("SELECT id FROM t WHERE lower(name) = 'ab'")
    both.same("t")


def test_check(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (a INTEGER CHECK (a > 0), b INTEGER, CONSTRAINT ordered CHECK (a < b));
        INSERT INTO t VALUES (1, 2), (NULL, NULL)"""
    )
    both.fails("INSERT INTO t VALUES (0, 2)", "CHECK constraint failed: a > 0")
    both.fails("INSERT INTO t VALUES (3, 2)", "CHECK constraint failed: ordered")
    both.fails("UPDATE t SET b = 0", "CHECK constraint failed: ordered")
    both.run("INSERT OR IGNORE INTO t VALUES (0, 1), (5, 6)")
    both.same("t")


def test_defaults(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, i INTEGER DEFAULT 5, s TEXT DEFAULT 'it''s',
            n DEFAULT NULL,
            m INTEGER DEFAULT -3, f REAL DEFAULT 1,
            e TEXT DEFAULT (lower('ABC') || 'd'),
            h BLOB DEFAULT x'00ff',
            t BOOLEAN DEFAULT TRUE);
        INSERT INTO t (id) VALUES (1);
        INSERT INTO t DEFAULT VALUES;
        INSERT INTO t (i, s) SELECT 9, NULL;
        INSERT INTO t (id, i) VALUES (10, NULL)"""
    )
    both.run("SELECT *, typeof(f), typeof(m), typeof(t) FROM t ORDER BY id")


@pytest.mark.parametrize(
    ("word", "pattern"),
    [
        ("CURRENT_TIMESTAMP", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"),
        ("CURRENT_DATE", r"\d{4}-\d\d-\d\d"),
        ("CURRENT_TIME", r"\d\d:\d\d:\d\d"),
        ("(strftime('%Y', 'now'))", r"\d{4}"),
    ],
)
def test_defaults_of_the_clock(connection: Connection, word: str, pattern: str) -> None:
    connection.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, at DEFAULT {word})")
    connection.execute("INSERT INTO t (id) VALUES (1)")
    (found,) = connection.execute("SELECT at FROM t").fetchone()
    assert re.fullmatch(pattern, found)


def test_defaults_that_differ_for_each_row(connection: Connection) -> None:
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, r DEFAULT (hex(randomblob(8))))")
    connection.execute("INSERT INTO t (id) VALUES (1), (2), (3)")
    assert len({r for (r,) in connection.execute("SELECT r FROM t")}) == 3


def test_generated_columns(both: Beside) -> None:
    both.script(
        """CREATE TABLE t (a INTEGER, b INTEGER GENERATED ALWAYS AS (a * 2) STORED,
            c TEXT AS ('v' || a) VIRTUAL);
        INSERT INTO t (a) VALUES (1), (2);
        INSERT INTO t VALUES (3);
        UPDATE t SET a = 10 WHERE b = 4;
        SELECT a, b, c FROM t ORDER BY a"""
    )
    both.run("INSERT INTO t (a, b) VALUES (1, 1)")
    both.run("UPDATE t SET b = 1")


# Foreign keys

FAMILY = """CREATE TABLE parent (id INTEGER PRIMARY KEY, code TEXT UNIQUE);
CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id INTEGER DEFAULT 1
    REFERENCES parent (id) ON DELETE {delete} ON UPDATE {update});
INSERT INTO parent VALUES (1, 'one'), (2, 'two'), (3, 'three');
INSERT INTO child VALUES (10, 2), (11, 2), (12, 3), (13, NULL)"""

ACTIONS = ("NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT")


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "own"])
@pytest.mark.parametrize("action", ACTIONS)
def test_on_delete(both: Beside, action: str, committed: bool) -> None:
    both.script(FAMILY.format(delete=action, update="NO ACTION"))
    if committed:
        both.commit()
    both.run("DELETE FROM parent WHERE id = 2")
    both.same("parent", "child")
    both.run("DELETE FROM parent")
    both.same("parent", "child")
    both.commit()
    both.same("parent", "child")


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "own"])
@pytest.mark.parametrize("action", ACTIONS)
def test_on_update(both: Beside, action: str, committed: bool) -> None:
    both.script(FAMILY.format(delete="NO ACTION", update=action))
    if committed:
        both.commit()
    both.run("UPDATE parent SET id = 20 WHERE id = 2")
    both.run("UPDATE parent SET code = 'x' WHERE id = 3")
    both.run("UPDATE parent SET id = id + 100")
    both.same("parent", "child")
    both.commit()
    both.same("parent", "child")


def test_a_child_needs_its_parent(both: Beside) -> None:
    both.script(FAMILY.format(delete="NO ACTION", update="NO ACTION"))
    for sql in (
        "INSERT INTO child VALUES (20, 99)",
        "UPDATE child SET parent_id = 99",
        "DELETE FROM parent WHERE id IN (1, 2)",
        "INSERT INTO child SELECT id + 100, id FROM child",
    ):
        both.fails(sql, "FOREIGN KEY constraint failed")
    both.run("INSERT INTO child (id, parent_id) VALUES (21, '3')")
    both.same("parent", "child")


def test_a_parent_named_by_a_unique_column(both: Beside) -> None:
    both.script(
        """CREATE TABLE p (id INTEGER PRIMARY KEY, code TEXT COLLATE NOCASE UNIQUE);
        CREATE TABLE c (id INTEGER PRIMARY KEY, code TEXT REFERENCES p (code)
            ON UPDATE CASCADE ON DELETE CASCADE);
        INSERT INTO p VALUES (1, 'a'), (2, 'b');
        INSERT INTO c VALUES (1, 'A'), (2, 'b')"""
    )
    both.fails("INSERT INTO c VALUES (3, 'z')", "FOREIGN KEY constraint failed")
    both.run("UPDATE p SET code = 'new' WHERE id = 2")
    both.same("p", "c")
    both.run("DELETE FROM p WHERE id = 1")
    both.same("p", "c")


@pytest.mark.parametrize("action", ["CASCADE", "NO ACTION"])
@pytest.mark.parametrize(
    ("parent", "child"),
    [
        ("INTEGER", "TEXT"),
        ("TEXT", "INTEGER"),
        ("", ""),
        ("INTEGER", ""),
        ("", "INTEGER"),
        ("TEXT COLLATE NOCASE", "TEXT COLLATE NOCASE"),
        ("TEXT", "TEXT COLLATE NOCASE"),
        ("REAL", "INTEGER"),
    ],
)
def test_children_are_compared_as_the_parent_column_does(
    both: Beside, parent: str, child: str, action: str
) -> None:
    both.script(
        f"""CREATE TABLE p (k {parent} PRIMARY KEY);
        CREATE TABLE c (id INTEGER PRIMARY KEY, k {child} REFERENCES p ON DELETE {action});
        INSERT INTO p VALUES (1), ('2'), (3.0);
        INSERT INTO c (k) VALUES (1);
        INSERT INTO c (k) VALUES ('1');
        INSERT INTO c (k) VALUES ('01');
        INSERT INTO c (k) VALUES (2);
        INSERT INTO c (k) VALUES ('2');
        INSERT INTO c (k) VALUES ('3.0');
        INSERT INTO c (k) VALUES (3)"""
    )
    for condition in ("k = 1", "k = '2'", "k = 3.0"):
        both.run(f"DELETE FROM p WHERE {condition}")
        both.run("SELECT k FROM c ORDER BY id")


def test_a_composite_foreign_key(both: Beside) -> None:
    both.script(
        """CREATE TABLE p (a INTEGER NOT NULL, b TEXT NOT NULL, PRIMARY KEY (a, b));
        CREATE TABLE c (id INTEGER PRIMARY KEY, b TEXT, a INTEGER,
            FOREIGN KEY (a, b) REFERENCES p (a, b) ON UPDATE CASCADE ON DELETE SET NULL);
        INSERT INTO p VALUES (1, 'x'), (1, 'y'), (2, 'x');
        INSERT INTO c (b, a) VALUES ('x', 1), ('y', 1), ('x', 2), ('nowhere', NULL), (NULL, 9)"""
    )
    both.fails("INSERT INTO c (b, a) VALUES ('y', 2)", "FOREIGN KEY constraint failed")
    both.run("UPDATE p SET b = 'z' WHERE b = 'x'")
    both.same("p", "c")
    both.run("DELETE FROM p WHERE a = 1")
    both.same("p", "c")


def test_a_self_reference(both: Beside) -> None:
    both.script(
        """CREATE TABLE n (id INTEGER PRIMARY KEY, up INTEGER REFERENCES n (id) ON DELETE CASCADE);
        INSERT INTO n VALUES (1, NULL), (3, 2), (2, 1), (4, 4)"""
    )
    both.fails("INSERT INTO n VALUES (5, 6)", "FOREIGN KEY constraint failed")
    both.commit()
    both.run("DELETE FROM n WHERE id = 1")
    both.same("n")
    both.run("DELETE FROM n")
    both.same("n")


def test_cascades_go_through_several_tables(both: Beside) -> None:
    both.script(
        """CREATE TABLE a (id INTEGER PRIMARY KEY);
        CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE);
        CREATE TABLE c (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b ON DELETE CASCADE);
        CREATE TABLE d (id INTEGER PRIMARY KEY, c INTEGER REFERENCES c ON DELETE SET NULL);
        INSERT INTO a VALUES (1), (2);
        INSERT INTO b VALUES (1, 1), (2, 1), (3, 2);
        INSERT INTO c VALUES (1, 1), (2, 2), (3, 3);
        INSERT INTO d VALUES (1, 1), (2, 2), (3, 3)"""
    )
    both.commit()
    both.run("DELETE FROM a WHERE id = 1")
    both.same("a", "b", "c", "d")
    both.run("UPDATE a SET id = 7")
    both.same("a", "b", "c", "d")


def test_a_cascade_that_meets_a_refusal_undoes_the_statement(both: Beside) -> None:
    both.script(
        """CREATE TABLE a (id INTEGER PRIMARY KEY);
        CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a ON DELETE CASCADE);
        CREATE TABLE c (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b);
        INSERT INTO a VALUES (1);
        INSERT INTO b VALUES (1, 1), (2, 1);
        INSERT INTO c VALUES (1, 2)"""
    )
    both.fails("DELETE FROM a", "FOREIGN KEY constraint failed")
    both.same("a", "b", "c")


def test_cascade_to_a_broken_constraint_undoes_the_statement(both: Beside) -> None:
    both.script(
        """CREATE TABLE p (id INTEGER PRIMARY KEY);
        CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER NOT NULL UNIQUE REFERENCES p ON DELETE SET NULL
            ON UPDATE CASCADE);
        INSERT INTO p VALUES (1), (2);
        INSERT INTO c VALUES (1, 1), (2, 2)"""
    )
    both.fails("DELETE FROM p WHERE id = 1", "NOT NULL constraint failed: c.p")
    both.run("UPDATE p SET id = id - 1")
    both.same("p", "c")


def test_replacing_a_parent_deletes_it_first(both: Beside) -> None:
    both.script(FAMILY.format(delete="CASCADE", update="NO ACTION"))
    both.run("INSERT OR REPLACE INTO parent VALUES (2, 'again')")
    both.same("parent", "child")


def test_deferred_foreign_keys_are_judged_at_commit(both: Beside) -> None:
    both.script(
        """CREATE TABLE p (id INTEGER PRIMARY KEY);
        CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO c VALUES (1, 1);
        INSERT INTO p VALUES (1)"""
    )
    both.commit()
    both.run("DELETE FROM p")
    both.fails("COMMIT", "FOREIGN KEY constraint failed")
    both.run("INSERT INTO p VALUES (1)")
    both.run("COMMIT")
    both.same("p", "c")


def test_pragma_defer_foreign_keys(both: Beside) -> None:
    both.script(FAMILY.format(delete="NO ACTION", update="NO ACTION"))
    both.commit()
    for sql in ("BEGIN", "PRAGMA defer_foreign_keys = ON", "INSERT INTO child VALUES (50, 50)"):
        both.run(sql)
    both.fails("COMMIT", "FOREIGN KEY constraint failed")
    both.run("INSERT INTO parent VALUES (50, 'fifty')")
    both.run("COMMIT")
    both.fails("INSERT INTO child VALUES (51, 51)", "FOREIGN KEY constraint failed")


def test_a_foreign_key_to_a_table_that_is_not_there(both: Beside) -> None:
    both.run("CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES missing (id))")
    both.run("INSERT INTO c VALUES (1, NULL)")
    both.fails("INSERT INTO c VALUES (2, 1)", "no such table: main.missing")


@pytest.mark.parametrize("parameter", ["foreign_keys=off", "foreign_keys=on", None])
def test_the_url_says_whether_foreign_keys_are_enforced(
    url: str, open_url: Callable[..., Engine], parameter: str | None
) -> None:
    engine = open_url(f"{url}?{parameter}" if parameter else url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE p (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("CREATE TABLE c (p INTEGER REFERENCES p)")
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == (parameter != "foreign_keys=off")
        if parameter == "foreign_keys=off":
            connection.exec_driver_sql("INSERT INTO c VALUES (1)")
        else:
            with pytest.raises(sa.exc.IntegrityError):
                connection.exec_driver_sql("INSERT INTO c VALUES (1)")


def test_a_pragma_switches_foreign_keys_for_its_connection(
    connect: Callable[..., Connection], both: Beside
) -> None:
    both.script(FAMILY.format(delete="CASCADE", update="CASCADE"))
    both.commit()
    for setting in ("OFF", "ON"):
        both.run(f"PRAGMA foreign_keys = {setting}")
        both.run("PRAGMA foreign_keys")
        both.run("INSERT INTO child VALUES (77, 77)")
        both.run("DELETE FROM parent WHERE id = 2")
        both.run("DELETE FROM child WHERE id = 77")
        both.commit()
        both.same("parent", "child")
    other = connect()
    with pytest.raises(IntegrityError):
        other.execute("INSERT INTO child VALUES (77, 77)")


def test_the_pragma_has_no_effect_within_a_transaction(both: Beside) -> None:
    both.script(FAMILY.format(delete="NO ACTION", update="NO ACTION"))
    both.run("PRAGMA foreign_keys = OFF")
    both.run("PRAGMA foreign_keys")
    both.fails("INSERT INTO child VALUES (77, 77)", "FOREIGN KEY constraint failed")


def test_foreign_key_check_finds_the_orphans(both: Beside) -> None:
    both.script(FAMILY.format(delete="NO ACTION", update="NO ACTION"))
    both.commit()
    both.run("PRAGMA foreign_keys = OFF")
    both.run("INSERT INTO child VALUES (77, 77), (78, 1)")
    assert both.rome.execute("PRAGMA foreign_key_check").fetchall() == [("child", 77, "parent", 0)]
    both.run("PRAGMA foreign_key_check")
