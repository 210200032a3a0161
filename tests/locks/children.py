"""Other processes for the tests of locks: small programs that say what they see, and can be stopped.

    child = Child(url, "with rome.lock(engine, 'a') as lock: say(lock.fencing); hear()")
    fencing = int(child.said())
    child.signal(signal.SIGSTOP)

A program finds `engine` (on the URL), `say`, which writes a line, and `hear`, which waits for one.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from textwrap import dedent

SECONDS = 60.0
"""For what must happen at some time; never reached unless something is broken."""

PRELUDE = """
import os, signal, sys, time
import rome
from sqlalchemy import text
from sqlalchemy.orm import Session
engine = rome.create_engine(sys.argv[1])
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def hear():
    return sys.stdin.readline().strip()
"""


class Child:
    """A process that runs a program."""

    def __init__(self, url: str, program: str, first: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", first + PRELUDE + dedent(program), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.pid = self._process.pid

    def said(self, seconds: float = SECONDS) -> str:
        """The next line that it says."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        assert ready, "the child says nothing"
        return self._process.stdout.readline().decode().strip()

    def tell(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        return self._process.wait(SECONDS)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def until(condition: Callable[[], object], seconds: float = SECONDS) -> float:
    """Wait until something is so; the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "this did not come about"
        time.sleep(0.005)
    return time.monotonic() - begun
