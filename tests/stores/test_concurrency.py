"""Many threads and many processes at once: nothing is mixed, lost or handed out twice.

The bank: accounts whose sum never changes, whatever moves between them. A reader that ever sees
another sum has seen two commits mixed; a final sum that differs means a lost update.
"""

from __future__ import annotations

import os
import random
import sys
import time
import traceback
from collections.abc import Callable

import pytest

from rome.errors import Conflict
from rome.stores import Range, Read, Scan, Store, Writes, open_store
from tests.threads import in_threads

# These tests fork beside threads on purpose; Python 3.12 and later warn of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

ACCOUNTS = [b"account%02d" % n for n in range(8)]
EVERY_ACCOUNT = Range(b"account", b"accounu")
TOTAL = 100 * len(ACCOUNTS)
SECONDS = 1.0


def open_accounts(store: Store) -> None:
    store.commit(None, Writes(puts=dict.fromkeys(ACCOUNTS, b"100")))


def move(store: Store, source: bytes, target: bytes, amount: int) -> bool:
    """Move an amount in one transaction of two reads; False where another one was faster."""
    snapshot = store.snapshot()
    try:
        one = snapshot.read(Read(keys=[source])).values[source]
        two = snapshot.read(Read(keys=[target])).values[target]
        assert one is not None
        assert two is not None
        left, right = int(one.value) - amount, int(two.value) + amount
        store.commit(snapshot, Writes(puts={source: b"%d" % left, target: b"%d" % right}, adds={b"moves": 1}))
        return True
    except Conflict:
        return False
    finally:
        snapshot.close()


def add_up(store: Store) -> int | None:
    """The sum, from two reads of one snapshot; None where it could not be told."""
    snapshot = store.snapshot()
    half = len(ACCOUNTS) // 2
    try:
        found = list(snapshot.read(Read(keys=ACCOUNTS[:half])).values.values())
        found += snapshot.read(Read(scans=[Scan(Range(ACCOUNTS[half], EVERY_ACCOUNT.end))])).scans[0]
    except Conflict:
        return None
    finally:
        snapshot.close()
    return sum(int(entry.value) for entry in found if entry)


def work(store: Store, seed: int) -> int:
    """Move and add up until the time is over; returns how often the sum was told."""
    choice = random.Random(seed)
    told = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        source, target = choice.sample(ACCOUNTS, 2)
        move(store, source, target, choice.randint(1, 50))
        total = add_up(store)
        assert total in (None, TOTAL), f"seed {seed}: two commits were mixed"
        told += total is not None
    return told


def check_books(store: Store) -> None:
    assert add_up(store) == TOTAL
    snapshot = store.snapshot()
    assert snapshot.read(Read(counters=[b"moves"])).counters[b"moves"] > 10
    snapshot.close()


def in_processes(count: int, task: Callable[[int], object]) -> None:
    """Run the task in forked children; each must end without an error."""
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                task(number)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * count


def test_threads_neither_mix_nor_lose_commits(store: Store) -> None:
    open_accounts(store)
    told: list[int] = []
    in_threads(4, lambda number: told.append(work(store, number)))
    assert sum(told) > 10
    check_books(store)


def test_processes_neither_mix_nor_lose_commits(store_url: str) -> None:
    if store_url.startswith("rome+memory"):
        pytest.skip("a memory store belongs to one process")
    with_parent = open_store(store_url)
    open_accounts(with_parent)

    def child(number: int) -> None:
        own = open_store(store_url)
        assert work(own, number) > 0
        own.close()

    in_processes(3, child)
    check_books(with_parent)
    with_parent.close()


def test_a_store_opened_before_fork_is_usable_in_parent_and_children(store: Store) -> None:
    open_accounts(store)
    store.commit(None, Writes(puts={b"still": b"1"}))
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"still"]))

    def child(number: int) -> None:
        assert snapshot.read(Read(keys=[b"still", b"none"])).values[b"still"] is not None
        assert work(store, number) > 0

    in_processes(2, child)
    work(store, 99)
    if store.kind == "memory":
        assert add_up(store) == TOTAL
    else:
        check_books(store)
    assert snapshot.read(Read(keys=[b"still", b"more"])).values[b"still"] is not None
    snapshot.close()


def test_fork_while_threads_work(store: Store) -> None:
    open_accounts(store)

    def task(number: int) -> None:
        if number:
            work(store, number)
        else:
            for _ in range(3):
                in_processes(1, lambda _: [move(store, ACCOUNTS[0], ACCOUNTS[1], 1) for _ in range(20)])

    in_threads(3, task)
    check_books(store)


def test_numbers_are_never_allocated_twice(store_url: str, store: Store) -> None:
    mine: list[list[int]] = []

    def take(own: Store, number: int) -> list[int]:
        taken: list[int] = []
        for n in range(60):
            count = 1 + (n + number) % 4
            if n % 2:
                first = own.allocate(b"seq", count)
            else:
                snapshot = own.snapshot()
                first = snapshot.read(Read(allocate={b"seq": count})).allocated[b"seq"]
                snapshot.close()
            taken += range(first, first + count)
        return taken

    def publish(number: int) -> None:
        own = open_store(store_url)
        numbers = " ".join(map(str, take(own, number)))
        own.commit(None, Writes(puts={b"taken%d" % number: numbers.encode()}))
        own.close()

    in_threads(4, lambda number: mine.append(take(store, number)))
    numbers = [number for taken in mine for number in taken]
    if store.kind != "memory":
        in_processes(3, publish)
        snapshot = store.snapshot()
        entries = snapshot.read(Read(scans=[Scan(Range(b"taken", b"taken~"))])).scans[0]
        snapshot.close()
        assert len(entries) == 3
        numbers += [int(word) for entry in entries for word in entry.value.split()]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


def test_concurrent_inserts_into_one_range_conflict_or_serialize(store: Store) -> None:
    """Each thread inserts the key after the last one it sees: no two may write the same."""
    written: list[bytes] = []

    def insert(number: int) -> None:
        done = 0
        while done < 15:
            snapshot = store.snapshot()
            try:
                last = snapshot.read(Read(scans=[Scan(Range(b"k", b"l"), limit=1, reverse=True)])).scans[0]
                following = b"k%06d" % (int(last[0].key[1:]) + 1 if last else 0)
                store.commit(snapshot, Writes(puts={following: b"%d" % number}))
            except Conflict:
                continue
            finally:
                snapshot.close()
            written.append(following)
            done += 1

    in_threads(4, insert)
    assert sorted(written) == [b"k%06d" % n for n in range(60)]
