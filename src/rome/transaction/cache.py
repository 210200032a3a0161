"""What a transaction has fetched, so that nothing is fetched twice.

Two kinds of knowledge: single keys (present with a value, or absent), and ranges of which every
entry is known. A range answers for itself, for ranges within it, and for the absence of keys.

Most ranges are the same few shapes again and again (the children of one parent), so they are
looked up by identity first; only ranges that were read over many values, few in a transaction,
are searched for one that covers what is asked.
"""

from __future__ import annotations

from bisect import bisect_left

from rome.records.keys import key_space
from rome.stores.base import Entry, Range

_WIDE_RANGES = 16
"""How many of the last wide ranges of a key space are searched."""


class _Known:
    __slots__ = ("entries", "keys", "range")

    def __init__(self, range: Range, entries: list[Entry]) -> None:
        self.range = range
        self.entries = entries
        self.keys: list[bytes] | None = None

    def within(self, range: Range) -> list[Entry]:
        if range == self.range:
            return self.entries
        if self.keys is None:
            self.keys = [entry.key for entry in self.entries]
        return self.entries[bisect_left(self.keys, range.start) : bisect_left(self.keys, range.end)]


class ReadCache:
    """Entries by key, and completely known ranges, each in key order."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry | None] = {}
        self.presence: dict[bytes, bool] = {}
        self._exact: dict[Range, _Known] = {}
        self._wide: dict[bytes, list[_Known]] = {}

    def add_range(self, range: Range, entries: list[Entry]) -> None:
        """All entries of a range, in key order."""
        known = _Known(range, entries)
        self._exact[range] = known
        for entry in entries:
            self.entries.setdefault(entry.key, entry)
        wide = self._wide.setdefault(key_space(range.start), [])
        wide.append(known)
        if len(wide) > _WIDE_RANGES:
            wide.pop(0)

    def find_range(self, range: Range) -> list[Entry] | None:
        """The entries of a range in key order, if all of it is known."""
        known = self._exact.get(range)
        if known is None:
            known = self._covering(range)
        return known.within(range) if known is not None else None

    def knows(self, key: bytes) -> bool:
        """Whether `find` can answer."""
        return key in self.entries or self._covering(Range(key, key + b"\x00")) is not None

    def find(self, key: bytes) -> Entry | None:
        """The entry of a key that `knows` said is known; None if the key is absent."""
        return self.entries.get(key)

    def _covering(self, range: Range) -> _Known | None:
        for known in reversed(self._wide.get(key_space(range.start), ())):
            if known.range.covers(range):
                return known
        return None
