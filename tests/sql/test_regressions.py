"""What the differential test has found, each in its smallest form, beside SQLite."""

from __future__ import annotations

from itertools import count
from typing import Any

import rome.dbapi
from tests.differential.programs import Program, Step
from tests.differential.running import Reference, check_indexes

_serial = count()


def agree(*statements: str | tuple[Any, ...] | Step, tables: str = "t") -> None:
    """Run statements (with their parameters behind them) on SQLite and on a store, with the same results.

    In the end the tables (names parted by spaces) and their index entries must be the same, too.
    """
    program = Program(list(map(step, statements)), [(table, ["*"]) for table in tables.split()])
    reference = Reference(program)
    connection = rome.dbapi.connect(f"rome+memory://regression{next(_serial)}")
    connection.isolation_level = None
    reference.compare(connection, rome.dbapi)
    reference.compare_contents(connection)
    check_indexes(connection)
    connection.close()


def step(statement: str | tuple[Any, ...] | Step) -> Step:
    if isinstance(statement, Step):
        return statement
    sql, *parameters = (statement,) if isinstance(statement, str) else statement
    return Step(sql, tuple(parameters), ordered=True)


def test_or_ignore_leaves_rows_out_without_an_error() -> None:
    agree(
        "CREATE TABLE t (a INTEGER NOT NULL UNIQUE, b CHECK (b < 9))",
        "INSERT INTO t VALUES (1, 1), (2, 2)",
        "INSERT OR IGNORE INTO t VALUES (1, 2), (3, 3), (NULL, 4), (4, 10), (5, 5)",
        "INSERT OR IGNORE INTO t VALUES (1, 1) RETURNING a",
        "UPDATE OR IGNORE t SET a = 2 WHERE a = 1",
        "UPDATE OR IGNORE t SET a = 6 WHERE a = 1",
    )


def test_rollback_as_a_statement_wants_a_transaction() -> None:
    agree("CREATE TABLE t (a)", "ROLLBACK", "BEGIN", "INSERT INTO t VALUES (1)", "ROLLBACK", "ROLLBACK")


def test_executemany_in_autocommit_keeps_what_came_before_the_failure() -> None:
    rows = ((1, 1), (2, 2), (1, 3), (4, 4))
    many = Step("INSERT INTO t VALUES (?, ?)", rows, many=True)
    agree("CREATE TABLE t (a INTEGER PRIMARY KEY, b)", many)
    agree("CREATE TABLE t (a INTEGER PRIMARY KEY, b)", "BEGIN", many, "COMMIT")


def test_a_refused_commit_is_refused_again() -> None:
    agree(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO t VALUES (1, 1)",
        "BEGIN",
        "INSERT INTO t VALUES (2, 7)",
        "COMMIT",
        "COMMIT",
        "DELETE FROM t WHERE id = 2",
        "COMMIT",
        "BEGIN",
        "INSERT INTO t VALUES (3, 1)",
        "DELETE FROM t WHERE id = 1",
        "COMMIT",
        "COMMIT",
        "INSERT INTO t VALUES (1, NULL)",
        "COMMIT",
    )


def test_an_index_on_a_column_of_the_primary_key_is_searched() -> None:
    agree(
        "CREATE TABLE t (a TEXT NOT NULL, b TEXT NOT NULL, PRIMARY KEY (a, b)) WITHOUT ROWID",
        "CREATE UNIQUE INDEX i ON t (b)",
        "INSERT INTO t VALUES ('a', 'b'), ('b', 'c'), ('c', 'a')",
        "SELECT a FROM t WHERE b IS 'b'",
        "DELETE FROM t WHERE b = 'b'",
    )


def test_a_unique_index_is_searched_by_its_own_columns_only() -> None:
    agree(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER UNIQUE)",
        "INSERT INTO t VALUES (1, 5), (2, 6), (3, NULL)",
        "SELECT * FROM t WHERE n = 5 AND id > 0",
        "SELECT * FROM t WHERE n = 6 AND id >= 2 ORDER BY n, id",
        "SELECT * FROM t WHERE n IS NULL AND id > 2",
    )


def test_an_added_column_keeps_its_default_as_its_type_would() -> None:
    agree(
        "CREATE TABLE t (a INTEGER PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
        "ALTER TABLE t ADD COLUMN b TEXT DEFAULT 0",
        "ALTER TABLE t ADD COLUMN c INTEGER NOT NULL DEFAULT '7'",
        "ALTER TABLE t ADD COLUMN d REAL DEFAULT -1",
        "SELECT * FROM t WHERE b = '0' AND c = 7",
    )


def test_a_deferred_violation_in_autocommit_leaves_no_transaction_open() -> None:
    agree(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO t VALUES (1, 7)",
        "INSERT INTO t VALUES (1, 1)",
        "DELETE FROM t",
    )


def test_a_deferred_violation_outlives_a_new_name_of_its_table() -> None:
    agree(
        "BEGIN",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO t VALUES (1, 7), (2, 2)",
        "ALTER TABLE t RENAME TO u",
        "COMMIT",
        "INSERT INTO u VALUES (7, 2)",
        "DELETE FROM u WHERE id = 2",
        "ALTER TABLE u RENAME TO v",
        "COMMIT",
        "INSERT INTO v VALUES (2, 2)",
        "COMMIT",
        tables="v",
    )


def test_of_several_broken_constraints_the_one_is_told_that_sqlite_tells() -> None:
    agree(
        "CREATE TABLE t (a PRIMARY KEY, b NOT NULL UNIQUE, c UNIQUE)",
        "CREATE UNIQUE INDEX i ON t (lower(c))",
        "CREATE TABLE u (a NOT NULL UNIQUE, b NOT NULL, c NOT NULL UNIQUE, PRIMARY KEY (b))",
        "INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)",
        "INSERT INTO u VALUES (1, 1, 1), (2, 2, 2)",
        "INSERT INTO t VALUES (1, 1, 1)",
        "INSERT INTO t VALUES (1, 1, NULL)",
        "INSERT INTO t VALUES (1, 3, 1)",
        "INSERT INTO t VALUES (1, 3, 3), (4, NULL, 4)",
        "INSERT INTO t VALUES (5, 5, 5), (1, 3, 3), (4, 5, 4)",
        "UPDATE t SET a = 1, b = 1, c = 1 WHERE a = 2",
        "INSERT INTO u VALUES (1, 1, 1)",
        "INSERT INTO u VALUES (1, 1, 3)",
        "INSERT INTO u VALUES (1, 3, 1)",
        "UPDATE u SET a = 1, b = 1 WHERE a = 2",
        tables="t u",
    )


def test_only_a_constant_default_can_be_added_to_rows() -> None:
    agree(
        "CREATE TABLE t (a INTEGER PRIMARY KEY)",
        "ALTER TABLE t ADD COLUMN early INTEGER DEFAULT (1 + 1)",
        "INSERT INTO t (a) VALUES (1)",
        "ALTER TABLE t ADD COLUMN b INTEGER DEFAULT (1 + 1)",
        "ALTER TABLE t ADD COLUMN c TEXT DEFAULT CURRENT_TIMESTAMP",
        "ALTER TABLE t ADD COLUMN d INTEGER DEFAULT (-5)",
        "ALTER TABLE t ADD COLUMN e TEXT NOT NULL DEFAULT '(x'",
        "ALTER TABLE t ADD COLUMN f TEXT NOT NULL",
        "ALTER TABLE t ADD COLUMN g TEXT NOT NULL DEFAULT (NULL)",
    )


def test_bytes_that_are_no_text() -> None:
    agree(
        "CREATE TABLE t (a BLOB)",
        "CREATE UNIQUE INDEX i ON t (lower(a))",
        ("INSERT INTO t VALUES (?), (?)", b"\xff", b"a"),
        ("INSERT INTO t VALUES (?)", b"\xff"),
        "SELECT lower(a) FROM t",
        "SELECT a FROM t ORDER BY a",
    )


def test_a_table_without_its_parent_takes_no_row_and_gives_none() -> None:
    agree(
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b REFERENCES nowhere (id))",
        "INSERT INTO t SELECT a, b FROM t",
        "INSERT INTO t VALUES (1, NULL)",
        "DELETE FROM t",
        "UPDATE t SET a = 2",
        "CREATE TABLE nowhere (id INTEGER PRIMARY KEY)",
        "INSERT INTO t VALUES (1, NULL)",
    )


def test_a_deferred_violation_follows_its_row_to_a_new_key() -> None:
    agree(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER REFERENCES t (id) DEFERRABLE INITIALLY DEFERRED)",
        "BEGIN",
        "INSERT INTO t VALUES (1, 7)",
        "UPDATE t SET id = 2",
        "COMMIT",
        "UPDATE t SET id = 7",
        "COMMIT",
    )


def test_is_null_in_the_on_of_a_left_join_keeps_the_left_rows() -> None:
    agree(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER)",
        "CREATE INDEX i ON t (a)",
        "INSERT INTO t VALUES (1, 5), (2, NULL)",
        "SELECT x.id, y.id FROM t AS x LEFT JOIN t AS y ON x.id = y.id AND x.a IS NULL ORDER BY x.id",
        "SELECT id FROM t WHERE a IS NULL",
    )


def test_rows_that_the_transaction_moved_are_rows_to_alter_table() -> None:
    agree(
        "CREATE TABLE t (a INTEGER PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
        "BEGIN",
        "UPDATE t SET a = 2",
        "ALTER TABLE t ADD COLUMN b INTEGER NOT NULL DEFAULT NULL",
        "COMMIT",
    )


def test_null_in_a_unique_index_on_an_expression_is_no_duplicate() -> None:
    agree(
        "CREATE TABLE t (a INTEGER NOT NULL, b, c, PRIMARY KEY (a))",
        "CREATE UNIQUE INDEX i ON t (lower(b), c)",
        "INSERT INTO t VALUES (1, 'x', NULL), (2, 'x', NULL), (2, 'x', NULL)",
        "INSERT INTO t VALUES (1, 'x', 1), (2, 'X', 1)",
        "INSERT OR REPLACE INTO t VALUES (1, 'x', 1), (2, 'X', 1), (2, 'y', NULL)",
    )


def test_an_added_number_is_text_as_it_was_written() -> None:
    agree(
        "CREATE TABLE t (a INTEGER PRIMARY KEY)",
        "INSERT INTO t VALUES (1)",
        "ALTER TABLE t ADD COLUMN b TEXT NOT NULL DEFAULT 1e-07",
        "INSERT INTO t (a) VALUES (2)",
        "SELECT b FROM t ORDER BY a",
    )


def test_restrict_holds_even_if_the_parent_is_put_back() -> None:
    for action in ("RESTRICT", "NO ACTION"):
        agree(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a)",
            f"CREATE TABLE u (p INTEGER REFERENCES t (id) ON DELETE {action} ON UPDATE {action})",
            "INSERT INTO t VALUES (2, 'a'), (3, 'b')",
            "INSERT INTO u VALUES (2)",
            "INSERT OR REPLACE INTO t VALUES (2, 'b')",
            "INSERT OR REPLACE INTO t VALUES (3, 'c')",
            tables="t u",
        )


def test_set_default_to_the_parent_that_goes_is_refused() -> None:
    agree(
        "CREATE TABLE t (id INTEGER PRIMARY KEY)",
        "CREATE TABLE u (p INTEGER DEFAULT 2 REFERENCES t (id) ON DELETE SET DEFAULT ON UPDATE SET DEFAULT)",
        "INSERT INTO t VALUES (1), (2), (3)",
        "INSERT INTO u VALUES (2), (3)",
        "DELETE FROM t WHERE id = 3",
        "DELETE FROM t WHERE id = 2",
        "UPDATE t SET id = 4 WHERE id = 2",
        tables="t u",
    )
