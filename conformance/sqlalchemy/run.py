"""SQLAlchemy's dialect compliance suite, and Alembic's, on ROME and on stock SQLite beside it.

    run.py --store sqlite|memory|lmdb|redis --sqlalchemy 1.4|2.0|2.1 [--keyword EXPRESSION]

Exit status 0 says: nothing fails that passes on `sqlite://`, and every test that is skipped on the
store alone is skipped for a feature that requirements.py lists as unsupported, with its reason.
Each version of SQLAlchemy is tested by its own version of the suite, in its own environment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from services import database_url, redis_server  # noqa: E402

ENVIRONMENTS = {"1.4": ".venv-sa14", "2.0": ".venv-sa20", "2.1": ".venv-sa21"}
SUITES = {"test_suite.py": "SQLAlchemy's suite", "test_alembic.py": "Alembic's suite"}

SHOWN_PER_ERROR = 10

Results = dict[str, dict[str, str]]


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--store", required=True, choices=["sqlite", "memory", "lmdb", "redis"])
    options.add_argument("--sqlalchemy", default="2.0", choices=list(ENVIRONMENTS))
    options.add_argument("--keyword", help="only tests that match this expression of pytest's -k")
    arguments = options.parse_args()
    python = ROOT / ENVIRONMENTS[arguments.sqlalchemy] / "bin" / "python"
    build = ROOT / "build" / "conformance-sqlalchemy" / arguments.sqlalchemy
    build.mkdir(parents=True, exist_ok=True)

    problems = 0
    for file, title in SUITES.items():
        title = f"{title} (SQLAlchemy {version(python)})"
        sqlite = run_suite(python, build, file, "sqlite", arguments.keyword)
        report_counts(title, "sqlite", sqlite)
        if arguments.store == "sqlite":
            report_failures(sqlite, list_failed(sqlite))
            problems += len(list_failed(sqlite))
            continue
        results = run_suite(python, build, file, arguments.store, arguments.keyword)
        report_counts(title, arguments.store, results)
        problems += compare(arguments.store, sqlite, results)
    return 1 if problems else 0


def version(python: Path) -> str:
    asked = [python, "-c", "import sqlalchemy; print(sqlalchemy.__version__)"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def run_suite(python: Path, build: Path, file: str, store: str, keyword: str | None) -> Results:
    """Run one suite on one store in a folder of its own; returns test → outcome and reason."""
    record = build / f"{file}-{store}.json"
    record.unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rome-suite-")))
        port = stack.enter_context(redis_server()) if store == "redis" else None
        # Like stock SQLite, the suites run without enforcing foreign keys.
        url = (
            "sqlite://"
            if store == "sqlite"
            else database_url(store, folder, "suite", port) + "?foreign_keys=off"
        )
        shutil.copy(HERE / "setup.cfg", folder)  # SQLAlchemy 1.4 looks for it where it runs
        command = [str(python), "-m", "pytest", "-p", "hooks", str(HERE / file), "--dburi", url]
        command += ["-c", str(HERE / "setup.cfg"), "--rootdir", str(HERE)]
        command += ["-k", keyword] if keyword else []
        print(f"{file} on {store}: {url}", flush=True)
        log = build / f"{file}-{store}.log"
        with log.open("w") as output:
            subprocess.run(
                command,
                cwd=folder,
                env=environment(store, record),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
    if not record.exists():
        raise SystemExit(f"the suite did not run:\n{log.read_text()[-3000:]}")
    results: Results = json.loads(record.read_text())
    return results


def environment(store: str, record: Path) -> dict[str, str]:
    """What hooks.py is told; and where Python finds it, before anything that is set already."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "ROME_STORE": store, "ROME_RESULTS": str(record)}


def list_failed(results: Results) -> list[str]:
    return [name for name, result in results.items() if result["outcome"] == "failed"]


def report_counts(title: str, store: str, results: Results) -> None:
    counts = Counter(result["outcome"] for result in results.values())
    parts = f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
    print(f"{title} on {store}: {len(results)} run, {parts}", flush=True)


def report_failures(results: Results, names: list[str]) -> None:
    """Print the failed tests by the error they failed with, the most frequent first."""
    by_error: dict[str, list[str]] = {}
    for name in names:
        lines = [line for line in results[name]["detail"].splitlines() if line.strip()]
        by_error.setdefault(last_error(lines)[:200], []).append(name)
    for error, tests in sorted(by_error.items(), key=lambda pair: -len(pair[1])):
        print(f"    {len(tests)} × {error}")
        for name in tests[:SHOWN_PER_ERROR]:
            print(f"        {name}")
        if len(tests) > SHOWN_PER_ERROR:
            print(f"        and {len(tests) - SHOWN_PER_ERROR} more")


def last_error(lines: list[str]) -> str:
    """The line of a traceback that names the error; what follows it is only detail."""
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Warning|Exit)\b", line)]
    return (named or lines or [""])[-1]


def compare(store: str, sqlite: Results, results: Results) -> int:
    """Print what is worse on the store than on SQLite; returns how many tests are."""
    failed = list_failed(results)
    on_both = [name for name in failed if sqlite.get(name, {}).get("outcome") == "failed"]
    only_here = [name for name in failed if name not in on_both]
    if on_both:
        print(f"  {len(on_both)} fail on sqlite too: {', '.join(on_both)}")
    print(f"  {len(only_here)} fail on {store} and not on sqlite")
    report_failures(results, only_here)

    declared: Counter[str] = Counter()
    undeclared: list[str] = []
    for name, result in results.items():
        if result["outcome"] == "skipped" and sqlite.get(name, {}).get("outcome") != "skipped":
            reason = re.search(r"\brome: .*", result["detail"])
            if reason:
                declared[reason.group()] += 1
            else:
                undeclared.append(f"{name}: {result['detail'][-160:]}")
    fewer = sum(
        result["outcome"] == "skipped" and results.get(name, {}).get("outcome") == "passed"
        for name, result in sqlite.items()
    )
    print(f"  {fewer} pass on {store} and are skipped on sqlite")
    print(f"  {sum(declared.values())} skipped on {store} and not on sqlite, for a declared reason")
    for text, count in declared.most_common():
        print(f"    {count:4} {text}")
    print(f"  {len(undeclared)} skipped on {store} and not on sqlite, undeclared")
    for line in undeclared:
        print(f"    {line}")
    return len(only_here) + len(undeclared)


if __name__ == "__main__":
    sys.exit(main())
