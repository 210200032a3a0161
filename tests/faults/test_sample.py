"""A sample of `make faults`: every fault on every store it is for, a few times, and nothing is wrong.

`ROME_FAULTS=full` makes each as often as `make faults` does; `ROME_FAULTS=3` multiplies the samples.
"""

from __future__ import annotations

import os
import random

import pytest

from faults.registry import Fault, Skipped, all_faults

# Writers are forked beside pytest's own threads; Python 3.12 and later warn of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

FAULTS = [
    pytest.param(fault, store, id=f"{fault.name}-{store}")
    for fault in all_faults().values()
    for store in fault.stores
]


def times(fault: Fault) -> int:
    wanted = os.environ.get("ROME_FAULTS", "1")
    return fault.times if wanted == "full" else fault.sample * int(wanted)


@pytest.mark.parametrize(("fault", "store"), FAULTS)
def test_nothing_acknowledged_is_lost_doubled_or_torn(fault: Fault, store: str) -> None:
    seed = random.randrange(10**9)
    try:
        report = fault.act(store, times(fault), seed)
    except Skipped as reason:
        pytest.skip(str(reason))
    told = "\n".join([f"seed {seed}", *report.lines()])
    print(told)
    assert not report.problems, told
    assert report.counts.total() > 0, told
