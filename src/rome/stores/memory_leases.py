"""The leases of a memory store: a table under the database's lock, on the process's monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rome.stores import leases
from rome.stores.leases import Answer, Held, Leases, Wanted

if TYPE_CHECKING:
    from rome.stores.memory import Database, MemoryStore


def memory_clock() -> int:
    """Microseconds."""
    return time.monotonic_ns() // 1000


class DictTable:
    """A `Table` in a dictionary."""

    def __init__(self) -> None:
        self._records: dict[bytes, bytes] = {}

    def get(self, name: bytes) -> bytes | None:
        return self._records.get(name)

    def put(self, name: bytes, record: bytes) -> None:
        self._records[name] = record

    def delete(self, name: bytes) -> None:
        self._records.pop(name, None)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._records.items())

    def size(self) -> int:
        return len(self._records)


class MemoryLeases(Leases):
    """See `Leases`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def _database(self) -> Database:
        self._store.round_trips += 1
        return self._store.database

    def request(self, wanted: Wanted) -> Answer:
        database = self._database()
        with database.lock:
            return leases.request(database.leases, wanted, memory_clock())

    def renew(self, owned: list[tuple[str, str, float]]) -> list[bool]:
        database = self._database()
        with database.lock:
            return leases.renew(database.leases, owned, memory_clock())

    def release(self, name: str, owner: str) -> bool:
        database = self._database()
        with database.lock:
            return leases.release(database.leases, name, owner, memory_clock())

    def require(self, fencing: Mapping[str, int]) -> None:
        database = self._database()
        with database.lock:
            database.require_leases(fencing)

    def held(self) -> list[Held]:
        database = self._database()
        with database.lock:
            return leases.held(database.leases, memory_clock())
