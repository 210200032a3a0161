"""What is shown while the cloud is made and used: each step with its time, and why one is wrong.

A step is a block. It is printed when it ends; on a terminal a clock runs meanwhile. A check inside it
raises `Wrong`, which ends the run: nothing is counted as right that was not looked at.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

Value = TypeVar("Value")

PATIENCE = 300.0
"""Seconds. Long: on few cores a cloud is slow, but not wrong."""
_PAUSE = 0.5


class Wrong(Exception):
    """Something is not as it must be; the text says what."""


def fail(text: str) -> NoReturn:
    raise Wrong(text)


def equal(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        fail(f"{what} is {found!r} instead of {wanted!r}")


def that(what: str, holds: object) -> None:
    """`what` is said as it should be."""
    if not holds:
        fail(f"not so: {what}")


def wait_for(what: str, ask: Callable[[], Value | None], seconds: float = PATIENCE) -> Value:
    """Ask until there is an answer that is true; returns it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            fail(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(_PAUSE)


@contextlib.contextmanager
def step(title: str) -> Iterator[Callable[[str], None]]:
    """Print a step with its time. Yields a function that sets a remark to be printed after it."""
    begun = time.monotonic()
    ended = threading.Event()
    remarks: list[str] = []

    def tick() -> None:
        while not ended.wait(0.2):
            now = f" {remarks[-1]}" if remarks else ""
            print(f"\r\x1b[K  ... {title}{now} [{time.monotonic() - begun:.0f} s]", end="", flush=True)

    clock = threading.Thread(target=tick, daemon=True)
    if sys.stdout.isatty():
        clock.start()
    outcome = "FAILED"
    try:
        yield remarks.append
        outcome = "ok"
    finally:
        ended.set()
        if clock.ident is not None:
            clock.join()
            print("\r\x1b[K", end="")
        remark = f": {remarks[-1]}" if remarks else ""
        print(f"  {outcome:6} {title}{remark} ({took(time.monotonic() - begun)})", flush=True)


def took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
