"""What every store does: reading, writing, counters, limits. One suite for all kinds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rome.errors import Conflict, LimitExceeded, StoreError
from rome.stores import (
    Entry,
    Range,
    Read,
    Reply,
    Scan,
    Store,
    Writes,
    prefix_range,
)

ALL = Range(b"", b"\xff" * 8)


def read(store: Store, request: Read) -> Reply:
    snapshot = store.snapshot()
    try:
        return snapshot.read(request)
    finally:
        snapshot.close()


def put(store: Store, **pairs: str) -> int:
    return store.commit(None, Writes(puts={k.encode(): v.encode() for k, v in pairs.items()}))


def value(store: Store, key: bytes) -> bytes | None:
    entry = read(store, Read(keys=[key])).values[key]
    return entry.value if entry else None


def scan_keys(store: Store, scan: Scan) -> list[bytes]:
    return [entry.key for entry in read(store, Read(scans=[scan])).scans[0]]


def test_what_was_put_is_read_with_its_version(store: Store) -> None:
    first = put(store, a="1", b="2")
    second = put(store, b="3")
    assert second > first >= 1
    assert read(store, Read(keys=[b"a", b"b", b"c"])).values == {
        b"a": Entry(b"a", b"1", first),
        b"b": Entry(b"b", b"3", second),
        b"c": None,
    }


def test_what_was_deleted_is_absent(store: Store) -> None:
    put(store, a="1", b="2")
    store.commit(None, Writes(deletes={b"a", b"never there"}))
    assert read(store, Read(keys=[b"a", b"b"], presence=[b"a", b"b"])).presence == {b"a": False, b"b": True}
    assert scan_keys(store, Scan(ALL)) == [b"b"]


def test_another_connection_sees_commits(make_store: Callable[[], Store]) -> None:
    put(make_store(), a="1")
    assert value(make_store(), b"a") == b"1"


def test_bytes_of_every_value_survive(store: Store) -> None:
    everything = bytes(range(256))
    keys = [bytes([n]) + b"\x00\r\n\xff" for n in range(256)]
    store.commit(None, Writes(puts={key: everything + key for key in keys}))
    assert read(store, Read(keys=keys)).values == {
        key: Entry(key, everything + key, store_version(store)) for key in keys
    }
    assert scan_keys(store, Scan(ALL)) == [key for key in keys if key < ALL.end]
    store.commit(None, Writes(puts={b"empty": b""}))
    assert value(store, b"empty") == b""


def store_version(store: Store) -> int:
    snapshot = store.snapshot()
    snapshot.read(Read())
    version = snapshot.version
    snapshot.close()
    assert version is not None
    return version


@pytest.mark.parametrize(
    ("scan", "expected"),
    [
        (Scan(Range(b"b", b"d")), [b"b", b"c"]),
        (Scan(Range(b"b", b"d\x00")), [b"b", b"c", b"d"]),
        (Scan(Range(b"", b"b")), [b"a", b"aa"]),
        (Scan(Range(b"aaa", b"b")), []),
        (Scan(Range(b"d", b"b")), []),
        (Scan(Range(b"b", b"b")), []),
        (Scan(ALL, limit=2), [b"a", b"aa"]),
        (Scan(ALL, limit=0), []),
        (Scan(ALL, limit=100), [b"a", b"aa", b"b", b"c", b"d"]),
        (Scan(ALL, reverse=True), [b"d", b"c", b"b", b"aa", b"a"]),
        (Scan(ALL, limit=2, reverse=True), [b"d", b"c"]),
        (Scan(Range(b"aa", b"c"), reverse=True), [b"b", b"aa"]),
        (Scan(Range(b"aab", b"c"), limit=1, reverse=True), [b"b"]),
        (Scan(Range(b"x", b"z"), reverse=True), []),
        (Scan(Range(b"", b"a"), reverse=True), []),
        (Scan(prefix_range(b"a")), [b"a", b"aa"]),
    ],
)
def test_scan_gives_the_range_in_order_up_to_the_limit(
    store: Store, scan: Scan, expected: list[bytes]
) -> None:
    put(store, a="1", aa="2", b="3", c="4", d="5")
    assert scan_keys(store, scan) == expected


def test_many_scans_come_in_the_order_asked_for(store: Store) -> None:
    put(store, a="1", b="2", c="3")
    reply = read(
        store, Read(scans=[Scan(Range(b"b", b"z")), Scan(Range(b"a", b"b")), Scan(Range(b"x", b"z"))])
    )
    assert [[entry.key for entry in entries] for entries in reply.scans] == [[b"b", b"c"], [b"a"], []]


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_follows_values_to_their_rows(store: Store, reverse: bool) -> None:
    put(store, i1="r1", i2="r2", i3="gone", r1="one", r2="two")
    reply = read(store, Read(keys=[b"r2"], scans=[Scan(Range(b"i", b"j"), reverse=reverse, follow=True)]))
    assert {key: entry and entry.value for key, entry in reply.values.items()} == {
        b"r1": b"one",
        b"r2": b"two",
        b"gone": None,
    }


def test_followed_rows_are_in_the_read_set(store: Store) -> None:
    put(store, i1="r1", r1="one")
    snapshot = store.snapshot()
    snapshot.read(Read(scans=[Scan(Range(b"i", b"j"), follow=True)]))
    put(store, r1="other")
    with pytest.raises(Conflict) as caught:
        store.commit(snapshot, Writes(puts={b"x": b""}))
    assert caught.value.keys == [b"r1"]


def test_ten_megabytes_come_back_whole(store: Store) -> None:
    large = bytes(range(256)) * 40960
    store.commit(None, Writes(puts={b"large": large}))
    assert value(store, b"large") == large
    assert read(store, Read(scans=[Scan(ALL)])).scans[0][0].value == large


def test_twenty_thousand_keys_in_one_commit(store: Store) -> None:
    keys = [b"key%06d" % n for n in range(20_000)]
    version = store.commit(None, Writes(puts={key: key * 4 for key in keys}))
    entries = read(store, Read(scans=[Scan(ALL)])).scans[0]
    assert entries == [Entry(key, key * 4, version) for key in keys]
    snapshot = store.snapshot()
    snapshot.read(Read(keys=keys, presence=keys[:5000], scans=[Scan(ALL)]))
    put(store, other="1")
    with pytest.raises(Conflict):
        store.commit(snapshot, Writes(puts={b"z": b""}))
    snapshot = store.snapshot()
    snapshot.read(Read(keys=keys, presence=keys[:5000], scans=[Scan(prefix_range(b"key"))]))
    put(store, other="2")
    store.commit(snapshot, Writes(deletes=set(keys[:15_000])))
    assert len(read(store, Read(scans=[Scan(prefix_range(b"key"))])).scans[0]) == 5_000


def test_counters_add_and_keep_a_floor(store: Store) -> None:
    assert read(store, Read(counters=[b"n"])).counters == {b"n": 0}
    store.commit(None, Writes(adds={b"n": 5, b"m": -3}, floors={b"f": 7}))
    store.commit(None, Writes(adds={b"n": -2}, floors={b"f": 3}))
    assert read(store, Read(counters=[b"n", b"m", b"f"])).counters == {b"n": 3, b"m": -3, b"f": 7}


def test_floors_tell_the_greatest_integers_apart(store: Store) -> None:
    greatest = 2**63 - 1
    store.commit(None, Writes(floors={b"a": greatest - 1, b"b": -greatest}))
    store.commit(None, Writes(floors={b"a": greatest, b"b": -greatest + 1}))
    assert read(store, Read(counters=[b"a"])).counters[b"a"] == greatest
    store.commit(None, Writes(floors={b"a": greatest - 1}))
    assert read(store, Read(counters=[b"a"])).counters[b"a"] == greatest


def test_floor_below_zero_leaves_an_untouched_counter_at_zero(store: Store) -> None:
    store.commit(None, Writes(floors={b"n": -5}))
    assert read(store, Read(counters=[b"n"])).counters == {b"n": 0}


def test_allocate_hands_out_each_number_once(store: Store) -> None:
    assert store.allocate(b"seq") == 1
    assert store.allocate(b"seq", 10) == 2
    assert read(store, Read(allocate={b"seq": 5, b"other": 1})).allocated == {b"seq": 12, b"other": 1}
    store.commit(None, Writes(floors={b"seq": 100}))
    assert store.allocate(b"seq") == 101


def test_a_counter_without_numbers_left_says_so(store: Store) -> None:
    store.commit(None, Writes(floors={b"seq": 2**63 - 1}))
    with pytest.raises(LimitExceeded):
        store.allocate(b"seq")
    with pytest.raises(LimitExceeded):
        read(store, Read(allocate={b"seq": 1}))
    with pytest.raises(LimitExceeded):
        store.commit(None, Writes(puts={b"a": b"1"}, adds={b"ok": 1, b"seq": 1}))
    assert value(store, b"a") is None
    assert read(store, Read(counters=[b"ok"])).counters == {b"ok": 0}


def test_counters_are_not_in_the_read_set(store: Store) -> None:
    snapshot = store.snapshot()
    snapshot.read(Read(counters=[b"n"], allocate={b"n": 1}))
    store.commit(None, Writes(adds={b"n": 1}))
    store.commit(snapshot, Writes(adds={b"n": 1}))
    assert read(store, Read(counters=[b"n"])).counters == {b"n": 3}


def test_wipe_leaves_nothing_but_versions_go_on(store: Store) -> None:
    before = put(store, a="1")
    store.commit(None, Writes(adds={b"n": 1}))
    old = store.snapshot()
    old.read(Read(keys=[b"a"]))
    store.wipe()
    reply = read(store, Read(keys=[b"a"], scans=[Scan(ALL)], counters=[b"n"]))
    assert (reply.values, reply.scans, reply.counters) == ({b"a": None}, [[]], {b"n": 0})
    assert put(store, a="2") > before
    with pytest.raises(Conflict):
        store.commit(old, Writes(puts={b"b": b""}))
    assert store.allocate(b"n") == 1


def test_a_key_longer_than_the_store_takes_is_refused(store: Store) -> None:
    longest = min(store.characteristics.max_key_bytes, 1_000_000)
    store.commit(None, Writes(puts={b"k" * longest: b"v"}))
    assert value(store, b"k" * longest) == b"v"
    for writes in (Writes(puts={b"": b""}), Writes(deletes={b""})):
        with pytest.raises(LimitExceeded):
            store.commit(None, writes)
    if store.kind == "lmdb":
        for writes in (Writes(puts={b"k" * 512: b""}), Writes(deletes={b"k" * 512})):
            with pytest.raises(LimitExceeded, match="512 bytes"):
                store.commit(None, writes)


def test_a_range_may_end_behind_the_longest_key(store: Store) -> None:
    key = b"k" * 511
    store.commit(None, Writes(puts={key: b"v"}))
    snapshot = store.snapshot()
    snapshot.read(Read(scans=[Scan(Range(key, key + b"\x00")), Scan(ALL, limit=1)]))
    put(store, zzz="1")
    store.commit(snapshot, Writes(puts={b"x": b""}))


def test_a_closed_snapshot_and_a_closed_store_say_so(store: Store) -> None:
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"a"]))
    snapshot.close()
    snapshot.close()
    with pytest.raises(StoreError, match="closed"):
        snapshot.read(Read(keys=[b"a"]))
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.snapshot().read(Read(keys=[b"a"]))
    with pytest.raises(StoreError, match="closed"):
        store.commit(None, Writes(puts={b"a": b""}))
    with pytest.raises(StoreError, match="closed"):
        store.allocate(b"n")


def test_one_read_and_one_commit_are_one_round_trip_each(store: Store) -> None:
    put(store, i1="r1", r1="1")
    read(store, Read(scans=[Scan(ALL)]))
    before = store.round_trips
    snapshot = store.snapshot()
    assert store.round_trips == before
    snapshot.read(
        Read(
            keys=[b"a", b"b"],
            presence=[b"c"],
            scans=[Scan(Range(b"i", b"j"), follow=True), Scan(ALL, limit=1, reverse=True)],
            counters=[b"n"],
            allocate={b"s": 1},
        )
    )
    assert store.round_trips == before + 1
    snapshot.read(Read(keys=[b"d"]))
    assert store.round_trips == before + 2
    store.commit(snapshot, Writes(puts={b"%d" % n: b"" for n in range(3000)}, adds={b"n": 1}))
    assert store.round_trips == before + 3
    store.allocate(b"s")
    assert store.round_trips == before + 4


def test_health_tells_where_and_how(store: Store) -> None:
    put(store, a="1")
    facts = store.health()
    assert facts["store"] == store.kind
    assert facts["version"] == store_version(store)
    assert isinstance(facts["durable"], bool)


def test_an_absence_that_was_assumed_is_verified_though_nothing_changed_since(store: Store) -> None:
    store.commit(None, Writes(puts={b"there": b"1", b"seen": b"2"}))
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"seen"]))
    snapshot.reads.assume_absent(b"there")
    with pytest.raises(Conflict):
        store.commit(snapshot, Writes(puts={b"there": b"overwritten"}))
    snapshot = store.snapshot()
    assert snapshot.read(Read(keys=[b"there"])).values[b"there"].value == b"1"  # type: ignore[union-attr]
    snapshot.close()
