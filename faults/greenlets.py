"""eventlet and gevent, with everything patched: fifty greenlets on one engine, in processes of their own.

Greenlets take turns where one of them waits: for a socket, a sleep, a lock that is patched. So with
Redis they interleave inside of statements and of COMMIT; with LMDB and memory between them, and while a
writer waits for another process. Three things can go wrong, and are looked for:

    a lock that is held while another greenlet has its turn    the process hangs, and is ended by its time-out
    a wait that does not let the others go on                  a ticking greenlet notices the gap
    an exception thrown into a greenlet that waits             something is left half done (killed greenlets)

The program that patches does so before it imports anything else, as such programs do; `patched late` is
the one that has ROME imported already. With oslo.db the work goes through its enginefacade, as nova's does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from typing import Final

from faults.databases import database, problems_of
from faults.registry import Report, Skipped, fault

PATIENCE: Final = 240.0
LONGEST_GAP: Final = 5.0
"""Seconds between two ticks. A write to a slow disk stops all greenlets, but not for that long."""

_EVENTLET: Final = "import eventlet; eventlet.monkey_patch()"
_GEVENT: Final = "from gevent import monkey; monkey.patch_all()"
_LATE: Final = "import rome, sqlalchemy, faults.bank"
PROGRAMS: Final = {
    "eventlet": _EVENTLET,
    "eventlet patched late": f"{_LATE}; {_EVENTLET}",
    "gevent": _GEVENT,
    "gevent patched late": f"{_LATE}; {_GEVENT}",
}


@fault(stores=("memory", "lmdb", "redis"), times=20, sample=1)
def greenlets_of_eventlet(store: str, times: int, seed: int) -> Report:
    """Fifty greenlets of eventlet on one engine, some of them killed: every answer is judged, none hangs."""
    return _run("eventlet", ("eventlet", "eventlet patched late"), store, times, seed)


@fault(stores=("memory", "lmdb", "redis"), times=20, sample=1)
def greenlets_of_gevent(store: str, times: int, seed: int) -> Report:
    """Fifty greenlets of gevent on one engine, some of them killed: every answer is judged, none hangs."""
    return _run("gevent", ("gevent", "gevent patched late"), store, times, seed)


@fault(stores=("memory", "lmdb", "redis"), times=20, sample=1)
def greenlets_with_oslo_db(store: str, times: int, seed: int) -> Report:
    """oslo.db's enginefacade under eventlet, as nova used it: fifty greenlets, every answer is judged."""
    return _run("eventlet", ("eventlet",), store, times, seed, facade=True)


def _run(
    library: str, programs: tuple[str, ...], store: str, times: int, seed: int, facade: bool = False
) -> Report:
    if find_spec(library) is None:
        raise Skipped(f"{library} is not installed")
    report = Report()
    # A sample has one of the programs: a patched process is slow to start.
    for program in programs if times > 1 else programs[seed % len(programs) :][:1]:
        with database(store) as made:
            _one_program(report, program, [made.url, str(times), str(seed), str(int(facade))])
            if store != "memory":
                report.problems += problems_of(made.url)
    return report


def _one_program(report: Report, program: str, arguments: list[str]) -> None:
    library = program.split()[0]
    code = (
        f"{PROGRAMS[program]}\nfrom faults import greenlet_program as p; p.main({library!r}, {arguments!r})"
    )
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        output, errors = child.communicate(timeout=PATIENCE + int(arguments[1]))
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGABRT)  # SIGABRT: faulthandler says where it hangs
        _, errors = child.communicate()
        report.problems.append(f"{program}: it hangs:\n{errors[-3000:]}")
        return
    try:
        answer = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        report.problems.append(f"{program}: it ended with {child.returncode}: {errors[-3000:]}")
        return
    report.counts.update(answer["counts"])
    report.problems += [f"{program}: {problem}" for problem in answer["problems"]]
    report.notes.append(f"{program}: the longest time without a turn was {answer['gap']:.2f} s")
    report.require(answer["gap"] < LONGEST_GAP, f"{program}: nobody had a turn for {answer['gap']:.1f} s")
