"""A sample of `make prove`: random transactions on every store, and nothing is found."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from proof import checker, workload
from proof.run import report
from tests.proof import broken

# The workers are forked beside pytest's own threads; Python 3.12 and later warn of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

SECONDS = float(os.environ.get("ROME_PROOF_SECONDS", "10"))
BROKEN_SECONDS = 0.6
BROKEN_RUNS = 10


def test_a_history_of_random_transactions_is_serializable(new_url: Callable[[], str], tmp_path: Path) -> None:
    seed = random.randrange(10**9)
    history = workload.run(new_url(), tmp_path, seconds=SECONDS, seed=seed)
    verdict = checker.check(history)
    told = "\n".join([f"seed {seed}", *report(history, verdict)])
    print(told)
    assert not verdict.anomalies, told
    assert verdict.counts["committed"] > 20 * SECONDS, told
    assert verdict.counts["unknown"] == 0, told
    for needed in ("ww edges", "wr edges", "rw edges", "RangeRead", "Append", "Refused"):
        assert verdict.counts[needed], told
    errors = {t.error.partition(":")[0] for t in history if t.outcome == "failed"}
    assert errors <= {"rolled back", "serialization failure", "UNIQUE constraint failed"}, told


@pytest.mark.parametrize(
    ("store", "found"),
    [
        (broken.ValidatesNothing, {"lost append", "incompatible order", "lost update", "write skew"}),
        (broken.ValidatesWrittenKeysOnly, {"write skew", "phantom"}),
        (broken.ValidatesNoRanges, {"phantom", "write skew"}),
        (broken.LosesCommits, {"lost append"}),
        (broken.ReportsFalseConflicts, {"aborted read"}),
    ],
)
def test_the_checker_finds_what_a_broken_store_does(
    store: type[broken.Broken], found: set[str], new_url: Callable[[], str], tmp_path: Path
) -> None:
    kinds: set[str] = set()
    for seed in range(BROKEN_RUNS):
        connect = partial(broken.connect, store)
        history = workload.run(new_url(), tmp_path, seconds=BROKEN_SECONDS, seed=seed, open=connect)
        kinds |= checker.check(history).kinds
        if kinds & found:
            return
    pytest.fail(f"found {kinds}, which is none of {found}")
