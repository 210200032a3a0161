"""The write buffer: what a transaction will write, held back until COMMIT.

Nothing reaches the store before COMMIT. The buffer is kept by key space (one table's rows, one
index's entries), so that a scan sees at once whether its space has writes of this transaction.

A savepoint is a mark in the undo log: the log's length when the savepoint was set. Every change
notes what it replaced, and rolling back to a mark takes the changes back, newest first. The same
marks make statements atomic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rome.records.keys import key_space
from rome.stores.base import Range, Writes

DELETED: Final = None
"""In the buffer, the value of a key that this transaction deletes."""

_MISSING: Final = object()


class WriteBuffer:
    """Puts, deletes and counter movements of one transaction, with undo."""

    def __init__(self) -> None:
        self._spaces: dict[bytes, dict[bytes, bytes | None]] = {}
        self._adds: dict[bytes, int] = {}
        self._floors: dict[bytes, int] = {}
        self._undo: list[Callable[[], None]] = []
        self.generation = 0
        """Grows with every change, taken back ones included."""

    def put(self, key: bytes, value: bytes | None) -> None:
        """Write a key; None deletes it."""
        self.generation += 1
        space = self._spaces.setdefault(key_space(key), {})
        previous = space.get(key, _MISSING)
        space[key] = value

        def undo() -> None:
            if previous is _MISSING:
                del space[key]
            else:
                space[key] = previous  # type: ignore[assignment]

        self._undo.append(undo)

    def add(self, counter: bytes, amount: int) -> None:
        """Move a counter at COMMIT."""
        self._adds[counter] = self._adds.get(counter, 0) + amount

        def undo() -> None:
            self._adds[counter] -= amount

        self._undo.append(undo)

    def floor(self, counter: bytes, least: int) -> None:
        """Raise a counter to at least this at COMMIT. Not undone: numbers are never given back."""
        self._floors[counter] = max(least, self._floors.get(counter, 0))

    def floor_of(self, counter: bytes) -> int:
        """What this transaction will raise a counter to at least; 0: nothing."""
        return self._floors.get(counter, 0)

    def written(self, key: bytes) -> tuple[bool, bytes | None]:
        """Whether this transaction has written the key, and what (None: it deleted it)."""
        space = self._spaces.get(key_space(key))
        if space is None or key not in space:
            return False, None
        return True, space[key]

    def within(self, range: Range) -> list[tuple[bytes, bytes | None]]:
        """The writes within a range (of one key space), in key order."""
        space = self._spaces.get(key_space(range.start))
        if not space:
            return []
        start, end = range
        return sorted((key, value) for key, value in space.items() if start <= key < end)

    def touches(self, space: bytes) -> bool:
        return bool(self._spaces.get(space))

    def mark(self) -> int:
        """A savepoint."""
        return len(self._undo)

    def rollback_to(self, mark: int) -> None:
        """Take back everything that came after the mark."""
        self.generation += 1
        while len(self._undo) > mark:
            self._undo.pop()()

    def writes(self) -> Writes:
        """Everything, as the store's COMMIT takes it."""
        writes = Writes(
            adds={counter: amount for counter, amount in self._adds.items() if amount},
            floors=dict(self._floors),
        )
        for space in self._spaces.values():
            for key, value in space.items():
                if value is None:
                    writes.deletes.add(key)
                else:
                    writes.puts[key] = value
        return writes
