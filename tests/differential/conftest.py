"""What the differential tests share: their seed, their size, and the counts printed in the end."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

LONG_RUN = os.environ.get("ROME_FUZZ") == "long"
SEED = int(os.environ.get("ROME_SEED") or random.SystemRandom().randrange(2**32))
SHRINK = "ROME_SEED" in os.environ
"""Making a failing program small takes minutes, so it is done when a run is repeated."""
EXAMPLES = int(os.environ.get("ROME_EXAMPLES") or (1000 if LONG_RUN else 200))
"""Programs for each store."""

COUNTS: Counter[str] = Counter()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COUNTS:
        counts = ", ".join(f"{name} {count}" for name, count in COUNTS.items())
        terminalreporter.write_line(f"differential test: ROME_SEED={SEED}; {counts}")
