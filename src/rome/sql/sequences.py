"""Numbers for new rows, from the store's sequences.

A sequence is a counter in the store: a number taken from it is never given out twice, whatever
becomes of the transaction, as with MySQL's AUTO_INCREMENT. Where taking one costs a round trip,
several are taken at once and kept for the next inserts of this process; numbers that are left
over when the process ends are never used. COMMIT raises the sequence to at least the numbers of
its rows, those that rows brought themselves as well as those that were drawn before a fail-over.

A number in reserve may turn out to be used: a row of another process brought it itself, or the store
was lost sight of and has lost its last writes (a fail-over), so that it gives the number out again. Then
all that is in reserve is given up; when the store was lost sight of, before it comes to that, and also
when another schema is found there, for the database may have been wiped.
"""

from __future__ import annotations

import os
from threading import Lock

from rome.stores.base import Store

Numbers = dict[bytes, list[int]]
"""By sequence: the numbers that a transaction has drawn, in order."""


class Sequences:
    """The numbers that this process holds in reserve; one for each open store."""

    def __init__(self, block: int, store: Store) -> None:
        self.block = block
        """How many numbers to take at once."""
        self._store = store
        self._lock = Lock()
        self._reserved: dict[bytes, tuple[int, int]] = {}
        self._valid_for = self._now()

    def take(self, counter: bytes, above: int = 0) -> int | None:
        """A reserved number greater than `above`; None if the store has to be asked."""
        with self._lock:
            if self._valid_for != self._now():
                self._reserved.clear()
                self._valid_for = self._now()
            first, end = self._reserved.get(counter, (0, 0))
            first = max(first, above + 1)
            if first >= end:
                return None
            self._reserved[counter] = (first + 1, end)
            return first

    def _now(self) -> tuple[int, int]:
        """What was reserved before a fork is the parent's; for losses, see the essay."""
        return os.getpid(), self._store.losses

    def give_up(self) -> None:
        """A number in reserve turned out to be used, or may be: take new ones."""
        with self._lock:
            self._reserved.clear()

    def wanted(self, expected: int) -> int:
        """How many numbers to ask the store for, when so many rows are to come."""
        return max(self.block, expected)

    def reserve(self, counter: bytes, first: int, count: int) -> None:
        """Keep the numbers that the store gave."""
        with self._lock:
            self._reserved[counter] = (first, first + count)

    def raise_to(self, counter: bytes, least: int) -> None:
        """A row brought this number itself: what is in reserve must lie above it."""
        with self._lock:
            first, end = self._reserved.get(counter, (0, 0))
            if first < end and first <= least:
                self._reserved[counter] = (min(least + 1, end), end)
