"""Redis servers that are down, hung, restarted, full, read-only or damaged."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from rome.errors import (
    CommitUnknown,
    FormatError,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreTimeout,
    StoreUnavailable,
)
from rome.stores import Read, Scan, Writes
from tests.servers import RedisServer, free_port
from tests.stores.redis_helpers import ALL, Open, check_works, get, put, puts

# down, hung, restarted


def test_a_server_that_is_down(connect: Open) -> None:
    port = free_port()
    store = connect(f"rome+redis://user:secret@127.0.0.1:{port}/name")
    for action in (
        lambda: get(store, b"a"),
        lambda: put(store, b"a"),
        lambda: store.allocate(b"n"),
        store.health,
        store.wipe,
    ):
        with pytest.raises(StoreUnavailable, match=rf"127.0.0.1:{port}.*refused") as caught:
            action()
        assert not isinstance(caught.value, CommitUnknown)


def test_a_host_that_is_not_known(connect: Open) -> None:
    with pytest.raises(StoreUnavailable, match="no-such-host"):
        get(connect("rome+redis://no-such-host.invalid/name"), b"a")


def test_a_hung_server_is_given_up_within_the_time_out(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name", read_timeout=0.5, connect_timeout=0.5))
    put(store, b"a")
    fresh = connect(server.url("name", read_timeout=0.5, connect_timeout=0.5))
    server.pause()
    for action, error in (
        (lambda: get(store, b"a"), StoreTimeout),
        (lambda: store.allocate(b"n"), StoreTimeout),
        (lambda: get(fresh, b"a"), StoreTimeout),
        (lambda: put(fresh, b"b"), StoreTimeout),
    ):
        began = time.monotonic()
        with pytest.raises(error, match="time-out") as caught:
            action()
        assert not isinstance(caught.value, CommitUnknown)
        assert time.monotonic() - began < 1.5
    server.resume()
    check_works(store)
    check_works(fresh)


def test_commit_on_a_server_that_hangs_is_unknown(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name", read_timeout=0.5))
    put(store, b"a")
    server.pause()
    began = time.monotonic()
    with pytest.raises(CommitUnknown, match="may or may not"):
        put(store, b"b")
    assert time.monotonic() - began < 1.5
    server.resume()
    check_works(store)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_server_is_used_again_and_nothing_is_lost(
    server: RedisServer, connect: Open, how: signal.Signals
) -> None:
    store = connect(server.url("name"))
    snapshot = store.snapshot()
    put(store, b"a", b"1")
    snapshot.read(Read(keys=[b"a"]))
    server.stop(how)
    with pytest.raises(StoreUnavailable, match="refused"):
        get(store, b"a")
    with pytest.raises(StoreUnavailable, match="refused"):
        put(store, b"b")
    server.start()
    assert get(store, b"a") == b"1"
    store.commit(snapshot, Writes(puts={b"c": b"3"}))
    assert (get(store, b"b"), get(store, b"c"), puts(store)) == (None, b"3", 1)


def test_commit_as_the_first_call_after_a_restart(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    for n in range(3):
        put(store, b"%d" % n)
        server.restart()
        put(store, b"after%d" % n)
    assert puts(store) == 6


def test_many_idle_connections_that_died_cost_one_attempt(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    barrier = threading.Barrier(8)

    def use() -> None:
        connection, _ = store.server.take()
        barrier.wait()
        store.server.put_back(connection)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.restart()
    before = store.round_trips
    assert get(store, b"a") is None
    assert store.round_trips - before == 2


def test_a_dead_connection_that_is_put_back_late_is_not_met_twice(
    server: RedisServer, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread was at the end of its exchange when this one threw the dead connections away."""
    store = connect(server.url("name"))
    (first, _), (second, _) = store.server.take(), store.server.take()
    store.server.put_back(first)
    forget = store.server.forget

    def forget_and_be_given_another() -> None:
        forget()
        store.server.put_back(second)

    monkeypatch.setattr(store.server, "forget", forget_and_be_given_another)
    server.restart()
    assert get(store, b"a") is None


# full, read-only, damaged


def test_out_of_memory_writes_nothing_and_deletes_are_let_through(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    for n in range(50):
        put(store, b"k%02d" % n, bytes(100_000))
    put(store, b"free")
    server.command("config", "set", "maxmemory", "3mb")
    before = server.command("hlen", "rome:{name}:entries"), server.command("zcard", "rome:{name}:order")
    for writes in (
        Writes(puts={b"new": b""}),
        Writes(puts={b"new": b""}, deletes={b"k00"}, adds={b"puts": 1}),
        Writes(adds={b"puts": 1}),
    ):
        with pytest.raises(StoreFull, match="out of memory"):
            store.commit(None, writes)
    with pytest.raises(StoreFull):
        store.allocate(b"n")
    after = server.command("hlen", "rome:{name}:entries"), server.command("zcard", "rome:{name}:order")
    assert after == before
    assert (get(store, b"new"), puts(store)) == (None, 51)
    assert get(store, b"k00") == bytes(100_000)
    for n in range(50):
        store.commit(None, Writes(deletes={b"k%02d" % n}, adds={b"puts": -1}))
    assert puts(store) == 1
    server.command("config", "set", "maxmemory", "0")
    check_works(store)


def test_a_replica_is_readable_but_read_only(server: RedisServer, connect: Open) -> None:
    put(connect(server.url("name")), b"a", b"1")
    with RedisServer(replica_of=server) as replica:
        store = connect(replica.url("name"))
        deadline = time.monotonic() + 20
        while True:
            try:
                if get(store, b"a") == b"1":
                    break
            except StoreUnavailable:  # it is still loading what the primary sent
                pass
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(store.snapshot().read(Read(scans=[Scan(ALL)])).scans[0]) == 1
        assert store.health()["role"] == "slave"
        for action in (lambda: put(store, b"a"), lambda: store.allocate(b"n"), store.wipe):
            with pytest.raises(StoreReadOnly, match="replica"):
                action()


def test_a_server_that_wants_replicas_it_has_not_got(server: RedisServer, connect: Open) -> None:
    store = connect(server.url("name"))
    server.command("config", "set", "min-replicas-to-write", "1")
    with pytest.raises(StoreReadOnly, match="too few replicas"):
        put(store, b"a")
    server.command("config", "set", "min-replicas-to-write", "0")
    check_works(store)


def test_a_server_that_cannot_save_takes_no_writes(connect: Open) -> None:
    with RedisServer(settings={"save": "3600 1"}) as server:
        store = connect(server.url("name"))
        put(store, b"a")
        server.command("config", "set", "dbfilename", "dump.rdb")
        (server.directory / "dump.rdb").mkdir()
        server.command("bgsave")
        deadline = time.monotonic() + 10
        while "rdb_last_bgsave_status:err" not in server.command("info", "persistence"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(StoreReadOnly, match="cannot save"):
            put(store, b"b")
        assert (get(store, b"a"), get(store, b"b")) == (b"v", None)


@pytest.mark.parametrize("lost", ["order", "entries"])
def test_a_server_that_evicted_half_of_a_database_is_found_out(
    server: RedisServer, connect: Open, lost: str
) -> None:
    store = connect(server.url("name"))
    put(store, b"a")
    server.command("del", f"rome:{{name}}:{lost}")
    with pytest.raises(FormatError, match="noeviction"):
        store.snapshot().read(Read(scans=[Scan(ALL)]))
    with pytest.raises(FormatError, match="noeviction"):
        put(store, b"b")


def test_a_server_set_to_evict_is_told_by_health(connect: Open) -> None:
    with RedisServer(settings={"maxmemory-policy": "allkeys-lru"}) as server:
        assert connect(server.url("name")).health()["evicts"] is True


@pytest.mark.parametrize(
    ("appendonly", "appendfsync", "durable"),
    [(True, "always", True), (True, "everysec", False), (False, "always", False)],
)
def test_health_tells_how_durable_a_commit_is(
    connect: Open, appendonly: bool, appendfsync: str, durable: bool
) -> None:
    with RedisServer(appendonly=appendonly, appendfsync=appendfsync) as server:
        facts = connect(server.url("name")).health()
        assert (facts["appendonly"], facts["appendfsync"]) == (appendonly, appendfsync)
        assert facts["durable"] is durable
        assert str(facts["redis_version"]).count(".") == 2
        assert facts["role"] == "master"


def test_keys_of_another_kind_are_an_error_not_a_wrong_answer(server: RedisServer, connect: Open) -> None:
    server.command("set", "rome:{name}:entries", "x")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        get(connect(server.url("name")), b"a")


def test_a_database_works_on_one_node_of_a_cluster(connect: Open) -> None:
    with RedisServer(settings={"cluster-enabled": "yes", "cluster-port": str(free_port())}) as server:
        store = connect(server.url("name"))
        with pytest.raises(StoreUnavailable, match="cannot answer now"):
            get(store, b"a")
        server.command("cluster", "addslots", *map(str, range(8192)))
        server.command("cluster", "addslots", *map(str, range(8192, 16384)))
        deadline = time.monotonic() + 10
        while "cluster_state:ok" not in server.command("cluster", "info"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        check_works(store)


def test_ipv6(connect: Open) -> None:
    with RedisServer(settings={"bind": "127.0.0.1 -::1"}) as server:
        store = connect(f"rome+redis://[::1]:{server.port}/name")
        try:
            check_works(store)
        except StoreUnavailable as error:
            pytest.skip(f"no IPv6 here: {error}")
