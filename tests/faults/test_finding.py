"""The faults find what they are there to find: with an engine that is broken on purpose, and in ledgers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, delete, select, update

from faults import ledger
from faults.client_killed import client_killed
from faults.connection_cut import places
from faults.ledger import ACKNOWLEDGED, REFUSED, UNKNOWN, Told, Writer
from faults.registry import Fault, Report, Skipped
from faults.run import main
from faults.server_killed import commit_resolved_after_restart
from rome.stores import Writes
from rome.stores import redis as redis_store
from rome.stores.lmdb import LMDBStore
from rome.stores.redis_protocol import COMMIT, Script

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


# broken engines


def test_commits_whose_identity_is_not_remembered_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    forgetful = Script("commit")
    forgetful.text = COMMIT.text.replace("if known then", "if false then")
    assert forgetful.text != COMMIT.text
    forgetful.digest = hashlib.sha1(forgetful.text.encode(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(redis_store, "COMMIT", forgetful)
    report = commit_resolved_after_restart("redis", 4, 1)
    assert any("refused: UNIQUE" in problem for problem in report.problems), report.problems


def test_commits_in_two_halves_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LMDBStore.commit

    def in_halves(store: LMDBStore, snapshot: object, writes: Writes) -> int:
        half = dict(list(writes.puts.items())[: len(writes.puts) // 2])
        rest = {key: value for key, value in writes.puts.items() if key not in half}
        whole(store, snapshot, Writes(puts=half, deletes=writes.deletes))  # type: ignore[arg-type]
        return whole(store, None, Writes(puts=rest, adds=writes.adds, floors=writes.floors))

    monkeypatch.setattr(LMDBStore, "commit", in_halves)
    report = client_killed("lmdb", 10, 1)
    torn = re.compile("rome check|in part|has counted")
    assert any(torn.search(problem) for problem in report.problems), report.problems


# ledgers


@pytest.fixture
def url(tmp_path: Path) -> str:
    ledger.prepare(url := f"rome+lmdb://{tmp_path / 'db'}", [0])
    return url


def written(url: str, transactions: int = 3) -> list[Told]:
    engine = create_engine(url)
    writer = Writer(engine)
    for _ in range(transactions):
        assert writer.attempt().outcome == ACKNOWLEDGED
    engine.dispose()
    return writer.told


def test_a_ledger_that_agrees(url: str) -> None:
    told = written(url)
    lost = Told("0-3", REFUSED, "an error", 0.0, 0.0)
    open_ended = Told("0-4", UNKNOWN, "an error", 0.0, 0.0)
    assert ledger.differences(url, [*told, lost, open_ended]) == []


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (
            lambda c: c.execute(delete(ledger.lines).where(ledger.lines.c.label == "0-1/2")),
            "0-1 is there in part",
        ),
        (
            lambda c: c.execute(update(ledger.tallies).values(n=ledger.tallies.c.n + 1)),
            "has counted 4 orders",
        ),
        (lambda c: c.execute(update(ledger.orders).values(state="new")), "the new orders of writer 0 are"),
        (lambda c: lose(c, "0-2"), "0-2 was acknowledged and is lost"),
        (lambda c: ledger.write(c, 0, "0-9"), "0-9 was never told of and is there"),
    ],
)
def test_a_ledger_that_does_not(url: str, damage: Callable[[Connection], object], found: str) -> None:
    told = written(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        damage(connection)
    engine.dispose()
    assert found in "\n".join(ledger.differences(url, told))


def lose(connection: Connection, token: str) -> None:
    order = connection.scalar(select(ledger.orders.c.id).where(ledger.orders.c.token == token))
    connection.execute(delete(ledger.lines).where(ledger.lines.c.order_id == order))
    connection.execute(delete(ledger.orders).where(ledger.orders.c.id == order))


def test_what_failed_and_is_there(url: str) -> None:
    *told, last = written(url)
    failed = Told(last.token, REFUSED, "no space", 0.0, 0.0)
    assert ledger.differences(url, [*told, failed]) == ["0-2 failed (no space) and is there"]


# the frame


def test_places_to_cut() -> None:
    assert places(100, 1000, 0) == list(range(100))
    some = places(1000, 100, 7)
    assert len(some) == len(set(some)) == 100
    assert some[-40:] == list(range(960, 1000))
    assert some[0] < 20


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        (lambda: Report(), 0, "nothing wrong"),
        (lambda: Report(problems=["lost"]), 1, "WRONG: lost"),
        (lambda: 1 // 0, 1, "ZeroDivisionError"),
        (lambda: (_ for _ in ()).throw(Skipped("no disk")), 0, "skipped: no disk"),
    ],
)
def test_the_exit_code_says_whether_anything_is_wrong(
    act: Callable[[], Any],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = Fault("made_up", "A made-up fault.", ("lmdb",), 3, 1, lambda store, times, seed: act())
    monkeypatch.setattr("faults.run.all_faults", lambda: {"made_up": made})
    assert main([]) == code
    assert said in capsys.readouterr().out


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert "client_killed" in capsys.readouterr().out
    assert main(["--only", "nonsense"]) == 2
    assert main(["--only", "server_hangs", "--store", "lmdb"]) == 2
