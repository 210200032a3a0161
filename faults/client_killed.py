"""The client process is killed at random instants of COMMIT: all of it or nothing, and indexes agree.

A victim says through a pipe when it is about to commit and when COMMIT has returned. The killer waits
for such a word, then for a random part of a usual COMMIT's length, and kills (SIGKILL). One time in five
it kills at any instant instead. Meanwhile a bystander writes to the same tables, and must notice nothing:
on LMDB it shares the victim's lock and file, on Redis the server that the victim leaves.

The next victim first looks what its predecessor left, before anything of it could be mended. After
every ROUND kills the bystander rests, and rows are walked against indexes; at the end the whole ledger
is compared as well.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from statistics import median
from typing import Final, NamedTuple

from sqlalchemy import Connection, create_engine, func, select

from faults import ledger
from faults.databases import database, problems_of
from faults.ledger import ACKNOWLEDGED, LINES, UNKNOWN, Told, Writer
from faults.registry import Report, fault
from faults.writers import writing

BYSTANDER, VICTIM = 0, 1
ROUND: Final = 25
PATIENCE: Final = 60.0
COMMITS_BEFORE: Final = 4
"""A victim makes up to so many transactions, and is killed in the last."""
_FIRST_GUESS: Final = 0.005


class Word(NamedTuple):
    """What a victim says."""

    what: str
    text: str
    at: float


@fault(stores=("lmdb", "redis"), times=200, sample=6)
def client_killed(store: str, times: int, seed: int) -> Report:
    """A client is killed (SIGKILL) at random instants of COMMIT: all or nothing, indexes agree."""
    report = Report()
    with database(store) as made:
        ledger.prepare(made.url, [BYSTANDER, VICTIM])
        killer = Killer(made.url, random.Random(seed), report)
        bystander: list[Told] = []
        for first in range(0, times, ROUND):
            with writing(made.url, 1, turn=first) as crew:
                for number in range(first, min(first + ROUND, times)):
                    killer.kill_one(number)
            bystander += crew.all_told
            report.problems += problems_of(made.url)
            report.counts["checks of rows and indexes"] += 1
        report.counts += ledger.counts_of(killer.told)
        report.counts["bystander: acknowledged"] = len(bystander)
        report.problems += [f"the bystander: {one.error}" for one in bystander if one.error]
        report.problems += ledger.differences(made.url, killer.told + bystander)
    report.notes.append(f"a COMMIT took {median(killer.lengths) * 1000:.1f} ms in the middle")
    in_commit = report.counts["killed in COMMIT"]
    report.require(in_commit * 4 >= times, f"only {in_commit} of {times} kills hit COMMIT")
    return report


@dataclass(slots=True)
class Killer:
    """Ends one victim after the other, and keeps what they were told until then."""

    url: str
    chance: random.Random
    report: Report
    told: list[Told] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    """Seconds of the COMMITs that returned."""

    def kill_one(self, number: int) -> None:
        fork = multiprocessing.get_context("fork")
        ours, theirs = fork.Pipe(duplex=False)
        before = self.told[-1].token if self.told and self.told[-1].outcome == UNKNOWN else ""
        victim = fork.Process(target=_victim, args=(self.url, number, before, theirs), daemon=True)
        victim.start()
        theirs.close()
        try:
            self._look_back(before, _hear(ours).text)
            last = self._let_write(ours)
        finally:
            victim.kill()
            victim.join()
        self.report.counts["kills"] += 1
        self._bury(ours, last)
        ours.close()

    def _look_back(self, before: str, found: str) -> None:
        """What the predecessor's last transaction has left: everything or nothing."""
        if before:
            happened = found == f"1 orders, {LINES} lines"
            self.report.counts[f"killed in COMMIT, {'done' if happened else 'not done'}"] += 1
            nothing = found == "0 orders, 0 lines"
            self.report.require(happened or nothing, f"{before} is there in part: {found}")

    def _let_write(self, pipe: Pipe) -> Word:
        """Listen until it is time to kill; returns the last word that was heard."""
        commits = self.chance.randrange(1, COMMITS_BEFORE + 1)
        while commits:
            word = _hear(pipe)
            if word.what == "commits":
                last, commits = word, commits - 1
            else:
                self._acknowledged(last, word)
        usual = median(self.lengths[-50:]) if self.lengths else _FIRST_GUESS
        longest = 5 * usual if self.chance.random() < 0.2 else usual
        _wait_until(last.at + self.chance.uniform(0, longest))
        return last

    def _bury(self, pipe: Pipe, last: Word) -> None:
        """What the victim still said before it died; a COMMIT that was begun and not answered is unknown."""
        pending: Word | None = last
        try:
            while True:
                word = Word(*pipe.recv())
                if word.what == "commits":
                    last = pending = word
                else:
                    self._acknowledged(last, word)
                    pending = None
        except EOFError:
            pass
        if pending:
            self.told.append(Told(pending.text, UNKNOWN, "killed in COMMIT", 0.0, 0.0))
        self.report.counts["killed in COMMIT" if pending else "killed between COMMITs"] += 1

    def _acknowledged(self, begun: Word, done: Word) -> None:
        self.told.append(Told(done.text, ACKNOWLEDGED, "", begun.at, done.at))
        self.lengths.append(done.at - begun.at)


def _hear(pipe: Pipe) -> Word:
    if not pipe.poll(PATIENCE):
        raise TimeoutError(f"a victim has said nothing for {PATIENCE:g} seconds")
    return Word(*pipe.recv())


def _wait_until(moment: float) -> None:
    """Without sleep's rounding up: a COMMIT may be shorter than that."""
    rest = moment - time.monotonic()
    if rest > 0.002:
        time.sleep(rest - 0.001)
    while time.monotonic() < moment:
        pass


def _victim(url: str, number: int, before: str, pipe: Pipe) -> None:
    """Runs in its own process until it is killed."""

    def say(what: str, text: str) -> None:
        pipe.send((what, text, time.monotonic()))

    engine = create_engine(url)
    with engine.begin() as connection:
        say("found", _left_of(before, connection))
    writer = Writer(engine, VICTIM, name=f"victim-{number:06d}")
    while True:
        told = writer.attempt(lambda token: say("commits", token))
        assert told.outcome == ACKNOWLEDGED, told.error
        say("acknowledged", told.token)


def _left_of(token: str, connection: Connection) -> str:
    """What is there of a transaction, by way of its indexes."""
    of_orders = select(func.count()).select_from(ledger.orders).where(ledger.orders.c.token == token)
    labels = [f"{token}/{number}" for number in range(LINES)]
    of_lines = select(func.count()).select_from(ledger.lines).where(ledger.lines.c.label.in_(labels))
    return f"{connection.scalar(of_orders)} orders, {connection.scalar(of_lines)} lines"
