"""What only COMMIT can see: a constraint that another transaction has broken, told apart from a lost race."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rome.dbapi import Connection, IntegrityError, OperationalError

Connect = Callable[..., Connection]
Pair = tuple[Connection, Connection]

SCHEMA = """
CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT UNIQUE, n INTEGER);
CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent (id), n INTEGER);
CREATE INDEX child_parent ON child (parent);
CREATE TABLE heir (id INTEGER PRIMARY KEY, n INTEGER,
    parent INTEGER REFERENCES parent (id) ON DELETE CASCADE);
CREATE INDEX heir_parent ON heir (parent);
INSERT INTO parent VALUES (1, 'one', 0), (2, 'two', 0);
INSERT INTO heir VALUES (10, 0, 1);
"""


@pytest.fixture
def pair(connect: Connect) -> Pair:
    first, second = connect(), connect()
    first.executescript(SCHEMA)
    first.commit()
    return first, second


def meanwhile(connection: Connection, sql: str) -> None:
    connection.execute(sql)
    connection.commit()


def rows(connection: Connection, sql: str) -> list[tuple[object, ...]]:
    found = connection.execute(sql).fetchall()
    connection.rollback()
    return found


def test_a_parent_that_was_read_and_is_changed_meanwhile_is_not_missing(pair: Pair) -> None:
    first, second = pair
    first.execute("UPDATE parent SET n = n + 1 WHERE id = 1")
    first.execute("INSERT INTO child VALUES (1, 1, 0)")
    meanwhile(second, "UPDATE parent SET n = n + 1 WHERE id = 1")
    first.commit()
    assert rows(second, "SELECT n FROM parent WHERE id = 1") == [(2,)]


def test_a_parent_whose_values_the_program_has_seen_change_is_a_lost_race(pair: Pair) -> None:
    first, second = pair
    first.execute("SELECT n FROM parent WHERE id = 1").fetchall()
    first.execute("INSERT INTO child VALUES (1, 1, 0)")
    meanwhile(second, "UPDATE parent SET n = n + 1 WHERE id = 1")
    with pytest.raises(OperationalError, match="serialization failure"):
        first.commit()


@pytest.mark.parametrize("look", ["SELECT 1", "SELECT n FROM parent WHERE id = 2"])
def test_a_parent_that_is_gone_is_missing(pair: Pair, look: str) -> None:
    first, second = pair
    first.execute(look).fetchall()
    first.execute("INSERT INTO child VALUES (1, 2, 0)")
    meanwhile(second, "DELETE FROM parent WHERE id = 2")
    with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
        first.commit()
    first.rollback()
    assert rows(first, "SELECT * FROM child") == []


def test_a_child_that_came_keeps_its_parent(pair: Pair) -> None:
    first, second = pair
    first.execute("DELETE FROM parent WHERE id = 2")
    meanwhile(second, "INSERT INTO child VALUES (1, 2, 0)")
    with pytest.raises(IntegrityError, match="FOREIGN KEY constraint failed"):
        first.commit()
    first.rollback()
    assert rows(first, "SELECT id FROM parent WHERE id = 2") == [(2,)]


def test_a_child_that_changed_meanwhile_and_goes_with_its_parent_is_no_violation(pair: Pair) -> None:
    first, second = pair
    meanwhile(second, "INSERT INTO child VALUES (1, 2, 0)")
    first.execute("DELETE FROM child WHERE parent = 2")
    first.execute("DELETE FROM parent WHERE id = 2")
    meanwhile(second, "UPDATE child SET n = 1 WHERE id = 1")
    first.commit()
    assert rows(second, "SELECT id FROM parent") == [(1,)]
    assert rows(second, "SELECT id FROM child") == []


@pytest.mark.parametrize("change", ["INSERT INTO heir VALUES (11, 0, 1)", "UPDATE heir SET n = 5"])
def test_a_cascade_takes_along_what_came_or_changed_meanwhile(pair: Pair, change: str) -> None:
    first, second = pair
    first.execute("DELETE FROM parent WHERE id = 1")
    meanwhile(second, change)
    first.commit()
    assert rows(second, "SELECT id FROM heir") == []


def test_a_name_that_was_taken_meanwhile_is_taken(pair: Pair) -> None:
    first, second = pair
    first.execute("INSERT INTO parent VALUES (3, 'three', 0)")
    meanwhile(second, "INSERT INTO parent VALUES (4, 'three', 0)")
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: parent\.name"):
        first.commit()


def test_a_name_that_was_looked_for_and_taken_meanwhile_is_taken(pair: Pair) -> None:
    first, second = pair
    assert first.execute("SELECT id FROM parent WHERE name = 'three'").fetchall() == []
    first.execute("INSERT INTO parent VALUES (3, 'three', 0)")
    meanwhile(second, "INSERT INTO parent VALUES (4, 'three', 0)")
    with pytest.raises((IntegrityError, OperationalError), match=r"UNIQUE constraint failed|serialization"):
        first.commit()
    first.rollback()
    assert rows(first, "SELECT id FROM parent WHERE name = 'three'") == [(4,)]


def test_a_name_that_passes_from_row_to_row_while_its_row_changes_is_no_violation(pair: Pair) -> None:
    first, second = pair
    first.execute("DELETE FROM parent WHERE id = 2")
    first.execute("INSERT INTO parent VALUES (3, 'two', 0)")
    meanwhile(second, "UPDATE parent SET n = 7 WHERE id = 2")
    first.commit()
    assert rows(second, "SELECT id, n FROM parent WHERE name = 'two'") == [(3, 0)]


@pytest.mark.parametrize(
    ("end", "left"),
    [("", [(3, 1)]), ("ON CONFLICT (name) DO UPDATE SET n = n + 100", [(4, 100)])],
)
def test_a_statement_that_knows_what_to_do_about_a_taken_name_does_it(
    pair: Pair, end: str, left: list[tuple[int, int]]
) -> None:
    first, second = pair
    verb = "INSERT" if end else "INSERT OR REPLACE"
    assert first.execute(f"{verb} INTO parent VALUES (3, 'three', 1) {end}").rowcount == 1
    meanwhile(second, "INSERT INTO parent VALUES (4, 'three', 0)")
    first.commit()
    assert rows(second, "SELECT id, n FROM parent WHERE name = 'three'") == left


def test_an_insert_that_would_now_be_ignored_is_a_lost_race_and_no_violation(pair: Pair) -> None:
    first, second = pair
    sql = "INSERT OR IGNORE INTO parent VALUES (3, 'three', 0)"
    assert first.execute(sql).rowcount == 1
    meanwhile(second, "INSERT INTO parent VALUES (4, 'three', 0)")
    with pytest.raises(OperationalError, match="serialization failure"):
        first.commit()
    first.rollback()
    assert first.execute(sql).rowcount == 0
