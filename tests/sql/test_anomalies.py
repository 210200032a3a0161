"""The anomalies of weak isolation, by their names in the literature; none may happen on any store.

Berenson et al., "A Critique of ANSI SQL Isolation Levels" (1995), and for the read-only anomaly Fekete,
O'Neil, O'Neil, "A Read-Only Transaction Anomaly Under Snapshot Isolation" (2004).

A history is told step by step: each transaction is a connection, and its steps run in the order in
which they stand here. A step, or a COMMIT, that fails with a serialization failure ends its transaction;
what is judged is what the transactions that did commit have seen and left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rome.dbapi import Connection, OperationalError

Connect = Callable[..., Connection]


class Transaction:
    """One transaction of a history."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.failed = False
        connection.execute("BEGIN")

    @contextmanager
    def _serializable(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            if "serialization failure" not in str(error):
                raise
            self.failed = True
            self.connection.rollback()

    def run(self, sql: str) -> list[Any] | None:
        """The rows, or None if the transaction is over for a serialization failure."""
        if self.failed:
            return None
        with self._serializable():
            return self.connection.execute(sql).fetchall()
        return None

    def commit(self) -> bool:
        if not self.failed:
            with self._serializable():
                self.connection.execute("COMMIT")
        return not self.failed


@pytest.fixture
def begin(connect: Connect) -> Callable[[], Transaction]:
    setup = connect()
    setup.executescript(
        """
        CREATE TABLE account (name VARCHAR(10) PRIMARY KEY, balance INTEGER NOT NULL, kind VARCHAR(10));
        CREATE INDEX ix_account_kind ON account (kind);
        INSERT INTO account VALUES ('x', 50, 'a'), ('y', 50, 'a'), ('z', 0, 'b');
        """
    )
    setup.commit()
    return lambda: Transaction(connect())


Begin = Callable[[], Transaction]
X = "SELECT balance FROM account WHERE name = 'x'"
Y = "SELECT balance FROM account WHERE name = 'y'"


def final(begin: Begin, sql: str) -> list[Any]:
    transaction = begin()
    rows = transaction.run(sql)
    assert rows is not None
    return rows


def test_dirty_write(begin: Begin) -> None:
    """P0: two transactions write x and y; one of them must win in both."""
    one, two = begin(), begin()
    one.run("UPDATE account SET balance = 1 WHERE name = 'x'")
    two.run("UPDATE account SET balance = 2 WHERE name = 'x'")
    two.run("UPDATE account SET balance = 2 WHERE name = 'y'")
    two.commit()
    one.run("UPDATE account SET balance = 1 WHERE name = 'y'")
    one.commit()
    left = final(begin, "SELECT DISTINCT balance FROM account WHERE name IN ('x', 'y')")
    assert left in ([(1,)], [(2,)])


def test_dirty_read(begin: Begin) -> None:
    """P1: what another transaction has not committed is not seen, and no trace of it after its rollback."""
    one, two = begin(), begin()
    one.run("UPDATE account SET balance = 999 WHERE name = 'x'")
    one.run("INSERT INTO account VALUES ('new', 1, 'a')")
    assert two.run(X) == [(50,)]
    assert two.run("SELECT count(*) FROM account WHERE kind = 'a'") == [(2,)]
    one.connection.rollback()
    assert two.run(X) == [(50,)]
    assert two.commit()


def test_fuzzy_read(begin: Begin) -> None:
    """P2: a row read twice is the same, though another transaction changed it and committed."""
    one, two = begin(), begin()
    assert one.run(X) == [(50,)]
    two.run("UPDATE account SET balance = 60 WHERE name = 'x'")
    assert two.commit()
    assert one.run(X) == [(50,)]
    assert one.run("SELECT balance FROM account WHERE name = 'x' AND balance >= 0") == [(50,)]
    assert one.commit()


@pytest.mark.parametrize(
    "condition", ["kind = 'a'", "balance > 10", "name BETWEEN 'a' AND 'y'", "name >= 'x'"]
)
def test_phantom(begin: Begin, condition: str) -> None:
    """P3: a set of rows read twice is the same, and who acts on it notices what was added."""
    count = f"SELECT count(*) FROM account WHERE {condition}"
    one, two = begin(), begin()
    before = one.run(count)
    two.run("INSERT INTO account VALUES ('xx', 100, 'a')")
    assert two.commit()
    assert one.run(count) == before
    assert one.run(f"{count} AND name <> 'none'") == before
    one.run("UPDATE account SET balance = 0 WHERE name = 'z'")
    assert not one.commit()


def test_joins_and_ranges_of_a_reader_that_others_have_left_behind(begin: Begin) -> None:
    one, two = begin(), begin()
    assert one.run(X) == [(50,)]
    two.run("UPDATE account SET balance = 7, kind = 'b' WHERE name = 'x'")
    two.run("DELETE FROM account WHERE name = 'y'")
    two.run("INSERT INTO account VALUES ('new', 1, 'a')")
    assert two.commit()
    join = (
        "SELECT a.name, b.name FROM account a JOIN account b ON b.kind = a.kind WHERE a.name = 'y' ORDER BY 2"
    )
    assert one.run(join) == [("y", "x"), ("y", "y")]
    assert one.run("SELECT name FROM account ORDER BY name DESC LIMIT 2") == [("z",), ("y",)]
    assert one.run("SELECT count(*), sum(balance) FROM account") == [(3, 100)]
    assert one.run("SELECT name FROM account WHERE kind = 'b'") == [("z",)]
    assert one.commit()


def test_one_that_others_have_left_behind_does_not_write(begin: Begin) -> None:
    one, two = begin(), begin()
    assert one.run(X) == [(50,)]
    two.run("UPDATE account SET balance = 7 WHERE name = 'x'")
    assert two.commit()
    assert one.run(Y) == [(50,)]
    one.run("UPDATE account SET balance = balance + 1 WHERE name = 'z'")
    assert not one.commit()
    assert final(begin, "SELECT balance FROM account WHERE name = 'z'") == [(0,)]


def test_lost_update(begin: Begin) -> None:
    """P4: of two that read x and write it back with more, one fails, or both additions are there."""
    one, two = begin(), begin()
    for transaction in (one, two):
        assert transaction.run(X) == [(50,)]
    two.run("UPDATE account SET balance = 50 + 20 WHERE name = 'x'")
    assert two.commit()
    one.run("UPDATE account SET balance = 50 + 30 WHERE name = 'x'")
    assert not one.commit()
    assert final(begin, X) == [(70,)]


def test_lost_update_of_one_statement(begin: Begin) -> None:
    """The same, where the reading is inside of UPDATE."""
    one, two = begin(), begin()
    one.run("UPDATE account SET balance = balance + 1 WHERE kind = 'a'")
    two.run("UPDATE account SET balance = balance + 10 WHERE kind = 'a'")
    done = [one.commit(), two.commit()]
    assert done[0]
    assert final(begin, X) == [(50 + 1 + (10 if done[1] else 0),)]


def test_read_skew(begin: Begin) -> None:
    """A5A: x from before and y from after a transfer are never seen together."""
    one, two = begin(), begin()
    x = one.run(X)
    two.run("UPDATE account SET balance = 40 WHERE name = 'x'")
    two.run("UPDATE account SET balance = 60 WHERE name = 'y'")
    assert two.commit()
    y = one.run(Y)
    assert (x, y) == ([(50,)], [(50,)])
    assert one.commit()


def test_write_skew(begin: Begin) -> None:
    """A5B: each takes 90 from another account, having seen that the two together hold 100."""
    one, two = begin(), begin()
    total = "SELECT sum(balance) FROM account WHERE name IN ('x', 'y')"
    for transaction in (one, two):
        assert transaction.run(total) == [(100,)]
    one.run("UPDATE account SET balance = balance - 90 WHERE name = 'x'")
    two.run("UPDATE account SET balance = balance - 90 WHERE name = 'y'")
    assert [one.commit(), two.commit()] == [True, False]
    assert final(begin, total) == [(10,)]


def test_write_skew_by_phantoms(begin: Begin) -> None:
    """A2/G2: each adds a row because there was none; two would break the rule that both obey."""
    one, two = begin(), begin()
    for transaction in (one, two):
        assert transaction.run("SELECT * FROM account WHERE kind = 'only one'") == []
    one.run("INSERT INTO account VALUES ('p', 1, 'only one')")
    two.run("INSERT INTO account VALUES ('q', 1, 'only one')")
    assert [one.commit(), two.commit()] == [True, False]
    assert final(begin, "SELECT count(*) FROM account WHERE kind = 'only one'") == [(1,)]


def test_read_only_anomaly(begin: Begin) -> None:
    """Checking x, savings y: a withdrawal that read before a deposit is charged an overdraft fee, yet
    a report has shown the deposit without the withdrawal. No order of the three explains that."""
    setup = begin()
    setup.run("UPDATE account SET balance = 0 WHERE name IN ('x', 'y')")
    assert setup.commit()
    withdrawal, deposit = begin(), begin()
    assert withdrawal.run(X) == [(0,)]
    assert withdrawal.run(Y) == [(0,)]
    assert deposit.run(Y) == [(0,)]
    deposit.run("UPDATE account SET balance = 20 WHERE name = 'y'")
    assert deposit.commit()
    report = begin()
    assert (report.run(X), report.run(Y)) == ([(0,)], [(20,)])
    assert report.commit()
    withdrawal.run("UPDATE account SET balance = -11 WHERE name = 'x'")
    assert not withdrawal.commit()
    assert final(begin, X) == [(0,)]


def test_snapshot_of_a_reader_is_consistent_through_many_commits(begin: Begin) -> None:
    """Whatever a reader gets, x and y come from one state: their sum is always 100."""
    for amount in range(10):
        reader = begin()
        rows = reader.run(X if amount % 2 else Y)
        writer = begin()
        writer.run(f"UPDATE account SET balance = balance - {amount} WHERE name = 'x'")
        writer.run(f"UPDATE account SET balance = balance + {amount} WHERE name = 'y'")
        assert writer.commit()
        others = reader.run(Y if amount % 2 else X)
        assert rows is not None
        assert others is not None
        assert rows[0][0] + others[0][0] == 100
        assert reader.commit()


def test_writers_of_different_rows_do_not_disturb_each_other(begin: Begin) -> None:
    one, two, three = begin(), begin(), begin()
    one.run("UPDATE account SET balance = balance + 1 WHERE name = 'x'")
    two.run("UPDATE account SET balance = balance + 1 WHERE name = 'y'")
    three.run("INSERT INTO account VALUES ('w', 1, 'a')")
    assert [one.commit(), two.commit(), three.commit()] == [True, True, True]


def test_one_that_has_written_sees_what_others_have_committed_since(begin: Begin) -> None:
    """As on MySQL, where an INSERT takes no snapshot. Nothing that it has read is any different."""
    one, two = begin(), begin()
    one.run("INSERT INTO account VALUES ('mine', 1, 'a')")
    two.run("INSERT INTO account VALUES ('theirs', 2, 'b')")
    two.run("UPDATE account SET balance = 60 WHERE name = 'y'")
    assert two.commit()
    assert one.run("SELECT balance FROM account WHERE name = 'theirs'") == [(2,)]
    one.run("UPDATE account SET balance = balance + 1 WHERE name = 'y'")
    assert one.run(Y) == [(61,)]
    assert one.commit()
    assert final(begin, Y) == [(61,)]
