"""Runs tests in worker processes: hands out ids, takes results, replaces a worker that dies or hangs.

A worker reads the id of a test from its standard input and answers with one line of JSON on its
standard output:

    {"test": id, "outcome": "passed" | "failed" | "skipped", "detail": text, "seconds": float, "cpu": float}

`cpu` is the processor time that the worker itself took for it, user's and system's; it may be left out.

What is run, and on which database, is the caller's business: it gives a function that starts a worker.
"""

from __future__ import annotations

import contextlib
import json
import queue
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Outcome = dict[str, Any]

TEST_SECONDS = 300
"""A test that takes longer than this is taken for hung: its worker is ended."""
SHOWN_PER_REASON = 10
WORSE = ("failed", "lost")


@dataclass
class Run:
    """One pass over a list of tests, shared by the threads that each drive one worker process."""

    title: str
    start_worker: Callable[[], subprocess.Popen[str]]
    waiting: queue.SimpleQueue[list[str]] = field(default_factory=queue.SimpleQueue)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def run(self, groups: Sequence[list[str]], workers: int) -> None:
        """Run every test; those of one group one after the other in the same process."""
        total = sum(map(len, groups))
        progress = Progress(self.title, total)
        for group in groups:
            self.waiting.put(group)
        with ThreadPoolExecutor(workers) as threads:
            driving = [threads.submit(self.drive) for _ in range(min(workers, len(groups)))]
            while wait(driving, timeout=0.5).not_done:
                progress.show(self.outcomes)
        for drive in driving:
            drive.result()
        progress.show(self.outcomes, last=True)

    def again(self, names: list[str]) -> None:
        """Give tests another try, one at a time, in a process of their own."""
        for name in names:
            self.waiting.put([name])
        self.drive()

    def drive(self) -> None:
        """Feed one worker with tests until none is left; replace it when it dies or hangs."""
        worker = None
        while True:
            try:
                group = self.waiting.get_nowait()
            except queue.Empty:
                break
            for name in group:
                worker = worker or self.start_worker()
                outcome = ask(worker, name)
                self.outcomes[name] = outcome
                if outcome["outcome"] == "lost":
                    worker.kill()
                    worker.wait()
                    worker = None
        if worker is not None:
            worker.communicate()

    def not_passed(self) -> list[str]:
        return [name for name, outcome in self.outcomes.items() if outcome["outcome"] in WORSE]


def started(
    command: list[str], folder: Path, environment: dict[str, str], log: Path, title: str
) -> subprocess.Popen[str]:
    """A worker that has said that it is ready; what it prints as errors goes to the log."""
    with log.open("a") as errors:
        worker = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert worker.stdout is not None
    if worker.stdout.readline() != "ready\n":
        raise SystemExit(f"{title} cannot be run:\n{log.read_text()[-3000:]}")
    return worker


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


class Progress:
    """On a terminal a line that is rewritten; in a log a line every 15 seconds."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._begun = time.monotonic()
        self._shown = 0.0

    def show(self, outcomes: dict[str, Outcome], last: bool = False) -> None:
        now = time.monotonic()
        terminal = sys.stdout.isatty()
        if not last and not terminal and now - self._shown < 15:
            return
        self._shown = now
        failed = sum(outcome["outcome"] in WORSE for outcome in list(outcomes.values()))
        text = (
            f"{self._title}: {len(outcomes)} of {self._total} run, {failed} not passed"
            f" [{now - self._begun:.0f} s]"
        )
        print(f"\r\x1b[K{text}" if terminal else text, end="\n" if last or not terminal else "", flush=True)


def counted(outcomes: dict[str, Outcome]) -> str:
    """The counts of a run in words: `12 run, 11 passed, 1 failed (3 s in tests, 2 s of CPU)`."""
    counts = Counter(outcome["outcome"] for outcome in outcomes.values())
    seconds = sum(outcome["seconds"] for outcome in outcomes.values())
    kinds = [f"{counts[kind]} {kind}" for kind in ("passed", "skipped", *WORSE) if counts[kind]]
    cpu = f", {cpu_seconds(outcomes):.0f} s of CPU" if any("cpu" in o for o in outcomes.values()) else ""
    return f"{len(outcomes)} run, {', '.join(kinds)} ({seconds:.0f} s in tests{cpu})"


def cpu_seconds(outcomes: dict[str, Outcome]) -> float:
    return sum(outcome.get("cpu", 0.0) for outcome in outcomes.values())


def report_worse(names: Sequence[str], outcomes: dict[str, Outcome]) -> None:
    """Print the tests that should have passed, grouped by the last line of what they said."""
    by_reason: dict[str, list[str]] = {}
    for name in names:
        lines = [line for line in outcomes[name]["detail"].splitlines() if line.strip()]
        by_reason.setdefault(lines[-1][:300] if lines else outcomes[name]["outcome"], []).append(name)
    for reason, group in sorted(by_reason.items(), key=lambda pair: -len(pair[1])):
        print(f"  {len(group)} × {reason}")
        for name in group[:SHOWN_PER_REASON]:
            print(f"      {name}")
        if len(group) > SHOWN_PER_REASON:
            print(f"      and {len(group) - SHOWN_PER_REASON} more")
