"""Races that clouds depend on, sampled: 8 clients with 25 attempts each, unless the environment says more."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial

import pytest

from proof import races, racing
from proof.run import told
from tests.proof import broken

# The workers are forked beside pytest's own threads; Python 3.12 and later warn of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

CLIENTS = int(os.environ.get("ROME_RACE_CLIENTS", "8"))
TRIES = int(os.environ.get("ROME_RACE_TRIES", "25"))
BROKEN_RUNS = 10
NOT_BY_VALIDATION = {"generated numbers", "schema changes"}


@pytest.mark.parametrize("name", races.RACES)
def test_a_race_has_no_wrong_outcome(name: str, new_url: Callable[[], str]) -> None:
    seed = random.randrange(10**9)
    outcome = racing.run(new_url(), races.RACES[name](), tries=TRIES, seed=seed, clients=CLIENTS)
    print(f"seed {seed}; {told(name, outcome)}")
    assert outcome.counts["tries"] == CLIENTS * TRIES
    assert outcome.wrong == [], f"seed {seed}"


@pytest.mark.parametrize("name", [name for name in races.RACES if name not in NOT_BY_VALIDATION])
def test_a_race_finds_a_store_that_validates_nothing(name: str, new_url: Callable[[], str]) -> None:
    connect = partial(broken.connect, broken.ValidatesNothing)
    for seed in range(BROKEN_RUNS):
        outcome = racing.run(new_url(), races.RACES[name](), tries=40, seed=seed, clients=4, open=connect)
        if outcome.wrong:
            return
    pytest.fail("nothing was found")
