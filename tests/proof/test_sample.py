"""A sample of `make prove`: random transactions on every store, and nothing is found.

The samples of the stores run at the same time, each in a process of its own with its workers, since a
sample mostly waits: for fsync, for the server, for the others.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from proof import checker, workload
from proof.history import load
from proof.run import report
from tests.proof import broken

# The workers are forked beside pytest's own threads; Python 3.12 and later warn of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

SECONDS = float(os.environ.get("ROME_PROOF_SECONDS", "30"))
STORES = ("memory", "lmdb", "redis")
ROOT = Path(__file__).parent.parent.parent
BROKEN_SECONDS = 0.6
BROKEN_RUNS = 30


class Sample(NamedTuple):
    seed: int
    directory: Path
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Sample]]:
    """A sample of each store, under way."""
    started: dict[str, Sample] = {}
    try:
        for store in STORES:
            seed, directory = random.randrange(10**9), tmp_path_factory.mktemp(store)
            command = [sys.executable, "-W", "error", "-m", "proof.run", "--parts", "history"]
            options = {"--store": store, "--duration": SECONDS, "--seed": seed, "--keep": directory}
            command += [str(word) for pair in options.items() for word in pair]
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            started[store] = Sample(seed, directory, process)
        yield started
    finally:
        for sample in started.values():
            # Interrupted, it ends its server and its workers by itself.
            if sample.process.poll() is None:
                sample.process.send_signal(signal.SIGINT)
            sample.process.communicate(timeout=30)


@pytest.mark.timeout(300 + 3 * SECONDS)
@pytest.mark.parametrize("store", STORES)
def test_a_history_of_random_transactions_is_serializable(store: str, samples: dict[str, Sample]) -> None:
    seed, directory, process = samples[store]
    output, _ = process.communicate()
    assert process.returncode == 0, output
    workers = sorted(directory.glob("worker-*.json"))
    assert len(workers) == 8, output
    history = load([*workers, directory / "last.json"])
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
