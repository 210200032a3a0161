"""The checker on histories made by hand: each anomaly is found under its name, and nothing where nothing is.

A history is written as its transactions in the order they began, each within the time of all others
unless a test says otherwise. The last one reads everything.
"""

from __future__ import annotations

from pathlib import Path

from proof.checker import Verdict, check
from proof.history import (
    Append,
    Operation,
    Outcome,
    RangeRead,
    Read,
    Refused,
    Transaction,
    list_key,
    load,
    save,
)

X, Y, NAME = "list 1", "list 2", "name a"


def transaction(*operations: Operation, outcome: Outcome = "committed", at: float = 0.0) -> Transaction:
    return Transaction(0, 0, at, at + 1, outcome, operations)


def verdict(*transactions: Transaction, **final: str) -> Verdict:
    """Check the transactions; `x`, `y` and `name` are what is there in the end, elements apart by spaces."""
    objects = {"x": X, "y": Y, "name": NAME}
    everything = [Read(objects[name], tuple(text.split())) for name, text in final.items()]
    history = [*transactions, transaction(*everything, at=100.0)]
    return check(
        [
            Transaction(number, 0, t.began, t.ended, t.outcome, t.operations)
            for number, t in enumerate(history)
        ]
    )


def test_a_serial_history_is_clean() -> None:
    found = verdict(
        transaction(Read(X, ()), Append(X, "a"), Read(X, ("a",)), at=0),
        transaction(Read(X, ("a",)), Append(X, "b"), Append(Y, "c"), at=2),
        transaction(RangeRead(1, 2, {1: ("a", "b"), 2: ("c",)}), Append(NAME, "n", was_empty=True), at=4),
        transaction(Refused(NAME), Append(NAME, "m"), outcome="failed", at=6),
        transaction(RangeRead(1, 2, {1: ("a", "b")}, at_least=2), Refused(NAME), at=8),
        x="a b",
        y="c",
        name="n",
    )
    assert found.anomalies == []
    assert (found.counts["committed"], found.counts["failed"]) == (5, 1)
    assert found.counts["ww edges"] == 1


def test_transactions_that_ran_at_once_may_be_in_either_order() -> None:
    assert not verdict(transaction(Read(X, ("b",))), transaction(Append(X, "b")), x="b").anomalies


def test_a_lost_append() -> None:
    assert verdict(transaction(Append(X, "a")), transaction(Append(X, "b")), x="b").kinds == {"lost append"}


def test_an_append_whose_commit_has_no_known_end_may_be_there_or_not() -> None:
    unknown = transaction(Append(X, "a"), Append(Y, "b"), outcome="unknown")
    assert verdict(unknown, x="", y="").kinds == set()
    assert verdict(unknown, x="a", y="b").kinds == set()


def test_a_torn_commit() -> None:
    unknown = transaction(Append(X, "a"), Append(Y, "b"), outcome="unknown")
    assert verdict(unknown, x="a", y="").kinds == {"torn commit"}


def test_an_aborted_read() -> None:
    failed = transaction(Append(X, "a"), outcome="failed")
    assert verdict(failed, x="a").kinds == {"aborted read"}
    assert verdict(failed, transaction(Read(X, ("a",))), x="").kinds >= {"aborted read"}


def test_an_intermediate_read() -> None:
    writer = transaction(Append(X, "a"), Append(X, "b"))
    assert "intermediate read" in verdict(writer, transaction(Read(X, ("a",))), x="a b").kinds


def test_an_incompatible_order() -> None:
    found = verdict(
        transaction(Append(X, "a")), transaction(Append(X, "b")), transaction(Read(X, ("b",))), x="a b"
    )
    assert found.kinds == {"incompatible order"}


def test_an_element_twice_and_an_element_from_nowhere() -> None:
    assert verdict(transaction(Append(X, "a")), x="a a").kinds == {"appended twice"}
    assert verdict(x="z").kinds == {"unknown element"}
    assert verdict(transaction(Append(X, "a")), y="a").kinds >= {"unknown element"}


def test_a_unique_key_taken_twice() -> None:
    one, two = transaction(Append(NAME, "a", was_empty=True)), transaction(Append(NAME, "b", was_empty=True))
    assert "unique key taken twice" in verdict(one, two, name="a b").kinds
    assert "unique key taken twice" in verdict(one, two, name="b").kinds


def test_a_refusal_without_a_reason_is_a_contradiction_to_what_was_read() -> None:
    reader = transaction(Refused(NAME), Read(NAME, ()))
    assert verdict(reader, name="").kinds == {"contradiction"}


def test_a_fuzzy_read() -> None:
    reader = transaction(Read(X, ()), Read(X, ("a",)))
    assert verdict(reader, transaction(Append(X, "a")), x="a").kinds >= {"contradiction"}


def test_own_writes_that_are_not_seen() -> None:
    assert verdict(transaction(Append(X, "a"), Read(X, ())), x="a").kinds == {"contradiction"}
    missing = transaction(Append(X, "a"), RangeRead(1, 1, {}))
    assert verdict(missing, x="a").kinds == {"contradiction"}


def test_a_range_read_with_a_row_that_does_not_belong_there() -> None:
    writer = transaction(Append(X, "a"))
    assert verdict(writer, transaction(RangeRead(1, 1, {1: ("a",)}, at_least=2)), x="a").kinds == {
        "contradiction"
    }


def test_a_dirty_write() -> None:
    one = transaction(Append(X, "a"), Append(Y, "c"))
    two = transaction(Append(X, "b"), Append(Y, "d"))
    assert verdict(one, two, x="a b", y="d c").kinds == {"dirty write"}


def test_circular_information_flow() -> None:
    one = transaction(Append(X, "a"), Read(Y, ("b",)))
    two = transaction(Append(Y, "b"), Read(X, ("a",)))
    assert verdict(one, two, x="a", y="b").kinds == {"circular information flow"}


def test_a_lost_update() -> None:
    one, two = transaction(Read(X, ()), Append(X, "a")), transaction(Read(X, ()), Append(X, "b"))
    assert verdict(one, two, x="a b").kinds == {"lost update"}


def test_read_skew() -> None:
    reader, writer = (
        transaction(Read(X, ()), Read(Y, ("b",))),
        transaction(Append(X, "a"), Append(Y, "b")),
    )
    assert verdict(reader, writer, x="a", y="b").kinds == {"read skew"}


def test_a_transaction_that_failed_saw_one_state_too() -> None:
    reader = transaction(Read(X, ()), Read(Y, ("b",)), outcome="failed")
    writer = transaction(Append(X, "a"), Append(Y, "b"))
    assert verdict(reader, writer, x="a", y="b").kinds == {"read skew"}


def test_write_skew() -> None:
    one, two = transaction(Read(Y, ()), Append(X, "a")), transaction(Read(X, ()), Append(Y, "b"))
    assert verdict(one, two, x="a", y="b").kinds == {"write skew"}


def test_a_phantom() -> None:
    one = transaction(RangeRead(1, 2, {}), Append(X, "a"))
    two = transaction(RangeRead(1, 2, {}), Append(Y, "b"))
    assert verdict(one, two, x="a", y="b").kinds == {"phantom"}


def test_a_phantom_in_an_index_whose_entries_move() -> None:
    setup = transaction(Append(X, "a"), Append(Y, "b"), at=-10)
    one = transaction(RangeRead(1, 2, {}, at_least=2), Append(X, "c"))
    two = transaction(RangeRead(1, 2, {}, at_least=2), Append(Y, "d"))
    assert verdict(setup, one, two, x="a c", y="b d").kinds == {"phantom"}


def test_a_read_only_transaction_that_sees_an_impossible_state() -> None:
    # Fekete, O'Neil and O'Neil (2004): the writers alone are fine; what the reader saw makes the cycle.
    withdraw = transaction(Read(X, ()), Read(Y, ()), Append(X, "w"))
    deposit = transaction(Append(Y, "d"))
    reader = transaction(Read(X, ()), Read(Y, ("d",)))
    assert verdict(withdraw, deposit, x="w", y="d").kinds == set()
    assert verdict(withdraw, deposit, reader, x="w", y="d").kinds == {"write skew"}


def test_a_stale_read() -> None:
    writer, reader = transaction(Append(X, "a"), at=0), transaction(Read(X, ()), at=5)
    assert verdict(writer, reader, x="a").kinds == {"stale read"}


def test_a_history_is_the_same_after_saving(tmp_path: Path) -> None:
    history = [
        transaction(Read(X, ("a",)), RangeRead(1, 2, {1: ("a",)}, 2), Append(Y, "b", was_empty=True)),
        transaction(Refused(NAME), outcome="unknown", at=1.0),
    ]
    save(tmp_path / "1.json", history[1:])
    save(tmp_path / "2.json", history[:1])
    assert load([tmp_path / "1.json", tmp_path / "2.json"]) == history
    assert [list_key(object) for object in (X, Y, NAME)] == [1, 2, None]
