"""Redis: readers that go on in the past, and what is kept for them. (test_model.py has what they see.)"""

from __future__ import annotations

import random
import time

import pytest

from rome.errors import ConfigurationError, Conflict
from rome.stores import Range, Read, Scan, Snapshot, Writes
from rome.stores.redis import RedisStore
from tests.servers import RedisServer
from tests.stores.redis_helpers import Open, put

KEYS = [b"k\x00%04d" % number for number in range(400)]
RANGE = Range(b"k", b"l")


def begun(store: RedisStore, key: bytes = b"seen") -> Snapshot:
    """A snapshot that has read a key, which then changes: from its next read on, it is in the past."""
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[key]))
    put(store, key, b"changed")
    return snapshot


def kept(server: RedisServer, kind: str) -> int:
    command = {"past": "ZCARD", "old": "HLEN", "log": "LLEN"}[kind]
    return int(server.command(command, f"rome:{{name}}:{kind}"))


@pytest.mark.parametrize("seed", range(5))
def test_a_long_scan_in_the_past(server: RedisServer, connect: Open, seed: int) -> None:
    chance = random.Random(seed)
    store = connect(server.url("name"))
    there = chance.sample(KEYS, 250)
    store.commit(None, Writes(puts=dict.fromkeys(there, b"1")))
    reader = begun(store)
    for version in range(5):
        touched = chance.sample(KEYS, 120)
        puts = dict.fromkeys(touched[:60], b"new %d" % version)
        store.commit(None, Writes(puts=puts, deletes=set(touched[60:])))
    reader.read(Read(scans=[Scan(RANGE)]))
    trips = store.round_trips
    for limit in (None, 1, 90, 100, 101, 249, 250, 251):
        for reverse in (False, True):
            (entries,) = reader.read(Read(scans=[Scan(RANGE, limit, reverse)])).scans
            expected = sorted(there, reverse=reverse)[:limit]
            assert [(entry.key, entry.value) for entry in entries] == [(key, b"1") for key in expected]
    assert store.round_trips - trips == 16


def test_a_reader_in_the_past_is_refused_only_when_it_writes(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    put(store, b"other", b"1")
    reader = begun(store)
    put(store, b"other", b"2")
    reply = reader.read(Read(keys=[b"other", b"seen"], presence=[b"seen"]))
    assert reply.values[b"other"] is not None
    assert reply.values[b"other"].value == b"1"
    assert reply.values[b"seen"] is None
    assert reply.presence == {b"seen": False}
    assert reader.extensions == 0
    with pytest.raises(Conflict) as caught:
        store.commit(reader, Writes(puts={b"mine": b""}))
    assert set(caught.value.keys) == {b"other", b"seen"}


def test_one_that_has_written_hears_of_it_at_its_next_read(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    writer = begun(store)
    writer.newest_only = True
    with pytest.raises(Conflict):
        writer.read(Read(keys=[b"other"]))


def test_the_past_is_kept_as_long_as_the_url_says(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name") + "?history=1")
    put(store, b"a", b"0")
    reader, early, quiet = store.snapshot(), store.snapshot(), store.snapshot()
    for snapshot in (reader, early):
        snapshot.read(Read(keys=[b"a"]))
    for number in range(50):
        put(store, b"a", b"%d" % number)
    quiet.read(Read(keys=[b"a"]))
    assert early.read(Read(keys=[b"b"])).values == {b"b": None}
    assert (kept(server, "past"), kept(server, "log")) == (51 + 50, 51)
    time.sleep(1.1)
    assert early.read(Read(keys=[b"b"])).values == {b"b": None}
    for number in range(20):
        put(store, b"c", b"%d" % number)
    assert kept(server, "past") < 60
    assert kept(server, "old") == kept(server, "past") + 1
    for snapshot in (reader, early):
        with pytest.raises(Conflict):
            snapshot.read(Read(keys=[b"c"]))
    # Nothing had come after this one until now.
    assert quiet.read(Read(keys=[b"c"])).values[b"c"] is not None


def test_no_history(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name") + "?history=0")
    reader = begun(store)
    with pytest.raises(Conflict):
        reader.read(Read(keys=[b"other"]))
    assert server.command("EXISTS", *(f"rome:{{name}}:{kind}" for kind in ("past", "old", "log"))) == "0"
    # A writer that keeps nothing ends what others have kept.
    other = connect(server.url("name"))
    reader = begun(other)
    put(store, b"seen", b"unkept")
    put(other, b"seen", b"kept")
    with pytest.raises(Conflict):
        reader.read(Read(keys=[b"none"]))


@pytest.mark.parametrize("value", ["-1", "x", "1.5"])
def test_history_is_a_whole_number(server: RedisServer, connect: Open, value: str) -> None:
    with pytest.raises(ConfigurationError, match="history"):
        connect(server.url("name") + f"?history={value}")


def test_what_is_new_replaces_nothing(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    for number in range(10):
        store.commit(None, Writes(puts={b"%d-%d" % (number, n): b"" for n in range(100)}))
    assert (kept(server, "past"), kept(server, "log")) == (10, 10)


def test_a_state_that_the_store_has_lost_is_not_read(server: RedisServer, connect: Open) -> None:
    """As after a fail-over: the reader's state is in nobody's past."""
    store = connect(server.url("name"))
    put(store, b"a", b"1")
    reader = begun(store, b"a")
    store.wipe()
    for number in range(3):
        put(store, b"a", b"lost %d" % number)
    with pytest.raises(Conflict):
        reader.read(Read(keys=[b"a"]))


def test_a_commit_too_large_to_be_kept(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    many = {b"%d" % number: b"" for number in range(10_001)}
    store.commit(None, Writes(puts=many))
    store.commit(None, Writes(puts={b"large": bytes(5 * 2**20)}))
    for writes in (Writes(deletes=set(many)), Writes(deletes={b"large"})):
        reader = begun(store)
        store.commit(None, writes)
        assert kept(server, "past") == 0
        with pytest.raises(Conflict):
            reader.read(Read(keys=[b"other"]))


def test_what_is_kept_has_a_greatest_size(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    put(store, b"a", bytes(3 * 2**20))
    first = begun(store)
    for number in range(9):
        put(store, b"a", bytes([number]) * (3 * 2**20))
    late = begun(store)
    assert first.read(Read(keys=[b"other"])).values == {b"other": None}
    for number in range(5):
        put(store, b"a", bytes([number]) * (3 * 2**20))
    with pytest.raises(Conflict):
        first.read(Read(keys=[b"a"]))
    entry = late.read(Read(keys=[b"a"])).values[b"a"]
    assert entry is not None
    assert entry.value == bytes([8]) * (3 * 2**20)
    size = int(server.command("HGET", "rome:{name}:old", ""))
    assert 25 * 2**20 < size < 33 * 2**20
