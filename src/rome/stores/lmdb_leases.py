"""The leases of an LMDB database: a tree of their own, on a clock that all processes of the host share.

The clock is CLOCK_BOOTTIME: it is the same for every process, nobody can set it, and it runs on while the
machine sleeps. It begins anew when the machine does; so the tree says which boot it is of
(/proc/sys/kernel/random/boot_id), and after another one every lease is over, as are the processes
that held them. (Processes that share a directory must not be in different time namespaces.)

Whatever changes a lease is a write transaction. Waiting is not: asking again for what others still
hold is tried within a read transaction first, and goes on as a write only where something is to be
written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rome.errors import StoreError
from rome.stores import leases
from rome.stores.leases import Answer, Held, Leases, Wanted

if TYPE_CHECKING:
    from rome.stores.lmdb import LMDBStore
    from rome.stores.lmdb_environment import Environment

_BOOT = b"\x01"
"""The record that says which boot the others are of. No name is a control character."""
_ROOM = 4096

T = TypeVar("T")


def host_clock() -> int:
    """Microseconds since the machine was started."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


@cache
def boot() -> bytes:
    """What is different after each start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError as error:
        raise StoreError(f"locks on LMDB need the identity of the system's boot: {error}") from error


class WriteNeeded(Exception):
    """What was tried within a read transaction has something to write."""


class LMDBTable:
    """A `Table` in the tree of leases, as one transaction sees it; empty if it is of another boot."""

    def __init__(self, environment: Environment, txn: Any, writable: bool = True) -> None:
        self._tree = environment.leases
        self._txn = txn
        self._writable = writable
        self._current = txn.get(_BOOT, db=self._tree) == boot()

    def get(self, name: bytes) -> bytes | None:
        if not self._current and name != leases.LAST:
            return None
        found: bytes | None = self._txn.get(name, db=self._tree)
        return found

    def put(self, name: bytes, record: bytes) -> None:
        self._write()
        self._txn.put(name, record, db=self._tree)

    def delete(self, name: bytes) -> None:
        self._write()
        self._txn.delete(name, db=self._tree)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        if self._current:
            yield from ((name, record) for name, record in self._stored() if name != _BOOT)

    def size(self) -> int:
        entries: int = self._txn.stat(db=self._tree)["entries"]
        return entries

    def _stored(self) -> Iterator[tuple[bytes, bytes]]:
        pairs: Iterator[tuple[bytes, bytes]] = self._txn.cursor(db=self._tree).iternext()
        return pairs

    def _write(self) -> None:
        """Something is about to be written: what is of another boot goes first, but for the last number."""
        if not self._writable:
            raise WriteNeeded
        if not self._current:
            for name in [name for name, _ in self._stored() if name != leases.LAST]:
                self._txn.delete(name, db=self._tree)
            self._txn.put(_BOOT, boot(), db=self._tree)
            self._current = True


class LMDBLeases(Leases):
    """See `Leases`."""

    def __init__(self, store: LMDBStore) -> None:
        self._store = store

    def request(self, wanted: Wanted) -> Answer:
        return self._run(lambda table: leases.request(table, wanted, host_clock()))

    def renew(self, owned: list[tuple[str, str, float]]) -> list[bool]:
        return self._run(lambda table: leases.renew(table, owned, host_clock()))

    def release(self, name: str, owner: str) -> bool:
        return self._run(lambda table: leases.release(table, name, owner, host_clock()))

    def require(self, fencing: Mapping[str, int]) -> None:
        self._run(lambda table: leases.require(table, fencing, host_clock()))

    def held(self) -> list[Held]:
        return self._run(lambda table: leases.held(table, host_clock()))

    def _run(self, action: Callable[[LMDBTable], T]) -> T:
        """Within a read transaction if that will do, else within a write transaction.

        `writing` is held around both, since no transaction may be open while the map is replaced.
        """
        self._store.round_trips += 1
        environment = self._store.environment

        def reading() -> T:
            with environment.writing, environment.handle.begin() as txn:
                return action(LMDBTable(environment, txn, writable=False))

        try:
            return environment.persist(reading)
        except WriteNeeded:
            return self._store.write(lambda txn: action(LMDBTable(environment, txn)), room=_ROOM)
