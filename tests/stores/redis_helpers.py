"""What the tests of the Redis store share."""

from __future__ import annotations

from collections.abc import Callable

from rome.stores import Range, Read, Store, Writes
from rome.stores.redis import RedisStore

ALL = Range(b"", b"\xff")
Open = Callable[[str], RedisStore]


def put(store: Store, key: bytes, value: bytes = b"v") -> int:
    return store.commit(None, Writes(puts={key: value}, adds={b"puts": 1}))


def get(store: Store, key: bytes) -> bytes | None:
    entry = store.snapshot().read(Read(keys=[key])).values[key]
    return entry.value if entry else None


def puts(store: Store) -> int:
    return store.snapshot().read(Read(counters=[b"puts"])).counters[b"puts"]


def check_works(store: Store) -> None:
    put(store, b"check", b"works")
    assert get(store, b"check") == b"works"
