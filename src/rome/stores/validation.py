"""Does a read set still hold? The one answer for the stores that validate in this process.

COMMIT on the memory store and on LMDB, and a snapshot that had to be reopened, ask the same
question of different maps: given what was read (`ReadSet`) and the state as it is now (`State`),
which keys differ? An empty answer means that the reads could all be made again at this very
moment, so a transaction that wrote now would be serializable. (Redis answers the same question
in Lua, on the server; its scripts follow this module.)

The list of offending keys is cut at `REPORTED`: it is there for texts and for the replay's
choice, and a transaction that read a million rows must not pay for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Protocol

from rome.errors import Conflict, LimitExceeded
from rome.stores.base import ABSENT, Characteristics, Range, RangeRead, ReadSet, Writes

REPORTED = 20
"""The greatest number of offending keys that a Conflict names."""


class State(Protocol):
    """The newest state of a map, as far as validation looks at it."""

    def version_of(self, key: bytes) -> int:
        """The version that wrote the key; ABSENT where there is none."""

    def pairs(self, within: Range) -> Iterator[tuple[bytes, int]]:
        """The (key, version) pairs of a range, in key order."""

    def require_leases(self, fencing: Mapping[str, int]) -> None:
        """Raise `LockLost` unless all of these leases are held."""


def require(reads: ReadSet, state: State) -> None:
    """Raise `LockLost` or `Conflict` unless everything in the read set still holds."""
    if reads.leases:
        state.require_leases(reads.leases)
    different = list(islice(differences(reads, state), REPORTED))
    if different:
        raise Conflict(different)


def differences(reads: ReadSet, state: State) -> Iterator[bytes]:
    """The keys, and for ranges the starts, whose state is no longer what was read."""
    return chain(
        (key for key, version in reads.keys.items() if state.version_of(key) != version),
        (key for key, there in reads.presence.items() if (state.version_of(key) != ABSENT) != there),
        (read.range.start for read in reads.ranges if not _holds(read, state)),
    )


def _holds(read: RangeRead, state: State) -> bool:
    if read.range.start >= read.range.end:
        return not read.entries
    expected = iter(read.entries)
    for pair in state.pairs(read.range):
        if next(expected, None) != pair:
            return False
    return next(expected, None) is None


def check_limits(writes: Writes, limits: Characteristics) -> None:
    """Raise `LimitExceeded` for a key or value that this kind of store does not take."""
    for keys in (writes.puts, writes.deletes):
        if keys:
            check_key(min(keys, key=len), limits)
            check_key(max(keys, key=len), limits)
    if writes.puts:
        largest = max(map(len, writes.puts.values()))
        if largest > limits.max_value_bytes:
            raise LimitExceeded(
                f"a value of {largest} bytes is larger than the store takes ({limits.max_value_bytes} bytes)"
            )


def check_key(key: bytes, limits: Characteristics) -> None:
    """Raise `LimitExceeded` unless the key is 1 to `max_key_bytes` long."""
    if not key:
        raise LimitExceeded("a key cannot be empty")
    if len(key) > limits.max_key_bytes:
        raise LimitExceeded(
            f"a key of {len(key)} bytes is longer than the store takes ({limits.max_key_bytes} bytes)"
        )
