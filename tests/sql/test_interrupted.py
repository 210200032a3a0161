"""Something is thrown into a statement or COMMIT, as a signal's handler does: the transaction is over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rome.dbapi import Connection, OperationalError
from rome.transaction.buffer import WriteBuffer

Connect = Callable[..., Connection]


class Thrown(BaseException):
    """What a handler throws."""


def throw(value: int) -> int:
    raise Thrown


def test_an_interrupted_transaction_can_only_be_rolled_back(connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER)")
    connection.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    connection.commit()
    connection.create_function("throw", 1, throw)
    connection.execute("INSERT INTO t VALUES (3, 3)")
    with pytest.raises(Thrown):
        connection.execute("UPDATE t SET v = throw(v)")
    with pytest.raises(OperationalError, match="interrupted by Thrown"):
        connection.execute("SELECT 1")
    with pytest.raises(OperationalError, match="interrupted by Thrown"):
        connection.commit()
    connection.rollback()
    assert connection.execute("SELECT * FROM t").fetchall() == [(1, 1), (2, 2)]


def test_in_autocommit_an_interrupted_statement_is_undone_alone(connect: Connect) -> None:
    connection = connect()
    connection.isolation_level = None
    connection.execute("CREATE TABLE t (v INTEGER)")
    connection.execute("INSERT INTO t VALUES (1), (2)")
    connection.create_function("throw", 1, throw)
    with pytest.raises(Thrown):
        connection.execute("DELETE FROM t WHERE throw(v)")
    assert connection.execute("SELECT v FROM t").fetchall() == [(1,), (2,)]


def test_a_mistake_of_the_program_leaves_its_transaction_open(connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (v INTEGER)")
    connection.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(Exception):  # noqa: B017 - whatever a wrong parameter raises
        connection.execute("INSERT INTO t VALUES (?)", (object(),))
    connection.commit()
    assert connection.execute("SELECT v FROM t").fetchall() == [(1,)]


def test_a_change_that_was_noted_and_not_made_is_taken_back() -> None:
    buffer = WriteBuffer()
    buffer.put(b"\x03\x01a", b"1")
    mark = buffer.mark()
    buffer.put(b"\x03\x01b", b"2")
    space, key, _ = buffer._undo[-1]
    del space[key]
    buffer.rollback_to(mark)
    assert buffer.writes().puts == {b"\x03\x01a": b"1"}
