"""What a program sees of a lock: acquiring, releasing, waiting, being renewed, being told of a loss."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

import rome
from rome.errors import AuthenticationFailed, ConfigurationError, StoreError, StoreFull, StoreUnavailable
from tests.locks.children import until
from tests.servers import RedisServer, free_port
from tests.threads import in_threads

TTL = 0.6


def names(engine: Engine) -> list[str]:
    return [held.name for held in rome.locks.held(rome.store_of(engine))]


# Holding


def test_a_lock_is_held_within_its_block(engine: Engine) -> None:
    lock = rome.lock(engine, "a")
    assert (lock.locked, lock.lost, lock.remaining) == (False, False, 0.0)
    with lock as entered:
        assert entered is lock
        assert (lock.locked, lock.lost) == (True, False)
        assert 0 < lock.remaining <= lock.ttl
        lock.check()
        (held,) = rome.locks.held(rome.store_of(engine))
        assert (held.name, held.owner, held.fencing) == ("a", lock.owner, lock.fencing)
        assert 0 < held.remaining <= lock.ttl
    assert not lock.locked
    assert names(engine) == []


def test_a_block_that_fails_releases_the_lock(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError):
        with rome.lock(engine, "a"):
            _ = 1 / 0
    assert names(engine) == []


def test_nobody_else_gets_it_meanwhile(engine: Engine, open_engine: Callable[..., Engine]) -> None:
    others = [rome.lock(engine, "a"), rome.lock(open_engine(), "a")]
    with rome.lock(engine, "a"):
        for other in others:
            assert not other.acquire(blocking=False)
            assert not other.acquire(timeout=0)
            begun = time.monotonic()
            assert not other.acquire(timeout=0.3)
            assert 0.3 <= time.monotonic() - begun < 2
            assert not other.locked
            with rome.lock(engine, "b", blocking=False):
                assert names(engine) == ["a", "b"]
    for other in others:
        assert other.acquire(blocking=False)
        other.release()


def test_with_raises_where_the_lock_is_not_to_be_had(engine: Engine) -> None:
    with rome.lock(engine, "a"):
        for impatient in (rome.lock(engine, "a", blocking=False), rome.lock(engine, "a", timeout=0.1)):
            with pytest.raises(rome.LockTimeout, match="'a'"):
                with impatient:
                    pytest.fail("the lock was held by two")


def test_acquiring_twice_raises_at_once(engine: Engine) -> None:
    lock = rome.lock(engine, "a")
    with lock:
        begun = time.monotonic()
        with pytest.raises(rome.LockError, match="not reentrant"):
            lock.acquire()
        with pytest.raises(rome.LockError, match="not reentrant"):
            with lock:
                pytest.fail("the lock was acquired twice")
        assert time.monotonic() - begun < 1
        assert lock.locked
    with lock:
        assert lock.locked


def test_one_object_cannot_acquire_in_two_threads(engine: Engine) -> None:
    lock = rome.lock(engine, "a")
    with rome.lock(engine, "a"):
        waiter = threading.Thread(target=lock.acquire, kwargs={"timeout": 30})
        waiter.start()
        until(lambda: rome.locks.held(rome.store_of(engine))[0].waiting)
        with pytest.raises(rome.LockError, match="in another thread"):
            lock.acquire()
    waiter.join()
    assert lock.locked
    lock.release()


def test_what_is_not_held_cannot_be_released(engine: Engine) -> None:
    lock, other = rome.lock(engine, "a"), rome.lock(engine, "a")
    with lock:
        with pytest.raises(rome.LockNotHeld, match="'a'"):
            other.release()
        lock.check()
        assert names(engine) == ["a"]
    for use in (lock.release, lock.check, lambda: lock.owner, lambda: lock.fencing):
        with pytest.raises(rome.LockNotHeld, match="'a'"):
            use()


def test_each_time_it_is_acquired_there_is_another_owner_and_a_greater_number(engine: Engine) -> None:
    lock = rome.lock(engine, "a")
    seen = []
    for _ in range(10):
        with lock:
            seen.append((lock.fencing, lock.owner))
    assert [fencing for fencing, _ in seen] == sorted({fencing for fencing, _ in seen})
    assert len({owner for _, owner in seen}) == 10


# What it costs


def test_acquiring_and_releasing_cost_one_round_trip_each(engine: Engine) -> None:
    store = rome.store_of(engine)
    lock = rome.lock(engine, "a")
    with lock:
        """Redis learns the script."""
    before = store.round_trips
    lock.acquire()
    assert store.round_trips == before + 1
    assert lock.locked
    assert lock.remaining > 0
    lock.check()
    assert store.round_trips == before + 1
    lock.release()
    assert store.round_trips == before + 2


def test_all_locks_of_a_process_are_renewed_by_one_thread_and_together(engine: Engine) -> None:
    store = rome.store_of(engine)
    threads = threading.active_count()
    locks = [rome.lock(engine, f"lock {number}", ttl=TTL) for number in range(20)]
    for lock in locks:
        assert lock.acquire()
    assert threading.active_count() == threads + 1
    before = store.round_trips
    time.sleep(5 * TTL)
    for lock in locks:
        lock.check()
    # 15 thirds of the time; in two lots, since they were not acquired at once. One by one it were 300.
    assert 10 <= store.round_trips - before <= 40
    for lock in locks:
        lock.release()


def test_waiting_does_not_hammer_the_store(engine: Engine) -> None:
    store = rome.store_of(engine)
    with rome.lock(engine, "a"):
        before = store.round_trips
        in_threads(5, lambda _: rome.lock(engine, "a").acquire(timeout=2))
        # The first asks ten to twenty times a second, the others two to four times.
        assert store.round_trips - before < 2 * (20 + 4 * 4) + 5 * 15


def test_locks_disturb_no_transaction(engine: Engine) -> None:
    store = rome.store_of(engine)
    counters = rome.counters_of(engine)
    with engine.begin() as connection:
        connection.execute(text("SELECT * FROM t")).all()
        before = (counters.conflicts, counters.extensions, counters.replays)
        version = store.health()["version"]
        with rome.lock(engine, "a", ttl=TTL):
            rome.lock(engine, "a").acquire(timeout=0.1)
            time.sleep(TTL)
        assert store.health()["version"] == version
        connection.execute(text("UPDATE t SET n = n + 1"))
    assert (counters.conflicts, counters.extensions, counters.replays) == before


# Time


def test_a_lock_is_renewed_for_as_long_as_it_is_held(engine: Engine) -> None:
    lost: list[rome.Lock] = []
    with rome.lock(engine, "a", ttl=TTL, on_loss=lost.append) as lock:
        fencing = lock.fencing
        end = time.monotonic() + 6 * TTL
        while time.monotonic() < end:
            assert not rome.lock(engine, "a").acquire(blocking=False)
            assert lock.remaining > 0
            time.sleep(0.05)
        lock.check()
        assert lock.fencing == fencing
    assert lost == []


def test_a_lock_that_was_forgotten_ends(engine: Engine) -> None:
    lock = rome.lock(engine, "a", ttl=TTL)
    lock.acquire()
    del lock
    gc.collect()
    other = rome.lock(engine, "a")
    assert other.acquire(timeout=TTL + 5)
    other.release()


# Loss


def lose(engine: Engine, lock: rome.Lock) -> None:
    """Let somebody else have taken it, as if this process had slept."""
    store = rome.store_of(engine)
    assert store.leases.release(lock.name, lock.owner)


def test_a_loss_is_told(engine: Engine) -> None:
    told: list[rome.Lock] = []
    lock = rome.lock(engine, "a", ttl=TTL, on_loss=told.append)
    lock.acquire()
    lose(engine, lock)
    until(lambda: told)
    assert told == [lock]
    assert (lock.locked, lock.lost, lock.remaining) == (False, True, 0.0)
    with rome.lock(engine, "a", blocking=False) as other:
        assert other.fencing > lock.fencing
        for use in (lock.check, lambda: lock.guard(Session(engine)), lock.release):
            with pytest.raises(rome.LockLost, match="'a'"):
                use()
        with pytest.raises(rome.LockNotHeld):
            lock.release()
        time.sleep(TTL)
        other.check()
    assert told == [lock]
    with lock:
        assert (lock.locked, lock.lost) == (True, False)


def test_a_callback_that_fails_hinders_no_renewal(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    def fail(lock: rome.Lock) -> None:
        raise ZeroDivisionError

    with rome.lock(engine, "b", ttl=TTL) as other:
        lock = rome.lock(engine, "a", ttl=TTL, on_loss=fail)
        lock.acquire()
        lose(engine, lock)
        until(lambda: "ZeroDivisionError" in caplog.text)
        time.sleep(2 * TTL)
        other.check()


def test_the_end_of_a_block_tells_of_a_loss(engine: Engine) -> None:
    with pytest.raises(rome.LockLost, match="'a'"):
        with rome.lock(engine, "a") as lock:
            lose(engine, lock)


def test_the_end_of_a_block_that_failed_tells_why_it_failed(engine: Engine) -> None:
    def work() -> None:
        with rome.lock(engine, "a") as lock:
            lose(engine, lock)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()


def test_a_lock_whose_store_was_closed_is_lost(open_engine: Callable[..., Engine]) -> None:
    engine = open_engine()
    told: list[rome.Lock] = []
    lock = rome.lock(engine, "a", ttl=TTL, on_loss=told.append)
    lock.acquire()
    rome.store_of(engine).close()
    until(lambda: told, 10 * TTL)
    with pytest.raises(StoreError, match="closed"):
        lock.release()
    assert not lock.locked


# Bad input


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": ""}, "empty"),
        ({"name": None}, "a text, not NoneType"),
        ({"name": b"a"}, "a text, not bytes"),
        ({"name": "ä" * 128}, "256 bytes; 255 are the most"),
        ({"name": "a\nb"}, "control characters"),
        ({"name": "\ud800"}, "control characters"),
        ({"ttl": 0}, "ttl=0"),
        ({"ttl": -1}, "ttl=-1"),
        ({"ttl": float("nan")}, "ttl=nan"),
        ({"ttl": float("inf")}, "ttl=inf"),
        ({"timeout": -1}, "timeout=-1"),
        ({"timeout": 1, "blocking": False}, "blocking"),
    ],
)
def test_what_cannot_be_is_refused(engine: Engine, options: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        rome.lock(engine, **({"name": "a"} | options))  # type: ignore[arg-type]


def test_only_engines_of_rome_have_locks() -> None:
    for other in (sqlalchemy.create_engine("sqlite://"), "rome+memory://", None):
        with pytest.raises(ConfigurationError, match="rome"):
            rome.lock(other, "a")  # type: ignore[arg-type]


def test_the_longest_and_the_strangest_names(engine: Engine) -> None:
    for name in ("ä" * 127 + "x", "{a}:*", " ", "'; DROP TABLE t; --", "\x7f\U0001f512"):
        with rome.lock(engine, name) as lock:
            assert names(engine) == [name]
            with pytest.raises(rome.LockError):
                lock.acquire()
            lose(engine, lock)
            with pytest.raises(rome.LockLost) as caught:
                rome.store_of(engine).leases.require({name: 1})
            assert repr(name) in str(caught.value)
            with rome.lock(engine, name):
                with pytest.raises(rome.LockLost):
                    lock.release()
            lock.acquire(blocking=False)


# Redis in trouble


def test_a_server_that_is_not_there(open_url: Callable[..., Engine]) -> None:
    lock = rome.lock(open_url(f"rome+redis://127.0.0.1:{free_port()}/a"), "a")
    for acquire in (lock.acquire, lambda: lock.acquire(blocking=False), lock.__enter__):
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            acquire()
    assert not lock.locked


def test_a_user_that_may_not(open_url: Callable[..., Engine]) -> None:
    with RedisServer(password="secret") as server:
        lock = rome.lock(open_url(server.url("a", password="wrong")), "a")
        with pytest.raises(AuthenticationFailed):
            lock.acquire()


def test_a_server_that_dies_loses_the_lock(own_server: RedisServer, open_url: Callable[..., Engine]) -> None:
    told: list[rome.Lock] = []
    lock = rome.lock(open_url(own_server.url("a")), "a", ttl=TTL, on_loss=told.append)
    lock.acquire()
    own_server.kill()
    until(lambda: told, 10 * TTL)
    assert lock.lost
    with pytest.raises(StoreUnavailable):
        lock.release()
    own_server.start()
    with lock:
        assert lock.locked


def test_a_server_that_is_restarted_in_time_loses_nothing(
    own_server: RedisServer, open_url: Callable[..., Engine]
) -> None:
    engine = open_url(own_server.url("a"))
    with rome.lock(engine, "a", ttl=6) as lock:
        own_server.kill()
        time.sleep(2.5)  # one renewal fails
        own_server.start()
        time.sleep(5)
        lock.check()
        assert names(engine) == ["a"]


def test_a_server_that_hangs_for_a_while_loses_nothing(
    own_server: RedisServer, open_url: Callable[..., Engine]
) -> None:
    engine = open_url(own_server.url("a", read_timeout=0.5))
    with rome.lock(engine, "a", ttl=4) as lock:
        own_server.pause()
        time.sleep(2.5)
        own_server.resume()
        time.sleep(3)
        lock.check()
        assert names(engine) == ["a"]


def test_a_server_that_hangs_while_a_lock_is_acquired(
    own_server: RedisServer, open_url: Callable[..., Engine]
) -> None:
    engine = open_url(own_server.url("a", read_timeout=0.5))
    lock = rome.lock(engine, "a")
    own_server.pause()
    with pytest.raises(StoreUnavailable, match="within the time-out"):
        lock.acquire()
    own_server.resume()
    until(lambda: lock.acquire(blocking=False), 2 * lock.ttl)
    lock.release()


def test_locks_are_renewed_where_memory_is_full(
    own_server: RedisServer, open_url: Callable[..., Engine]
) -> None:
    engine = open_url(own_server.url("a"))
    with rome.lock(engine, "a", ttl=TTL) as lock:
        own_server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreFull):
            rome.lock(engine, "b").acquire()
        time.sleep(3 * TTL)
        lock.check()
        assert names(engine) == ["a"]
        lock.release()
        assert names(engine) == []
        own_server.command("CONFIG", "SET", "maxmemory", "0")
        lock.acquire()
