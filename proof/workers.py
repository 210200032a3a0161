"""Many at once: one call in each of several processes (threads, for a store that lives in one process).

All of them begin at the same moment. What they return comes back in order; what one of them raises
is raised here. Processes are forked: that ROME works after a fork is part of what is tried.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")

_START_SECONDS = 0.3
_TURN_SECONDS = 0.0002


def lives_in_one_process(url: str) -> bool:
    return url.removeprefix("rome+").startswith("memory:")


def run(url: str, workers: int, work: Callable[[int, float], Result]) -> list[Result]:
    """`work(worker, begin)` in each worker; `begin` is when all of them go, on time.monotonic's clock.

    `work` must be picklable (a function of a module, or functools.partial of one).
    """
    begin = time.monotonic() + _START_SECONDS
    with _executor(url, workers) as executor, _quick_turns():
        futures = [executor.submit(_at, begin, work, worker) for worker in range(workers)]
        return [future.result() for future in futures]


def _executor(url: str, workers: int) -> Executor:
    if lives_in_one_process(url):
        return ThreadPoolExecutor(workers)
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))


@contextmanager
def _quick_turns() -> Iterator[None]:
    """Let threads take turns in the midst of transactions, which are shorter than Python's usual turn."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def _at(begin: float, work: Callable[[int, float], Result], worker: int) -> Result:
    time.sleep(max(0.0, begin - time.monotonic()))
    return work(worker, begin)
