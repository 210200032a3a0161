"""Children forked for one task, whose answer comes back through a pipe; those that hang are ended."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from faults.registry import Report
from faults.threads import run_all


class Child(NamedTuple):
    pid: int
    pipe: int


def forked(task: Callable[[], Any]) -> Child:
    """Fork a child that does the task."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        return Child(pid, ours)
    code = 1
    try:
        os.close(ours)
        with os.fdopen(theirs, "wb") as pipe:
            pickle.dump(task(), pipe)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def answer_of(child: Child, patience: float, report: Report) -> Any:
    """What the task gave, once the child has ended; None, and a problem, if it hangs or fails."""
    answers: list[bytes] = []

    def read() -> None:
        with os.fdopen(child.pipe, "rb") as file:
            answers.append(file.read())

    if run_all([read], patience):
        os.kill(child.pid, signal.SIGKILL)
        report.problems.append(f"child {child.pid} hangs")
    code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    if not report.require(code == 0, f"child {child.pid} ended with {code}"):
        return None
    return pickle.loads(answers[0])
