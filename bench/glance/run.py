"""ROME beside SQLite and MariaDB: the operations of Glance's database API, side by side.

    run.py [--rounds N] [--images N] [--backends sqlite,memory,lmdb,redis,mariadb] [--markdown FILE]

Every back end lives in a process of its own (operations.py), on the same images; Redis and MariaDB
are started for the run, on loopback, MariaDB with its default settings (a commit is fsynced), Redis
with an append-only file that is fsynced every second. The rounds are interleaved: each operation runs
a few times on one back end, then on the next, so that whatever else the machine does falls on all of
them alike. Printed are medians in milliseconds, and as ratios to SQLite in memory and to MariaDB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from services import database_url, mariadb_server, redis_server, stop  # noqa: E402

TITLES = {
    "image_get": "image get",
    "tags_read": "tags read",
    "list_25": "list of 25 with a marker",
    "image_create": "image create",
    "image_update": "image update",
    "member_create": "member create",
    "tags_set": "tags set",
    "tags_replace": "tags replace",
    "image_destroy": "image destroy",
    "namespace_create": "metadef namespace create",
    "namespace_get": "metadef namespace get",
    "namespace_list": "metadef namespace list",
}
BACKENDS = ["sqlite", "memory", "lmdb", "redis", "mariadb"]
TIMES = 4
"""How often an operation runs on one back end before the next one's turn."""

Medians = dict[str, dict[str, float]]
"""Operation → back end → median, in milliseconds."""


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--images", type=int, default=300)
    options.add_argument("--backends", default=",".join(BACKENDS))
    options.add_argument("--markdown", type=Path, default=ROOT / "build" / "bench-glance.md")
    arguments = options.parse_args()
    backends = arguments.backends.split(",")

    with contextlib.ExitStack() as stack:
        urls = start_backends(backends, stack)
        workers = {name: start_worker(name, url, arguments.images, stack) for name, url in urls.items()}
        for name, worker in workers.items():
            begun = time.monotonic()
            answer(worker)
            print(f"{name}: {arguments.images} images [{time.monotonic() - begun:.0f} s]", flush=True)
        medians = measure(workers, arguments.rounds)

    count = arguments.rounds * TIMES
    print(table(medians, backends, markdown=False))
    arguments.markdown.parent.mkdir(parents=True, exist_ok=True)
    arguments.markdown.write_text(
        f"`make bench-glance`: medians of {count} runs in milliseconds (Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, {arguments.images} images)\n\n" + table(medians, backends, markdown=True)
    )
    print(f"medians of {count} runs, in milliseconds; as Markdown in {arguments.markdown}")
    return 0


def start_backends(backends: list[str], stack: contextlib.ExitStack) -> dict[str, str]:
    """The URL of each back end, its server started where it has one."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rome-bench-")))
    urls: dict[str, str] = {}
    for name in backends:
        if name == "mariadb":
            urls[name] = stack.enter_context(mariadb_server())
        elif name == "sqlite":
            urls[name] = "sqlite://"
        else:
            port = stack.enter_context(redis_server()) if name == "redis" else None
            urls[name] = database_url(name, folder, "bench", port)
    return urls


def start_worker(name: str, url: str, images: int, stack: contextlib.ExitStack) -> subprocess.Popen[str]:
    log = ROOT / "build" / f"bench-glance-{name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as errors:
        worker = subprocess.Popen(
            [sys.executable, str(HERE / "operations.py"), url, "--images", str(images)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            start_new_session=True,
        )
    stack.callback(stop, worker)
    return worker


def answer(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise SystemExit("a back end's process ended; see build/bench-glance-*.log")
    return line


def measure(workers: dict[str, subprocess.Popen[str]], rounds: int) -> Medians:
    seconds: dict[str, dict[str, list[float]]] = {name: {} for name in TITLES}
    for turn in range(-1, rounds):
        for operation in TITLES:
            for name, worker in workers.items():
                assert worker.stdin is not None
                worker.stdin.write(f"{operation} {TIMES}\n")
                worker.stdin.flush()
                taken = json.loads(answer(worker))["seconds"]
                if turn >= 0:  # the first round only warms up
                    seconds[operation].setdefault(name, []).extend(taken)
        progress = f"round {turn + 1} of {rounds}"
        print(f"\r{progress}" if sys.stdout.isatty() else progress, end="", flush=True)
        print(end="" if sys.stdout.isatty() else "\n")
    print()
    return {
        operation: {name: statistics.median(values) * 1000 for name, values in by_backend.items()}
        for operation, by_backend in seconds.items()
    }


def table(medians: Medians, backends: list[str], *, markdown: bool) -> str:
    """One row for each operation: milliseconds, then ratios to SQLite and to MariaDB."""
    head = ["operation", *backends]
    bases = [base for base in ("sqlite", "mariadb") if base in backends]
    ratios = [(name, base) for base in bases for name in backends if name not in ("sqlite", "mariadb")]
    head += [f"{name}/{base}" for name, base in ratios]
    rows = [
        [TITLES[operation]]
        + [f"{by_backend[name]:.2f}" for name in backends]
        + [f"{by_backend[name] / by_backend[base]:.2f}" for name, base in ratios]
        for operation, by_backend in medians.items()
    ]
    if markdown:
        rule = ["---", *("---:" for _ in head[1:])]
        return "".join("| " + " | ".join(row) + " |\n" for row in (head, rule, *rows))
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        row[0].ljust(widths[0])
        + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in (head, *rows)
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
