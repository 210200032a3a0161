"""Processes that write all the time, and go on by themselves when something breaks.

    with writing(url, 4) as crew:
        …break something, as often as wanted…
        crew.goes_on(10)    seconds until each writer had another transaction acknowledged
    crew.told               what each writer was told of its transactions, in order

The writers open their own engines after the fork, and never open another one: what recovers, recovers
without a restart of the program.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any, Final

from sqlalchemy import create_engine

from faults.ledger import ACKNOWLEDGED, Told, Writer

ENDING_SECONDS: Final = 120.0
PAUSE: Final = 0.01
"""Seconds after an attempt that failed."""


class Crew:
    """The writers at work, and, when they are done, what they were told."""

    def __init__(self, acknowledged: Sequence[int]) -> None:
        self.told: list[list[Told]] = []
        self._acknowledged = acknowledged

    @property
    def all_told(self) -> list[Told]:
        return [one for of_writer in self.told for one in of_writer]

    def goes_on(self, patience: float) -> float | None:
        """Seconds until every writer had another transaction acknowledged; None if one had not in time."""
        began = time.monotonic()
        before = list(self._acknowledged)
        while any(now == then for now, then in zip(self._acknowledged, before, strict=True)):
            if time.monotonic() - began > patience:
                return None
            time.sleep(0.005)
        return time.monotonic() - began

    def be_quiet(self, seconds: float) -> None:
        """Wait until nobody has had anything acknowledged for so long: answers on their way have arrived."""
        before, since = list(self._acknowledged), time.monotonic()
        while time.monotonic() - since < seconds:
            time.sleep(0.01)
            if (now := list(self._acknowledged)) != before:
                before, since = now, time.monotonic()


_finished: Event
_acknowledged: Any
"""In a writer's process: set when it is time to end; and how many were acknowledged, for each writer."""


def _begin(finished: Event, acknowledged: Any) -> None:
    global _finished, _acknowledged
    _finished, _acknowledged = finished, acknowledged


def _write(url: str, number: int, turn: int, padding: str) -> list[Told]:
    engine = create_engine(url)
    writer = Writer(engine, number, padding, name=f"{turn}-{number}")
    while not _finished.is_set():
        if writer.attempt().outcome == ACKNOWLEDGED:
            _acknowledged[number] += 1
        else:
            time.sleep(PAUSE)
    engine.dispose()
    return writer.told


@contextmanager
def writing(url: str, writers: int, turn: int = 0, padding: str = "") -> Iterator[Crew]:
    """Writers at work while the block lasts; their tallies must be there (`ledger.prepare`).

    A database that sees more than one crew needs a greater `turn` for each: it makes their tokens differ.
    `padding` makes each order that much longer.
    """
    fork = multiprocessing.get_context("fork")
    finished = fork.Event()
    acknowledged = fork.Array("l", writers, lock=False)
    crew = Crew(acknowledged)
    with ProcessPoolExecutor(
        writers, mp_context=fork, initializer=_begin, initargs=(finished, acknowledged)
    ) as pool:
        futures: list[Future[list[Told]]] = [
            pool.submit(_write, url, number, turn, padding) for number in range(writers)
        ]
        try:
            yield crew
        finally:
            finished.set()
        crew.told = [future.result(ENDING_SECONDS) for future in futures]
