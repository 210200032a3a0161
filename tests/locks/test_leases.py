"""The rules of leases, on each store: who gets one, who is next, what a fencing number promises."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine

import rome
from rome.errors import LockLost
from rome.stores import Store, Writes, lmdb_leases, open_store
from rome.stores.leases import FIRST_SWEEP, PLACE_SECONDS, Answer, Leases, Wanted
from tests.locks.children import until
from tests.servers import RedisServer

LONG = 1000.0
SHORT = 0.05


@pytest.fixture
def leases(engine: Engine) -> Leases:
    return rome.store_of(engine).leases


def ask(leases: Leases, owner: str, seconds: float = LONG, name: str = "a", queue: bool = True) -> Answer:
    return leases.request(Wanted(name, owner, seconds, queue))


def owners(leases: Leases) -> dict[str, str]:
    return {held.name: held.owner for held in leases.held()}


def test_one_owner_at_a_time(leases: Leases) -> None:
    assert ask(leases, "first").fencing > 0
    answer = ask(leases, "second")
    assert (answer.fencing, answer.position) == (0, 0)
    assert LONG - 5 < answer.remaining <= LONG
    assert ask(leases, "second", name="b").fencing > 0
    assert owners(leases) == {"a": "first", "b": "second"}


def test_whoever_asks_again_as_the_owner_has_the_same_lease(leases: Leases) -> None:
    first = ask(leases, "first")
    assert ask(leases, "first") == first


def test_only_the_owner_can_release(leases: Leases) -> None:
    ask(leases, "first")
    assert not leases.release("a", "second")
    assert not leases.release("b", "first")
    assert owners(leases) == {"a": "first"}
    assert leases.release("a", "first")
    assert not leases.release("a", "first")
    assert owners(leases) == {}


def test_those_who_wait_are_served_in_the_order_they_came(leases: Leases) -> None:
    ask(leases, "first")
    waiting = ["one", "two", "three", "four"]
    assert [ask(leases, owner).position for owner in waiting] == [0, 1, 2, 3]
    assert [ask(leases, owner).position for owner in reversed(waiting)] == [3, 2, 1, 0]
    assert leases.held()[0].waiting == 4
    leases.release("a", "first")
    for position, owner in enumerate(waiting):
        others = waiting[position + 1 :]
        assert [ask(leases, other).fencing for other in others] == [0] * len(others)
        assert not ask(leases, "who does not wait", queue=False).fencing
        assert ask(leases, owner).fencing > 0
        leases.release("a", owner)
    assert ask(leases, "who does not wait", queue=False).fencing > 0


def test_a_place_in_line_can_be_given_up(leases: Leases) -> None:
    ask(leases, "first")
    ask(leases, "one")
    ask(leases, "two")
    assert not leases.release("a", "one")
    leases.release("a", "first")
    assert ask(leases, "two").fencing > 0


def test_a_waiter_that_asks_no_more_loses_its_place(leases: Leases) -> None:
    ask(leases, "first")
    ask(leases, "dead")
    ask(leases, "next")
    leases.release("a", "first")
    assert not ask(leases, "next").fencing
    took = until(lambda: ask(leases, "next").fencing)
    assert took < PLACE_SECONDS + 1


def test_asking_again_keeps_a_place(leases: Leases) -> None:
    ask(leases, "first")
    ask(leases, "one")
    ask(leases, "two")
    end = time.monotonic() + 1.5 * PLACE_SECONDS
    while time.monotonic() < end:
        assert (ask(leases, "one").position, ask(leases, "two").position) == (0, 1)
        time.sleep(PLACE_SECONDS / 8)


def test_a_lease_that_ended_is_lost_even_if_nobody_has_taken_it(leases: Leases) -> None:
    fencing = ask(leases, "first", SHORT).fencing
    leases.require({"a": fencing})
    time.sleep(2 * SHORT)
    assert owners(leases) == {}
    assert leases.renew([("a", "first", LONG)]) == [False]
    with pytest.raises(LockLost, match="'a'"):
        leases.require({"a": fencing})
    assert not leases.release("a", "first")
    assert ask(leases, "first").fencing > fencing


def test_renewing_begins_the_time_anew(leases: Leases) -> None:
    fencing = ask(leases, "first", 1.0).fencing
    ask(leases, "other", name="b")
    for _ in range(8):
        time.sleep(0.2)
        owned = [("a", "first", 1.0), ("a", "second", 1.0), ("b", "other", LONG), ("c", "first", 1.0)]
        assert leases.renew(owned) == [True, False, True, False]
    leases.require({"a": fencing})


def test_fencing_numbers_grow_with_every_owner(leases: Leases) -> None:
    seen = []
    for number in range(50):
        name = f"lock {number % 3}"
        seen.append(ask(leases, f"owner {number}", name=name).fencing)
        leases.release(name, f"owner {number}")
    assert seen == sorted(set(seen))


def test_fencing_numbers_grow_even_where_the_leases_were_wiped(engine: Engine) -> None:
    store = rome.store_of(engine)
    before = ask(store.leases, "first").fencing
    store.wipe()
    assert owners(store.leases) == {}
    with pytest.raises(LockLost):
        store.leases.require({"a": before})
    assert ask(store.leases, "second").fencing > before


def test_each_call_is_one_round_trip_and_none_is_a_commit(engine: Engine) -> None:
    store = rome.store_of(engine)
    leases = store.leases
    ask(leases, "warm")
    leases.release("a", "warm")
    version = store.health()["version"]
    fencing = ask(leases, "first").fencing
    calls: list[Callable[[], Any]] = [
        lambda: ask(leases, "second"),
        lambda: ask(leases, "second"),
        lambda: leases.renew([("a", "first", LONG), ("b", "first", LONG)]),
        lambda: leases.require({"a": fencing}),
        lambda: leases.held(),
        lambda: leases.release("a", "first"),
        lambda: ask(leases, "second"),
    ]
    for call in calls:
        before = store.round_trips
        call()
        assert store.round_trips == before + 1
    assert store.health()["version"] == version


def test_commit_requires_the_leases_of_its_read_set(engine: Engine) -> None:
    store = rome.store_of(engine)

    def commit(fencing: int) -> None:
        snapshot = store.snapshot()
        snapshot.reads.leases["ä lock"] = fencing
        store.commit(snapshot, Writes(puts={b"\x20key": b"value"}))

    fencing = ask(store.leases, "first", name="ä lock").fencing
    commit(fencing)
    version = store.health()["version"]
    with pytest.raises(LockLost, match="'ä lock'"):
        commit(fencing - 1)
    store.leases.release("ä lock", "first")
    with pytest.raises(LockLost, match="'ä lock'"):
        commit(fencing)
    assert store.health()["version"] == version


def test_records_of_the_dead_are_swept_out(engine: Engine, redis_server: RedisServer) -> None:
    store = rome.store_of(engine)
    kept = ask(store.leases, "alive", name="kept").fencing
    most = 0
    for number in range(6 * FIRST_SWEEP):
        ask(store.leases, "dead", 1e-6, name=f"lock {number}")
        most = max(most, records(store, redis_server))
    assert FIRST_SWEEP // 2 < most <= 3 * FIRST_SWEEP
    store.leases.require({"kept": kept})


def records(store: Any, server: RedisServer) -> int:
    if store.kind == "redis":
        return int(server.command("HLEN", f"rome:{{{store.database}}}:leases"))
    if store.kind == "memory":
        return int(store.database.leases.size())
    with store.environment.handle.begin() as txn:
        return int(txn.stat(db=store.environment.leases)["entries"])


def test_after_the_machine_was_started_anew_every_lease_is_over(
    open_url: Callable[..., Engine], url_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_url(url_of("lmdb")).connect() as connection:
        store = rome.store_of(connection.engine)
        before = ask(store.leases, "first").fencing
        ask(store.leases, "waiter")
        assert owners(store.leases) == {"a": "first"}
        monkeypatch.setattr(lmdb_leases, "boot", lambda: b"another boot")
        assert owners(store.leases) == {}
        assert store.leases.renew([("a", "first", LONG)]) == [False]
        with pytest.raises(LockLost):
            store.leases.require({"a": before})
        assert ask(store.leases, "second").fencing > before
        assert owners(store.leases) == {"a": "second"}
        assert store.leases.held()[0].waiting == 0


# The rules are written twice: in Python, and in Lua for Redis. Both must say the same.

_databases = count()

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["request", "no queue", "renew", "release", "require", "held"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["one", "two", "three", "four"]),
        st.sampled_from([LONG, LONG, LONG, 1e-6]),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(steps=STEPS)
def test_all_stores_follow_the_same_rules(
    steps: list[tuple[str, str, str, float]],
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    number = next(_databases)
    places = [
        "rome+memory://",
        redis_server.url(f"rules{number}"),
        f"rome+lmdb://{tmp_path_factory.mktemp('rules')}?sync=no",
    ]
    stores = [open_store(place) for place in places]
    try:
        followed = [follow(store, steps) for store in stores]
        assert followed[1:] == followed[:1] * 2
    finally:
        for store in stores:
            store.wipe()
            store.close()


def follow(store: Store, steps: list[tuple[str, str, str, float]]) -> list[Any]:
    """What a store says at each step; fencing numbers as the order they come in."""
    leases, seen = store.leases, []
    numbers: dict[int, int] = {0: 0}
    current: dict[str, int] = {"a": 1, "b": 1}
    for what, name, owner, seconds in steps:
        if what in ("request", "no queue"):
            answer = leases.request(Wanted(name, owner, seconds, what == "request"))
            if answer.fencing:
                current[name] = answer.fencing
            fencing = numbers.setdefault(answer.fencing, len(numbers))
            seen.append((fencing, answer.position, round(answer.remaining / LONG)))
        elif what == "renew":
            seen.append(leases.renew([(name, owner, seconds), ("b", "one", LONG)]))
        elif what == "release":
            seen.append(leases.release(name, owner))
        elif what == "require":
            try:
                seen.append(leases.require(current))
            except LockLost as error:
                seen.append(str(error))
        else:
            seen.append([(h.name, h.owner, numbers[h.fencing], h.waiting) for h in leases.held()])
        time.sleep(2e-6)
    return seen
