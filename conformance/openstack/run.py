"""The DB suites of OpenStack's services on ROME, beside the same tests on SQLite.

    run.py --service nova --store memory|lmdb|redis … [--tests PATTERN] [--tenth] [--sample N] [--workers N]

Upstream's tests run as they were installed; see worker.py for the one thing that differs, where
oslo.db builds an engine. suites.py has the table of suites. Every test that passes on SQLite must
pass on each store named: exit status 0 says so. What SQLite gives for a whole suite is kept under
build/ for each set of versions, and measured once. The ratio of the two is that of the processor time
that the tests took in the worker processes, which another load on the machine does not change as it
changes the clock's.

`--tenth` runs a random tenth of each large suite, `--sample N` only N tests of each suite, which are
taken at random as well. The seed is ROME_SEED or drawn, and printed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "conformance")]

from driver import Outcome, Run, counted, cpu_seconds, report_worse, started  # noqa: E402
from services import redis_server  # noqa: E402
from suites import SERVICES, Suite  # noqa: E402

PACKAGES = {"placement": "openstack-placement"}
SECOND_TRIES = 8
LARGE = 2000
GROUP = 40
"""Tests of one class that go to one process in a piece."""


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--service", required=True, choices=list(SERVICES))
    stores = ["sqlite", "memory", "lmdb", "redis"]
    options.add_argument("--store", required=True, nargs="+", choices=stores)
    options.add_argument("--tests", default="", help="only tests whose id matches this regular expression")
    options.add_argument("--tenth", action="store_true", help=f"a random tenth of suites above {LARGE}")
    options.add_argument("--sample", type=int, help="this many tests of each suite, taken at random")
    options.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = options.parse_args()

    build = ROOT / "build" / "conformance-openstack" / versions(arguments.service)
    build.mkdir(parents=True, exist_ok=True)
    worse = 0
    for suite in SERVICES[arguments.service]:
        tests = Suites(arguments.service, suite, build, arguments.workers)
        chosen = [name for name in tests.names if re.search(arguments.tests, name)]
        if arguments.tenth and len(chosen) > LARGE:
            chosen = some_of(chosen, len(chosen) // 10)
        if arguments.sample is not None:
            chosen = some_of(chosen, min(arguments.sample, len(chosen)))
        if not chosen:
            continue
        if len(chosen) < len(tests.names):
            tests.part = "-tenth" if arguments.tenth else "-part"
        expected = tests.on_sqlite(chosen)
        print(f"{suite.name} on sqlite: {counted(expected)}", flush=True)
        for store in arguments.store:
            if store != "sqlite":
                worse += compare(tests, suite, store, expected)
    return 1 if worse else 0


def compare(tests: Suites, suite: Suite, store: str, expected: dict[str, Outcome]) -> int:
    """Run on a store what was run on SQLite; how many tests pass there only."""
    outcomes = tests.run(store, list(expected), expected)
    print(f"{suite.name} on {store}: {counted(outcomes)}", flush=True)
    speaking = sum(outcome.get("statements", False) for outcome in outcomes.values())
    print(f"{suite.name}: {speaking} of the tests sent statements to {store}", flush=True)
    ratio = cpu_seconds(outcomes) / cpu_seconds(expected)
    print(f"{suite.name}: {ratio:.2f} times the CPU time of sqlite", flush=True)
    here = [
        name
        for name in expected
        if expected[name]["outcome"] == "passed" and outcomes[name]["outcome"] != "passed"
    ]
    for name in [name for name in here if name in suite.impossible]:
        print(f"  only possible on SQLite: {name}: {suite.impossible[name]}")
        here.remove(name)
    print(f"{suite.name}: {len(here)} tests pass on sqlite but not on {store}", flush=True)
    report_worse(here, outcomes)
    if here:
        print(f"  whole texts: {tests.record(store).relative_to(ROOT)}")
    return len(here)


def versions(service: str) -> str:
    packages = (PACKAGES.get(service, service), "sqlalchemy", "oslo.db")
    return "-".join(f"{name}{importlib.metadata.version(name)}" for name in packages)


def some_of(names: list[str], number: int) -> list[str]:
    """This many of the tests, taken at random, in their order."""
    seed = int(os.environ.get("ROME_SEED") or random.SystemRandom().randrange(2**32))
    print(f"{number} of {len(names)} tests, at random: ROME_SEED={seed}", flush=True)
    chosen = set(random.Random(seed).sample(names, number))
    return [name for name in names if name in chosen]


class Suites:
    """One suite's tests, to be run on any store."""

    def __init__(self, service: str, suite: Suite, build: Path, workers: int) -> None:
        self._service = service
        self._suite = suite
        self._build = build
        self._workers = workers
        package = PACKAGES.get(service, service)
        self._packages = Path(str(importlib.metadata.distribution(package).locate_file("")))
        self.part = ""
        """What the records of a run of less than the whole suite are told apart by."""
        self._provide_configuration()
        self.names = self._list()

    def _provide_configuration(self) -> None:
        """The services' configuration files where a checkout of the source has them, beside the package."""
        beside = self._packages / "etc"
        if not beside.exists():
            beside.symlink_to(Path(sys.prefix) / "etc")

    def record(self, store: str) -> Path:
        part = self.part if store != "sqlite" else ""
        return self._build / f"{self._suite.name}-{store}{part}.json"

    def on_sqlite(self, chosen: list[str]) -> dict[str, Outcome]:
        """How the chosen tests end on SQLite: from the last whole run, else by running them now."""
        record = self.record("sqlite")
        if not self._is_measured(record):
            if len(chosen) < len(self.names):
                return self.run("sqlite", chosen)
            # Written under another name first: a run that is broken off must not pass for a whole one.
            outcomes = self.run("sqlite", self.names)
            passed = sum(outcome["outcome"] == "passed" for outcome in outcomes.values())
            if passed < self._suite.passed_on_sqlite:
                print(f"  {self._suite.passed_on_sqlite} passed on sqlite when the table was written")
        known: dict[str, Outcome] = json.loads(record.read_text())
        return {name: known[name] for name in chosen}

    def _is_measured(self, record: Path) -> bool:
        """Whether there is a record of all tests, with their processor time."""
        if not record.exists():
            return False
        known: dict[str, Outcome] = json.loads(record.read_text())
        return all(
            name in known and ("cpu" in known[name] or known[name]["outcome"] == "lost")
            for name in self.names
        )

    def run(
        self, store: str, names: list[str], expected: dict[str, Outcome] | None = None
    ) -> dict[str, Outcome]:
        """How the tests end on a store; `expected` is how they end on SQLite."""
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rome-openstack-")))
            port = stack.enter_context(redis_server()) if store == "redis" else None
            log = self._build / f"{self._suite.name}-{store}.log"
            log.unlink(missing_ok=True)

            def start_worker() -> subprocess.Popen[str]:
                return self._start_worker(store, folder, port, log)

            begun = time.monotonic()
            run = Run(f"{self._suite.name} on {store}", start_worker)
            run.run(grouped(names), self._workers)
            # Neutron skips a test that ends in an error which it takes for bad luck.
            skipped = [
                name
                for name, outcome in (expected or {}).items()
                if outcome["outcome"] == "passed" and run.outcomes[name]["outcome"] == "skipped"
            ]
            failed = run.not_passed() + skipped
            # Some tests wait for a thread of the service's for a set time, or expect rows to be numbered
            # from 1 again after those of an earlier test were deleted: they get a second try, alone.
            # Where many fail, that is not the reason, and trying again would hide it.
            if 0 < len(failed) <= SECOND_TRIES:
                first = {name: run.outcomes[name]["detail"].strip() for name in failed}
                run.again(failed)
                for name in failed:
                    if run.outcomes[name]["outcome"] == "passed":
                        print(f"  passed at the second try, alone: {name}; the first ended so:")
                        print(textwrap.indent("\n".join(first[name].splitlines()[-12:]), "      "))
            print(f"{run.title}: {time.monotonic() - begun:.0f} s with {self._workers} processes")
        if len(names) == len(self.names) or store != "sqlite":
            unfinished = self.record(store).with_suffix(".unfinished")
            unfinished.write_text(json.dumps(run.outcomes, indent=1))
            unfinished.rename(self.record(store))
        return run.outcomes

    def _command(self, store: str, folder: Path, *more: str) -> list[str]:
        worker = Path(__file__).with_name("worker.py")
        command = [sys.executable, str(worker), "--service", self._service, "--suite", self._suite.name]
        return [*command, "--store", store, "--folder", str(folder), *more]

    def _environment(self) -> dict[str, str]:
        quiet = {"PYTHONWARNINGS": "ignore", "OS_LOG_CAPTURE": "1", "OS_STDOUT_CAPTURE": "1"}
        return {**os.environ, **quiet, "OS_STDERR_CAPTURE": "1"}

    def _list(self) -> list[str]:
        found = subprocess.run(
            self._command("sqlite", self._packages, "--list"),
            cwd=self._packages,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if found.returncode != 0 or not found.stdout:
            raise SystemExit(f"{self._suite.name} cannot be loaded:\n{found.stderr[-3000:]}")
        names: list[str] = json.loads(found.stdout.splitlines()[-1])
        return names

    def _start_worker(self, store: str, folder: Path, port: int | None, log: Path) -> subprocess.Popen[str]:
        more = ["--redis-port", str(port)] if port else []
        command = self._command(store, folder, *more)
        return started(command, self._packages, self._environment(), log, self._suite.name)


def grouped(names: list[str]) -> list[list[str]]:
    """The tests of a class together, in pieces: what a class sets up once is used again."""
    groups = []
    for _, same in groupby(names, key=lambda name: name.split("(")[0].rpartition(".")[0]):
        tests = list(same)
        groups += [tests[at : at + GROUP] for at in range(0, len(tests), GROUP)]
    return groups


if __name__ == "__main__":
    sys.exit(main())
