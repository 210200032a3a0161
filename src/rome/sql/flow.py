"""Which values feed which scans, read off the program that SQLite compiled.

`EXPLAIN` lists a statement's program for SQLite's register machine. In it, a scan of a virtual
table is a VFilter, whose arguments lie in registers, and a value of a row gets into a register by a
VColumn. So this module runs the program on sources instead of values:

    10  VFilter   0  …             the outer scan begins
    11  VColumn   0  2  →  r9      r9 holds column 2 of the outer scan's rows
    12  Copy      r9    →  r14
    20  VFilter   1  …  r12        argument 1 of the inner scan, r14, is fed by that column

It follows copies, and what is put into records of sorters and ephemeral tables and read from them
again. It knows nothing of jumps: instructions are taken in the order of the listing, the part that
sets constants first, and all of it twice, so that what a loop's end feeds to its beginning is seen.
Where a register may hold one of several things (the rows of a UNION, of a recursive query), all of
them are its sources.

**What is not known is left out**: a result of a function has no source. And nothing here needs to
be right: a source that is wrong makes someone fetch what nobody asks for.

The opcodes are those of sqlite.org/opcode.html; an unknown one is taken to write nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from rome.records.rows import Value

Instruction = tuple[int, str, int, int, int, str | None, int]
"""Address, opcode, P1, P2, P3, P4 and P5, as EXPLAIN gives them (the comment aside)."""

ScanId = tuple[int, str]
"""What BestIndex said of a scan: idxNum and idxStr."""

Order = tuple[tuple[int, bool], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a scan's rows; -1 is the rowid."""

    scan: ScanId
    column: int
    order: Order | None = ()
    """How a sorter on the way sorts the rows: by these columns, as (column, descending).

    Empty: they come as they were read. None: it sorts by something else.
    """


@dataclass(frozen=True, slots=True)
class Parameter:
    number: int
    """Counts from 1."""


@dataclass(frozen=True, slots=True)
class Constant:
    value: Value


@dataclass(frozen=True, slots=True)
class Members:
    """A set: the right-hand side of IN."""

    sources: frozenset[Source]


@dataclass(frozen=True, slots=True)
class Record:
    """A row as it is put into a sorter or an ephemeral table; never an argument."""

    fields: tuple[Sources, ...]


Source = Column | Parameter | Constant | Members | Record
Sources = frozenset[Source]
"""What a value may be; empty where that is not known."""

UNKNOWN: Final[Sources] = frozenset()


@dataclass(frozen=True, slots=True)
class Feed:
    """A scan of the statement, and the sources of its arguments."""

    scan: ScanId
    arguments: tuple[Sources, ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """A statement's scans of virtual tables, in the order of the program.

    One scan may stand here twice: SQLite says only what is looked for, not by which cursor.
    """

    feeds: tuple[Feed, ...]
    limits: tuple[Sources, ...] = ()
    """Of LIMIT, but for those within correlated subqueries."""
    offsets: tuple[Sources, ...] = ()


def flow(program: Sequence[Instruction]) -> Flow:
    """Follow the sources through a program."""
    machine = _Machine(_subroutines(program))
    for _ in range(2):
        for instruction in _in_order(program):
            machine.step(*instruction)
    feeds = tuple(Feed(scan, arguments) for scan, arguments in machine.feeds.values())
    return Flow(feeds, tuple(machine.limits.values()), tuple(machine.offsets.values()))


def _in_order(program: Sequence[Instruction]) -> Iterator[Instruction]:
    """The instructions as they run first: Init jumps to the constants at the end."""
    start = program[0][3] if program and program[0][1] == "Init" else 0
    yield from program[start:]
    yield from program[:start]


def _subroutines(program: Sequence[Instruction]) -> set[int]:
    """The addresses between a BeginSubrtn and its Return."""
    found: set[int] = set()
    for address, opcode, _, begin, inline, *_ in program:
        if opcode == "Return" and inline:
            found.update(range(begin - 1, address))
    return found


_WRITES_P2: Final = frozenset(
    "Int64 Real String String8 Blob Not BitNot IsTrue ZeroOrNull Sequence NewRowid RowData IdxRowid"
    " Count Param ReadCookie BeginSubrtn Rowid".split()
)
_WRITES_P3: Final = frozenset(
    "Add Subtract Multiply Divide Remainder Concat BitAnd BitOr ShiftLeft ShiftRight And Or Function"
    " PureFunc MakeRecord Column VColumn AggValue Offset RowSetRead".split()
)
_WRITES_P1: Final = frozenset(["Cast", "AggFinal", "AddImm"])
_KEY = re.compile(r"k\((\d+)((?:,[^,()]*)*)\)")


@dataclass(slots=True)
class _Contents:
    """What was put into a sorter or an ephemeral table: the sources of each field."""

    key: tuple[bool, ...] = ()
    """Whether each field of its key sorts in descending order."""
    fields: list[Sources] = field(default_factory=list)

    def add(self, record: Record) -> None:
        for place, sources in enumerate(record.fields):
            if place == len(self.fields):
                self.fields.append(sources)
            else:
                self.fields[place] |= sources

    def record(self) -> Record:
        """What is read from it."""
        return self._sorted_record(Record(tuple(self.fields)))

    def _sorted_record(self, record: Record) -> Record:
        if not self.key:
            return record
        return Record(tuple(frozenset(map(self._sorted, sources)) for sources in record.fields))

    def _sorted(self, source: Source) -> Source:
        if isinstance(source, Column):
            return Column(source.scan, source.column, self._order(source.scan))
        return self._sorted_record(source) if isinstance(source, Record) else source

    def _order(self, scan: ScanId) -> Order | None:
        """By which of its columns the rows of a scan come out."""
        order = []
        for sources, descending in zip(self.fields, self.key, strict=False):
            columns = {s.column for s in sources if isinstance(s, Column) and s.scan == scan}
            if len(columns) != 1 or any(not isinstance(s, Column) or s.scan != scan for s in sources):
                break
            order.append((columns.pop(), descending))
        return tuple(order) or None


@dataclass(slots=True)
class _Coroutine:
    """The registers that a coroutine hands over, united over its Yields."""

    start: int
    end: int
    written: set[int] = field(default_factory=set)
    given: dict[int, Sources] = field(default_factory=dict)


class _Machine:
    """Registers and tables, holding sources."""

    def __init__(self, subroutines: set[int]) -> None:
        self.feeds: dict[int, tuple[ScanId, tuple[Sources, ...]]] = {}
        """By the address of the VFilter."""
        self.limits: dict[int, Sources] = {}
        self.offsets: dict[int, Sources] = {}
        self._subroutines = subroutines
        self._registers: dict[int, Sources] = {}
        self._tables: dict[int, _Contents] = {}
        self._pseudo: dict[int, int] = {}
        """Cursors that read a record in a register."""
        self._scans: dict[int, ScanId] = {}
        self._coroutines: dict[int, _Coroutine] = {}
        self._address = 0

    def step(self, address: int, opcode: str, p1: int, p2: int, p3: int, p4: str | None, _: int) -> None:
        self._address = address
        if opcode in _WRITES_P2:
            self._set(p2, UNKNOWN)
        elif opcode in _WRITES_P3:
            self._set(p3, UNKNOWN)
        elif opcode in _WRITES_P1:
            self._set(p1, UNKNOWN)
        handler = getattr(self, f"_{opcode}", None)
        if handler is not None:
            handler(p1, p2, p3, p4)

    def _set(self, register: int, sources: Sources) -> None:
        self._registers[register] = sources
        for coroutine in self._coroutines.values():
            if coroutine.start <= self._address < coroutine.end:
                coroutine.written.add(register)

    def _get(self, register: int) -> Sources:
        return self._registers.get(register, UNKNOWN)

    # Scans

    def _VFilter(self, cursor: int, _: int, register: int, text: str | None) -> None:
        number, count = self._integer(register), self._integer(register + 1)
        if number is None or count is None or text is None:
            return
        self._scans[cursor] = (number, text)
        arguments = tuple(self._argument(register + 2 + place) for place in range(count))
        before = self.feeds.get(self._address)
        if before is not None:
            arguments = tuple(a | b for a, b in zip(arguments, before[1], strict=True))
        self.feeds[self._address] = ((number, text), arguments)

    def _argument(self, register: int) -> Sources:
        return frozenset(source for source in self._get(register) if not isinstance(source, Record))

    def _integer(self, register: int) -> int | None:
        for source in self._get(register):
            if isinstance(source, Constant) and isinstance(source.value, int):
                return source.value
        return None

    def _VColumn(self, cursor: int, column: int, register: int, _: object) -> None:
        if cursor in self._scans:
            self._set(register, frozenset([Column(self._scans[cursor], column)]))

    def _Rowid(self, cursor: int, register: int, *_: object) -> None:
        self._VColumn(cursor, -1, register, None)

    def _VInitIn(self, cursor: int, register: int, *_: object) -> None:
        members = self._contents(cursor).fields[:1]
        self._set(register, frozenset([Members(members[0])]) if members else UNKNOWN)

    # Constants and parameters

    def _Variable(self, number: int, register: int, *_: object) -> None:
        self._set(register, frozenset([Parameter(number)]))

    def _Integer(self, value: int, register: int, *_: object) -> None:
        self._set(register, frozenset([Constant(value)]))

    def _String8(self, _: int, register: int, __: int, text: str | None) -> None:
        if text is not None:
            self._set(register, frozenset([Constant(text)]))

    def _Int64(self, _: int, register: int, __: int, text: str | None) -> None:
        if text is not None:
            self._set(register, frozenset([Constant(int(text))]))

    def _Real(self, _: int, register: int, __: int, text: str | None) -> None:
        if text is not None:
            self._set(register, frozenset([Constant(float(text))]))

    def _Null(self, _: int, first: int, last: int, __: object) -> None:
        for register in range(first, max(first, last) + 1):
            self._set(register, frozenset([Constant(None)]))

    # LIMIT counts down to zero, OFFSET before it

    def _DecrJumpZero(self, register: int, *_: object) -> None:
        if self._address not in self._subroutines:
            self.limits[self._address] = self._get(register)

    _IfNotZero = _DecrJumpZero

    def _OffsetLimit(self, limit: int, both: int, *_: object) -> None:
        self._set(both, self._get(limit))

    def _IfPos(self, register: int, _: int, decrement: int, __: object) -> None:
        if decrement and self._address not in self._subroutines:
            self.offsets[self._address] = self._get(register)

    # Moving about

    def _Copy(self, source: int, target: int, more: int, _: object) -> None:
        for offset in range(more + 1):
            self._copy(source + offset, target + offset)

    def _Move(self, source: int, target: int, count: int, _: object) -> None:
        for offset in range(count):
            self._copy(source + offset, target + offset)
            self._set(source + offset, UNKNOWN)

    def _SCopy(self, source: int, target: int, *_: object) -> None:
        self._copy(source, target)

    _IntCopy = _SCopy

    def _copy(self, source: int, target: int) -> None:
        self._set(target, self._get(source))

    # Records, sorters and ephemeral tables

    def _MakeRecord(self, first: int, count: int, register: int, _: object) -> None:
        record = Record(tuple(self._get(first + place) for place in range(count)))
        self._set(register, frozenset([record]))

    def _OpenEphemeral(self, cursor: int, _: int, __: int, key: str | None) -> None:
        self._scans.pop(cursor, None)
        self._pseudo.pop(cursor, None)
        self._contents(cursor).key = _directions(key)

    _SorterOpen = _OpenAutoindex = _OpenEphemeral

    def _OpenDup(self, cursor: int, original: int, *_: object) -> None:
        self._tables[cursor] = self._contents(original)

    def _OpenPseudo(self, cursor: int, register: int, *_: object) -> None:
        self._pseudo[cursor] = register

    def _contents(self, cursor: int) -> _Contents:
        return self._tables.setdefault(cursor, _Contents())

    def _IdxInsert(self, cursor: int, register: int, *_: object) -> None:
        for source in self._get(register):
            if isinstance(source, Record):
                self._contents(cursor).add(source)

    _SorterInsert = _Insert = _IdxInsert

    def _SorterData(self, cursor: int, register: int, *_: object) -> None:
        self._set(register, frozenset([self._contents(cursor).record()]))

    _RowData = _SorterData

    def _Column(self, cursor: int, place: int, register: int, _: object) -> None:
        if cursor in self._pseudo:
            records = [s for s in self._get(self._pseudo[cursor]) if isinstance(s, Record)]
        else:
            records = [self._contents(cursor).record()]
        found = [record.fields[place] for record in records if place < len(record.fields)]
        self._set(register, UNKNOWN.union(*found))

    # Coroutines

    def _InitCoroutine(self, register: int, end: int, start: int, _: object) -> None:
        if end:
            known = self._coroutines.setdefault(register, _Coroutine(start, end))
            known.start, known.end = start, end

    def _Yield(self, register: int, *_: object) -> None:
        coroutine = self._coroutines.get(register)
        if coroutine is None:
            return
        if coroutine.start <= self._address < coroutine.end:
            for written in coroutine.written:
                coroutine.given[written] = coroutine.given.get(written, UNKNOWN) | self._get(written)
        else:
            for given, sources in coroutine.given.items():
                if sources:
                    self._set(given, sources)


def _directions(key: str | None) -> tuple[bool, ...]:
    """Which fields of a key `k(2,-B,B)` sort in descending order."""
    found = _KEY.match(key or "")
    if found is None:
        return ()
    return tuple(part.startswith("-") for part in found[2].split(",")[1:])


def instructions(rows: Iterable[tuple[object, ...]]) -> list[Instruction]:
    """The rows of EXPLAIN as instructions; those of a trigger's program at the end are left out."""
    program: list[Instruction] = []
    for row in rows:
        if row[0] != len(program):
            break
        program.append(row[:7])  # type: ignore[arg-type]
    return program
