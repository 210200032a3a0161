"""Bad input and bad days: the right error, in time, with nothing lost, and everything works afterwards."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

import rome
from rome.dbapi import (
    Connection,
    DataError,
    Error,
    InternalError,
    OperationalError,
    ProgrammingError,
)
from rome.records.keys import CATALOG_KEY, schema_key
from rome.stores.base import Read, Scan, Writes, prefix_range
from tests.servers import RedisServer

Connect = Callable[..., Connection]
OpenURL = Callable[..., Engine]


# URLs


@pytest.mark.parametrize(
    ("url", "error", "text"),
    [
        ("rome+memory://x?colour=red", sa.exc.ArgumentError, "colour"),
        ("rome+memory://x?foreign_keys=maybe", sa.exc.ArgumentError, "foreign_keys=maybe"),
        ("rome+memory://x?sequence_cache=0", sa.exc.ArgumentError, "sequence_cache=0"),
        ("rome+redis://127.0.0.1:1/x?read_timeout=soon", sa.exc.ProgrammingError, "read_timeout"),
        ("rome+lmdb:relative", sa.exc.ArgumentError, "Could not parse"),
        ("rome+cassandra://x", sa.exc.NoSuchModuleError, r"rome\.cassandra"),
    ],
)
def test_a_wrong_url(url: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        sa.create_engine(url).connect()


def test_errors_show_no_password() -> None:
    engine = sa.create_engine("rome+redis://user:topsecret@127.0.0.1:1/x")
    with pytest.raises(sa.exc.OperationalError) as raised:
        engine.connect().execute(sa.text("SELECT * FROM t"))
    assert "topsecret" not in str(raised.value)


# What is stored


def test_a_database_of_a_newer_format(connect: Connect, open_engine: Callable[..., Engine]) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    connection.commit()
    snapshot = connection.store.snapshot()
    stored = snapshot.read(Read(keys=[CATALOG_KEY])).values[CATALOG_KEY]
    assert stored is not None
    newer = msgspec.msgpack.encode({**msgspec.msgpack.decode(stored.value), "format": 99})
    connection.store.commit(None, Writes(puts={CATALOG_KEY: newer, schema_key(): b"newer"}))
    snapshot.close()
    other = open_engine()
    with (
        pytest.raises(sa.exc.InternalError, match=r"format 99.*install a newer ROME"),
        other.connect() as one,
    ):
        one.exec_driver_sql("SELECT * FROM t")
    with pytest.raises(InternalError, match="format 99"):
        connection.execute("INSERT INTO t VALUES (1)")


def damage(connection: Connection, replacement: bytes) -> None:
    """Overwrite each stored row."""
    snapshot = connection.store.snapshot()
    (entries,) = snapshot.read(Read(scans=[Scan(prefix_range(b"\x03"))])).scans
    snapshot.close()
    assert entries
    connection.store.commit(None, Writes(puts={entry.key: replacement for entry in entries}))


@pytest.mark.parametrize("replacement", [b"", b"\xc1", b"\x93\x01", b"\x81\x01\x02", b"\xff" * 20])
def test_a_damaged_record(connect: Connect, replacement: bytes) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)")
    connection.execute("INSERT INTO t VALUES (1, 2, 3)")
    connection.execute("CREATE TABLE healthy (id INTEGER PRIMARY KEY)")
    connection.commit()
    damage(connection, replacement)
    with pytest.raises(InternalError):
        connection.execute("SELECT * FROM t")
    connection.rollback()
    assert connection.execute("SELECT * FROM healthy").fetchall() == []


@pytest.mark.parametrize(
    "value",
    [
        "nul \x00 inside",
        "\x00",
        "😀 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff",
        "e\u0301 é \u202e",
        "",
        b"",
        b"\x00\xff" * 10,
        2**63 - 1,
        -(2**63),
        1e308,
        5e-324,
        -0.0,
        float("inf"),
    ],
)
@pytest.mark.parametrize("key", [False, True], ids=["value", "key"])
def test_values_come_back_as_they_were(connection: Connection, value: Any, key: bool) -> None:
    connection.execute(f"CREATE TABLE t (v {'NOT NULL PRIMARY KEY' if key else ''}, x)")
    connection.execute("INSERT INTO t VALUES (?, 1)", (value,))
    connection.commit()
    (found,) = connection.execute("SELECT v FROM t").fetchone() or ()
    assert (type(found), found) == (type(value), value)
    assert connection.execute("SELECT x FROM t WHERE v = ?", (value,)).fetchall() == [(1,)]


def test_a_value_of_ten_megabytes(connection: Connection) -> None:
    text, blob = "x€" * 2_500_000, bytes(range(256)) * 40_000
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, b BLOB)")
    connection.execute("INSERT INTO t VALUES (1, ?, ?)", (text, blob))
    connection.commit()
    assert connection.execute("SELECT s, b FROM t").fetchone() == (text, blob)


@pytest.mark.parametrize("size", [300, 1000, 100_000])
def test_keys_longer_than_a_store_allows(connection: Connection, size: int) -> None:
    """They are cut and completed by a digest; what differs behind the cut is told apart."""
    keys = [f"{'k' * size}{end}" for end in ("", "a", "b", "\x00")]
    connection.execute("CREATE TABLE t (id VARCHAR NOT NULL PRIMARY KEY, u TEXT UNIQUE)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(key, key + "!") for key in keys])
    connection.commit()
    for key in keys:
        assert connection.execute("SELECT u FROM t WHERE id = ?", (key,)).fetchall() == [(key + "!",)]
        assert connection.execute("SELECT id FROM t WHERE u = ?", (key + "!",)).fetchall() == [(key,)]
    assert connection.execute("SELECT id FROM t WHERE id = ?", ("k" * (size - 1),)).fetchall() == []
    assert [id for (id,) in connection.execute("SELECT id FROM t ORDER BY id")] == sorted(keys)
    assert [id for (id,) in connection.execute("SELECT id FROM t WHERE id > ?", (keys[1],))] == [keys[2]]
    with pytest.raises(Error, match=r"UNIQUE constraint failed: t\.id"):
        connection.execute("INSERT INTO t VALUES (?, 'new')", (keys[2],))


# Statements


@pytest.mark.parametrize(
    ("sql", "parameters", "error"),
    [
        ("SELECT ?", (), ProgrammingError),
        ("SELECT ?", (1, 2), ProgrammingError),
        ("SELECT :a", {"b": 1}, ProgrammingError),
        ("SELECT ?", (object(),), (ProgrammingError, TypeError)),
        ("SELECT ?", (2**63,), (DataError, OverflowError)),
        ("INSERT INTO t VALUES (?)", (1, 2), ProgrammingError),
        ("SELECT", (), OperationalError),
        ("SELEC 1", (), OperationalError),
        ("SELECT 1; SELECT 2", (), ProgrammingError),
        ("SELECT missing FROM t", (), OperationalError),
        ("INSERT INTO t (missing) VALUES (1)", (), OperationalError),
        ("ATTACH 'x' AS y", (), rome.dbapi.NotSupportedError),
        ("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", (), rome.dbapi.NotSupportedError),
    ],
)
def test_a_wrong_statement(connection: Connection, sql: str, parameters: Any, error: Any) -> None:
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    connection.commit()
    with pytest.raises(error):
        connection.execute(sql, parameters)
    connection.execute("INSERT INTO t VALUES (1)")
    connection.commit()
    assert connection.execute("SELECT * FROM t").fetchall() == [(1,)]


def test_too_many_parameters(connection: Connection) -> None:
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    most = 32766
    ids = tuple(range(most))
    connection.execute(f"SELECT * FROM t WHERE id IN ({', '.join('?' * most)})", ids)
    with pytest.raises(OperationalError, match="too many SQL variables"):
        connection.execute(f"SELECT * FROM t WHERE id IN ({', '.join('?' * (most + 1))})", (*ids, 0))


def test_a_closed_connection_and_a_closed_cursor(connect: Connect) -> None:
    connection = connect()
    cursor = connection.cursor()
    cursor.close()
    with pytest.raises(ProgrammingError, match="closed cursor"):
        cursor.execute("SELECT 1")
    connection.close()
    connection.close()
    for use in (connection.cursor, connection.commit, connection.rollback):
        with pytest.raises(ProgrammingError, match="closed database"):
            use()


# Servers that stop, or hang


@pytest.fixture
def filled(own_server: RedisServer, open_url: OpenURL) -> Engine:
    engine = open_url(own_server.url("days", read_timeout=1))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1, 'kept')")
    return engine


def rows(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql("SELECT id, a FROM t ORDER BY id")]


def test_a_server_stopped_in_the_middle_of_a_transaction(own_server: RedisServer, filled: Engine) -> None:
    with filled.connect() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (2, 'lost')")
        own_server.kill()
        with pytest.raises(sa.exc.OperationalError) as raised:
            connection.exec_driver_sql("SELECT * FROM t WHERE id = 1")
        assert raised.value.connection_invalidated
    own_server.start()
    assert rows(filled) == [(1, "kept")]
    with filled.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (3, 'new')")
    assert rows(filled) == [(1, "kept"), (3, "new")]


def test_a_server_stopped_before_commit(own_server: RedisServer, filled: Engine) -> None:
    with filled.connect() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (2, 'lost')")
        own_server.kill()
        with pytest.raises(sa.exc.OperationalError):
            connection.commit()
    own_server.start()
    assert rows(filled) == [(1, "kept")]


def test_after_a_lost_server_the_transaction_does_not_go_on(own_server: RedisServer, filled: Engine) -> None:
    connection = Connection(rome.store_of(filled))
    connection.execute("INSERT INTO t VALUES (2, 'first half')")
    own_server.kill()
    with pytest.raises(OperationalError):
        connection.execute("SELECT * FROM t WHERE id = 1")
    own_server.start()
    for again in (lambda: connection.execute("INSERT INTO t VALUES (3, 'second half')"), connection.commit):
        with pytest.raises(OperationalError, match="the transaction is over: roll back"):
            again()
    connection.rollback()
    connection.execute("INSERT INTO t VALUES (4, 'whole')")
    connection.commit()
    connection.close()
    assert rows(filled) == [(1, "kept"), (4, "whole")]


def test_a_hung_server_is_given_up_after_the_time_out(own_server: RedisServer, filled: Engine) -> None:
    own_server.pause()
    started = time.monotonic()
    with filled.connect() as connection, pytest.raises(sa.exc.OperationalError) as raised:
        connection.exec_driver_sql("SELECT * FROM t")
    assert 0.9 <= time.monotonic() - started < 5
    assert raised.value.connection_invalidated
    own_server.resume()
    assert rows(filled) == [(1, "kept")]


def test_a_hung_server_at_commit_leaves_all_or_nothing(own_server: RedisServer, filled: Engine) -> None:
    with filled.connect() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (2, 'a')")
        connection.exec_driver_sql("INSERT INTO t VALUES (3, 'b')")
        own_server.pause()
        with pytest.raises(sa.exc.OperationalError) as raised:
            connection.commit()
    own_server.resume()
    assert re.search("may or may not", str(raised.value))
    time.sleep(0.1)
    assert rows(filled) in ([(1, "kept")], [(1, "kept"), (2, "a"), (3, "b")])


def test_a_server_that_restarts_between_transactions_is_not_noticed(
    own_server: RedisServer, filled: Engine
) -> None:
    with filled.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 1
        connection.rollback()
        own_server.restart()
        connection.exec_driver_sql("INSERT INTO t VALUES (2, 'after')")
        connection.commit()
    assert rows(filled) == [(1, "kept"), (2, "after")]
