"""The memory store's own: names, and that old versions do not pile up."""

from __future__ import annotations

import gc

from rome.stores import Range, Read, Scan, Writes, open_store
from rome.stores.memory import MemoryStore

ALL = Range(b"", b"\xff")


def open_memory(name: str = "") -> MemoryStore:
    store = open_store(f"rome+memory://{name}")
    assert isinstance(store, MemoryStore)
    return store


def put(store: MemoryStore, key: bytes, value: bytes) -> None:
    store.commit(None, Writes(puts={key: value}))


def test_a_named_store_is_shared_and_lives_as_long_as_someone_has_it_open() -> None:
    one, two = open_memory("shared"), open_memory("shared")
    put(one, b"a", b"1")
    one.close()
    assert two.snapshot().read(Read(presence=[b"a"])).presence[b"a"]
    two.close()
    gc.collect()
    assert not open_memory("shared").snapshot().read(Read(presence=[b"a"])).presence[b"a"]


def test_a_store_without_a_name_is_private() -> None:
    one, two = open_memory(), open_memory()
    put(one, b"a", b"1")
    assert not two.snapshot().read(Read(presence=[b"a"])).presence[b"a"]


def test_a_snapshot_reads_its_version_whatever_is_committed() -> None:
    store = open_memory()
    put(store, b"a", b"1")
    put(store, b"b", b"1")
    snapshots = []
    for n in range(2, 6):
        snapshot = store.snapshot()
        snapshot.read(Read(presence=[b"x"]))
        snapshots.append(snapshot)
        put(store, b"a", b"%d" % n)
        store.commit(None, Writes(deletes={b"b"}) if n % 2 == 0 else Writes(puts={b"b": b"%d" % n}))
    expected = [{b"a": b"1", b"b": b"1"}, {b"a": b"2"}, {b"a": b"3", b"b": b"3"}, {b"a": b"4"}]
    for snapshot, pairs in zip(snapshots, expected, strict=True):
        reply = snapshot.read(Read(keys=[b"a", b"b"], scans=[Scan(ALL), Scan(ALL, reverse=True, limit=1)]))
        assert {entry.key: entry.value for entry in reply.scans[0]} == pairs
        assert {key: entry.value for key, entry in reply.values.items() if entry} == pairs
        assert reply.scans[1] == reply.scans[0][-1:]


def test_old_versions_are_dropped_with_the_snapshots_that_saw_them() -> None:
    store = open_memory()
    put(store, b"a", b"0")
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"a"]))
    for n in range(100):
        put(store, b"a", b"%d" % n)
    store.commit(None, Writes(deletes={b"a"}))
    assert store.database.retained() == 1
    entry = snapshot.read(Read(keys=[b"a"])).values[b"a"]
    assert entry is not None
    assert entry.value == b"0"
    snapshot.close()
    put(store, b"b", b"")
    assert store.database.retained() == 0
    assert store.health()["entries"] == 1


def test_a_forgotten_snapshot_keeps_nothing() -> None:
    store = open_memory()
    put(store, b"a", b"0")
    store.snapshot().read(Read(keys=[b"a"]))
    gc.collect()
    put(store, b"a", b"1")
    assert store.database.retained() == 0


def test_a_deleted_key_is_put_again_under_an_open_snapshot() -> None:
    store = open_memory()
    put(store, b"a", b"0")
    snapshot = store.snapshot()
    snapshot.read(Read(presence=[b"x"]))
    store.commit(None, Writes(deletes={b"a"}))
    put(store, b"a", b"1")
    assert [entry.value for entry in snapshot.read(Read(scans=[Scan(ALL)])).scans[0]] == [b"0"]
    snapshot.close()
    put(store, b"b", b"")
    fresh = store.snapshot().read(Read(scans=[Scan(ALL)])).scans[0]
    assert [entry.value for entry in fresh] == [b"1", b""]
