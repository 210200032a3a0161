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


class _Missing:
    """A column's value that is not known yet."""


_MISSING: Final = _Missing()


class StatementPrefetcher:
    """Fetches ahead for the statements of one connection (rome.sql.session.Prefetcher)."""

    def __init__(self, session: Session, db: apsw.Connection, lookup: Lookup) -> None:
        self._session = session
        self._db = db
        self._lookup = lookup
        self._programs: OrderedDict[str, Program | None] = OrderedDict()
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

    def _read(self, sql: str, parameters: Parameters) -> Program | None:
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
        return program_of(follow(program), self._lookup, names[0])


def _may_join(sql: str) -> bool:
    """Whether a text may have two scans; in doubt it has."""
    lowered = sql.lower()
    if "join" in lowered or lowered.count("select") > 1:
        return True
    _, found, after = lowered.partition("from")
    return bool(found) and "," in after


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


class _Run:
    """One statement that is running."""

    def __init__(self, session: Session, program: Program, parameters: Parameters) -> None:
        self._session = session
        self._program = program
        self._parameters = parameters
        self._states = [_State(step) for step in program.steps]
        self._enough = self._rows_enough()
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
        if self._enough is not None and not self._program.sparse and recipe.order is not None:
            end = min(end, used.position + self._enough)
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

    def _rows_enough(self) -> int | None:
        """How many rows LIMIT lets through; None where that is not known."""
        if not self._program.limits:
            return None
        counts = [[self._count(s) for s in of] for of in (self._program.limits, self._program.offsets)]
        if any(min(each, default=0) < 0 for each in counts):
            return None
        return sum(max(each, default=0) for each in counts)

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
