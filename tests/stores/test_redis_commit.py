"""Redis: a commit happens once, whatever becomes of its reply; scripts and round trips."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from rome.errors import (
    CommitUnknown,
    Conflict,
    StoreUnavailable,
)
from rome.stores import Range, Read, Scan, Writes
from rome.stores.redis import RedisStore
from rome.stores.redis_connection import Lost
from tests.servers import RedisServer
from tests.stores.redis_helpers import ALL, Open, check_works, get, put, puts


class CutOff:
    """Stands between a store and its server's reply: the commit arrives, its reply does not."""

    def __init__(self, store: RedisStore, times: int = 1) -> None:
        self.exchange = store.server.exchange
        self.times = times
        store.server.exchange = self  # type: ignore[method-assign]

    def __call__(self, connection: object, command: tuple[bytes | str | int, ...]) -> object:
        reply = self.exchange(connection, command)
        if self.times:
            self.times -= 1
            raise Lost("the reply was cut off")
        return reply


def test_a_commit_whose_reply_was_lost_happens_once(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    put(store, b"a", b"1")
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"a"], scans=[Scan(ALL)]))
    cut = CutOff(store, times=2)
    version = store.commit(snapshot, Writes(puts={b"a": b"2"}, adds={b"puts": 1}))
    assert cut.times == 0
    entry = store.snapshot().read(Read(keys=[b"a"])).values[b"a"]
    assert entry is not None
    assert (entry.value, entry.version, puts(store)) == (b"2", version, 2)


def test_a_conflict_whose_reply_was_lost_stays_a_conflict(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    snapshot = store.snapshot()
    snapshot.read(Read(presence=[b"a"]))
    put(store, b"a")
    CutOff(store)
    with pytest.raises(Conflict):
        store.commit(snapshot, Writes(puts={b"b": b""}))
    assert get(store, b"b") is None


def test_a_commit_that_cannot_be_asked_after_is_unknown(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name", read_timeout=0.5))
    put(store, b"a")
    exchange = store.server.exchange

    def end_the_server(connection: object, command: tuple[bytes | str | int, ...]) -> object:
        store.server.exchange = exchange  # type: ignore[method-assign]
        server.running.send_signal(signal.SIGSTOP)
        threading.Timer(0.1, server.kill).start()
        return exchange(connection, command)

    store.server.exchange = end_the_server  # type: ignore[method-assign]
    with pytest.raises(CommitUnknown, match="may or may not"):
        put(store, b"b")
    deadline = time.monotonic() + 5
    while server.process is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    server.start()
    check_works(store)


def test_commits_through_a_server_that_keeps_being_killed(server: RedisServer, connect: Open) -> None:
    """Every commit that was acknowledged is there, and none is there twice."""
    store = connect(server.url("name"))
    acknowledged: list[int] = []
    unknown: list[int] = []
    done = threading.Event()

    def write() -> None:
        n = 0
        while not done.is_set():
            n += 1
            try:
                store.commit(None, Writes(puts={b"%06d" % n: b""}, adds={b"puts": 1}))
                acknowledged.append(n)
            except CommitUnknown:
                unknown.append(n)
            except StoreUnavailable:
                time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(4):
        time.sleep(0.3)
        server.kill()
        server.start()
    time.sleep(0.2)
    done.set()
    writer.join()
    there = {int(entry.key) for entry in store.snapshot().read(Read(scans=[Scan(ALL)])).scans[0]}
    assert len(acknowledged) > 20
    assert set(acknowledged) - there == set()
    assert there - set(acknowledged) - set(unknown) == set()
    assert puts(store) == len(there)


# scripts


def test_scripts_are_loaded_once_and_again_after_a_flush(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    request = Read(scans=[Scan(ALL)])
    store.snapshot().read(request)
    put(store, b"a")
    for _ in range(2):
        before = store.round_trips
        store.snapshot().read(request)
        put(store, b"a")
        assert store.round_trips - before == 2
        server.command("script", "flush")
        before = store.round_trips
        store.snapshot().read(request)
        put(store, b"a")
        assert store.round_trips - before == 4
    assert puts(store) == 5


def test_a_snapshot_that_moves_forward_costs_one_more_round_trip(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    put(store, b"a")
    store.snapshot().read(Read(scans=[Scan(ALL)]))
    for request in (Read(keys=[b"b"]), Read(scans=[Scan(Range(b"b", b"c"))])):
        snapshot = store.snapshot()
        snapshot.read(Read(keys=[b"a"]))
        put(store, b"x")
        before = store.round_trips
        snapshot.read(request)
        assert store.round_trips - before == 2
        snapshot.read(request)
        assert store.round_trips - before == 3


def test_identities_are_kept_for_a_minute_only(server: RedisServer, connect: Open, tmp_path: Path) -> None:
    store = connect(server.url("name"))
    server.command("zadd", "rome:{name}:commits", "1", "of-1970", "-1", "refused-in-1970")
    put(store, b"a")
    put(store, b"b")
    assert server.command("zcard", "rome:{name}:commits") == "2"


def test_a_commit_that_the_server_has_forgotten_is_unknown(server: RedisServer, connect: Open) -> None:
    """Sent again when its identity is not kept any more, it could be done twice; so it is not done."""
    store, other = connect(server.url("name")), connect(server.url("name"))
    version = put(store, b"a")
    exchange = store.server.exchange

    def lose_the_reply_for_a_minute(connection: object, command: tuple[bytes | str | int, ...]) -> object:
        store.server.exchange = exchange  # type: ignore[method-assign]
        exchange(connection, command)
        other.server.ask(("HSET", "rome:{name}:entries", "", (version + 61_000_000).to_bytes(8)))
        put(other, b"other")
        raise Lost("the reply was cut off")

    store.server.exchange = lose_the_reply_for_a_minute  # type: ignore[method-assign]
    with pytest.raises(CommitUnknown, match="may or may not"):
        put(store, b"b")
    assert puts(store) == 3


def test_a_refusal_of_the_second_try_leaves_open_what_became_of_the_first(
    server: RedisServer, connect: Open
) -> None:
    """The user loses his permissions while the reply to his COMMIT is under way."""
    server.command("ACL", "SETUSER", "plain", "on", ">plain", "~rome:*", "+@all")
    store = connect(server.url("name", user="plain", password="plain", read_timeout=0.5))
    put(store, b"a")
    exchange = store.server.exchange

    def lose_the_reply(connection: object, command: tuple[bytes | str | int, ...]) -> object:
        store.server.exchange = exchange  # type: ignore[method-assign]
        exchange(connection, command)
        server.command("ACL", "SETUSER", "plain", "-@all")
        raise Lost("the reply was cut off")

    store.server.exchange = lose_the_reply  # type: ignore[method-assign]
    with pytest.raises(CommitUnknown, match=r"since then: .*may not do this.*may or may not"):
        put(store, b"b")
    server.command("ACL", "SETUSER", "plain", "+@all")
    assert get(store, b"b") == b"v"


def test_a_commit_found_in_conflict_cannot_happen_late(server: RedisServer, connect: Open) -> None:
    """The first try is held up; the second finds a conflict; when the first arrives, it would hold again."""
    store = connect(server.url("name"))
    put(store, b"other")
    snapshot = store.snapshot()
    snapshot.read(Read(presence=[b"a"]))
    put(store, b"a")
    exchange = store.server.exchange
    held: list[tuple[bytes | str | int, ...]] = []

    def hold_up(connection: object, command: tuple[bytes | str | int, ...]) -> object:
        store.server.exchange = exchange  # type: ignore[method-assign]
        store.server.put_back(connection)
        held.append(command)
        raise Lost("held up on the way")

    store.server.exchange = hold_up  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        store.commit(snapshot, Writes(puts={b"late": b""}))
    store.commit(None, Writes(deletes={b"a"}))
    assert store.server.ask(held[0]) == [b""]
    assert get(store, b"late") is None
