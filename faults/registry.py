"""What a fault is, and what comes of it.

    @fault(stores=("lmdb", "redis"), times=200, sample=5)
    def client_killed(store: str, times: int, seed: int) -> Report:
        \"\"\"One line that says what is done and what must hold.\"\"\"

The name of the function is the name of the fault. `times` is how often `make faults` does it, `sample`
how often `make test` does: a few seconds' worth. Every module of this package is imported when the
faults are asked for, so that a new one needs to be entered nowhere.
"""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Final

import faults

Act = Callable[[str, int, int], "Report"]

STORES: Final = ("memory", "lmdb", "redis")
TOLD: Final = 20


@dataclass(slots=True)
class Report:
    """What was tried, what was found, and what is wrong with it."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Facts worth telling that are not wrong: what an error said, how long something took."""

    def require(self, holds: bool, otherwise: str) -> bool:
        """Note a problem unless `holds`; returns `holds`."""
        if not holds:
            self.problems.append(otherwise)
        return holds

    def lines(self) -> list[str]:
        """For people: a line to each count, note and problem (the first TOLD of them)."""
        lines = [f"{number:8d}  {what}" for what, number in sorted(self.counts.items())]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"WRONG: {problem}" for problem in self.problems[:TOLD]]
        if len(self.problems) > TOLD:
            lines.append(f"WRONG: … and {len(self.problems) - TOLD} more")
        return lines


class Skipped(Exception):
    """The fault cannot be made here; the text says why."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault, ready to be made."""

    name: str
    subject: str
    """The first line of its docstring."""
    stores: tuple[str, ...]
    times: int
    sample: int
    act: Act


_registered: dict[str, Fault] = {}


def fault(*, stores: tuple[str, ...], times: int, sample: int) -> Callable[[Act], Act]:
    """Register a function as a fault."""
    assert set(stores) <= set(STORES), stores

    def register(act: Act) -> Act:
        name = act.__name__
        assert name not in _registered or _registered[name].act.__module__ == act.__module__, name
        subject = (act.__doc__ or name).strip().splitlines()[0]
        _registered[name] = Fault(name, subject, stores, times, sample, act)
        return act

    return register


def all_faults() -> dict[str, Fault]:
    """Every fault by its name; the modules in alphabetical order."""
    for module in sorted(module.name for module in pkgutil.iter_modules(faults.__path__)):
        if module not in ("run", "registry"):
            import_module(f"faults.{module}")
    return dict(_registered)
