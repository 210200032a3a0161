"""How the rows of one scan give the arguments of another: a statement's flow, ready for use.

`rome.sql.flow` speaks of scans as SQLite's program does, by what BestIndex said of them. Here they
become steps, with their tables and plans, and for each step there are recipes: given a row of that
scan, these are the arguments. Scans that look for the same in the same table are one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rome.sql.catalog import Table
from rome.sql.flow import Column, Feed, Flow, Order, ScanId, Source, Sources
from rome.sql.planner import Plan, Planner

Lookup = Callable[[str], tuple[Table, Planner]]
"""Gives the table of a name and its planner, or raises LookupError."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one argument comes from, given a row of one scan."""

    column: int = -1
    """The ordinal in that row; -1: it is no column of it."""
    sources: tuple[Source, ...] = ()
    """Otherwise: constants and parameters; empty if it is not known."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the rows of one scan give the arguments of another."""

    source: int | None
    """The place of that scan among the steps; None: no rows are needed."""
    order: Order | None
    slots: tuple[Slot, ...]


@dataclass(slots=True)
class Step:
    """A scan of the program."""

    table: Table
    plan: Plan
    many: frozenset[int]
    """Which arguments are sets."""
    recipes: list[Recipe] = field(default_factory=list)
    feeds: bool = False


@dataclass(slots=True)
class Program:
    steps: tuple[Step, ...]
    places: dict[tuple[int, int], int]
    """Table id and plan number → the step's place."""
    names: tuple[str | None, ...]
    """Of the parameters."""
    limits: tuple[Sources, ...]
    offsets: tuple[Sources, ...]
    sparse: bool = False
    """LIMIT took more rows than it counts: some are filtered out on the way."""


def program_of(flow: Flow, lookup: Lookup, names: tuple[str | None, ...]) -> Program | None:
    """The steps of a statement; None if no scan of it is known."""
    steps: list[Step] = []
    places: dict[tuple[int, int], int] = {}
    by_scan: dict[ScanId, int] = {}
    for feed in flow.feeds:
        found = None if feed.scan in by_scan else _find(feed.scan, lookup)
        if found is not None:
            table, plan = found
            terms = (*plan.equal, plan.low, plan.high)
            many = frozenset(term.argument for term in terms if term is not None and term.many)
            by_scan[feed.scan] = places[table.id, feed.scan[0]] = len(steps)
            steps.append(Step(table, plan, many))
    for feed in flow.feeds:
        if feed.scan in by_scan:
            step = steps[by_scan[feed.scan]]
            for recipe in _recipes(feed, by_scan, steps):
                if recipe not in step.recipes:
                    step.recipes.append(recipe)
                if recipe.source is not None:
                    steps[recipe.source].feeds = True
    return Program(tuple(steps), places, names, flow.limits, flow.offsets) if steps else None


def _find(scan: ScanId, lookup: Lookup) -> tuple[Table, Plan] | None:
    """The table and the plan that BestIndex spoke of.

    A table's name may hold whatever separates it from the rest of the text, so each of its
    possible ends is tried.
    """
    number, text = scan
    rest = text.partition(" ")[2]
    for end in [at for at in range(len(rest)) if rest[at] == " "] + [len(rest)]:
        try:
            table, planner = lookup(rest[:end])
        except LookupError:
            continue
        if number < len(planner.plans) and planner.plans[number].text == text:
            return table, planner.plans[number]
    return None


def _recipes(feed: Feed, by_scan: dict[ScanId, int], steps: list[Step]) -> Iterator[Recipe]:
    """One recipe for each scan that feeds this one, or one for none."""
    columns = [source for sources in feed.arguments for source in sources if isinstance(source, Column)]
    feeding = dict.fromkeys((column.scan, column.order) for column in columns if column.scan in by_scan)
    for scan, order in feeding:
        place = by_scan[scan]
        table = steps[place].table
        slots = tuple(_slot(sources, scan, order, table) for sources in feed.arguments)
        yield Recipe(place, order, slots)
    if not columns:
        yield Recipe(None, (), tuple(_slot(sources, None, (), None) for sources in feed.arguments))


def _slot(sources: Sources, scan: ScanId | None, order: Order | None, table: Table | None) -> Slot:
    for source in sources:
        if isinstance(source, Column) and source.scan == scan and source.order == order and table is not None:
            if source.column >= 0:
                return Slot(source.column)
            return Slot(table.key_columns[0]) if table.key_kind != "clustered" else Slot()
    constants = tuple(source for source in sources if not isinstance(source, Column))
    return Slot(sources=constants if len(constants) == 1 == len(sources) else ())
