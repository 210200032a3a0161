"""Prints, as the rows of a table in Markdown, what the last whole runs under build/ gave.

    .venv-openstack/bin/python conformance/openstack/table.py

Each line is one suite on one store beside the same tests on SQLite. The ratio is that of the processor
time in the workers over the tests that were run on both.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from suites import SERVICES, Suite

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "conformance")]

from driver import Outcome, cpu_seconds  # noqa: E402

RECORDS = ROOT / "build" / "conformance-openstack"
COLUMNS = ("suite", "store", "on sqlite", "run", "passed", "failed", "skipped", "fail here only", "CPU time")


def main() -> None:
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for suites in SERVICES.values():
        for suite in suites:
            for folder in sorted(RECORDS.iterdir()):
                print_rows(suite, folder)


def print_rows(suite: Suite, folder: Path) -> None:
    for store in ("memory", "lmdb", "redis"):
        for part in ("", "-tenth"):
            record, beside = (folder / f"{suite.name}-{name}.json" for name in (store + part, "sqlite"))
            if record.exists() and beside.exists():
                print(
                    row(suite, store + part, json.loads(record.read_text()), json.loads(beside.read_text()))
                )


def row(suite: Suite, store: str, found: dict[str, Outcome], all_on_sqlite: dict[str, Outcome]) -> str:
    on_sqlite = {name: all_on_sqlite[name] for name in found if name in all_on_sqlite}
    counts = Counter(outcome["outcome"] for outcome in found.values())
    worse = sum(
        outcome["outcome"] != "passed"
        for name, outcome in found.items()
        if name in on_sqlite and on_sqlite[name]["outcome"] == "passed" and name not in suite.impossible
    )
    there = Counter(outcome["outcome"] for outcome in on_sqlite.values())
    beside = ", ".join(
        f"{there[kind]} {kind}" for kind in ("passed", "failed", "lost", "skipped") if there[kind]
    )
    cpu = cpu_seconds(on_sqlite)
    ratio = f"{cpu_seconds(found) / cpu:.2f}" if cpu and cpu_seconds(found) else "not measured"
    failed = counts["failed"] + counts["lost"]
    cells = (suite.name, store, beside, len(found), counts["passed"], failed, counts["skipped"], worse, ratio)
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
