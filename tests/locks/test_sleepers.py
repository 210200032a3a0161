"""Processes that are stopped at random, for longer than their leases, while they write under one lock.

Each turn of the lock writes its fencing number into a journal, transaction by transaction. In the order of
the commits these numbers must never fall: a former owner that went on would be found out by its own
transaction, which sees that somebody with a greater number has been there before. Without `guard` that
happens, and the test says so.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

import rome
from tests.locks.children import Child

SECONDS = 8.0
WORKERS = 4

WORK = """
guarded = hear() == "guarded"
end = time.monotonic() + float(hear())
turns = commits = lost = told = 0
lock = rome.lock(engine, "journal", ttl=0.6)
say("ready")
hear()
while time.monotonic() < end:
    lock.acquire()
    turns += 1
    for _ in range(5 if guarded else 15):
        try:
            with engine.begin() as connection:
                if guarded:
                    lock.guard(connection)
                find = text("SELECT count(*), coalesce(max(fencing), 0) FROM journal")
                count, greatest = connection.execute(find).one()
                connection.execute(
                    text("INSERT INTO journal VALUES (:n, :fencing, :late)"),
                    {"n": count, "fencing": lock.fencing, "late": greatest > lock.fencing},
                )
                time.sleep(0.02)
            commits += 1
        except rome.LockLost:
            told += 1
        except Exception as error:
            if not isinstance(error.orig, rome.LockLost):
                assert not guarded or "serialization failure" in str(error), error
            else:
                lost += 1
    try:
        lock.release()
    except rome.LockLost:
        pass
say(turns, commits, lost, told)
"""


def journal(engine: Engine) -> list[tuple[int, int, int]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT n, fencing, late FROM journal ORDER BY n")).all()
        return [(row.n, row.fencing, row.late) for row in rows]


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "not guarded"])
def test_what_a_former_owner_writes_is_refused(
    child: Callable[..., Child], shared_engine: Engine, guarded: bool
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with shared_engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE journal (n INTEGER PRIMARY KEY, fencing INTEGER, late INTEGER)")
        )
    workers = [child(WORK) for _ in range(WORKERS)]
    for worker in workers:
        worker.tell("guarded" if guarded else "not guarded")
        worker.tell(str(SECONDS))
    for worker in workers:
        assert worker.said() == "ready"
    for worker in workers:
        worker.tell()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        owner = [held.owner for held in rome.locks.held(rome.store_of(shared_engine))]
        sleeper = next((worker for worker in workers if owner and f":{worker.pid}:" in owner[0]), None)
        if sleeper is not None:
            sleeper.signal(signal.SIGSTOP)
            time.sleep(dice.choice([0.1, 0.3, 1.0, 1.5]) if guarded else 1.5)
            sleeper.signal(signal.SIGCONT)
        time.sleep(dice.uniform(0.05, 0.3))
    turns, commits, lost, told = (
        sum(column) for column in zip(*(map(int, worker.said().split()) for worker in workers), strict=True)
    )
    written = journal(shared_engine)
    late = [row for row in written if row[2]]
    print(f"{turns} turns, {commits} commits, {lost} refused at COMMIT, {told} before, {len(late)} late")
    assert [n for n, _, _ in written] == list(range(commits))
    fencing = [number for _, number, _ in written]
    if guarded:
        assert late == []
        assert fencing == sorted(fencing)
        assert lost > 0
        assert len(set(fencing)) > WORKERS
    else:
        assert late != []
