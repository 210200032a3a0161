"""Leases: what locks are made of. They live beside the map, so that no transaction reads or writes them.

A lease belongs to one owner for a time, on the store's clock. When its time is over it is lost, whether
somebody else has taken it or not: nothing revives it. An owner is a text that is never used twice.

    request   take the lease, or a place in the queue of those who wait for it
    renew     begin its time anew
    release   give it back, or give up one's place
    require   is it still held? (COMMIT asks the same, atomically with what it writes)

**Fencing.** Each owner gets a number that is greater than those of all owners before, of any lease of
the database. It is at least the wall clock's in microseconds, so that it grows even where a store has
lost its last leases (a crash, a fail-over, `wipe`): whoever keeps the greatest number seen can refuse what
comes from a former owner. (Kleppmann, "How to do distributed locking", 2016.)

**The queue.** Those who wait stand in line, each with a lease on its place, which asking again renews.
Only the first in line gets a lease that is free, so nobody starves; a waiter that died loses its
place when that lease is over, and keeps the others waiting for PLACE_SECONDS at the most.

**A record** for each lease that somebody holds or waits for: its owner, fencing number and end, then the
waiters with theirs. Records of owners and waiters that died are swept out when the table has grown to twice
the size that it had after the last sweep. The functions here are the rules, for the stores whose state
is in this process's reach; Redis follows them in `leases.lua`.
"""

from __future__ import annotations

import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import msgspec

from rome.errors import LockLost

PLACE_SECONDS: Final = 2.0
"""How long a place in the queue is kept for a waiter that does not ask again."""
FIRST_SWEEP: Final = 64

SECOND: Final = 1_000_000
"""The clocks of leases count microseconds."""
_PLACE = int(PLACE_SECONDS * SECOND)
LAST = b"\x00"
"""The table's own record. No name is a control character."""


def new_owner() -> str:
    """A name for an owner to be: host, process, and what tells it from all others."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(6).hex()}"


class Wanted(NamedTuple):
    """A request for a lease."""

    name: str
    owner: str
    seconds: float
    queue: bool
    """Take a place in line if it cannot be had at once."""


class Answer(NamedTuple):
    """What became of a request."""

    fencing: int
    """0: somebody else holds it, or is to have it first."""
    position: int = 0
    """How many wait in front."""
    remaining: float = 0.0
    """Seconds until the lease ends that is in the way."""


class Held(NamedTuple):
    """A lease that somebody holds."""

    name: str
    owner: str
    fencing: int
    remaining: float
    """Seconds until it ends, unless it is renewed."""
    waiting: int
    """How many wait for it."""


class Leases(ABC):
    """The leases of one store. Each call is one round trip, and one instant on the store's clock."""

    @abstractmethod
    def request(self, wanted: Wanted) -> Answer:
        """Take the lease if it is free and nobody is in front. Asking again as its owner renews it."""

    @abstractmethod
    def renew(self, owned: list[tuple[str, str, float]]) -> list[bool]:
        """Renew leases, given by name, owner and seconds; which of them were not lost?"""

    @abstractmethod
    def release(self, name: str, owner: str) -> bool:
        """Give back the lease, or the place in line. False: it was not held (any more)."""

    @abstractmethod
    def require(self, fencing: Mapping[str, int]) -> None:
        """Raise `LockLost` unless all of these leases (name → fencing number) are held."""

    @abstractmethod
    def held(self) -> list[Held]:
        """The leases that are held, by name."""


# The rules


@dataclass(slots=True)
class Record:
    """One lease, as it is kept."""

    owner: str = ""
    fencing: int = 0
    expires: int = 0
    waiters: list[tuple[str, int]] = field(default_factory=list)
    """Owner to be, and when its place is lost; the first in line is first."""

    def tidy(self, now: int) -> None:
        """Forget an owner whose lease is over, and waiters who have not asked for long."""
        if self.expires <= now:
            self.owner, self.fencing, self.expires = "", 0, 0
        self.waiters = [waiter for waiter in self.waiters if waiter[1] > now]


class Table(Protocol):
    """Where the records are: bytes by name."""

    def get(self, name: bytes, /) -> bytes | None: ...
    def put(self, name: bytes, record: bytes, /) -> None: ...
    def delete(self, name: bytes, /) -> None: ...
    def items(self, /) -> Iterator[tuple[bytes, bytes]]: ...
    def size(self, /) -> int: ...


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, int, int, list[tuple[str, int]]]).decode


def request(table: Table, wanted: Wanted, now: int) -> Answer:
    """See `Leases.request`."""
    name = wanted.name.encode()
    record = _load(table, name)
    record.tidy(now)
    line = [owner for owner, _ in record.waiters]
    is_next = not record.owner and line[:1] in ([], [wanted.owner])
    if is_next or wanted.owner == record.owner:
        if is_next:
            fresh = table.get(name) is None
            record.owner, record.fencing = wanted.owner, _next_fencing(table)
            record.waiters = record.waiters[1:]
            if fresh:
                _sweep_if_due(table, now)
        record.expires = now + round(wanted.seconds * SECOND)
        _save(table, name, record)
        return Answer(record.fencing)
    position = line.index(wanted.owner) if wanted.owner in line else len(line)
    places = record.waiters[position : position + 1]
    if wanted.queue and (not places or places[0][1] - now < _PLACE // 2):
        record.waiters[position : position + 1] = [(wanted.owner, now + _PLACE)]
        _save(table, name, record)
    return Answer(0, position, ((record.expires or record.waiters[0][1]) - now) / SECOND)


def renew(table: Table, owned: list[tuple[str, str, float]], now: int) -> list[bool]:
    """See `Leases.renew`."""
    return [_renew(table, name.encode(), owner, seconds, now) for name, owner, seconds in owned]


def _renew(table: Table, name: bytes, owner: str, seconds: float, now: int) -> bool:
    record = _load(table, name)
    if record.owner != owner or record.expires <= now:
        return False
    record.expires = now + round(seconds * SECOND)
    _save(table, name, record)
    return True


def release(table: Table, name: str, owner: str, now: int) -> bool:
    """See `Leases.release`."""
    stored = name.encode()
    record = _load(table, stored)
    record.tidy(now)
    held = record.owner == owner
    if held:
        record.owner, record.fencing, record.expires = "", 0, 0
    record.waiters = [waiter for waiter in record.waiters if waiter[0] != owner]
    if record.owner or record.waiters:
        _save(table, stored, record)
    else:
        table.delete(stored)
    return held


def require(table: Table, fencing: Mapping[str, int], now: int) -> None:
    """See `Leases.require`."""
    for name, number in fencing.items():
        record = _load(table, name.encode())
        if record.fencing != number or record.expires <= now:
            raise LockLost(lost_text(name))


def held(table: Table, now: int) -> list[Held]:
    """See `Leases.held`."""
    found = []
    for name, stored in table.items():
        if name != LAST:
            record = _decoded(stored)
            record.tidy(now)
            if record.owner:
                remaining = (record.expires - now) / SECOND
                found.append(
                    Held(name.decode(), record.owner, record.fencing, remaining, len(record.waiters))
                )
    return sorted(found)


def lost_text(name: str) -> str:
    """What is said of a lease that is not held any more."""
    return (
        f"the lock {name!r} was lost: its lease ended before it was renewed, and others may have had it since"
    )


def forget_all(table: Table) -> None:
    """Forget every lease, but not the last fencing number."""
    for name, _ in list(table.items()):
        if name != LAST:
            table.delete(name)


def _load(table: Table, name: bytes) -> Record:
    stored = table.get(name)
    return Record() if stored is None else _decoded(stored)


def _decoded(stored: bytes) -> Record:
    return Record(*_decode(stored))


def _save(table: Table, name: bytes, record: Record) -> None:
    table.put(name, _encode((record.owner, record.fencing, record.expires, record.waiters)))


def _last(table: Table) -> tuple[int, int]:
    """The last fencing number, and the size at which the table is swept."""
    stored = table.get(LAST)
    if stored is None:
        return 0, FIRST_SWEEP
    fencing, sweep = msgspec.msgpack.decode(stored, type=tuple[int, int])
    return fencing, sweep


def _next_fencing(table: Table) -> int:
    last, sweep = _last(table)
    number = max(last + 1, time.time_ns() // 1000)
    table.put(LAST, _encode((number, sweep)))
    return number


def _sweep_if_due(table: Table, now: int) -> None:
    fencing, sweep = _last(table)
    if table.size() < sweep:
        return
    for name, stored in list(table.items()):
        if name != LAST:
            record = _decoded(stored)
            record.tidy(now)
            if not record.owner and not record.waiters:
                table.delete(name)
    table.put(LAST, _encode((fencing, 2 * table.size() + FIRST_SWEEP)))
