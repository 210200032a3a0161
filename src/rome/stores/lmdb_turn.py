"""Whose turn it is to write to an LMDB directory, with an end to the waiting.

LMDB has one writer at a time, and waits for it for ever: a writer that was stopped (SIGSTOP, a debugger, a
frozen container) in the middle would stop all the others, and under eventlet or gevent a whole process that
waits. So who is about to write first takes a lock that can be waited for within limits: flock(2) on the
file `write.lock`, asked for again and again. Who has it finds LMDB's own lock free, and never waits for it.
(LMDB's lock still is what keeps writers apart. An LMDB tool that does not know of `write.lock` is safe.)

The kernel gives the lock back when its holder ends, however it ends. The file is opened for each turn
and closed at its end, at which no signal handler can come between, and which no fork can inherit. All of it
costs about 10 µs; between processes that wait for each other it even is faster than LMDB's own queue,
where each turn costs the waking of a process.

While a process waits, it holds nothing that its other threads need, and sleeps: so greenlets go on.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable
from io import FileIO
from threading import Lock
from typing import Final, TypeVar

from rome.errors import StoreBusy

FILE: Final = "write.lock"

_SHORTEST: Final = 20e-6
_LONGEST: Final = 200e-6
_PATIENT: Final = 5e-3
_PATIENT_AFTER: Final = 2.0
"""Seconds between two questions: at first, after a few, and after so long a wait that hurry is no use."""

T = TypeVar("T")


class Turn:
    """The right to write, which one thread of one process has at a time.

    `threads` is held around every turn. What else needs that no thread writes may take it as well.
    """

    def __init__(self, directory: str, threads: Lock) -> None:
        self._threads = threads
        self._file = os.path.join(directory, FILE)

    def run(self, action: Callable[[], T], patience: float) -> T:
        """Run an action when it is this thread's turn.

        Raises `StoreBusy` if that was not within `patience` seconds; then the action was not run.
        """
        pause, began = _SHORTEST, time.monotonic()
        while True:
            with self._threads, FileIO(self._file, "ab") as file:
                if _locked(file):
                    return action()
                waited = time.monotonic() - began
                if waited >= patience:
                    raise StoreBusy(self._told(file, waited))
            time.sleep(random.uniform(0.5, 1.0) * pause)
            pause = min(pause * 1.5, _LONGEST) if waited < _PATIENT_AFTER else _PATIENT

    def is_free(self) -> bool:
        """Whether nobody writes or waits to, in this process or another; it may be otherwise at once."""
        if self._threads.locked():
            return False
        with FileIO(self._file, "ab") as file:
            return _locked(file)

    def _told(self, file: FileIO, waited: float) -> str:
        directory, _ = os.path.split(self._file)
        holder = _holder(file)
        return (
            f"{directory}: {f'process {holder}' if holder else 'another process'} has kept others from"
            f" writing for {waited:.1f} seconds; nothing was written. If it is stopped: continue or end it"
        )


def _locked(file: FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: FileIO) -> str:
    """The process that holds the lock, where the system tells (Linux, within one namespace of processes)."""
    found = os.fstat(file.fileno())
    name = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        with open("/proc/locks") as locks:
            for line in locks:
                words = line.split()
                if "FLOCK" in words and "->" not in words and name in words:
                    return words[4]
    except OSError:
        pass
    return ""
