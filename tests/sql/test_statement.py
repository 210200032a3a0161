"""What is read off a statement's text."""

from __future__ import annotations

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rome.sql.statement import analyse, split_script


@pytest.mark.parametrize(
    ("sql", "verb"),
    [
        ("SELECT 1", "select"),
        ("  -- first\n select 1", "select"),
        ("WITH a AS (SELECT 1), b(x) AS NOT MATERIALIZED (SELECT 2) SELECT * FROM a, b", "select"),
        (
            "WITH RECURSIVE a(n) AS (VALUES (1) UNION SELECT n+1 FROM a) INSERT INTO t SELECT n FROM a",
            "insert",
        ),
        ("WITH replace AS (SELECT 1) DELETE FROM t", "delete"),
        ("VALUES (1)", "values"),
        ("INSERT INTO t VALUES (1)", "insert"),
        ("REPLACE INTO t VALUES (1)", "replace"),
        ("UPDATE t SET a = 1", "update"),
        ("DELETE FROM t", "delete"),
        ("PRAGMA foreign_keys", "pragma"),
        ("BEGIN IMMEDIATE", "begin"),
        ("COMMIT TRANSACTION", "commit"),
        ("END", "commit"),
        ("ROLLBACK", "rollback"),
        ("ROLLBACK TRANSACTION", "rollback"),
        ("ROLLBACK TO a", "rollback_to"),
        ("EXPLAIN QUERY PLAN SELECT 1", "explain"),
        ("ANALYZE", "analyze"),
        ("REINDEX", "reindex"),
        ("VACUUM", "vacuum"),
        ("ATTACH 'a' AS b", "attach"),
        ("DETACH b", "detach"),
        ("SELEKT 1", "other"),
        ("", "other"),
        ("-- nothing", "other"),
        ("; ; SELECT 1", "select"),
        ('"SELECT" 1', "other"),
    ],
)
def test_verbs(sql: str, verb: str) -> None:
    assert analyse(sql).verb == verb


@pytest.mark.parametrize(
    ("sql", "kind", "schema", "name", "table", "if_exists"),
    [
        ("CREATE TABLE t (a)", "table", None, "t", "t", False),
        ('CREATE TABLE IF NOT EXISTS main."t 1" (a)', "table", "main", "t 1", "t 1", True),
        ("CREATE TEMP TABLE t (a)", "table", "temp", "t", "t", False),
        ("CREATE TEMPORARY VIEW v AS SELECT 1", "view", "temp", "v", None, False),
        ("CREATE TABLE TEMP.t (a)", "table", "temp", "t", "t", False),
        ("CREATE UNIQUE INDEX i ON [t x] (a)", "index", None, "i", "t x", False),
        ("CREATE INDEX IF NOT EXISTS main.i ON t (a)", "index", "main", "i", "t", True),
        ("CREATE TRIGGER g AFTER UPDATE OF a, b ON t BEGIN SELECT 1; END", "trigger", None, "g", "t", False),
        ("CREATE VIRTUAL TABLE f USING fts5(a)", "virtual table", None, "f", "f", False),
        ("DROP TABLE IF EXISTS t", "table", None, "t", "t", True),
        ("DROP INDEX main.i", "index", "main", "i", None, False),
        ("ALTER TABLE t ADD COLUMN a", "table", None, "t", "t", False),
        ("ALTER TABLE `t` RENAME TO u", "table", None, "t", "t", False),
    ],
)
def test_objects_of_ddl(
    sql: str, kind: str, schema: str | None, name: str, table: str | None, if_exists: bool
) -> None:
    found = analyse(sql)
    assert found.is_ddl
    assert (found.kind, found.schema, found.name, found.table) == (kind, schema, name, table)
    assert found.if_exists == if_exists
    assert found.temporary == (schema == "temp")


def test_the_query_of_create_table_as() -> None:
    sql = "CREATE TABLE t AS SELECT 1"
    assert sql[analyse(sql).as_select_at :] == "SELECT 1"
    assert analyse("CREATE TABLE t (a)").as_select_at is None


@pytest.mark.parametrize(
    ("sql", "schema", "table", "columns", "mode"),
    [
        ("INSERT INTO t VALUES (1)", None, "t", None, None),
        ('INSERT INTO t (a, "b c", [d]) VALUES (1, 2, 3)', None, "t", ("a", "b c", "d"), None),
        ("INSERT OR IGNORE INTO main.t AS x (a) SELECT 1", "main", "t", ("a",), "ignore"),
        ("INSERT INTO t DEFAULT VALUES", None, "t", (), None),
        ("REPLACE INTO t (a) VALUES (1)", None, "t", ("a",), "replace"),
        ("INSERT OR REPLACE INTO t SELECT * FROM (SELECT 1)", None, "t", None, "replace"),
        ('UPDATE OR FAIL temp."t" SET a = 1', "temp", "t", None, "fail"),
        ("UPDATE t SET a = 1", None, "t", None, None),
        ("DELETE FROM main.t WHERE a = 1", "main", "t", None, None),
        ("WITH x AS (SELECT 1) UPDATE t SET a = (SELECT * FROM x)", None, "t", None, None),
    ],
)
def test_tables_that_are_written(
    sql: str, schema: str | None, table: str, columns: tuple[str, ...] | None, mode: str | None
) -> None:
    found = analyse(sql)
    assert (found.schema, found.table, found.insert_columns) == (schema, table, columns)
    assert found.conflict_mode == mode
    assert not found.is_ddl


@pytest.mark.parametrize(
    ("sql", "landmark"),
    [
        ("INSERT INTO t (a) VALUES ('RETURNING') RETURNING a", "RETURNING a"),
        ("UPDATE t SET a = 1 WHERE b = 2 returning a, b", "returning a, b"),
        ("DELETE FROM t RETURNING *", "RETURNING *"),
        ('DELETE FROM t WHERE a IN (SELECT "RETURNING" FROM u)', None),
    ],
)
def test_returning(sql: str, landmark: str | None) -> None:
    at = analyse(sql).returning_at
    assert (None if at is None else sql[at:]) == landmark


@pytest.mark.parametrize(
    ("sql", "landmark"),
    [
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "ON CONFLICT DO NOTHING"),
        (
            "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2",
            "ON CONFLICT (a) DO UPDATE SET a = 2",
        ),
        (
            "INSERT INTO t VALUES (1) ON CONFLICT (a) WHERE b DO NOTHING ON CONFLICT DO NOTHING",
            "ON CONFLICT (a) WHERE b DO NOTHING ON CONFLICT DO NOTHING",
        ),
        ("INSERT INTO t SELECT * FROM u JOIN v ON conflict = 1", None),
        ("CREATE TABLE t (a UNIQUE ON CONFLICT REPLACE)", None),
    ],
)
def test_upsert(sql: str, landmark: str | None) -> None:
    at = analyse(sql).upsert_at
    assert (None if at is None else sql[at:]) == landmark


@pytest.mark.parametrize(
    ("sql", "verb", "name"),
    [
        ("SAVEPOINT sa_savepoint_1", "savepoint", "sa_savepoint_1"),
        ('SAVEPOINT "a b"', "savepoint", "a b"),
        ("RELEASE a", "release", "a"),
        ("RELEASE SAVEPOINT a", "release", "a"),
        ("RELEASE savepoint", "release", "savepoint"),
        ("ROLLBACK TO SAVEPOINT a", "rollback_to", "a"),
        ("ROLLBACK TRANSACTION TO a", "rollback_to", "a"),
    ],
)
def test_savepoints(sql: str, verb: str, name: str) -> None:
    assert (analyse(sql).verb, analyse(sql).savepoint) == (verb, name)


@pytest.mark.parametrize(
    ("sql", "schema", "name", "value"),
    [
        ("PRAGMA foreign_keys", None, "foreign_keys", None),
        ("PRAGMA foreign_keys=ON", None, "foreign_keys", "ON"),
        ('PRAGMA main.table_xinfo("a b")', "main", "table_xinfo", "a b"),
        ("PRAGMA cache_size = -2000", None, "cache_size", "-2000"),
    ],
)
def test_pragmas(sql: str, schema: str | None, name: str, value: str | None) -> None:
    found = analyse(sql)
    assert (found.schema, found.name, found.pragma_value) == (schema, name, value)


@pytest.mark.parametrize(
    ("sql", "has_limit", "limit", "parameter"),
    [
        ("SELECT 1", False, None, None),
        ("SELECT 'LIMIT 5'", False, None, None),
        ("SELECT 1 LIMIT 5", True, 5, None),
        ("SELECT a FROM t WHERE a = ? LIMIT ? OFFSET ?", True, None, 2),
        ("SELECT 1 LIMIT 3, 7", True, 7, None),
        ("SELECT * FROM (SELECT 1 LIMIT 4) AS x", True, 4, None),
        ("SELECT 1 LIMIT 2 + 3", True, None, None),
        ("SELECT 1 LIMIT -1", True, None, None),
        ("SELECT :a LIMIT :b", True, None, 2),
    ],
)
def test_limits(sql: str, has_limit: bool, limit: int | None, parameter: int | None) -> None:
    found = analyse(sql)
    assert (found.has_limit, found.limit, found.limit_parameter) == (has_limit, limit, parameter)


@pytest.mark.parametrize(
    ("sql", "mentions"),
    [
        ("SELECT name FROM sqlite_master", True),
        ('SELECT name FROM main."sqlite_schema"', True),
        ("SELECT * FROM pragma_table_info('t')", True),
        ("SELECT * FROM t WHERE a = 'sqlite_master'", False),
        ("SELECT pragma_note FROM t", False),
    ],
)
def test_catalog_tables(sql: str, mentions: bool) -> None:
    assert analyse(sql).mentions_catalog == mentions


@pytest.mark.parametrize(
    ("sql", "repeatable"),
    [
        ("SELECT a FROM t", True),
        ("SELECT random()", False),
        ("SELECT random FROM t", True),
        ("SELECT 'random()'", True),
        ("INSERT INTO t VALUES (CURRENT_TIMESTAMP)", False),
        ("SELECT datetime('now')", False),
        ("SELECT datetime('NOW', 'localtime')", False),
        ("SELECT datetime()", False),
        ("SELECT date(created_at) FROM t", True),
        ("SELECT date('2020-01-01', '+1 day')", True),
        ("SELECT strftime('%Y')", False),
        ("SELECT strftime('%Y', a) FROM t", True),
        ("SELECT date(?)", False),
        ("SELECT last_insert_rowid()", False),
        ('SELECT "random"()', False),
    ],
)
def test_repeatable_statements(sql: str, repeatable: bool) -> None:
    assert analyse(sql).is_repeatable == repeatable


@pytest.mark.parametrize(
    ("sql", "count", "named"),
    [
        ("SELECT 1", 0, False),
        ("SELECT ?, '?', ?", 2, False),
        ("SELECT ?5, ?", 6, False),
        ("SELECT :a, :b, :a", 2, True),
    ],
)
def test_parameters(sql: str, count: int, named: bool) -> None:
    assert (analyse(sql).param_count, analyse(sql).has_named_parameters) == (count, named)


TRIGGER = (
    "CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE t SET a = CASE WHEN a THEN 1 END; DELETE FROM u; END"
)


def test_the_tail_is_the_next_statement() -> None:
    sql = "SELECT ';' ; ; SELECT 2"
    assert sql[analyse(sql).tail :] == "SELECT 2"
    assert analyse("SELECT 1;").tail is None
    assert analyse("SELECT 1; -- done").tail is None
    assert analyse(TRIGGER).tail is None
    assert analyse(TRIGGER + ";").tail is None
    assert analyse(TRIGGER + "; SELECT 1").tail == len(TRIGGER) + 2


def test_landmarks_are_those_of_the_first_statement() -> None:
    found = analyse("SELECT 1; SELECT random(), ? FROM sqlite_master LIMIT 3")
    assert (found.param_count, found.mentions_catalog, found.has_limit) == (0, False, False)
    assert found.is_repeatable


def test_scripts_are_split_at_their_statements() -> None:
    script = f"""
        -- the tables
        CREATE TABLE t (a TEXT DEFAULT ';');
        {TRIGGER};
        INSERT INTO t VALUES ('a;b'); ;
        SELECT 1 -- the last
    """
    assert split_script(script) == [
        "CREATE TABLE t (a TEXT DEFAULT ';')",
        TRIGGER,
        "INSERT INTO t VALUES ('a;b')",
        "SELECT 1",
    ]
    assert split_script("  ;; -- nothing\n") == []


statements = st.sampled_from(
    [
        "SELECT ';'",
        "INSERT INTO t (a) VALUES (1)",
        TRIGGER,
        TRIGGER.replace("TRIGGER", "TEMP TRIGGER IF NOT EXISTS"),
        "SELECT CASE WHEN a THEN 1 END",
        "BEGIN",
        "END",
        "SELECT /* ; */ [;]",
    ]
)


@given(st.lists(statements, max_size=5), st.booleans())
def test_every_piece_of_a_script_is_complete_to_sqlite(parts: list[str], closed: bool) -> None:
    script = "; ".join(parts) + ("; " if closed else "")
    assert split_script(script) == parts
    for part in parts:
        assert apsw.complete(part + ";")


@given(
    st.text()
    | st.lists(statements | st.sampled_from([*"();,.'?", "WITH", "AS", "INSERT", "ON"])).map(" ".join)
)
def test_no_text_is_too_strange_to_analyse(sql: str) -> None:
    analyse(sql)
    split_script(sql)
