"""Isolation: what a snapshot sees, and what COMMIT refuses. Named after the anomalies."""

from __future__ import annotations

import pytest

from rome.errors import Conflict
from rome.stores import Range, Read, Scan, Snapshot, Store, Writes
from rome.stores.validation import REPORTED

ALL = Range(b"", b"\xff" * 8)
B_TO_D = Range(b"b", b"d")


def put(store: Store, *keys: bytes, value: bytes = b"v") -> None:
    store.commit(None, Writes(puts=dict.fromkeys(keys, value)))


def commits(store: Store, snapshot: Snapshot) -> bool:
    """Does the snapshot's read set still hold at COMMIT? And is nothing written if not?"""
    try:
        store.commit(snapshot, Writes(puts={b"~mark": b""}, adds={b"marks": 1}))
        held = True
    except Conflict as conflict:
        assert conflict.keys  # noqa: PT017 - whether there is one is for the caller to judge
        held = False
    after = store.snapshot()
    there = after.read(Read(presence=[b"~mark"], counters=[b"marks"]))
    after.close()
    assert (there.presence[b"~mark"], there.counters[b"marks"]) == (held, int(held))
    return held


def test_a_snapshot_has_a_version_after_its_first_read(store: Store) -> None:
    put(store, b"a")
    snapshot = store.snapshot()
    assert snapshot.version is None
    reply = snapshot.read(Read(keys=[b"a"]))
    entry = reply.values[b"a"]
    assert entry is not None
    assert snapshot.version == entry.version


def test_read_skew_a_snapshot_never_mixes_two_commits(store: Store) -> None:
    put(store, b"a", b"b", value=b"old")
    snapshot = store.snapshot()
    first = snapshot.read(Read(keys=[b"a"])).values[b"a"]
    put(store, b"a", b"b", value=b"new")
    try:
        second = snapshot.read(Read(keys=[b"b"])).values[b"b"]
    except Conflict as conflict:
        assert conflict.keys == [b"a"]  # noqa: PT017 - either answer is right
    else:
        assert first is not None
        assert second is not None
        assert (first.value, second.value) == (b"old", b"old")


def test_non_repeatable_read(store: Store) -> None:
    put(store, b"a", value=b"old")
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"a"]))
    put(store, b"a", value=b"new")
    try:
        again = snapshot.read(Read(keys=[b"a"])).values[b"a"]
    except Conflict:
        return
    assert again is not None
    assert again.value == b"old"


def test_an_unrelated_commit_does_not_disturb_a_snapshot(store: Store) -> None:
    put(store, b"a", b"b")
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"a"], presence=[b"p"], scans=[Scan(Range(b"c", b"d"))]))
    put(store, b"x")
    assert snapshot.read(Read(keys=[b"b"])).values[b"b"] is not None
    put(store, b"y")
    snapshot.read(Read(scans=[Scan(Range(b"a", b"c"), limit=1)]))
    assert commits(store, snapshot)


def test_lost_update(store: Store) -> None:
    put(store, b"a")
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"a"]))
    put(store, b"a")
    assert not commits(store, snapshot)


def test_write_skew(store: Store) -> None:
    put(store, b"a", b"b")
    one, two = store.snapshot(), store.snapshot()
    for snapshot in (one, two):
        snapshot.read(Read(keys=[b"a", b"b"]))
    store.commit(one, Writes(puts={b"a": b"off"}))
    with pytest.raises(Conflict) as caught:
        store.commit(two, Writes(puts={b"b": b"off"}))
    assert caught.value.keys == [b"a"]


def test_a_key_read_as_absent_must_stay_absent(store: Store) -> None:
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"a"]))
    put(store, b"a")
    assert not commits(store, snapshot)


def test_a_key_deleted_and_put_again_is_another_version(store: Store) -> None:
    put(store, b"a")
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"a"]))
    store.commit(None, Writes(deletes={b"a"}))
    put(store, b"a")
    assert not commits(store, snapshot)


def test_presence_holds_at_any_version(store: Store) -> None:
    put(store, b"a")
    snapshot = store.snapshot()
    snapshot.read(Read(presence=[b"a", b"b"]))
    put(store, b"a", value=b"other")
    assert commits(store, snapshot)


@pytest.mark.parametrize("writes", [Writes(deletes={b"a"}), Writes(puts={b"b": b""})])
def test_presence_that_changed_is_a_conflict(store: Store, writes: Writes) -> None:
    put(store, b"a")
    snapshot = store.snapshot()
    snapshot.read(Read(presence=[b"a", b"b"]))
    store.commit(None, writes)
    assert not commits(store, snapshot)


@pytest.mark.parametrize(
    ("scan", "writes", "holds"),
    [
        (Scan(B_TO_D), Writes(puts={b"b0": b""}), False),
        (Scan(B_TO_D), Writes(puts={b"c": b"changed"}), False),
        (Scan(B_TO_D), Writes(deletes={b"c"}), False),
        (Scan(B_TO_D), Writes(deletes={b"c"}, puts={b"c0": b""}), False),
        (Scan(B_TO_D), Writes(puts={b"a0": b"", b"d": b"", b"d0": b""}), True),
        (Scan(ALL, limit=2), Writes(puts={b"b0": b"", b"c": b"x"}), True),
        (Scan(ALL, limit=2), Writes(puts={b"a0": b""}), False),
        (Scan(ALL, limit=2), Writes(deletes={b"b"}), False),
        (Scan(ALL, limit=100), Writes(puts={b"e": b""}), False),
        (Scan(ALL, limit=2, reverse=True), Writes(puts={b"b": b"x", b"bb": b""}), True),
        (Scan(ALL, limit=2, reverse=True), Writes(puts={b"cc": b""}), False),
        (Scan(ALL, limit=2, reverse=True), Writes(puts={b"e": b""}), False),
        (Scan(ALL, limit=0), Writes(puts={b"a": b"x"}), True),
        (Scan(Range(b"x", b"z")), Writes(puts={b"y": b""}), False),
        (Scan(Range(b"x", b"z")), Writes(puts={b"z": b""}), True),
    ],
)
def test_phantoms(store: Store, scan: Scan, writes: Writes, holds: bool) -> None:
    put(store, b"a", b"b", b"c", b"d")
    snapshot = store.snapshot()
    snapshot.read(Read(scans=[scan]))
    store.commit(None, writes)
    assert commits(store, snapshot) is holds


def test_conflicts_name_the_keys_that_differ(store: Store) -> None:
    put(store, b"a", b"b", b"c")
    snapshot = store.snapshot()
    snapshot.read(
        Read(keys=[b"a", b"b"], presence=[b"p"], scans=[Scan(Range(b"r", b"s")), Scan(ALL, limit=1)])
    )
    store.commit(None, Writes(puts={b"b": b"", b"p": b"", b"r1": b""}))
    with pytest.raises(Conflict) as caught:
        store.commit(snapshot, Writes(puts={b"x": b""}))
    assert caught.value.keys == [b"b", b"p", b"r"]


def test_the_list_of_conflicting_keys_is_cut(store: Store) -> None:
    keys = [b"%04d" % n for n in range(2500)]
    put(store, *keys)
    snapshot = store.snapshot()
    snapshot.read(Read(keys=keys))
    put(store, *keys)
    with pytest.raises(Conflict) as caught:
        store.commit(snapshot, Writes(puts={b"x": b""}))
    assert caught.value.keys == keys[:REPORTED]


def test_a_conflict_writes_nothing_and_the_next_commit_goes_through(store: Store) -> None:
    put(store, b"a")
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"a"]))
    put(store, b"a")
    assert not commits(store, snapshot)
    fresh = store.snapshot()
    fresh.read(Read(keys=[b"a"]))
    store.commit(fresh, Writes(puts={b"a": b"done"}))


def test_a_blind_commit_never_conflicts(store: Store) -> None:
    put(store, b"a")
    snapshot = store.snapshot()
    put(store, b"a")
    store.commit(snapshot, Writes(puts={b"a": b"blind"}))


def test_reading_again_after_many_commits_of_others(store: Store) -> None:
    put(store, b"a")
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"a"]))
    for n in range(50):
        put(store, b"other%d" % n)
        snapshot.read(Read(keys=[b"b%d" % n], scans=[Scan(Range(b"b", b"b%d" % n))]))
    assert commits(store, snapshot)
