"""Replay: a transaction that lost a race is run again, unnoticed, if nothing would look different.

The connection remembers the statements of the running transaction, and what the program saw of
each: rows, column names, counts, generated numbers, or the error. When another transaction turns
out to have changed what this one had read, its statements run again on a fresh snapshot, in order.
If each gives what the program has already seen, then the program could not tell the second run from
the first, and the transaction goes on, or its COMMIT stands. If one does not, the conflict is the
program's to handle. (The Spanner JDBC driver retries aborted transactions by the same rule.)

**What cannot be repeated** needs no list: a random number or a clock that the program saw will
not agree, so the conflict is raised; one that it did not see (a DEFAULT, say) may as well be that
of the second run, which is the only one that takes place. Numbers from a sequence, which the program
may have seen, are the exception: those of the first run are used again, for nobody else has them.
(Where it looks as if somebody had, twice, see rome.sql.sequences, no more runs are tried.)
Parameters are those of the first run too, whatever the program has done to its lists since.

**Not run again** is a transaction in which the meaning of SQL was changed (a function made, LIKE set to
another case), and one in which `iterdump` was read from.

**Bounds.** `replay_tries` and `replay_time` (seconds) bound how often and how long; a transaction of
more than MAX_STEPS statements, or with more than MAX_ROWS rows seen, is not remembered any further.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import apsw
import msgspec

from rome.dbapi.errors import translate
from rome.errors import Conflict
from rome.sql.processor import Processor
from rome.sql.results import Result
from rome.transaction import ConstraintViolated

MAX_STEPS: Final = 10_000
MAX_ROWS: Final = 1_000_000

_KEPT_ROWS: Final = 200
_FIRST_PAUSE: Final = 0.001
_GREATEST_PAUSE: Final = 0.05

Run = Callable[[Processor], Result]


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """How hard to try."""

    tries: int = 100
    """0 switches replay off."""
    seconds: float = 5.0


class Differs(Exception):
    """A statement gave something else the second time."""


class Sight:
    """What the program saw of one statement. Small results are kept, and digested when it matters."""

    __slots__ = ("_digest", "_error", "_result")

    def __init__(self, result: Result | None, error: BaseException | None = None) -> None:
        self._result = result
        self._error = (type(translate(error)).__name__, str(error)) if error is not None else None
        self._digest: bytes | None = None
        if result is not None and len(result.rows) > _KEPT_ROWS:
            self.digest()

    @property
    def rows(self) -> int:
        return len(self._result.rows) if self._result is not None else 0

    def digest(self) -> bytes:
        if self._digest is None:
            seen = self._result
            if seen is not None:
                content: object = (seen.description, seen.rows, seen.changed, seen.last_row_id)
            else:
                content = self._error
            self._digest = blake2b(msgspec.msgpack.encode(content), digest_size=16).digest()
            self._result = None
        return self._digest


@dataclass(slots=True)
class Step:
    """One statement of the transaction: how to run it again, and what was seen of it."""

    run: Run
    sight: Sight


class Log:
    """The statements of one connection's running transaction."""

    def __init__(self, limits: ReplayLimits) -> None:
        self.limits = limits
        self._steps: list[Step] = []
        self._rows = 0
        self._complete = True
        self._tries = 0
        self._since: float | None = None
        self._clashes = 0
        """How often a number that the transaction had drawn seemed to be used already."""

    def clear(self) -> None:
        """The transaction ended."""
        if self._steps or self._tries:
            self._steps = []
            self._rows = 0
            self._tries = 0
            self._since = None
            self._clashes = 0
        self._complete = True

    def forget(self) -> None:
        """What was done or seen just now cannot be run again: neither can the transaction."""
        self._complete = False
        self._steps = []

    def add(self, run: Run, result: Result | None, error: BaseException | None = None) -> None:
        """A statement ran; `result` or `error` is what the program is about to see."""
        if not self._complete or not self.limits.tries:
            return
        sight = Sight(result, error)
        self._rows += sight.rows
        if len(self._steps) >= MAX_STEPS or self._rows > MAX_ROWS:
            self.forget()
            return
        self._steps.append(Step(run, sight))

    def replay(self, processor: Processor, conflict: Conflict) -> None:
        """Roll back and run everything again. Raises the conflict if that cannot help, or not any more."""
        tally = processor.tally
        tally.count("conflicts")
        while True:
            self._clashes += processor.is_over_numbers(conflict)
            if self._clashes > 1 or not self._may_try():
                tally.count("raised")
                raise conflict
            self._pause()
            numbers = processor.numbers_drawn()
            processor.rollback()
            processor.begin(numbers)
            tally.count("replays")
            try:
                for step in self._steps:
                    _repeat(step, processor)
                return
            except Conflict as another:
                tally.count("conflicts")
                conflict = another
                continue
            except Differs:
                tally.count("raised")
                raise conflict from None

    def _may_try(self) -> bool:
        if not self._complete or self._tries >= self.limits.tries:
            return False
        now = time.monotonic()
        if self._since is None:
            self._since = now
        self._tries += 1
        return now - self._since <= self.limits.seconds

    def _pause(self) -> None:
        """Let the others finish: a random while that grows, from the second try on."""
        if self._tries > 1:
            longest = min(_GREATEST_PAUSE, _FIRST_PAUSE * 2**self._tries)
            time.sleep(random.uniform(0, longest))


def _repeat(step: Step, processor: Processor) -> None:
    try:
        again = Sight(step.run(processor))
    except Conflict:
        raise
    except (apsw.Error, ConstraintViolated) as error:
        again = Sight(None, error)
    if again.digest() != step.sight.digest():
        raise Differs
