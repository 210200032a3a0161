"""Transactions under a lock: COMMIT stands if the lock was held all the time, and only then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from oslo_db.api import wrap_db_retry
from oslo_db.sqlalchemy import enginefacade
from sqlalchemy import exc, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import Session

import rome
import rome.dbapi

TTL = 0.6


def number(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT n FROM t WHERE id = 1")).scalar_one())


def count_up(connection: Any) -> None:
    connection.execute(text("UPDATE t SET n = n + 1 WHERE id = 1"))


def lose(engine: Engine, lock: rome.Lock) -> None:
    """Let it be over, as if this process had slept."""
    assert rome.store_of(engine).leases.release(lock.name, lock.owner)


@contextmanager
def commit_refused() -> Iterator[None]:
    """COMMIT says that the lock `a` was lost, which is no serialization failure and no lost connection."""
    with pytest.raises(exc.OperationalError) as caught:
        yield
    error = caught.value
    assert isinstance(error.orig, rome.LockLost)
    assert isinstance(error.orig, rome.dbapi.OperationalError)
    assert rome.dbapi.SERIALIZATION_FAILURE not in str(error)
    assert "'a'" in str(error)
    assert not error.connection_invalidated


def test_a_transaction_under_a_lock(engine: Engine) -> None:
    with rome.lock(engine, "a") as lock:
        with Session(engine) as session, session.begin():
            lock.guard(session)
            count_up(session)
        with engine.begin() as connection:
            lock.guard(connection)
            count_up(connection)
        raw = engine.raw_connection()
        lock.guard(raw)
        raw.cursor().execute("UPDATE t SET n = n + 1")
        raw.commit()
        lock.guard(raw.dbapi_connection)
        raw.cursor().execute("UPDATE t SET n = n + 1")
        raw.commit()
        raw.close()
    assert number(engine) == 4


def test_renewal_does_not_disturb_it(engine: Engine) -> None:
    counters = rome.counters_of(engine)
    with rome.lock(engine, "a", ttl=TTL) as lock:
        with engine.begin() as connection:
            lock.guard(connection)
            count_up(connection)
            before = (counters.conflicts, counters.extensions, counters.replays)
            time.sleep(3 * TTL)
    assert number(engine) == 1
    assert (counters.conflicts, counters.extensions, counters.replays) == before


def test_commit_fails_if_the_lock_was_lost(engine: Engine) -> None:
    lock = rome.lock(engine, "a")
    lock.acquire()
    with commit_refused():
        with engine.begin() as connection:
            lock.guard(connection)
            count_up(connection)
            lose(engine, lock)
            connection.execute(text("SELECT n FROM t")).all()
    assert number(engine) == 0


def test_commit_fails_if_another_has_had_the_lock_and_released_it(engine: Engine) -> None:
    lock = rome.lock(engine, "a")
    lock.acquire()
    with commit_refused():
        with engine.begin() as connection:
            lock.guard(connection)
            count_up(connection)
            lose(engine, lock)
            with rome.lock(engine, "a") as other:
                assert other.fencing > lock.fencing
    assert number(engine) == 0


def test_commit_fails_if_the_same_object_has_acquired_the_lock_anew(engine: Engine) -> None:
    lock = rome.lock(engine, "a")
    lock.acquire()
    with commit_refused():
        with engine.begin() as connection:
            lock.guard(connection)
            count_up(connection)
            lock.release()
            lock.acquire()
    lock.release()
    assert number(engine) == 0


def test_commit_fails_if_the_lease_ended_and_nobody_has_taken_it(engine: Engine) -> None:
    store = rome.store_of(engine)
    lock = rome.lock(engine, "a")
    lock.acquire()
    with commit_refused():
        with engine.begin() as connection:
            lock.guard(connection)
            count_up(connection)
            # The last renewal there was, for a process that sleeps from here on.
            assert store.leases.renew([("a", lock.owner, 0.1)]) == [True]
            time.sleep(0.2)
            assert rome.locks.held(store) == []
    assert number(engine) == 0


def test_commit_fails_for_a_transaction_that_only_reads(engine: Engine) -> None:
    with rome.lock(engine, "a") as lock:
        with engine.begin() as connection:
            lock.guard(connection)
            connection.execute(text("SELECT n FROM t")).all()
    lock.acquire()
    with commit_refused():
        with engine.begin() as connection:
            lock.guard(connection)
            connection.execute(text("SELECT n FROM t")).all()
            lose(engine, lock)


def test_a_transaction_that_lost_its_lock_is_not_replayed(engine: Engine) -> None:
    counters = rome.counters_of(engine)
    lock = rome.lock(engine, "a")
    lock.acquire()
    before = (counters.replays, counters.conflicts, counters.raised)
    with commit_refused():
        with engine.begin() as connection:
            lock.guard(connection)
            connection.execute(text("INSERT INTO t VALUES (2, 0)"))
            lose(engine, lock)
    assert (counters.replays, counters.conflicts, counters.raised) == before


def test_oslo_db_makes_no_deadlock_of_it_and_does_not_try_again(url: str, engine: Engine) -> None:
    context = enginefacade.transaction_context()
    context.configure(connection=url)
    oslo_engine = context.writer.get_engine()
    lock = rome.lock(oslo_engine, "a")
    tries = []

    @wrap_db_retry(max_retries=3, retry_on_deadlock=True)  # type: ignore[untyped-decorator]
    def work() -> None:
        lock.acquire()
        tries.append(lock.fencing)
        with oslo_engine.begin() as connection:
            lock.guard(connection)
            count_up(connection)
            lose(oslo_engine, lock)

    try:
        with commit_refused():
            work()
        assert len(tries) == 1
    finally:
        oslo_engine.dispose()
        rome.store_of(oslo_engine).close()
    assert number(engine) == 0


def test_a_transaction_that_is_replayed_is_still_under_its_lock(engine: Engine) -> None:
    counters = rome.counters_of(engine)
    for lost in (False, True):
        lock = rome.lock(engine, "a")
        lock.acquire()
        before = counters.replays
        connection = engine.connect()
        lock.guard(connection)
        connection.execute(text("SELECT id FROM t WHERE n < 100")).all()
        connection.execute(text("INSERT INTO t (n) VALUES (100)"))
        with engine.begin() as other:
            count_up(other)
        if lost:
            # Whoever reads on learns of the conflict, and is replayed before COMMIT.
            assert connection.execute(text("SELECT count(*) FROM t WHERE n = 100")).scalar_one() == 2
            lose(engine, lock)
            with commit_refused():
                connection.commit()
        else:
            connection.commit()
            assert counters.replays > before
            lock.release()
        connection.close()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT n FROM t ORDER BY n")).scalars().all() == [2, 100]


def test_the_next_transaction_is_not_under_the_lock_any_more(engine: Engine) -> None:
    with engine.connect() as connection:
        lock = rome.lock(engine, "a")
        for end in (connection.commit, connection.rollback):
            lock.acquire()
            lock.guard(connection)
            count_up(connection)
            end()
            lock.release()
            count_up(connection)
            connection.commit()
        lock.acquire()
        lock.guard(connection)
        count_up(connection)
        lose(engine, lock)
        with commit_refused():
            connection.commit()
        connection.rollback()
        count_up(connection)
        connection.commit()
    assert number(engine) == 4


def test_savepoints_leave_it_under_its_lock(engine: Engine) -> None:
    lock = rome.lock(engine, "a")
    lock.acquire()
    with commit_refused():
        with engine.begin() as connection:
            nested = connection.begin_nested()
            lock.guard(connection)
            count_up(connection)
            nested.rollback()
            count_up(connection)
            lose(engine, lock)
    assert number(engine) == 0


def test_a_transaction_under_two_locks_needs_both(engine: Engine) -> None:
    lock, other = rome.lock(engine, "a"), rome.lock(engine, "b")
    lock.acquire()
    with other:
        with engine.begin() as connection:
            lock.guard(connection)
            other.guard(connection)
            count_up(connection)
        with commit_refused():
            with engine.begin() as connection:
                lock.guard(connection)
                other.guard(connection)
                count_up(connection)
                lose(engine, lock)
        assert number(engine) == 1


def test_a_lock_that_was_lost_or_released_guards_nothing(engine: Engine) -> None:
    lock = rome.lock(engine, "a")
    with engine.connect() as connection:
        with pytest.raises(rome.LockNotHeld):
            lock.guard(connection)
        with lock:
            lock.guard(connection)
            connection.rollback()
        with pytest.raises(rome.LockNotHeld):
            lock.guard(connection)


def test_a_transaction_that_has_read_cannot_be_put_under_a_lock(engine: Engine) -> None:
    with rome.lock(engine, "a") as lock, rome.lock(engine, "b") as other:
        with engine.connect() as connection:
            connection.execute(text("SELECT n FROM t")).all()
            with pytest.raises(rome.dbapi.ProgrammingError, match="has read already"):
                lock.guard(connection)
            connection.rollback()
            lock.guard(connection)
            connection.execute(text("SELECT n FROM t")).all()
            lock.guard(connection)
            with pytest.raises(rome.dbapi.ProgrammingError, match="has read already"):
                other.guard(connection)


def test_autocommit_has_no_transaction_to_guard(engine: Engine) -> None:
    with rome.lock(engine, "a") as lock:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            with pytest.raises(rome.dbapi.ProgrammingError, match="autocommit"):
                lock.guard(connection)


def test_a_transaction_of_another_engine_is_refused(engine: Engine, open_url: Callable[..., Engine]) -> None:
    with rome.lock(engine, "a") as lock:
        for url in ("rome+memory://another", "sqlite://"):
            other = open_url(url) if url.startswith("rome") else sqlite()
            with other.connect() as connection:
                with pytest.raises(rome.LockError, match="another engine"):
                    lock.guard(connection)
        with pytest.raises(rome.LockError, match="another engine"):
            lock.guard("what is this?")


def sqlite() -> Engine:
    import sqlalchemy

    return sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.NullPool)


def test_guarding_costs_no_round_trip_where_something_is_written(engine: Engine) -> None:
    store = rome.store_of(engine)

    def cost(work: Callable[[Connection], object]) -> int:
        with engine.connect() as connection:
            before = store.round_trips
            work(connection)
            connection.commit()
            return store.round_trips - before

    def read(connection: Connection) -> None:
        connection.execute(text("SELECT n FROM t WHERE id = 1")).all()

    cost(count_up)
    with rome.lock(engine, "a") as lock:
        assert cost(lambda connection: (lock.guard(connection), count_up(connection))) == cost(count_up)
        assert cost(lambda connection: (lock.guard(connection), read(connection))) == cost(read) + 1
