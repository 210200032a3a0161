"""Locks between processes: exclusion, fairness, and holders and waiters that die, sleep or fork."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

import rome
from rome.stores.leases import PLACE_SECONDS
from rome.stores.lmdb import LMDBStore
from tests.locks.children import Child, until

PROCESSES = 8
TRIES = 40
TTL = 1.0

Start = Callable[..., Child]

COUNT = """
path, number, tries = hear(), hear(), int(hear())
lock = rome.lock(engine, "counter", ttl=20)
say("ready")
hear()
for _ in range(tries):
    with lock:
        with open(path) as file:
            before = int(file.read())
        os.sched_yield()
        with open(path, "w") as file:
            file.write(str(before + 1))
        with open(path + ".log", "a") as file:
            file.write(f"{number} {lock.fencing}\\n")
say("done")
"""


def check_turns(turns: list[tuple[int, int]], contenders: int, tries: int) -> None:
    """Fencing numbers grow, and nobody waits much longer than it takes all others to have a turn."""
    assert len(turns) == contenders * tries
    fencing = [number for _, number in turns]
    assert fencing == sorted(set(fencing))
    for contender in range(contenders):
        at = [position for position, (who, _) in enumerate(turns) if who == contender]
        assert len(at) == tries
        # It may be slow to stand in line again, but there it stands until it is its turn.
        longest = max(later - sooner for sooner, later in pairwise(at))
        assert longest <= 6 * contenders


def test_processes_never_hold_a_lock_at_once(child: Start, tmp_path: Path) -> None:
    path = tmp_path / "counter"
    path.write_text("0")
    children = [child(COUNT) for _ in range(PROCESSES)]
    for number, one in enumerate(children):
        for line in (path, number, TRIES):
            one.tell(str(line))
    for one in children:
        assert one.said() == "ready"
    for one in children:
        one.tell()
    for one in children:
        assert one.said() == "done"
    assert path.read_text() == str(PROCESSES * TRIES)
    log = Path(f"{path}.log").read_text().splitlines()
    check_turns([(int(who), int(number)) for who, number in map(str.split, log)], PROCESSES, TRIES)


def test_threads_never_hold_a_lock_at_once(engine: Engine) -> None:
    count = 0
    turns: list[tuple[int, int]] = []

    def work(number: int) -> None:
        nonlocal count
        lock = rome.lock(engine, "counter")
        start.wait()
        for _ in range(TRIES):
            with lock:
                before = count
                time.sleep(0)
                count = before + 1
                turns.append((number, lock.fencing))

    start = threading.Barrier(8)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == 8 * TRIES
    check_turns(turns, 8, TRIES)


WAIT = """
lock = rome.lock(engine, "a", ttl=float(hear() or 10))
lock.acquire()
say(lock.fencing)
hear()
lock.release()
"""


def test_processes_are_served_in_the_order_they_came(child: Start, shared_engine: Engine) -> None:
    with rome.lock(shared_engine, "a"):
        children = []
        for number in range(5):
            children.append(child(WAIT))
            children[-1].tell()
            until(lambda waiting=number + 1: held(shared_engine).waiting == waiting)
    seen = []
    for one in children:
        seen.append(int(one.said()))
        one.tell()
    assert seen == sorted(set(seen))


def held(engine: Engine) -> rome.locks.Held:
    (one,) = rome.locks.held(rome.store_of(engine))
    return one


def test_the_lock_of_a_process_that_was_killed_ends_with_its_lease(
    child: Start, shared_engine: Engine
) -> None:
    holder = child(WAIT)
    holder.tell(str(2 * TTL))
    fencing = int(holder.said())
    assert held(shared_engine).owner.split(":")[1] == str(holder.pid)
    lock = rome.lock(shared_engine, "a")
    assert not lock.acquire(timeout=3 * TTL), "it is renewed while its process lives"
    holder.signal(signal.SIGKILL)
    begun = time.monotonic()
    assert lock.acquire(timeout=60)
    assert TTL < time.monotonic() - begun < 2 * TTL + 1.5
    assert lock.fencing > fencing
    lock.release()


def test_a_waiter_that_was_killed_is_passed_over(child: Start, shared_engine: Engine) -> None:
    lock = rome.lock(shared_engine, "a")
    lock.acquire()
    waiter = child(WAIT)
    waiter.tell()
    until(lambda: held(shared_engine).waiting == 1)
    waiter.signal(signal.SIGKILL)
    waiter.ended()
    lock.release()
    begun = time.monotonic()
    assert lock.acquire(timeout=60)
    assert time.monotonic() - begun < PLACE_SECONDS + 1.5
    lock.release()


def test_a_waiter_that_gives_up_is_passed_over_at_once(child: Start, shared_engine: Engine) -> None:
    with rome.lock(shared_engine, "a"):
        waiter = child(
            """
            # A shell that runs the tests in the background has them ignore it.
            import signal
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                rome.lock(engine, "a").acquire()
            except KeyboardInterrupt:
                say("interrupted")
            """
        )
        until(lambda: held(shared_engine).waiting == 1)
        waiter.signal(signal.SIGINT)
        assert waiter.said() == "interrupted"
        assert held(shared_engine).waiting == 0


SLEEPER = """
told = []
lock = rome.lock(engine, "a", ttl=1, on_loss=lambda lock: told.append("told"))
lock.acquire()
say(lock.fencing)
session = Session(engine)
lock.guard(session)
WORK
say("at work")
hear()
try:
    session.commit()
    say("committed")
except Exception as error:
    say(type(error).__name__, type(error.orig).__name__, isinstance(error.orig, rome.LockLost))
say(lock.lost, lock.locked)
try:
    lock.release()
except rome.LockLost:
    say("released late")
time.sleep(0.5)
say(*told)
say(engine.connect().execute(text("SELECT count(*) FROM t WHERE id = 99")).scalar_one())
"""


def stop(child: Child, engine: Engine) -> None:
    """Let a process sleep; on LMDB not in the middle of a renewal, where it would keep all from writing."""
    store = rome.store_of(engine)
    while True:
        child.signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        if not isinstance(store, LMDBStore) or store.environment.is_free():
            return
        child.signal(signal.SIGCONT)
        time.sleep(0.05)


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize(
    "work",
    [
        "session.execute(text('INSERT INTO t VALUES (99, 0)'))",
        "session.execute(text('SELECT * FROM t')).all()",
    ],
    ids=["writes", "reads"],
)
def test_commit_fails_for_a_process_that_slept_through_its_lease(
    child: Start, shared_engine: Engine, work: str, taken: bool
) -> None:
    sleeper = child(SLEEPER.replace("WORK", work))
    fencing = int(sleeper.said())
    assert sleeper.said() == "at work"
    time.sleep(2)
    assert held(shared_engine).fencing == fencing, "it is renewed, so far"
    stop(sleeper, shared_engine)
    if taken:
        other = child(WAIT)
        other.tell()
        assert int(other.said()) > fencing
    else:
        time.sleep(2)
    sleeper.tell()
    sleeper.signal(signal.SIGCONT)
    assert sleeper.said() == "OperationalError LockLost True"
    assert sleeper.said() == "True False"
    assert sleeper.said() == "released late"
    # The renewal thread tells of it, unless the main thread had it from the clock and released before.
    assert sleeper.said() in ("told", "")
    assert sleeper.said() == "0"
    with shared_engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar_one() == 1
    if taken:
        assert held(shared_engine).owner.split(":")[1] == str(other.pid)
        other.tell()
        assert other.ended() == 0


def test_commit_stands_for_a_process_that_slept_less_than_its_lease(
    child: Start, shared_engine: Engine
) -> None:
    sleeper = child(
        SLEEPER.replace("WORK", "session.execute(text('INSERT INTO t VALUES (99, 0)'))").replace(
            "ttl=1", "ttl=6"
        )
    )
    sleeper.said()
    assert sleeper.said() == "at work"
    sleeper.signal(signal.SIGSTOP)
    time.sleep(2)
    sleeper.tell()
    sleeper.signal(signal.SIGCONT)
    assert sleeper.said() == "committed"
    assert sleeper.said() == "False True"
    assert sleeper.said() == ""
    assert sleeper.said() == "1"


FORKING = """
lock = rome.lock(engine, "a", ttl=1)
lock.acquire()
other = rome.lock(engine, "b", ttl=1)
other.acquire()
if os.fork() == 0:
    say(lock.locked, lock.lost, lock.remaining)
    for use in (lock.release, lock.check, lambda: lock.fencing, lambda: lock.guard(Session(engine))):
        try:
            use()
            say("used")
        except rome.LockNotHeld as error:
            say("not held:", "forked" in str(error))
    say(lock.acquire(blocking=False))
    with rome.lock(engine, "c", ttl=1) as own:
        say(own.locked)
        time.sleep(3)
        own.check()
    say(lock.acquire(timeout=0.5))
    hear()
    say(lock.acquire(timeout=10))
    lock.check()
    os._exit(0)
hear()
lock.check()
"""


def test_a_child_has_not_its_parents_locks(child: Start, shared_engine: Engine) -> None:
    parent = child(FORKING)
    assert parent.said() == "False False 0.0"
    for _ in range(4):
        assert parent.said() == "not held: True"
    assert parent.said() == "False"
    assert parent.said() == "True", "a lock of its own"
    assert parent.said() == "False", "the parent holds it still, and renews it"
    assert {one.name for one in rome.locks.held(rome.store_of(shared_engine))} == {"a", "b"}
    parent.signal(signal.SIGKILL)
    # Were the child to renew what its parent held, it would never end.
    until(lambda: not rome.locks.held(rome.store_of(shared_engine)), 10)
    parent.tell()
    assert parent.said() == "True"


def test_the_end_of_a_block_in_a_child_says_that_it_was_not_held(child: Start) -> None:
    parent = child(
        """
        try:
            with rome.lock(engine, "a") as lock:
                forked = os.fork()
        except rome.LockNotHeld:
            say("not held")
            os._exit(7)
        say(os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]))
        """
    )
    assert parent.said() == "not held"
    assert parent.said() == "7"
    assert parent.ended() == 0


GREEN = """
begun = time.monotonic()
ticks = 0
def tick():
    global ticks
    while True:
        time.sleep(0.01)
        ticks += 1
ticking = spawn(tick)
count = 0
def work():
    global count
    lock = rome.lock(engine, "a", ttl=1)
    for _ in range(4):
        with lock:
            before = count
            time.sleep(0)
            count = before + 1
with rome.lock(engine, "b", ttl=1) as kept:
    with engine.begin() as connection:
        kept.guard(connection)
        connection.execute(text("INSERT INTO t VALUES (99, 0)"))
        for greenlet in [spawn(work) for _ in range(50)]:
            wait(greenlet)
        time.sleep(max(0, 3 - (time.monotonic() - begun)))
say(count, ticks > 20)
kill(ticking)
"""

EVENTLET = """
import warnings; warnings.simplefilter("ignore")  # eventlet warns of its age
import eventlet; eventlet.monkey_patch()
spawn, wait, kill = eventlet.spawn, lambda greenlet: greenlet.wait(), lambda greenlet: greenlet.kill()
"""

GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent
spawn, wait, kill = gevent.spawn, lambda greenlet: greenlet.get(), lambda greenlet: greenlet.kill()
"""


@pytest.mark.parametrize("late", [False, True], ids=["patched first", "patched late"])
@pytest.mark.parametrize(("library", "patch"), [("eventlet", EVENTLET), ("gevent", GEVENT)])
def test_greenlets(child: Start, shared_engine: Engine, library: str, patch: str, late: bool) -> None:
    pytest.importorskip(library)
    green = child(GREEN, first="import rome\n" + patch if late else patch)
    assert green.said(120) == "200 True"
    assert green.ended() == 0
    with shared_engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM t WHERE id = 99")).scalar_one() == 1
