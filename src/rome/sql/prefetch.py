"""Fetching ahead: what the scans of a statement will ask for next comes in one round trip.

SQLite joins by nested loops: for each row of the outer scan it starts the inner one. On a remote
store each start would be a round trip. But the program says which columns feed which scans
(`rome.sql.flow`), so when a scan starts whose rows are not there yet, they are fetched together with

    its own       what it will be asked for with the other rows of the scans that feed it
    the others'   what the other scans will be asked for with the rows that are known so far
    those within  what an equality gives away: a row that is looked for by `id = 7` has 7 in its
                  column `id`, and what that column feeds is known before the row is

so a statement costs one round trip for each level of its joins, or fewer.

**Never wrong.** All this does is to fill the transaction's cache with what was asked for in the very
words that the scan itself would use (`rome.sql.scans.search`). A wrong guess costs some bytes.

The layers, from SQLite's program to the round trip:

    flow       which columns, parameters and constants feed which scan
    recipes    the same, with tables and plans: given a row of one scan, the arguments of another
    batches    one running statement: what it has seen, and what it will ask for
    prefetch   the programs of a connection's statements; what the processor and the cursors talk to
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import apsw

from rome.sql.batches import Parameters, RunningStatement
from rome.sql.catalog import Table
from rome.sql.flow import flow, instructions
from rome.sql.planner import Plan
from rome.sql.recipes import Lookup, Program, program_of
from rome.sql.scans import KeyedRow
from rome.sql.session import Session

_PROGRAMS: Final = 512
"""How many statements' programs a connection keeps."""
_TRIES: Final = 3
"""So often is a program read again that turned out to be planned in another way."""
_NAME: Final = re.compile(r'\s+"?(\w+)"?(\s|$)')


class StatementPrefetcher:
    """Fetches ahead for the statements of one connection (rome.sql.session.Prefetcher)."""

    def __init__(self, session: Session, db: apsw.Connection, lookup: Lookup) -> None:
        self._session = session
        self._db = db
        self._lookup = lookup
        self._programs: OrderedDict[str, Program | None] = OrderedDict()
        self._tries: dict[str, int] = {}
        self._run: RunningStatement | None = None
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
        self._run = RunningStatement(self._session, program, parameters) if program is not None else None

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
        if not self._may_join(sql):
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
        return program_of(flow(program), self._lookup, names[0])

    def _may_join(self, sql: str) -> bool:
        """Whether a statement may have two scans; in doubt, as with a view, it has."""
        lowered = sql.lower()
        before, found, rest = lowered.partition("from")
        if not found:
            return False
        if "," in rest or "from" in rest or "join" in rest or "update" in before:
            return True
        name = _NAME.match(rest)
        try:
            return name is None or not self._lookup(name[1])
        except LookupError:
            return True
