"""Turns: transactions that write may be made to wait for each other, so that none of them is refused.

Transactions are optimistic: they wait for nobody, and one that lost a race which cannot be hidden from the
program is refused at COMMIT. A program that retries does best that way. One that does not, because it
was written for a database with locks (Placement writes its allocations so), hands the error on. For such
a program the URL says `turns=on`: a transaction that will write then waits for its turn before it reads
anything, so that nobody changes what it reads. Those that only read cannot be refused where a snapshot is
fixed by its first read (LMDB, memory), and wait for nobody. On Redis a snapshot is extended as it is read,
which fails if what was read has changed; so those that read with more than one statement take turns too.

**Who needs a turn** is not said by BEGIN. But a program has few kinds of transactions, and the text of the
first statement tells the kind: what began with this text and needed one will need one again. A text that
is not known yet, or that has only been seen on a few transactions, counts as one that does.

**A turn is only manners.** It is a lease in the store (rome.stores.leases), queued for in order. One who
waits too long goes ahead without; a turn that lasts too long is lost to the next; a thread that has
one already does not wait for itself. In all these cases the transaction is what it is without turns:
optimistic, and just as safe, because COMMIT validates it as ever.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from threading import Lock, get_ident
from typing import Final

from rome.errors import RomeError
from rome.stores.base import Store
from rome.stores.leases import Wanted, new_owner

NAME: Final = "turn of those who write"
"""The lease's; `rome status` shows it among the locks."""
LEASE_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 10.0

WRITING: Final = frozenset(["insert", "replace", "update", "delete", "create", "alter", "drop"])
"""Verbs."""

_TRIAL: Final = 5
"""After so many transactions that needed no turn, a text is one of those that wait for nobody."""
_TEXTS: Final = 5000
_FIRST_PAUSE: Final = 0.001
_GREATEST_PAUSE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to go ahead, until it is given back or its lease is over."""

    owner: str
    thread: tuple[int, int]


class Turns:
    """Those of one store, as this process takes them. Safe for threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._readings: dict[str, int] = {}
        """How often a transaction that began so has ended without need of a turn; -1: one had need."""
        self._having: set[tuple[int, int]] = set()
        """The threads of this process (pid and thread) that have a turn."""
        self._lock = Lock()

    def may_need(self, opening: str) -> bool:
        """Whether a transaction that begins with this statement should wait for its turn."""
        return self._readings.get(opening, 0) < _TRIAL

    def learn(self, opening: str, needed: bool) -> None:
        """A transaction that began with this statement has ended; did it need a turn?"""
        known = self._readings.get(opening, 0)
        if known < 0:
            return
        if len(self._readings) >= _TEXTS:
            self._readings.clear()
        self._readings[opening] = -1 if needed else known + 1

    def take(self) -> Turn | None:
        """Wait for a turn; None where it is of no use, or took too long."""
        thread = (os.getpid(), get_ident())
        if thread in self._having:
            return None
        owner = new_owner()
        wanted = Wanted(NAME, owner, LEASE_SECONDS, queue=True)
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = _FIRST_PAUSE
        while not (answer := self._store.leases.request(wanted)).fencing:
            if time.monotonic() > deadline:
                self._store.leases.release(NAME, owner)
                return None
            time.sleep(random.uniform(pause / 2, pause) * min(1 + answer.position, 4))
            pause = min(_GREATEST_PAUSE, pause * 1.5)
        with self._lock:
            self._having.add(thread)
        return Turn(owner, thread)

    def give_back(self, turn: Turn) -> None:
        """Let the next one go ahead. A store that does not answer ends the turn by itself."""
        with self._lock:
            self._having.discard(turn.thread)
        try:
            self._store.leases.release(NAME, turn.owner)
        except RomeError:
            pass
