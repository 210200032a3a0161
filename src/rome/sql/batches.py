"""What one round trip fetches for a running statement, beyond what it was asked for.

A `RunningStatement` sees each scan start and each row that is handed to SQLite. When a scan starts
whose rows are not in the transaction's cache, it makes a batch of that and of all that the recipes
foresee (rome.sql.recipes), and fetches it. Rows that came in a batch feed the next one, so that a join of
three levels takes three round trips, however many rows there are.

**Bounds.** At most `_GREATEST_BATCH` ranges are fetched at once, and what is not held together by an
equality is guessed only for small tables.

**LIMIT** lets few of the rows through that a scan has ready. No more of them are used at first than
LIMIT counts, from the row on that is being joined; if that turns out to be too few, because rows are
filtered out on the way, the statement is remembered for that (`Program.sparse`), and next time all
of them are used at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

from rome.records.rows import Value
from rome.sql.catalog import Row, Table
from rome.sql.flow import Constant, Members, Order, Parameter, Source, Sources
from rome.sql.recipes import Program, Recipe, Step
from rome.sql.scans import KeyedRow, Search, known_rows, search, sort_key, term_values
from rome.sql.session import Session
from rome.stores.base import Scan

_GREATEST_BATCH: Final = 512
_SMALL_TABLE: Final = 5000
_MOST_GUESSES: Final = 4096
"""How many rows are looked at for one batch."""

Parameters = Sequence[Any] | Mapping[str, Any]
Arguments = tuple[Any, ...]


class _Missing:
    """A column's value that is not known yet."""


_MISSING: Final = _Missing()


@dataclass(slots=True)
class _Used:
    """Which rows of a feeding scan have been used."""

    position: int = 0
    """Those before it."""
    count: int = 0
    """How many there were at that time."""


class _State:
    """What is known of one scan of the running statement."""

    __slots__ = ("asked", "rows", "seen", "sorted", "step", "used")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.asked: set[Arguments] = set()
        """For these arguments the transaction's cache has the answer."""
        self.rows: list[Row] = []
        self.seen: set[bytes] = set()
        self.sorted: dict[Order, list[Row]] = {}
        self.used: dict[tuple[Recipe, Arguments], _Used] = {}

    def key(self, arguments: Arguments) -> Arguments:
        """The arguments as something that can be looked up."""
        many = self.step.many
        if not many:
            return arguments
        return tuple(frozenset(v) if place in many else v for place, v in enumerate(arguments))

    def learn(self, rows: list[KeyedRow]) -> None:
        for key, row in rows:
            if key not in self.seen:
                self.seen.add(key)
                self.rows.append(row)

    def in_order(self, order: Order | None) -> list[Row]:
        if not order:
            return self.rows
        known = self.sorted.get(order)
        if known is None or len(known) != len(self.rows):
            known = self.sorted[order] = sorted(self.rows, key=sort_key(self.step.table, order))
        return known


@dataclass(slots=True)
class _Batch:
    """What one round trip will ask for."""

    keys: list[bytes] = field(default_factory=list)
    scans: list[Scan] = field(default_factory=list)
    searches: list[tuple[_State, Search]] = field(default_factory=list)
    rows: dict[int, list[list[Any]]] = field(default_factory=dict)
    """By step: the rows that it will bring, as far as equalities tell, `_MISSING` elsewhere."""
    begin: dict[int, int] = field(default_factory=dict)
    """By step: the place of the row that is being joined, before which nothing will be asked for."""
    guesses: int = 0

    @property
    def room(self) -> int:
        return _GREATEST_BATCH - len(self.keys) - len(self.scans)


class RunningStatement:
    """One statement that is running."""

    def __init__(self, session: Session, program: Program, parameters: Parameters) -> None:
        self._session = session
        self._program = program
        self._parameters = parameters
        self._states = [_State(step) for step in program.steps]
        self._page = self._limit_and_offset()
        self.is_foreign = False
        """A scan was started that the program does not have."""

    def learn(self, table: Table, number: int, rows: list[KeyedRow]) -> None:
        """A scan has handed these rows to SQLite."""
        place = self._program.places.get((table.id, number))
        if place is not None and self._program.steps[place].feeds:
            self._states[place].learn(rows)

    def start(self, table: Table, number: int, arguments: Arguments) -> None:
        """A scan is about to begin: have what it asks for, and what will be asked for next."""
        place = self._program.places.get((table.id, number))
        if place is None:
            self.is_foreign = True
            return
        state = self._states[place]
        key = state.key(arguments)
        if key in state.asked:
            return
        batch = _Batch()
        if not self._add(batch, place, key, certain=True):
            return
        for other, step in enumerate(self._program.steps):
            for recipe in step.recipes:
                if recipe.source is None:
                    self._guess_once(batch, other, recipe)
                else:
                    self._guess(batch, other, recipe, recipe.source, key if other == place else None)
        self._session.transaction.load(keys=batch.keys, scans=batch.scans)
        for found, searched in batch.searches:
            if found.step.feeds:
                found.learn(known_rows(found.step.table, self._session, searched) or [])

    def _guess_once(self, batch: _Batch, place: int, recipe: Recipe) -> None:
        """Add a scan that no other one feeds."""
        arguments = self._template(recipe, None)
        if arguments is not None:
            self._add(batch, place, self._states[place].key(arguments))

    def _guess(
        self, batch: _Batch, place: int, recipe: Recipe, source: int, current: Arguments | None
    ) -> None:
        """Add what a scan will be asked for with the rows of another one.

        `current` are its arguments now, if this scan is the one that starts: what is no column of
        those rows will stay as it is there.
        """
        template = self._template(recipe, current)
        if template is None:
            return
        columns = [(at, slot.column) for at, slot in enumerate(recipe.slots) if slot.column >= 0]
        state, rows = self._states[place], self._states[source].in_order(recipe.order)
        used = state.used.setdefault((recipe, template), _Used())
        if recipe.order and used.count != len(rows):
            # The rows that have come since may lie between those that were used.
            used.position = 0
        if current is not None and recipe.order is not None:
            self._find_place(batch, recipe, used, _index(rows, columns, current))
        used.position = max(used.position, batch.begin.get(source, 0))
        end = len(rows)
        if self._page is not None and not self._program.sparse and recipe.order is not None:
            limit, offset = self._page
            end = min(end, used.position + limit + (0 if source in batch.begin else offset))
        while used.position < end and batch.room > 0 and batch.guesses < _MOST_GUESSES:
            self._add(batch, place, _filled(template, columns, rows[used.position]))
            used.position += 1
        used.count = len(rows)
        for row in batch.rows.get(source, ()):
            if batch.room > 0 and all(row[column] is not _MISSING for _, column in columns):
                self._add(batch, place, _filled(template, columns, row))

    def _find_place(self, batch: _Batch, recipe: Recipe, used: _Used, here: int | None) -> None:
        """Begin with the row that is being joined: those before it have been passed over."""
        if used.count:
            self._program.sparse = True
        if here is None:
            return
        if here < used.position:
            # They do not come in the order that was expected.
            used.position = 0
        elif recipe.source is not None:
            batch.begin[recipe.source] = here

    def _limit_and_offset(self) -> tuple[int, int] | None:
        """How many rows LIMIT lets through, and how many OFFSET passes over; None if it is not known."""
        limits = [self._count(sources) for sources in self._program.limits]
        offsets = [self._count(sources) for sources in self._program.offsets]
        if not limits or min(limits + offsets) < 0:
            return None
        return max(limits), max(offsets, default=0)

    def _count(self, sources: Sources) -> int:
        """-1: not known, or no limit."""
        value = self._value(next(iter(sources))) if len(sources) == 1 else None
        return value if isinstance(value, int) else -1

    def _template(self, recipe: Recipe, current: Arguments | None) -> Arguments | None:
        """The arguments but for those that a row gives; None if one is not known."""
        template: list[Any] = []
        for at, slot in enumerate(recipe.slots):
            if slot.column >= 0:
                template.append(None)
            elif current is not None:
                template.append(current[at])
            elif slot.sources:
                value = self._value(slot.sources[0])
                if value is _MISSING:
                    return None
                template.append(value)
            else:
                return None
        return tuple(template)

    def _value(self, source: Source) -> Any:
        if isinstance(source, Constant):
            return source.value
        if isinstance(source, Parameter):
            return self._parameter(source.number)
        if isinstance(source, Members):
            values = [self._value(member) for member in source.sources]
            return _MISSING if _MISSING in values else frozenset(values)
        return _MISSING

    def _parameter(self, number: int) -> Any:
        if isinstance(self._parameters, Mapping):
            name = self._program.names[number - 1] if number <= len(self._program.names) else None
            return _MISSING if name is None else self._parameters.get(name)
        return self._parameters[number - 1] if number <= len(self._parameters) else _MISSING

    def _add(self, batch: _Batch, place: int, arguments: Arguments, certain: bool = False) -> bool:
        """Put what a scan asks for into the batch; returns whether there is something to fetch."""
        state = self._states[place]
        if arguments in state.asked:
            return False
        batch.guesses += 1
        step = state.step
        searched = search(step.table, self._session, step.plan, arguments)
        transaction = self._session.transaction
        keys = [key for key in searched.keys if not transaction.knows_value(key)]
        scans = [scan for scan in searched.scans if not transaction.knows_scan(scan)]
        missing = bool(keys or scans)
        if missing and not certain and not self._is_modest(step, searched, len(keys) + len(scans), batch):
            return False
        state.asked.add(arguments)
        batch.keys += keys
        batch.scans += scans
        if missing:
            batch.searches.append((state, searched))
            if step.feeds:
                batch.rows.setdefault(place, []).extend(_foreseen(step, arguments))
        elif step.feeds and not certain:
            state.learn(known_rows(step.table, self._session, searched) or [])
        return missing

    def _is_modest(self, step: Step, searched: Search, count: int, batch: _Batch) -> bool:
        """Whether it may be fetched on a guess."""
        if count > batch.room:
            return False
        if step.plan.equal and searched.exact:
            return True
        return self._session.row_count(step.table) <= _SMALL_TABLE


def _index(rows: Sequence[Row], columns: list[tuple[int, int]], arguments: Arguments) -> int | None:
    """The first row that gives these arguments."""
    for place, row in enumerate(rows):
        if all(row[column] == arguments[at] for at, column in columns):
            return place
    return None


def _filled(template: Arguments, columns: list[tuple[int, int]], row: Sequence[Any]) -> Arguments:
    arguments = list(template)
    for at, column in columns:
        arguments[at] = row[column]
    return tuple(arguments)


def _foreseen(step: Step, arguments: Arguments) -> list[list[Any]]:
    """What is known of the rows that a scan will bring: the columns that are looked for by equality."""
    table, plan = step.table, step.plan
    ordinals = plan.path.columns[: len(plan.equal)]
    choices: list[list[Value]] = []
    for term, ordinal in zip(plan.equal, ordinals, strict=True):
        values = term_values(term, arguments, table.affinities[ordinal])
        if values is None:
            return []
        choices.append(values)
    rows = []
    for combination in product(*choices):
        row: list[Any] = [_MISSING] * table.width
        for ordinal, value in zip(ordinals, combination, strict=True):
            row[ordinal] = value
        rows.append(row)
    return rows
