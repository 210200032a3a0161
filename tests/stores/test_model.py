"""Random transactions, side by side with a model of twenty lines: every committed state kept as a dict.

The model says what serializable means. Everything that one snapshot has handed out must be true in one
single committed state, and COMMIT must go through exactly if it is all true in the newest one. A read
may be refused only if its transaction is going to write, and would be refused at COMMIT.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
    run_state_machine_as_test,
)

from rome.errors import Conflict
from rome.stores import Entry, Range, Read, Scan, Snapshot, Store, Writes, open_store

State = dict[bytes, tuple[bytes, int]]

KEYS = [b"a", b"a\x00", b"b", b"ba", b"c", b"\xff"]
keys = st.sampled_from(KEYS)
values = st.sampled_from([*KEYS, b"value"])
bounds = st.sampled_from([b"", *KEYS, b"d", b"\xff\xff"])
scans = st.builds(
    Scan,
    st.builds(Range, bounds, bounds),
    limit=st.none() | st.integers(0, 3) | st.just(2**64),
    reverse=st.booleans(),
    follow=st.just(False),
)
followed = scans.map(lambda scan: scan._replace(follow=True))
requests = st.builds(
    Read,
    keys=st.lists(keys, max_size=3, unique=True),
    presence=st.lists(keys, max_size=2, unique=True),
    scans=st.lists(scans, max_size=2),
)


class Transaction:
    """An open snapshot, and what each of its reads must find in a state."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.seen: list[tuple[Read, object]] = []

    def true_in(self, state: State) -> bool:
        return all(answer(request, state) == found for request, found in self.seen)


def answer(request: Read, state: State) -> object:
    """What a read gives, without versions of presence: exactly what must stay true."""
    scanned = []
    for (start, end), limit, reverse, _ in request.scans:
        found = sorted((key for key in state if start <= key < end), reverse=reverse)[:limit]
        scanned.append([(key, *state[key]) for key in found])
    return (
        [(key, state.get(key)) for key in request.keys],
        [(key, key in state) for key in request.presence],
        scanned,
    )


class Stores(RuleBasedStateMachine):
    """Run against the store that `opened` holds."""

    opened: Store

    transactions = Bundle("transactions")

    @initialize()
    def begin(self) -> None:
        self.opened.wipe()
        self.states: list[State] = [{}]
        self.counter = 0

    @rule(target=transactions, newest_only=st.booleans())
    def snapshot(self, newest_only: bool) -> Transaction:
        snapshot = self.opened.snapshot()
        snapshot.newest_only = newest_only
        return Transaction(snapshot)

    @rule(transaction=transactions, request=requests)
    def read(self, transaction: Transaction, request: Read) -> None:
        try:
            reply = transaction.snapshot.read(request)
        except Conflict:
            assert transaction.snapshot.newest_only, "a reader was refused"
            assert not transaction.true_in(self.states[-1]), "a needless conflict"
            return
        found = (
            [(key, pair(reply.values[key])) for key in request.keys],
            list(reply.presence.items()),
            [[tuple(entry) for entry in entries] for entries in reply.scans],
        )
        self.check(transaction, request, found)

    def check(self, transaction: Transaction, request: Read, found: object) -> None:
        transaction.seen.append((request, found))
        states = self.states[-1:] if transaction.snapshot.newest_only else self.states
        assert any(map(transaction.true_in, states)), f"true in no state: {transaction.seen}"

    @rule(transaction=transactions, scan=followed)
    def read_and_follow(self, transaction: Transaction, scan: Scan) -> None:
        try:
            reply = transaction.snapshot.read(Read(scans=[scan]))
        except Conflict:
            assert transaction.snapshot.newest_only, "a reader was refused"
            assert not transaction.true_in(self.states[-1]), "a needless conflict"
            return
        (entries,) = reply.scans
        request = Read(keys=[entry.value for entry in entries], scans=[scan])
        found = (
            [(entry.value, pair(reply.values[entry.value])) for entry in entries],
            [],
            [[tuple(entry) for entry in entries]],
        )
        self.check(transaction, request, found)

    @rule(scan=followed)
    def follow(self, scan: Scan) -> None:
        snapshot = self.opened.snapshot()
        reply = snapshot.read(Read(scans=[scan]))
        snapshot.close()
        state = self.states[-1]
        assert reply.values == {
            entry.value: Entry(entry.value, *state[entry.value]) if entry.value in state else None
            for entry in reply.scans[0]
        }

    @rule(
        transaction=consumes(transactions),
        puts=st.dictionaries(keys, values, max_size=3),
        deletes=st.sets(keys, max_size=2),
        add=st.integers(-5, 5),
    )
    def commit(
        self, transaction: Transaction, puts: dict[bytes, bytes], deletes: set[bytes], add: int
    ) -> None:
        writes = Writes(puts=puts, deletes=deletes - set(puts), adds={b"n": add})
        newest = self.states[-1]
        holds = transaction.true_in(newest)
        try:
            version = self.opened.commit(transaction.snapshot, writes)
        except Conflict:
            assert not holds, "a needless conflict"
            return
        assert holds, "a conflict was missed"
        following = {key: value for key, value in newest.items() if key not in writes.deletes}
        following |= {key: (value, version) for key, value in puts.items()}
        self.states.append(following)
        self.counter += add

    @rule()
    def counters(self) -> None:
        snapshot = self.opened.snapshot()
        assert snapshot.read(Read(counters=[b"n"])).counters == {b"n": self.counter}
        snapshot.close()


def pair(entry: Entry | None) -> tuple[bytes, int] | None:
    return (entry.value, entry.version) if entry else None


@contextmanager
def machine(url: str) -> Iterator[type[Stores]]:
    store = open_store(url)
    yield type("StoresUnderTest", (Stores,), {"opened": store})
    store.close()


@pytest.mark.timeout(0)
def test_random_transactions_agree_with_the_model(store_url: str) -> None:
    url = store_url + ("?sync=no" if store_url.startswith("rome+lmdb") else "")
    with machine(url) as under_test:
        run_state_machine_as_test(under_test, settings=settings(stateful_step_count=30))
