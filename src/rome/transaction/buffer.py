"""The write buffer: what a transaction will write, held back until COMMIT.

Nothing reaches the store before COMMIT. The buffer is kept by key space (one table's rows, one
index's entries), so that a scan sees at once whether its space has writes of this transaction.

A savepoint is a mark in the undo log: the log's length when the savepoint was set. Every change
notes what it replaced, and rolling back to a mark takes the changes back, newest first. The same
marks make statements atomic.
"""

from __future__ import annotations

from typing import Any, Final

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
        self._undo: list[tuple[dict[bytes, Any], bytes, object]] = []
        """What was changed: where, at which key, and what had been there."""
        self.generation = 0
        """Grows with every change, taken back ones included."""

    def put(self, key: bytes, value: bytes | None) -> None:
        """Write a key; None deletes it."""
        self.generation += 1
        prefix = key_space(key)
        space = self._spaces.get(prefix)
        if space is None:
            space = self._spaces[prefix] = {}
        self._undo.append((space, key, space.get(key, _MISSING)))
        space[key] = value

    def add(self, counter: bytes, amount: int) -> None:
        """Move a counter at COMMIT."""
        moved = self._adds.get(counter)
        self._undo.append((self._adds, counter, _MISSING if moved is None else moved))
        self._adds[counter] = (moved or 0) + amount

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
        """Take back everything that came after the mark.

        A signal's handler may have thrown something between the note and its change, or may do so here:
        a change is taken back whether it was made or not, and its note is there until it is.
        """
        self.generation += 1
        while len(self._undo) > mark:
            changed, key, previous = self._undo[-1]
            if previous is _MISSING:
                changed.pop(key, None)
            else:
                changed[key] = previous
            del self._undo[-1]

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
