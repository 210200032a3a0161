"""A sample of `make contention`: writers that meet, and how much of it their programs see."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proof import contention

# The workers are forked beside pytest's own threads; Python 3.12 and later warn of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

TRANSACTIONS = 30
CLIENTS = 8


def run(url: str, name: str) -> contention.Outcome:
    body = contention.SCENARIOS[name]
    outcome = contention.run(url, body, transactions=TRANSACTIONS, clients=CLIENTS)
    print("\n".join(contention.table({name: outcome})))
    assert outcome.wrong == []
    assert outcome.counts["transactions"] == TRANSACTIONS * CLIENTS
    return outcome


def test_writers_of_different_rows_of_the_same_tables_meet_no_error(new_url: Callable[[], str]) -> None:
    counts = run(new_url(), "different rows").counts
    assert (counts["reached"], counts["raised"], counts["conflicts"]) == (0, 0, 0)
    # They did run at once.
    assert counts["extensions"] > 0


def test_writers_of_one_row_whose_value_they_have_not_seen_meet_next_to_no_error(
    new_url: Callable[[], str],
) -> None:
    outcome = run(new_url(), "one row, added to")
    assert outcome.absorbed >= 0.99
    assert outcome.counts["replays"] > 0


def test_writers_of_one_row_whose_value_they_have_seen_are_told(new_url: Callable[[], str]) -> None:
    counts = run(new_url(), "one row, read").counts
    assert counts["reached"] == counts["raised"] > 0


@pytest.mark.parametrize(
    ("images", "name"), [(CLIENTS, contention.EACH_ITS_OWN), (1, contention.ONE_FOR_ALL)]
)
def test_callers_of_glances_database_api_see_next_to_no_deadlock(
    images: int, name: str, new_url: Callable[[], str]
) -> None:
    outcome = contention.glance(new_url(), images=images, updates=TRANSACTIONS, clients=CLIENTS)
    print("\n".join(contention.table({name: outcome})))
    assert outcome.wrong == []
    assert outcome.counts["transactions"] == TRANSACTIONS * CLIENTS
    assert contention.judged({name: outcome}) == []
    assert outcome.counts["conflicts" if images == 1 else "extensions"] > 0


def test_what_is_promised_and_not_kept_is_told() -> None:
    bad = contention.Outcome(1.0, contention.Counter(transactions=100, reached=2))
    assert contention.judged({contention.ONE_FOR_ALL: bad}) == [
        f"{contention.ONE_FOR_ALL}: 98.00% succeeded without an error, not 99%"
    ]
    assert contention.judged({"one row, read": bad}) == []
