"""Fetching ahead: what the scans of a statement will ask for next comes in one round trip.

SQLite joins by nested loops: for each row of the outer scan it starts the inner one. On a remote
store each start would be a round trip. But the program says which columns feed which scans
(`rome.sql.flow`), so when a scan starts whose rows are not there yet, they are fetched together with

    its own       what it will be asked for with the other rows of the outer scans
    its siblings' what the other scans that the rows known so far feed will be asked for
    its inner     scans' rows that an equality gives away: a row that is looked for by `id = 7` has
                  7 in its column `id`, and what that column feeds is known before the row is

so a statement costs one round trip for each level of its joins, or fewer.

**Never wrong.** All this does is to fill the transaction's cache with what was asked for in the very
words that the scan itself would use (`rome.sql.scans.search`). A wrong guess costs some bytes. It is
kept within bounds: at most `_GREATEST_BATCH` ranges at once, and what is not held together by an
equality is guessed only for small tables.

**Owners.** `StatementPrefetcher` belongs to a connection and keeps the programs of its statements;
`_Run` holds what one running statement has seen.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

import apsw

from rome.records.rows import Value
from rome.sql.catalog import Row, Table
from rome.sql.flow import (
    Column,
    Constant,
    Feed,
    Flow,
    Members,
    Order,
    Parameter,
    ScanId,
    Source,
    Sources,
    instructions,
)
from rome.sql.flow import flow as follow
from rome.sql.planner import Plan, Planner
from rome.sql.scans import KeyedRow, Search, known_rows, search, sort_key, term_values
from rome.sql.session import Session
from rome.stores.base import Scan

_PROGRAMS: Final = 512
"""How many statements' programs a connection keeps."""
_GREATEST_BATCH: Final = 512
_SMALL_TABLE: Final = 5000
_MOST_GUESSES: Final = 4096
"""How many rows are looked at for one batch."""
_TRIES: Final = 3
"""So often is a program read again that turned out to be planned in another way."""

Parameters = Sequence[Any] | Mapping[str, Any]
Arguments = tuple[Any, ...]
Lookup = Callable[[str], tuple[Table, Planner]]


class _Missing:
    """A column's value that is not known yet."""


_MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where one argument comes from, given a row of one scan."""

    column: int = -1
    """The ordinal in that row; -1: it is no column of it."""
    sources: tuple[Source, ...] = ()
    """Otherwise: constants and parameters; empty if it is not known."""


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How the rows of one scan give the arguments of another."""

    source: int | None
    """The place of that scan among the steps; None: no rows are needed."""
    order: Order
    slots: tuple[_Slot, ...]


@dataclass(slots=True)
class _Step:
    """A scan of the program."""

    table: Table
    plan: Plan
    many: frozenset[int]
    """Which arguments are sets."""
    recipes: list[_Recipe] = field(default_factory=list)
    feeds: bool = False


@dataclass(frozen=True, slots=True)
class _Program:
    steps: tuple[_Step, ...]
    places: dict[tuple[int, int], int]
    """Table id and plan number → the step's place."""
    names: tuple[str | None, ...]
    """Of the parameters."""


class StatementPrefetcher:
    """Fetches ahead for the statements of one connection (rome.sql.session.Prefetcher)."""

    def __init__(self, session: Session, db: apsw.Connection, lookup: Lookup) -> None:
        """`lookup` gives the table of a name and its planner, or raises LookupError."""
        self._session = session
        self._db = db
        self._lookup = lookup
        self._programs: OrderedDict[str, _Program | None] = OrderedDict()
        self._tries: dict[str, int] = {}
        self._run: _Run | None = None
        self._sql = ""

    def begin(self, sql: str, parameters: Parameters = ()) -> None:
        """A statement is about to run; its context (`Session.statement`) is set."""
        try:
            program = self._programs[sql]
            self._programs.move_to_end(sql)
        except KeyError:
            program = self._programs[sql] = self._read(sql, parameters)
            if len(self._programs) > _PROGRAMS:
                self._tries.pop(self._programs.popitem(last=False)[0], None)
        self._sql = sql
        self._run = _Run(self._session, program, parameters) if program is not None else None

    def end(self) -> None:
        """The statement is done."""
        run, self._run = self._run, None
        if run is not None and run.is_foreign:
            # SQLite has compiled it anew in the meantime, for other row counts.
            tries = self._tries[self._sql] = self._tries.get(self._sql, 0) + 1
            if tries <= _TRIES:
                self._programs.pop(self._sql, None)

    def forget(self) -> None:
        """The schema changed."""
        self._programs.clear()
        self._tries.clear()

    def fetch_ahead(self, table: Table, number: int, plan: Plan, arguments: Sequence[Any]) -> None:
        if self._run is not None:
            self._run.start(table, number, tuple(arguments))

    def fetched(self, table: Table, number: int, rows: list[KeyedRow]) -> None:
        if self._run is not None:
            self._run.learn(table, number, rows)

    # Programs

    def _read(self, sql: str, parameters: Parameters) -> _Program | None:
        """The program of a statement; None if it has fewer than two scans, or none that can be read."""
        if not _may_join(sql):
            return None
        names: list[tuple[str | None, ...]] = []

        def trace(cursor: apsw.Cursor, _: str, __: object) -> bool:
            names.append(cursor.bindings_names)
            return True

        cursor = self._db.cursor()
        cursor.exec_trace = trace
        try:
            program = instructions(cursor.execute("EXPLAIN " + sql, parameters))
        except (apsw.Error, UnicodeDecodeError):
            # It will fail by itself, or has a constant of bytes that EXPLAIN takes for text.
            return None
        finally:
            cursor.close(True)
        if sum(instruction[1] == "VFilter" for instruction in program) < 2:
            return None
        return _program(follow(program), self._lookup, names[0])


def _may_join(sql: str) -> bool:
    """Whether a text may have two scans; in doubt it has."""
    lowered = sql.lower()
    if "join" in lowered or lowered.count("select") > 1:
        return True
    _, found, after = lowered.partition("from")
    return bool(found) and "," in after


def _program(flow: Flow, lookup: Lookup, names: tuple[str | None, ...]) -> _Program | None:
    steps: list[_Step] = []
    places: dict[tuple[int, int], int] = {}
    by_scan: dict[ScanId, int] = {}
    for feed in flow.feeds:
        found = None if feed.scan in by_scan else _find(feed.scan, lookup)
        if found is not None:
            table, plan = found
            terms = (*plan.equal, plan.low, plan.high)
            many = frozenset(term.argument for term in terms if term is not None and term.many)
            by_scan[feed.scan] = places[table.id, feed.scan[0]] = len(steps)
            steps.append(_Step(table, plan, many))
    for feed in flow.feeds:
        if feed.scan in by_scan:
            step = steps[by_scan[feed.scan]]
            for recipe in _recipes(feed, by_scan, steps):
                if recipe not in step.recipes:
                    step.recipes.append(recipe)
                if recipe.source is not None:
                    steps[recipe.source].feeds = True
    return _Program(tuple(steps), places, names) if steps else None


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


def _recipes(feed: Feed, by_scan: dict[ScanId, int], steps: list[_Step]) -> Iterator[_Recipe]:
    """One recipe for each scan that feeds this one, or one for none."""
    columns = [source for sources in feed.arguments for source in sources if isinstance(source, Column)]
    feeding = dict.fromkeys((column.scan, column.order) for column in columns if column.scan in by_scan)
    for scan, order in feeding:
        place = by_scan[scan]
        table = steps[place].table
        slots = tuple(_slot(sources, scan, order, table) for sources in feed.arguments)
        yield _Recipe(place, order, slots)
    if not columns:
        yield _Recipe(None, (), tuple(_slot(sources, None, (), None) for sources in feed.arguments))


def _slot(sources: Sources, scan: ScanId | None, order: Order, table: Table | None) -> _Slot:
    for source in sources:
        if isinstance(source, Column) and source.scan == scan and source.order == order and table is not None:
            if source.column >= 0:
                return _Slot(source.column)
            return _Slot(table.key_columns[0]) if table.key_kind != "clustered" else _Slot()
    constants = tuple(source for source in sources if not isinstance(source, Column))
    return _Slot(sources=constants if len(constants) == 1 == len(sources) else ())


class _State:
    """What is known of one scan of the running statement."""

    __slots__ = ("asked", "positions", "rows", "seen", "sorted", "step")

    def __init__(self, step: _Step) -> None:
        self.step = step
        self.asked: set[Arguments] = set()
        """For these arguments the transaction's cache has the answer."""
        self.rows: list[Row] = []
        self.seen: set[bytes] = set()
        self.sorted: dict[Order, list[Row]] = {}
        self.positions: dict[tuple[_Recipe, Arguments], tuple[int, int]] = {}
        """How many rows of the feeding scan have been used, and how many there were."""

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

    def in_order(self, order: Order) -> list[Row]:
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
    guesses: int = 0

    @property
    def room(self) -> int:
        return _GREATEST_BATCH - len(self.keys) - len(self.scans)


class _Run:
    """One statement that is running."""

    def __init__(self, session: Session, program: _Program, parameters: Parameters) -> None:
        self._session = session
        self._program = program
        self._parameters = parameters
        self._states = [_State(step) for step in program.steps]
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
                self._guess(batch, other, recipe, key if other == place else None)
        self._session.transaction.load(keys=batch.keys, scans=batch.scans)
        for found, searched in batch.searches:
            if found.step.feeds:
                found.learn(known_rows(found.step.table, self._session, searched) or [])

    def _guess(self, batch: _Batch, place: int, recipe: _Recipe, current: Arguments | None) -> None:
        """Add what a scan will be asked for, by one recipe.

        `current` are its arguments now, if this scan is the one that starts: what is no column of
        the feeding scan's row will stay as it is there.
        """
        state = self._states[place]
        template = self._template(recipe, current)
        if template is None:
            return
        if recipe.source is None:
            self._add(batch, place, state.key(template))
            return
        columns = [(at, slot.column) for at, slot in enumerate(recipe.slots) if slot.column >= 0]
        rows = self._states[recipe.source].in_order(recipe.order)
        used = recipe, template
        position, count = state.positions.get(used, (0, 0))
        if recipe.order and count != len(rows):
            # The rows that have come since may lie between those that were used.
            position = 0
        while position < len(rows) and batch.room > 0 and batch.guesses < _MOST_GUESSES:
            self._add(batch, place, _filled(template, columns, rows[position]))
            position += 1
        state.positions[used] = position, len(rows)
        for row in batch.rows.get(recipe.source, ()):
            if batch.room > 0 and all(row[column] is not _MISSING for _, column in columns):
                self._add(batch, place, _filled(template, columns, row))

    def _template(self, recipe: _Recipe, current: Arguments | None) -> Arguments | None:
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

    def _is_modest(self, step: _Step, searched: Search, count: int, batch: _Batch) -> bool:
        """Whether it may be fetched on a guess."""
        if count > batch.room:
            return False
        if step.plan.equal and searched.exact:
            return True
        return self._session.row_count(step.table) <= _SMALL_TABLE


def _filled(template: Arguments, columns: list[tuple[int, int]], row: Sequence[Any]) -> Arguments:
    arguments = list(template)
    for at, column in columns:
        arguments[at] = row[column]
    return tuple(arguments)


def _foreseen(step: _Step, arguments: Arguments) -> list[list[Any]]:
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
