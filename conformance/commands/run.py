"""The services' own commands, run as an operator runs them, with nothing but a URL in the configuration file.

    run.py --store lmdb|redis [--services nova,keystone,…] [--sample] [--keep]

Six services (Nova, Keystone, Placement, Neutron, Cinder, Glance) as they come from PyPI, each command a
process of its own, on databases that are not there before the first one. What a command is to do is asserted:
its exit status, what it says, and what is in the database afterwards (Alembic's revisions, rows that were
written, moved or deleted). In the end every database must be sound (`rome check`), and its schema must be the
one that the service's models ask for (models.py). Exit status 0: all of it is so.

The steps are in steps/, one module for each service.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy.exc

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from services import redis_server  # noqa: E402
from steps import SERVICES  # noqa: E402
from steps.workspace import Failed, Step, Workspace  # noqa: E402

LIMIT = 600
"""Seconds; a command that takes longer is taken for hung."""


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--store", required=True, choices=["sqlite", "lmdb", "redis"])
    options.add_argument("--services", default=",".join(SERVICES), help="some of these, with commas between")
    options.add_argument("--keep", action="store_true", help="keep the folder with configurations and logs")
    options.add_argument("--sample", action="store_true", help="a few commands only")
    arguments = options.parse_args()
    chosen = arguments.services.split(",")
    unknown = [name for name in chosen if name not in SERVICES]
    if unknown:
        options.error(f"unknown service {unknown[0]!r}: {', '.join(SERVICES)}")

    failed = 0
    total = 0
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rome-commands-")))
        if arguments.keep:
            folder = Path(tempfile.mkdtemp(prefix="rome-commands-kept-"))
            print(f"everything is kept in {folder}")
        port = stack.enter_context(redis_server()) if arguments.store == "redis" else None
        for name in chosen:
            workspace = Workspace(arguments.store, folder, port)
            for step in SERVICES[name](workspace):
                if arguments.sample and not step.sampled:
                    continue
                total += 1
                failed += not report(name, step, workspace)
    seconds = time.monotonic() - begun
    counts = f"{total - failed} did what they should, {failed} did not"
    print(f"{total} commands on {arguments.store}: {counts} [{seconds:.0f} s]")
    return 1 if failed else 0


def report(service: str, step: Step, workspace: Workspace) -> bool:
    """Run one command and print its line; whether it did what it is to do."""
    begun = time.monotonic()
    output = ""
    computed = cpu_of_children()
    try:
        workspace.arrange(step)
        begun = time.monotonic()
        output, status = run(step, workspace)
        seconds = time.monotonic() - begun
        result = workspace.judge(step, output, status)
        wrong = False
    except (Failed, sqlalchemy.exc.DBAPIError) as failure:
        seconds = time.monotonic() - begun
        result, wrong = str(failure).splitlines()[0], True
    cpu = cpu_of_children() - computed
    times = f"{seconds:5.1f} s ({cpu:4.1f} s CPU)"
    print(f"{'WRONG' if wrong else 'ok':5} {times}  {step.title}  → {result}", flush=True)
    if wrong:
        for line in output.strip().splitlines()[-25:]:
            print(f"        {line[:200]}")
    return not wrong


def cpu_of_children() -> float:
    """Seconds that ended child processes have computed, the one figure that other programs do not disturb."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(step: Step, workspace: Workspace) -> tuple[str, int]:
    command = [str(Path(sys.executable).parent / step.command[0]), *step.command[1:]]
    try:
        ended = subprocess.run(
            command,
            cwd=workspace.folder,
            env=workspace.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"no end within {LIMIT} s") from None
    with (workspace.folder / "output.log").open("a") as log:
        log.write(f"$ {' '.join(step.command)}\n{ended.stdout}\n")
    return ended.stdout, ended.returncode


if __name__ == "__main__":
    sys.exit(main())
