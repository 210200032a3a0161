"""Exceptions from outside, at any instant of a transaction: Ctrl-C, a handler of SIGALRM, a killed greenlet.

    at a call      a profiling function throws at one call after the other that ROME itself makes or
                   gets: where Python lets signal handlers run. Statements, COMMIT and the way back to the
                   pool are all among them
    by a signal    a handler of SIGALRM throws, as Python's own handler of SIGINT does, at random moments

All of the transaction is there or nothing of it, and all of it if nobody was told otherwise. (SQLAlchemy
swallows what is thrown while it closes a cursor, say.) Afterwards the engine is as good as new: nothing is
locked, the next transaction sees what is there and is written. (SQLAlchemy's pool may lose count of its
connections if it is interrupted itself, on any database; here it has no limit, and they are counted.)
"""

from __future__ import annotations

import faulthandler
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

from greenlet import GreenletExit  # type: ignore[import-untyped]
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.exc import StatementError

import rome
from faults import bank
from faults.children import answer_of, forked
from faults.databases import database, problems_of
from faults.registry import Report, fault

PATIENCE: Final = 60.0
CHECK_EVERY: Final = 50
_OWN: Final = str(Path(rome.__file__).parent)


class Alarm(Exception):
    """What a program's own handler of SIGALRM throws."""


KINDS: Final[tuple[type[BaseException], ...]] = (KeyboardInterrupt, Alarm, GreenletExit)


@fault(stores=("memory", "lmdb", "redis"), times=1500, sample=60)
def interrupted_at_a_call(store: str, times: int, seed: int) -> Report:
    """An exception is thrown at one call after the other of a transaction: all or nothing; all goes on."""
    return _in_a_child(store, partial(_at_calls, times=times, seed=seed))


@fault(stores=("memory", "lmdb", "redis"), times=1500, sample=60)
def interrupted_by_a_signal(store: str, times: int, seed: int) -> Report:
    """A signal's handler throws at random moments of a transaction: all or nothing, and all goes on."""
    return _in_a_child(store, partial(_by_signals, times=times, seed=seed))


def _in_a_child(store: str, task: Callable[[str], Report]) -> Report:
    """In a process of its own: tracing and signals are for the main thread, and it may hang."""
    with database(store) as made:
        report = Report()
        came = answer_of(forked(partial(task, made.url)), PATIENCE, report)
        if came is not None:
            report = came
        if store != "memory":
            report.problems += problems_of(made.url)
    return report


def _at_calls(url: str, times: int, seed: int) -> Report:
    chance = random.Random(seed)
    with Judge(url) as judge:
        counting = Thrower(None, KeyboardInterrupt)
        judge.transaction(counting.throwing)
        calls = counting.calls
        judge.report.notes.append(f"a transaction has {calls} calls of ROME")
        for number in range(times):
            at = int((number + chance.random()) * calls / times)
            judge.transaction(Thrower(at, chance.choice(KINDS)).throwing)
    return judge.report


def _by_signals(url: str, times: int, seed: int) -> Report:
    chance = random.Random(seed)
    kind: type[BaseException] = Alarm

    def handle(number: int, frame: FrameType | None) -> None:
        raise kind

    signal.signal(signal.SIGALRM, handle)

    def throwing(act: Callable[[], None]) -> bool:
        began = time.monotonic()
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 1.2 * usual))
            act()
        except BaseException as error:
            return _is_one(error, KINDS)
        finally:
            while True:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    break
                except KINDS:
                    continue
            lengths.append(time.monotonic() - began)
        return False

    lengths: list[float] = []
    usual = 0.05
    with Judge(url) as judge:
        for _ in range(times):
            kind = chance.choice(KINDS)
            judge.transaction(throwing)
            usual = sorted(lengths[-50:])[len(lengths[-50:]) // 2] * 1.5
    return judge.report


class Thrower:
    """Throws an exception at a call of ROME's code, by its number; None: only counts them."""

    def __init__(self, at: int | None, kind: type[BaseException]) -> None:
        self.calls = 0
        self._at = at
        self._kind = kind

    def throwing(self, act: Callable[[], None]) -> bool:
        """Act, with a throw in the midst of it; returns whether it came back."""
        sys.setprofile(self._profile)
        try:
            act()
        except BaseException as error:
            return _is_one(error, (self._kind,))
        finally:
            sys.setprofile(None)
        return False

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(_OWN):
            self.calls += 1
            if self.calls - 1 == self._at:
                raise self._kind


def _is_one(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """True for what was thrown, also as SQLAlchemy wraps it, or fails over it; anything else is raised."""
    if isinstance(error, kinds) or (isinstance(error, StatementError) and isinstance(error.orig, kinds)):
        return True
    # Thrown into SQLAlchemy's own COMMIT, it may trip over an assertion there.
    if isinstance(error, AssertionError) and isinstance(error.__context__, kinds):
        return True
    raise error


class Judge:
    """Runs transactions that something happens to, and looks what they leave."""

    def __init__(self, url: str) -> None:
        self.report = Report()
        self._engine = create_engine(url, pool_size=2, max_overflow=-1)
        self._count = 0
        self._worker = bank.Worker(self._engine, "bystander", 0, ddl=False)

    def __enter__(self) -> Judge:
        faulthandler.dump_traceback_later(PATIENCE * 0.9)
        bank.prepare(self._engine)
        return self

    def transaction(self, throwing: Callable[[Callable[[], None]], bool]) -> None:
        number, self._count = self._count, self._count + 1
        try:
            thrown = throwing(partial(_one, self._engine, number))
        except Exception:
            what = traceback.format_exc()[-2000:]
            self.report.problems.append(f"transaction {number}: this came instead of what was thrown: {what}")
            thrown = True
        self.report.counts["transactions"] += 1
        self.report.counts["thrown into"] += thrown
        name = f"{bank.DOUBTFUL}-{number}"
        try:
            with self._engine.connect() as connection:
                where = bank.entries.c.worker == name
                found = connection.scalar(select(func.count()).select_from(bank.entries).where(where))
        except Exception as error:
            self.report.problems.append(f"after transaction {number}: {error!r}")
            return
        there = found == bank.PIECES
        self.report.require(there or found == 0, f"{name} left {found} of {bank.PIECES} entries")
        self.report.require(there or thrown, f"{name} was acknowledged and is lost")
        self.report.counts["thrown into, and there"] += there and thrown
        self._worker.one()
        if number % CHECK_EVERY == 0:
            self._compare()

    def _compare(self) -> None:
        self.report.problems += bank.differences(self._engine, [self._worker.done])

    def __exit__(self, *ignored: Any) -> None:
        self._compare()
        self.report.counts += Counter(
            {"transactions of a bystander": self._worker.done.counts["transactions"]}
        )
        self.report.problems += self._worker.done.problems
        lost = self._engine.pool.checkedout()  # type: ignore[attr-defined]
        self.report.counts["connections that SQLAlchemy lost count of"] += lost
        self._engine.dispose()
        faulthandler.cancel_dump_traceback_later()


def _one(engine: Engine, number: int) -> None:
    with engine.begin() as connection:
        bank.doubtful(connection, number)
