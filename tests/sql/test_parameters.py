"""Parameters that are not SQLite values are taken, or refused, as Python's sqlite3 does."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

import pytest

import rome.dbapi


class Conforming:
    def __conform__(self, protocol: object) -> str:
        return "conformed"


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2026, 1, 2, 3, 4, 5, 678),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        datetime.date(2026, 1, 2),
        True,
        bytearray(b"\x00\xff"),
        memoryview(b"seen"),
        float("nan"),
        Conforming(),
        None,
    ],
    ids=repr,
)
def test_a_parameter_becomes_what_sqlite3_makes_of_it(value: Any) -> None:
    query = "SELECT ?1, typeof(?1)"
    plain = sqlite3.connect(":memory:")
    with rome.dbapi.connect("rome+memory://") as connection:
        found = connection.execute(query, (value,)).fetchall()
    with pytest.warns(DeprecationWarning, match="adapter") if wants_warning(value) else nothing():
        assert found == plain.execute(query, (value,)).fetchall()
    plain.close()


def wants_warning(value: Any) -> bool:
    """Python 3.12 warns of sqlite3's own adapters for dates."""
    return sys.version_info >= (3, 12) and isinstance(value, datetime.date)


def nothing() -> Any:
    return contextlib.nullcontext()


@pytest.mark.parametrize("value", [decimal.Decimal("1.5"), [1], {"a": 1}, object()], ids=repr)
def test_what_sqlite3_refuses_is_refused(value: Any) -> None:
    connection = rome.dbapi.connect("rome+memory://")
    with pytest.raises(rome.dbapi.ProgrammingError, match="is not supported"):
        connection.execute("SELECT ?", (value,))


def test_a_collation_of_the_programs_own_orders_rows_but_not_the_schema() -> None:
    connection = rome.dbapi.connect("rome+memory://")
    connection.create_collation("backwards", lambda a, b: (a < b) - (a > b))
    connection.execute("CREATE TABLE t (a TEXT)")
    connection.executemany("INSERT INTO t VALUES (?)", [("a",), ("c",), ("b",)])
    found = connection.execute("SELECT a FROM t ORDER BY a COLLATE backwards").fetchall()
    assert found == [("c",), ("b",), ("a",)]
    with pytest.raises(rome.dbapi.NotSupportedError, match="backwards"):
        connection.execute("CREATE TABLE u (a TEXT COLLATE backwards)")
    with pytest.raises(rome.dbapi.NotSupportedError, match="BACKWARDS"):
        connection.execute("CREATE INDEX i ON t (a COLLATE backwards)")
    assert connection.execute("SELECT count(*) FROM t").fetchall() == [(3,)]


@pytest.mark.parametrize(
    "end", ["", " RETURNING a", " ON CONFLICT DO NOTHING", " ON CONFLICT DO NOTHING RETURNING a"]
)
@pytest.mark.parametrize("given", [(), (None,), (None, 2, 3), (None, 2, 3, 4)])
def test_the_number_of_parameters_is_looked_at_first(
    connect: Callable[..., rome.dbapi.Connection], end: str, given: tuple[object, ...]
) -> None:
    connection = connect()
    connection.execute("CREATE TABLE counted (id VARCHAR NOT NULL PRIMARY KEY, a)")
    connection.commit()
    with pytest.raises(rome.dbapi.ProgrammingError, match=f"uses 2 and there are {len(given)} supplied"):
        connection.execute(f"INSERT INTO counted VALUES (?, ?){end}", given)
    assert connection.execute("SELECT * FROM counted").fetchall() == []
