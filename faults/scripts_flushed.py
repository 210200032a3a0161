"""The server's script cache is emptied under load (SCRIPT FLUSH): nobody may notice.

A script that the server has forgotten is sent again with its text. For COMMIT that must not mean a second
commit: the server has refused the first before it did anything.
"""

from __future__ import annotations

import random
import time
from typing import Final

from faults import ledger
from faults.databases import database, problems_of
from faults.registry import Report, fault
from faults.writers import writing

WRITERS: Final = 4
PATIENCE: Final = 10.0


@fault(stores=("redis",), times=300, sample=20)
def scripts_flushed(store: str, times: int, seed: int) -> Report:
    """The script cache is flushed under load (SCRIPT FLUSH): nobody notices."""
    report = Report()
    chance = random.Random(seed)
    with database(store) as made:
        ledger.prepare(made.url, range(WRITERS))
        with writing(made.url, WRITERS) as crew:
            for _ in range(times):
                time.sleep(chance.uniform(0, 0.05))
                report.require(made.redis.command("SCRIPT", "FLUSH") == "OK", "SCRIPT FLUSH was refused")
                report.counts["flushed"] += 1
            report.require(crew.goes_on(PATIENCE) is not None, "a writer has stopped")
        report.counts += ledger.counts_of(crew.all_told)
        report.problems += [f"{one.token}: {one.error}" for one in crew.all_told if one.error]
        report.problems += ledger.differences(made.url, crew.all_told)
        report.problems += problems_of(made.url)
    return report
