"""What SQLite needs of a process that forks: that no thread is inside of it, and new random numbers.

SQLite has a few locks for the whole process (of its memory, of its random numbers). A thread that holds one
while another thread forks does not exist in the child, and the lock is held there for ever: the child would
hang at its first statement. So whoever uses SQLite is noted in `users` meanwhile, and forking waits for
those who are, and lets nobody in meanwhile. It does not wait for long: who is inside for longer than
PATIENCE waits for the network, or computes, and most probably holds no such lock.

SQLite draws its random numbers from a generator that is seeded once in a process. Children would all draw the
same ones (`randomblob(16)` as a key, say), so a child seeds it anew at its first use. (SQLite itself
does so when it opens a file, which ROME never lets it do.)
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

import apsw

PATIENCE: Final = 1.0
"""Seconds that forking waits at most."""

_PAUSE: Final = 0.0005
_ONE: Final = (None,)

users: list[None] = []
"""An element for each thread inside. Single instructions change it, which threads and signals leave whole:
who leaves says `del users[-1:]`."""
_under_way = False
_same_seed = False


def enter() -> None:
    """Begin to use SQLite; waits while another thread forks. Doing so twice is fine."""
    global users
    while True:
        users += _ONE
        if not _under_way:
            break
        del users[-1:]
        time.sleep(_PAUSE)
    if _same_seed:
        _seed()


class Inside:
    """To be inside for a while."""

    def __enter__(self) -> None:
        enter()

    def __exit__(self, *ignored: Any) -> None:
        del users[-1:]


inside: Final = Inside()


def _seed() -> None:
    """Let the child of a fork have random numbers of its own."""
    global _same_seed
    _same_seed = False
    apsw.randomness(0)


def _before() -> None:
    global _under_way
    _under_way = True
    end = time.monotonic() + PATIENCE
    while users and time.monotonic() < end:
        time.sleep(_PAUSE)


def _in_parent() -> None:
    global _under_way
    _under_way = False


def _in_child() -> None:
    global _under_way, _same_seed
    users.clear()
    _under_way, _same_seed = False, True


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
