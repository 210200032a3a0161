"""What is read off the programs that SQLite compiles for statements over virtual tables."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest

from rome.sql.flow import Column, Constant, Flow, Members, Parameter, Source, Sources, flow, instructions

TABLES = {"p": ["id", "name", "v"], "c": ["id", "pid", "k"], "d": ["id", "pid", "k"], "g": ["id", "cid", "x"]}
NUMBERS = {"id", "pid", "cid"}


class Planned:
    """A virtual table that takes every equality as an argument, and is never opened."""

    def __init__(self, name: str) -> None:
        self.name = name

    def BestIndexObject(self, info: apsw.IndexInfo) -> bool:
        taken = []
        for place in range(info.nConstraint):
            equal = info.get_aConstraint_op(place) == apsw.SQLITE_INDEX_CONSTRAINT_EQ
            if equal and info.get_aConstraint_usable(place):
                taken.append(TABLES[self.name][info.get_aConstraint_iColumn(place)])
                info.set_aConstraintUsage_argvIndex(place, len(taken))
                if info.get_aConstraintUsage_in(place):
                    info.set_aConstraintUsage_in(place, True)
        info.idxNum = len(taken)
        info.idxStr = f"{self.name}({', '.join(taken)})"
        info.estimatedCost = 1000 / 10 ** len(taken)
        info.estimatedRows = max(1, 100 // 10 ** len(taken))
        return True

    def Disconnect(self) -> None:
        pass

    Destroy = Disconnect


class Module:
    def Create(self, *arguments: object) -> tuple[str, Planned]:
        name = str(arguments[3])
        columns = ", ".join(f"{c} {'INTEGER' if c in NUMBERS else 'TEXT'}" for c in TABLES[name])
        return f"CREATE TABLE x({columns})", Planned(name)

    Connect = Create


@pytest.fixture(scope="module")
def db() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.create_module("planned", Module(), use_bestindex_object=True)  # type: ignore[arg-type]
    for name in TABLES:
        connection.execute(f"CREATE VIRTUAL TABLE {name} USING planned")
    yield connection
    connection.close()


def read(db: apsw.Connection, sql: str) -> Flow:
    return flow(instructions(db.execute("EXPLAIN " + sql, (None,) * sql.count("?"))))


def told(sources: Sources) -> str:
    return " or ".join(sorted(map(one, sources))) or "unknown"


def one(source: Source) -> str:
    if isinstance(source, Column):
        table = source.scan[1].partition("(")[0]
        order = source.order
        if order is None:
            by = " shuffled"
        else:
            by = "".join(f" by {TABLES[table][c]}{' desc' * down}" for c, down in order)
        return f"{table}.{TABLES[table][source.column]}{by}"
    if isinstance(source, Parameter):
        return f"?{source.number}"
    if isinstance(source, Constant):
        return repr(source.value)
    assert isinstance(source, Members)
    return f"in [{told(source.sources)}]"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "SELECT * FROM p LEFT JOIN c ON c.pid = p.id LEFT JOIN d ON d.pid = p.id WHERE p.id = ?",
            {"p(id)": ["?1"], "c(pid)": ["p.id"], "d(pid)": ["p.id"]},
        ),
        (
            "SELECT * FROM p LEFT JOIN c ON c.pid = p.id AND c.k = 'a'"
            " LEFT JOIN g ON g.cid = c.id AND g.x = ?",
            {"p()": [], "c(pid, k)": ["p.id", "'a'"], "g(cid, x)": ["c.id", "?1"]},
        ),
        (
            "SELECT * FROM (SELECT * FROM p WHERE v = ? ORDER BY name DESC, v LIMIT 3) a"
            " LEFT JOIN c ON c.pid = a.id ORDER BY a.name",
            {"p(v)": ["?1"], "c(pid)": ["p.id by name desc by v"]},
        ),
        (
            "SELECT * FROM (SELECT * FROM p ORDER BY name || 'x' LIMIT 3) a LEFT JOIN c ON c.pid = a.id",
            {"p()": [], "c(pid)": ["p.id shuffled"]},
        ),
        (
            "WITH m AS MATERIALIZED (SELECT * FROM p ORDER BY name LIMIT 3)"
            " SELECT * FROM m JOIN c ON pid = m.id",
            {"p()": [], "c(pid)": ["p.id by name"]},
        ),
        (
            "SELECT p.id, (SELECT max(c.k) FROM c WHERE c.pid = p.id) FROM p",
            {"p()": [], "c(pid)": ["p.id"]},
        ),
        (
            "SELECT * FROM p WHERE EXISTS (SELECT 1 FROM c WHERE c.pid = p.id AND c.k = ?)",
            {"p()": [], "c(pid, k)": ["p.id", "?1"]},
        ),
        (
            "SELECT * FROM c WHERE pid IN (SELECT id FROM p WHERE name = ?)",
            {"p(name)": ["?1"], "c(pid)": ["in [p.id]"]},
        ),
        (
            "SELECT * FROM p JOIN c ON pid = v WHERE p.id IN (?, 7)",
            {"p(id)": ["in [7 or ?1]"], "c(pid)": ["p.v"]},
        ),
        (
            "WITH RECURSIVE t(id) AS (SELECT id FROM p WHERE v = ? UNION ALL"
            " SELECT c.id FROM t JOIN c ON c.pid = t.id) SELECT * FROM t LEFT JOIN d ON d.pid = t.id",
            {"p(v)": ["?1"], "c(pid)": ["c.id or p.id"], "d(pid)": ["c.id or p.id"]},
        ),
        (
            "SELECT * FROM (SELECT id FROM p UNION ALL SELECT id FROM d LIMIT 9) u JOIN c ON c.pid = u.id",
            {"p()": [], "d()": [], "c(pid)": ["d.id or p.id"]},
        ),
        ("SELECT * FROM p LEFT JOIN c ON c.pid = p.id + 1", {"p()": [], "c(pid)": ["unknown"]}),
        ("SELECT * FROM p JOIN c ON c.pid = abs(p.id)", {"p()": [], "c(pid)": ["unknown"]}),
    ],
)
def test_sources_of_arguments(sql: str, expected: dict[str, list[str]], db: apsw.Connection) -> None:
    found = {feed.scan[1]: [told(sources) for sources in feed.arguments] for feed in read(db, sql).feeds}
    assert found == expected


def test_an_order_by_names_every_column_that_it_can(db: apsw.Connection) -> None:
    sql = "SELECT * FROM (SELECT * FROM p ORDER BY name, v DESC, id + 1 LIMIT 3) a JOIN c ON c.pid = a.id"
    inner = next(feed for feed in read(db, sql).feeds if feed.scan[1] == "c(pid)")
    assert told(inner.arguments[0]) == "p.id by name by v desc"


@pytest.mark.parametrize(
    ("sql", "limits", "offsets"),
    [
        ("SELECT * FROM p JOIN c ON c.pid = p.id", [], []),
        ("SELECT * FROM p JOIN c ON c.pid = p.id LIMIT 5", ["5"], []),
        ("SELECT * FROM p JOIN c ON c.pid = p.id LIMIT ? OFFSET ?", ["?1"], ["?2"]),
        (
            "SELECT * FROM (SELECT * FROM p ORDER BY name LIMIT ? OFFSET ?) a JOIN c ON pid = a.id",
            ["?1"],
            ["?2"],
        ),
        ("SELECT (SELECT k FROM c WHERE c.pid = p.id LIMIT 1) FROM p", [], []),
    ],
)
def test_limits(sql: str, limits: list[str], offsets: list[str], db: apsw.Connection) -> None:
    found = read(db, sql)
    assert [told(sources) for sources in found.limits] == limits
    assert [told(sources) for sources in found.offsets] == offsets


def test_a_program_of_unknown_instructions_has_no_scans() -> None:
    novel = [(0, "Init", 0, 2, 0, None, 0), (1, "Halt", 0, 0, 0, None, 0), (2, "Novel", 1, 2, 3, "x", 0)]
    assert flow(novel) == Flow(())
