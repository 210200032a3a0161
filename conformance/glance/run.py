"""Glance's own functional tests on ROME, beside the same tests on SQLite.

    run.py --store memory|lmdb|redis [--tests PATTERN] [--workers N] db v2

Upstream's glance 33 runs as it was installed; see worker.py for the one thing that differs, the URL.
They look for etc/metadefs beside the package, where a checkout has it and an installation does not: a
symbolic link leads from there to the files that the wheel put under etc/glance.

Every test that passes on SQLite must pass on the store: exit status 0 says so. What SQLite gives is
kept under build/ for each version of Glance and SQLAlchemy, and measured once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "conformance")]

from driver import Outcome, Run, counted, report_worse, started  # noqa: E402
from services import database_url, redis_server  # noqa: E402

SUITES = {"db": "glance.tests.functional.db", "v2": "glance.tests.functional.v2"}
EXPECTED_FAILURES = 22
"""How many of Glance's tests fail on SQLite as well, where qemu-img and the like are missing."""
SECOND_TRIES = 8


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--store", required=True, choices=["sqlite", "memory", "lmdb", "redis"])
    options.add_argument("--tests", default="", help="only tests whose id matches this regular expression")
    options.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options.add_argument("suites", nargs="*", metavar="db|v2")
    arguments = options.parse_args()
    unknown = [suite for suite in arguments.suites if suite not in SUITES]
    if unknown:
        options.error(f"unknown suite {unknown[0]!r}: db or v2")

    build = ROOT / "build" / "conformance-glance" / versions()
    build.mkdir(parents=True, exist_ok=True)
    workspace = link_metadefs()
    tests = list_tests(workspace)
    regressions = 0
    for suite in arguments.suites or list(SUITES):
        names = [name for name in tests if name.startswith(SUITES[suite] + ".")]
        chosen = [name for name in names if re.search(arguments.tests, name)]
        expected = sqlite_outcomes(build, workspace, suite, names, chosen, arguments.workers)
        print(f"{SUITES[suite]} on sqlite: {counted(expected)}", flush=True)
        if arguments.store == "sqlite":
            continue
        outcomes = run_suite(suite, arguments.store, workspace, build, chosen, arguments.workers)
        print(f"{SUITES[suite]} on {arguments.store}: {counted(outcomes)}", flush=True)
        regressions += report_regressions(suite, arguments.store, expected, outcomes)
    return 1 if regressions else 0


def versions() -> str:
    return "-".join(
        f"{name}{importlib.metadata.version(name)}" for name in ("glance", "sqlalchemy", "oslo.db")
    )


def link_metadefs() -> Path:
    """Complete the installed package for its tests; returns the folder that they are run in."""
    site_packages = Path(str(importlib.metadata.distribution("glance").locate_file("")))
    installed = Path(sys.prefix) / "etc" / "glance"
    if not (installed / "metadefs").is_dir() or not (site_packages / "glance" / "tests" / "etc").is_dir():
        raise SystemExit(f"glance was not installed as expected: no tests/etc, or no {installed}/metadefs")
    link = site_packages / "etc"
    if not link.exists():
        link.symlink_to(installed)
    return site_packages


def environment(connection: str) -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "ignore", "OS_DATABASE__CONNECTION": connection}


def worker_command(store: str, folder: Path, *more: str) -> list[str]:
    worker = Path(__file__).with_name("worker.py")
    return [sys.executable, str(worker), "--store", store, "--folder", str(folder), *more]


def list_tests(workspace: Path) -> list[str]:
    command = worker_command("sqlite", workspace, "--list")
    found = subprocess.run(
        command,
        cwd=workspace,
        env=environment("sqlite://"),
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode != 0 or not found.stdout:
        raise SystemExit(f"Glance's tests cannot be loaded:\n{found.stderr[-3000:]}")
    return found.stdout.split()


def sqlite_outcomes(
    build: Path, workspace: Path, suite: str, names: list[str], chosen: list[str], workers: int
) -> dict[str, Outcome]:
    """How the chosen tests end on SQLite: from the last whole run, else by running all of them now."""
    record = build / f"{suite}-sqlite.json"
    if not record.exists():
        outcomes = run_suite(suite, "sqlite", workspace, build, names, workers)
        record.write_text(json.dumps(outcomes, indent=1))
    known: dict[str, Outcome] = json.loads(record.read_text())
    return {name: known[name] for name in chosen}


def start_worker(
    store: str, workspace: Path, folder: Path, name: str, redis_port: int | None, log: Path
) -> subprocess.Popen[str]:
    """A worker process whose functional.db tests have the database `name`."""
    connection = database_url(store, folder, name, redis_port)
    if store in ("sqlite", "memory"):
        connection = {"sqlite": "sqlite://", "memory": "rome+memory://"}[store]
    more = ["--redis-port", str(redis_port)] if redis_port else []
    command = worker_command(store, folder, *more)
    return started(command, workspace, environment(connection), log, "Glance's tests")


def run_suite(
    suite: str, store: str, workspace: Path, build: Path, names: list[str], workers: int
) -> dict[str, Outcome]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rome-glance-")))
        port = stack.enter_context(redis_server()) if store == "redis" else None
        log = build / f"{suite}-{store}.log"
        log.unlink(missing_ok=True)
        databases = count(1)

        def start() -> subprocess.Popen[str]:
            return start_worker(store, workspace, folder, f"{suite}{next(databases)}", port, log)

        run = Run(f"{suite} on {store}", start)
        run.run([[name] for name in names], workers)
        retry(run)
    (build / f"{suite}-{store}-last.json").write_text(json.dumps(run.outcomes, indent=1))
    return {name: run.outcomes[name] for name in names}


def retry(run: Run) -> None:
    """Give the tests that failed a second try, alone: some wait for a thread of Glance's for a set time.

    Only few can fail for that reason. Where more fail than `SECOND_TRIES` beyond those that fail on
    SQLite too, nothing is tried again: it would hide an error that takes a while to show.
    """
    failed = run.not_passed()
    if len(failed) > EXPECTED_FAILURES + SECOND_TRIES:
        return
    run.again(failed)
    for name in failed:
        if run.outcomes[name]["outcome"] == "passed":
            print(f"  passed at the second try, alone: {name}")


def report_regressions(
    suite: str, store: str, expected: dict[str, Outcome], outcomes: dict[str, Outcome]
) -> int:
    """Print each test that passes on SQLite and not here; returns how many there are."""
    worse = [
        name
        for name, outcome in outcomes.items()
        if expected[name]["outcome"] == "passed" and outcome["outcome"] != "passed"
    ]
    print(f"{SUITES[suite]}: {len(worse)} tests pass on sqlite but not on {store}", flush=True)
    report_worse(worse, outcomes)
    if worse:
        print(f"  whole texts: build/conformance-glance/{versions()}/{suite}-{store}-last.json")
    return len(worse)


if __name__ == "__main__":
    sys.exit(main())
