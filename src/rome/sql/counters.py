"""What became of transactions: counted in each process, and added up in the database.

A process counts on one open store (`Tally`). An operator wants the sum over all processes, those that
have ended included, so what was counted is also added to counters of the database. Telling it costs nothing:

    a COMMIT that writes   takes along what was not told yet, itself included; at most once a second
    the end of a process   tells the rest where that cannot make it wait (`Store.add_in_passing`)

Counters are added to blindly, so they are in nobody's way. They are late by up to a second of writing; what a
process counted since then is lost with it if it is killed, and what travels with a COMMIT whose
answer is lost may be counted or not. They are for operators, and nothing depends on them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from dataclasses import asdict, dataclass, fields
from threading import Lock
from typing import Final
from weakref import WeakSet

from rome.records.keys import statistic_key
from rome.stores.base import Store

INTERVAL: Final = 1.0
"""Seconds that lie at least between two tellings of one process."""


@dataclass(slots=True)
class Counters:
    """What became of transactions."""

    commits: int = 0
    """Commits that wrote."""
    conflicts: int = 0
    """Times that others turned out to have changed what was read: at COMMIT, or at a later read."""
    extensions: int = 0
    """Times a transaction went on, or was committed, past what others had committed since its snapshot."""
    replays: int = 0
    """Runs of a transaction beyond its first."""
    raised: int = 0
    """Conflicts that reached the program."""


NAMES: Final = tuple(field.name for field in fields(Counters))
KEYS: Final = {name: statistic_key(name) for name in NAMES}
"""Each counter's key in the database."""


class Tally:
    """Counts what happens on one store, and knows what the database has not been told. Safe for threads."""

    def __init__(self, store: Store) -> None:
        self.counters = Counters()
        self._store = store
        self._told = dict.fromkeys(NAMES, 0)
        self._next = 0.0
        self._lock = Lock()
        _tallies.add(self)

    def count(self, name: str, amount: int = 1) -> None:
        with self._lock:
            setattr(self.counters, name, getattr(self.counters, name) + amount)

    def due(self) -> dict[bytes, int]:
        """What the COMMIT that is about to be made should take along, itself counted; mostly nothing."""
        if time.monotonic() < self._next:
            return {}
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return {}
            self._next = now + INTERVAL
            return self._draw(commits=1)

    def take_back(self, untold: dict[bytes, int]) -> None:
        """That COMMIT was not made: what it took along is not told."""
        if untold:
            with self._lock:
                self._next = 0.0
                for name in NAMES:
                    self._told[name] -= untold.get(KEYS[name], 0)

    def farewell(self) -> None:
        """The process ends: tell the rest, or let it be."""
        with self._lock:
            rest = self._draw()
        if rest:
            # Whatever is the matter with the store, it is not the matter of a program that ends.
            with contextlib.suppress(Exception):
                self._store.add_in_passing(rest)

    def _draw(self, commits: int = 0) -> dict[bytes, int]:
        counted = asdict(self.counters)
        counted["commits"] += commits
        drawn = {KEYS[name]: counted[name] - self._told[name] for name in NAMES}
        self._told = counted
        return {key: amount for key, amount in drawn.items() if amount > 0}

    def forked(self) -> None:
        """In the child: what was counted so far is the parent's."""
        self._lock = Lock()
        self.counters = Counters()
        self._told = dict.fromkeys(NAMES, 0)
        self._next = 0.0


_tallies: WeakSet[Tally] = WeakSet()


@atexit.register
def _farewell() -> None:
    for tally in list(_tallies):
        tally.farewell()


def _forked() -> None:
    for tally in list(_tallies):
        tally.forked()


os.register_at_fork(after_in_child=_forked)
