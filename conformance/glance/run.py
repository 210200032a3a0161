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
import queue
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from services import database_url, redis_server  # noqa: E402

SUITES = {"db": "glance.tests.functional.db", "v2": "glance.tests.functional.v2"}
TEST_SECONDS = 300
"""A test that takes longer than this is taken for hung: its worker is ended."""

EXPECTED_FAILURES = 22
"""How many of Glance's tests fail on SQLite as well, where qemu-img and the like are missing."""
SECOND_TRIES = 8
SHOWN_PER_REASON = 10

Outcome = dict[str, Any]


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
        report_counts(suite, "sqlite", expected)
        if arguments.store == "sqlite":
            continue
        outcomes = run_suite(suite, arguments.store, workspace, build, chosen, arguments.workers)
        report_counts(suite, arguments.store, outcomes)
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


@dataclass
class Run:
    """One pass over a list of tests, shared by the threads that each drive one worker process."""

    store: str
    suite: str
    workspace: Path
    folder: Path
    redis_port: int | None
    log: Path
    waiting: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    databases: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start_worker(self) -> subprocess.Popen[str]:
        """A worker process whose functional.db tests have a database of their own."""
        with self.lock:
            self.databases += 1
            name = f"{self.suite}{self.databases}"
        connection = database_url(self.store, self.folder, name, self.redis_port)
        if self.store in ("sqlite", "memory"):
            connection = {"sqlite": "sqlite://", "memory": "rome+memory://"}[self.store]
        more = ["--redis-port", str(self.redis_port)] if self.redis_port else []
        with self.log.open("a") as errors:
            worker = subprocess.Popen(
                worker_command(self.store, self.folder, *more),
                cwd=self.workspace,
                env=environment(connection),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert worker.stdout is not None
        if worker.stdout.readline() != "ready\n":
            raise SystemExit(f"Glance's tests cannot be run:\n{self.log.read_text()[-3000:]}")
        return worker

    def drive(self) -> None:
        """Feed one worker with tests until none is left; replace it when it dies or hangs."""
        worker = None
        while True:
            try:
                name = self.waiting.get_nowait()
            except queue.Empty:
                break
            worker = worker or self.start_worker()
            outcome = ask(worker, name)
            self.outcomes[name] = outcome
            if outcome["outcome"] == "lost":
                worker.kill()
                worker.wait()
                worker = None
        if worker is not None:
            worker.communicate()


def ask(worker: subprocess.Popen[str], name: str) -> Outcome:
    assert worker.stdin is not None
    assert worker.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.write(name + "\n")
        worker.stdin.flush()
    ready, _, _ = select.select([worker.stdout], [], [], TEST_SECONDS)
    line = worker.stdout.readline() if ready else ""
    if line:
        answer: Outcome = json.loads(line)
        return answer
    detail = "its process died" if ready else f"no answer within {TEST_SECONDS} s"
    return {"test": name, "outcome": "lost", "detail": detail, "seconds": 0.0}


def run_suite(
    suite: str, store: str, workspace: Path, build: Path, names: list[str], workers: int
) -> dict[str, Outcome]:
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rome-glance-")))
        port = stack.enter_context(redis_server()) if store == "redis" else None
        log = build / f"{suite}-{store}.log"
        log.unlink(missing_ok=True)
        run = Run(store, suite, workspace, folder, port, log)
        for name in names:
            run.waiting.put(name)
        with ThreadPoolExecutor(workers) as threads:
            driving = [threads.submit(run.drive) for _ in range(min(workers, len(names)))]
            while wait(driving, timeout=0.5).not_done:
                show_progress(suite, store, run.outcomes, len(names), begun)
        for drive in driving:
            drive.result()
        show_progress(suite, store, run.outcomes, len(names), begun, last=True)
        retry(run)
    (build / f"{suite}-{store}-last.json").write_text(json.dumps(run.outcomes, indent=1))
    return {name: run.outcomes[name] for name in names}


def retry(run: Run) -> None:
    """Give the tests that failed a second try, alone: some wait for a thread of Glance's for a set time.

    Only few can fail for that reason. Where more fail than `SECOND_TRIES` beyond those that fail on
    SQLite too, nothing is tried again: it would hide an error that takes a while to show.
    """
    failed = [name for name, outcome in run.outcomes.items() if outcome["outcome"] in ("failed", "lost")]
    if len(failed) > EXPECTED_FAILURES + SECOND_TRIES:
        return
    for name in failed:
        run.waiting.put(name)
    run.drive()
    for name in failed:
        if run.outcomes[name]["outcome"] == "passed":
            print(f"  passed at the second try, alone: {name}")


shown = 0.0


def show_progress(
    suite: str, store: str, outcomes: dict[str, Outcome], total: int, begun: float, last: bool = False
) -> None:
    """On a terminal a line that is rewritten; in a log a line every 15 seconds."""
    global shown
    now = time.monotonic()
    terminal = sys.stdout.isatty()
    if not last and not terminal and now - shown < 15:
        return
    shown = now
    failed = sum(outcome["outcome"] in ("failed", "lost") for outcome in list(outcomes.values()))
    text = f"{suite} on {store}: {len(outcomes)} of {total} run, {failed} not passed [{now - begun:.0f} s]"
    print(f"\r\x1b[K{text}" if terminal else text, end="\n" if last or not terminal else "", flush=True)


def report_counts(suite: str, store: str, outcomes: dict[str, Outcome]) -> None:
    counts = Counter(outcome["outcome"] for outcome in outcomes.values())
    seconds = sum(outcome["seconds"] for outcome in outcomes.values())
    parts = ", ".join(
        f"{counts[kind]} {kind}" for kind in ("passed", "skipped", "failed", "lost") if counts[kind]
    )
    print(f"{SUITES[suite]} on {store}: {len(outcomes)} run, {parts} ({seconds:.0f} s in tests)", flush=True)


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
    by_reason: dict[str, list[str]] = {}
    for name in worse:
        lines = [line for line in outcomes[name]["detail"].splitlines() if line.strip()]
        by_reason.setdefault(lines[-1][:300] if lines else outcomes[name]["outcome"], []).append(name)
    for reason, names in sorted(by_reason.items(), key=lambda pair: -len(pair[1])):
        print(f"  {len(names)} × {reason}")
        for name in names[:SHOWN_PER_REASON]:
            print(f"      {name}")
        if len(names) > SHOWN_PER_REASON:
            print(f"      and {len(names) - SHOWN_PER_REASON} more")
    if worse:
        print(f"  whole texts: build/conformance-glance/{versions()}/{suite}-{store}-last.json")
    return len(worse)


if __name__ == "__main__":
    sys.exit(main())
