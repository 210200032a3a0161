"""The memory store's own: names, and that old versions do not pile up."""

from __future__ import annotations

import gc
import sys
from types import FrameType

from rome.stores import Range, Read, Scan, Writes, memory, open_store
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


def test_a_commit_that_is_interrupted_at_any_call_leaves_nothing() -> None:
    """A signal's handler may throw wherever Python makes a call or comes back from one."""
    put_back = {b"k%d" % n: b"old" for n in range(5)}

    def state(store: MemoryStore) -> tuple[object, ...]:
        snapshot = store.snapshot()
        reply = snapshot.read(Read(scans=[Scan(Range(b"a", b"z"))], counters=[b"c", b"d"]))
        snapshot.close()
        return tuple(reply.scans[0]), reply.counters[b"c"], reply.counters[b"d"]

    def interrupted_at(number: int) -> bool:
        store = MemoryStore()
        store.commit(None, Writes(puts=dict(put_back), adds={b"c": 5}))
        reader = store.snapshot()
        reader.read(Read(keys=[b"k1"]))
        before = state(store)
        calls = 0

        def profile(frame: FrameType, event: str, argument: object) -> None:
            nonlocal calls
            if event in ("call", "c_return") and frame.f_code.co_filename == memory.__file__:
                calls += 1
                if calls == number:
                    raise KeyboardInterrupt

        changes = Writes(
            puts={b"k1": b"new", b"l": b"new"}, deletes={b"k2"}, adds={b"c": 1, b"d": 1}, floors={b"d": 9}
        )
        sys.setprofile(profile)
        try:
            store.commit(None, changes)
        except KeyboardInterrupt:
            thrown = True
        else:
            thrown = False
        finally:
            sys.setprofile(None)
        after = state(store)
        whole = [entry.key for entry in after[0]] == [b"k0", b"k1", b"k3", b"k4", b"l"]  # type: ignore[attr-defined]
        assert after == before or (whole and after[1:] == (6, 9)), (number, after)
        assert thrown or whole
        assert reader.read(Read(keys=[b"k2"])).values[b"k2"].value == b"old"  # type: ignore[union-attr]
        store.commit(None, Writes(puts={b"k1": b"again"}, deletes={b"k3"}))
        assert [entry.value for entry in state(store)[0] if entry.key == b"k1"] == [b"again"]  # type: ignore[attr-defined]
        reader.close()
        store.commit(None, Writes(puts={b"k1": b"last"}))
        assert store.database.retained() == 0
        return thrown

    number = 1
    while interrupted_at(number):
        number += 1
    assert number > 20
