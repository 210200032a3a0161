"""Writing rows: what INSERT, UPDATE and DELETE do to the store's keys, and what they must obey.

SQLite ignores NOT NULL, UNIQUE, CHECK, DEFAULT and foreign keys on virtual tables, so they are
seen to here, in SQLite's order and with SQLite's texts:

    values     affinity, defaults, NOT NULL; CHECK and generated columns are put to SQLite itself
    keys       row key and unique entries must be free (rome.sql.checks), or OR REPLACE clears them
    entries    the row, its index entries, the table's count: into the write buffer
    references foreign keys, when the statement ends (rome.sql.references)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import apsw

from rome.errors import Conflict
from rome.records.rows import Value
from rome.sql import births
from rome.sql.affinity import UNDECIDED, Undecided, stored
from rome.sql.catalog import Catalog, Index, Row, Table
from rome.sql.checks import PendingChecks
from rome.sql.references import References
from rome.sql.sequences import Numbers, Sequences
from rome.sql.session import HeldBack, Session
from rome.sql.shadow import Shadow, index_values

_MODES: Final = {
    apsw.SQLITE_ABORT: "ABORT",
    apsw.SQLITE_FAIL: "FAIL",
    apsw.SQLITE_IGNORE: "IGNORE",
    apsw.SQLITE_REPLACE: "REPLACE",
    apsw.SQLITE_ROLLBACK: "ROLLBACK",
}

_GREATEST_NUMBER: Final = 2**63 - 2**32


class Entry(NamedTuple):
    """A row's entry in an index."""

    of: Index
    key: bytes
    is_claim: bool
    """Only one row may have it: the index is unique, and none of the values is NULL."""


class RowIgnored(Exception):
    """OR IGNORE: the row breaks a constraint and is to be left as it is."""


class Writer:
    """The writes of one connection's statements."""

    def __init__(
        self,
        session: Session,
        catalog: Callable[[], Catalog],
        shadow: Callable[[], Shadow],
        sequences: Sequences,
    ) -> None:
        self._session = session
        self._shadow = shadow
        self._sequences = sequences
        self._given: dict[tuple[int, tuple[str, ...]], tuple[int, ...]] = {}
        self._defaults: dict[tuple[int, int], Value] = {}
        self._checks: PendingChecks | None = None
        self._again: Numbers = {}
        self._drawn: Numbers = {}
        self._numbered: set[bytes] = set()
        """The keys of this transaction's rows that were made with numbers it has drawn."""
        self.references = References(session, catalog, self)
        self.foreign_keys = True

    def begin(self, numbers: Numbers | None = None) -> None:
        """A transaction begins; it draws these numbers first, being a second run of the one that did."""
        self._again = {counter: drawn[:] for counter, drawn in (numbers or {}).items()}
        self._drawn = {}
        self._numbered.clear()
        self._checks = PendingChecks(self._session.transaction)
        self.references.begin()

    @contextmanager
    def trusting_references(self) -> Iterator[None]:
        """For rows that were there before: their foreign keys have been judged."""
        kept, self.foreign_keys = self.foreign_keys, False
        try:
            yield
        finally:
            self.foreign_keys = kept

    def schema_changed(self) -> None:
        self._given.clear()
        self._defaults.clear()

    @property
    def checks(self) -> PendingChecks:
        assert self._checks is not None, "a write outside of a transaction"
        return self._checks

    # The end of statements and transactions

    def finish_statement(self) -> None:
        """Decide what waited for the statement's end. Raises `apsw.ConstraintError`."""
        self.checks.finish()
        self.references.finish(self.checks)

    def finish_transaction(self) -> None:
        """Decide what waited for COMMIT."""
        self.references.finish_transaction(self.checks)

    def first_violation(self) -> None:
        """The statement failed for a constraint: if rows before broke one too, that is raised instead."""
        self.checks.finish_claims()

    def discard_statement(self) -> None:
        """The statement failed; the buffer has been rolled back by the caller."""
        self.checks.discard()
        self.references.discard()

    # What SQLite calls

    def insert(self, table: Table, fields: Row, rowid: int | None, conflict: int) -> tuple[bytes, Row]:
        """Insert a row; `fields` hold NULL where a value was not given."""
        mode = _MODES[conflict]
        given = self._given_columns(table)
        key_ordinal = table.key_columns[0]
        blind = False
        if table.key_kind == "rowid":
            if rowid is not None:
                fields[key_ordinal] = rowid
            if fields[key_ordinal] is None:
                fields[key_ordinal] = self._next_number(table, fields, given)
                blind = True
                if given is not None and key_ordinal not in given:
                    given = (*given, key_ordinal)
        row = self._kept(table, fields, given, mode)
        if table.key_kind == "rowid" and not blind:
            self._own_number(table, row[key_ordinal])
        elif table.key_kind == "hidden":
            row.append(self._next_number(table, row, None))
            blind = True
        elif table.has_births:
            row.append(births.now())
        key = table.row_key(row)
        entries = self._entries(table, row)
        if blind:
            self._session.transaction.expect_absent(key)
            self._numbered.add(key)
            # The store may have lost its last writes since the number was drawn (a fail-over), and the
            # sequence with them.
            counter = table.sequence_key
            self._session.transaction.buffer.floor(counter, self._drawn[counter][-1])
        claims = [] if blind else [(None, key)]
        self._claim(table, key, row, claims + _unique(entries), mode)
        self._write(table, key, row, entries)
        self._session.transaction.buffer.add(table.count_key, 1)
        if self.foreign_keys and table.foreign_keys:
            self.references.child_written(table, key, row, None, self.checks)
        self._collect(key, row)
        return key, row

    def update(
        self, table: Table, key: bytes, fields: Sequence[Any], rowid: int | None, conflict: int
    ) -> None:
        """Change a row; `fields` hold apsw.no_change where nothing was set."""
        row = self._session.fetch(table, key)
        changes = {
            ordinal: value
            for ordinal, value in enumerate(fields)
            if value is not apsw.no_change and ordinal not in table.generated
        }
        if rowid is not None and table.key_kind != "clustered":
            changes[table.key_columns[0]] = rowid
        self._collect(*self._change(table, key, row, changes, _MODES[conflict]))

    def delete(self, table: Table, key: bytes) -> None:
        row = self._session.fetch(table, key)
        self.delete_row(table, key, row)
        self._collect(key, row)

    # What foreign key actions call, too

    def delete_row(self, table: Table, key: bytes, row: Row) -> None:
        transaction = self._session.transaction
        if transaction.get(key) is None:
            return
        for _, entry_key, _ in self._entries(table, row):
            transaction.delete(entry_key)
        transaction.delete(key)
        transaction.buffer.add(table.count_key, -1)
        if self.foreign_keys:
            self.references.parent_removed(table, key, row, None)

    def change_row(self, table: Table, key: bytes, row: Row, changes: dict[int, Value]) -> None:
        if self._session.transaction.get(key) is not None:
            self._change(table, key, row, changes, "ABORT")

    def default(self, table: Table, ordinal: int) -> Value:
        """A column's default value, evaluated now unless it is a constant."""
        text = table.columns[ordinal].default
        if text is None:
            return None
        known: Value | Undecided = self._defaults.get((table.id, ordinal), UNDECIDED)
        if not isinstance(known, Undecided):
            return known
        value: Value = self._shadow().db.execute(f"SELECT {text}").get
        if "(" not in text and not text.upper().startswith("CURRENT_"):
            self._defaults[table.id, ordinal] = value
        return value

    # How it is done

    def _change(
        self, table: Table, key: bytes, row: Row, changes: dict[int, Value], mode: str
    ) -> tuple[bytes, Row]:
        """Returns the key and the row as they are now."""
        transaction = self._session.transaction
        fields = [changes.get(ordinal, value) for ordinal, value in enumerate(row)]
        width = len(table.columns)
        own = tuple(ordinal for ordinal in range(width) if ordinal not in table.generated)
        new = self._kept(table, fields[:width], own if table.generated else None, mode, set(changes))
        new += fields[width:]
        new_key = table.row_key(new)
        before, after = self._entries(table, row), self._entries(table, new)
        kept = {entry.key for entry in before}
        moved = new_key != key
        claims: list[tuple[Index | None, bytes]] = [(None, new_key)] if moved else []
        claims += [claim for claim in _unique(after) if claim[1] not in kept]
        self._claim(table, new_key, new, claims, mode)
        remaining = {entry.key for entry in after}
        for entry_key in kept - remaining:
            transaction.delete(entry_key)
        if moved:
            transaction.delete(key)
            self.references.row_moved(table, key, new_key)
            if table.key_kind == "rowid":
                self._own_number(table, new[table.key_columns[0]])
        self._write(
            table, new_key, new, after if moved else [entry for entry in after if entry.key not in kept]
        )
        if self.foreign_keys:
            if table.foreign_keys:
                changed = {i for i in range(width) if row[i] != new[i] or type(row[i]) is not type(new[i])}
                self.references.child_written(table, new_key, new, changed, self.checks)
            self.references.parent_removed(table, key, row, new)
        return new_key, new

    def _write(self, table: Table, key: bytes, row: Row, entries: list[Entry]) -> None:
        transaction = self._session.transaction
        transaction.put(key, table.encode(row))
        for _, entry_key, _ in entries:
            transaction.put(entry_key, key)

    def _collect(self, key: bytes, row: Row) -> None:
        if self._session.statement.collect:
            self._session.statement.collected.append((key, row))

    def _entries(self, table: Table, row: Row) -> list[Entry]:
        entries = []
        for index in table.indexes:
            values = index_values(table, index, row, self._shadow)
            if values is not None:
                is_claim = index.unique and None not in values
                entries.append(Entry(index, table.entry_key(index, values, row), is_claim))
        return entries

    def _claim(
        self, table: Table, key: bytes, row: Row, claims: list[tuple[Index | None, bytes]], mode: str
    ) -> None:
        held_back = self._session.statement.held_back
        if held_back is not None and mode == "ABORT":
            self._hold_back(table, row, claims, held_back)
            return
        if mode in ("IGNORE", "REPLACE"):
            self._session.transaction.load(presence=[claimed for _, claimed in claims])
            for index, claimed in claims:
                if self.checks.claim_now(claimed):
                    # If it is taken at COMMIT, the statement has to be run again: it never fails.
                    continue
                if mode == "IGNORE":
                    raise RowIgnored
                self._replace(table, index, claimed)
            return
        if len(claims) > 1:
            claims.sort(key=lambda claim: table.checked.index(claim[0].id if claim[0] is not None else -1))
        for index, claimed in claims:
            self.checks.claim(claimed, key, table.unique_violation(index))

    def _hold_back(
        self, table: Table, row: Row, claims: list[tuple[Index | None, bytes]], held_back: HeldBack
    ) -> None:
        """UPSERT: a conflict with its target holds the row back; any other one fails, and comes first."""
        self._session.transaction.load(presence=[claimed for _, claimed in claims])
        in_the_way: bytes | None = None
        for index, claimed in claims:
            number = index.id if index is not None else -1
            is_target = held_back.targets is None or number in held_back.targets
            if self.checks.claim_now(claimed):
                if not is_target:
                    transaction = self._session.transaction
                    transaction.note_free(claimed, claimed, table.unique_violation(index))
                continue
            if not is_target:
                raise apsw.ConstraintError(table.unique_violation(index))
            in_the_way = in_the_way or self._holder(index, claimed)
        if in_the_way is not None:
            held_back.rows.append((in_the_way, row))
            raise RowIgnored

    def _holder(self, index: Index | None, claimed: bytes) -> bytes:
        """The key of the row that has this key or entry."""
        key = claimed if index is None else self._session.transaction.get(claimed)
        assert key is not None, "the entry was seen to be there"
        return key

    def _replace(self, table: Table, index: Index | None, claimed: bytes) -> None:
        """OR REPLACE: the row that holds this key makes way."""
        key = self._holder(index, claimed)
        self.delete_row(table, key, self._session.fetch(table, key))

    # Values

    def _given_columns(self, table: Table) -> tuple[int, ...] | None:
        """The ordinals that the running INSERT names; None: all."""
        names = self._session.statement.given
        if names is None:
            return (
                None
                if not table.generated
                else tuple(i for i in range(len(table.columns)) if i not in table.generated)
            )
        known = self._given.get((table.id, names))
        if known is None:
            known = tuple(table.ordinals[name.lower()] for name in names if name.lower() in table.ordinals)
            self._given[table.id, names] = known
        return known

    def _kept(
        self,
        table: Table,
        fields: Row,
        given: tuple[int, ...] | None,
        mode: str,
        changed: set[int] | None = None,
    ) -> Row:
        """The row as SQLite would keep it; None in `given` means that every column has a value."""
        if not table.needs_sqlite and mode not in ("IGNORE", "REPLACE"):
            row = self._kept_plainly(table, fields, given, changed)
            if row is not None:
                return row
        ordinals = range(len(table.columns)) if given is None else given
        kept = self._shadow().keep(table, mode, tuple(ordinals), [fields[ordinal] for ordinal in ordinals])
        if kept is None:
            raise RowIgnored
        return kept

    def _kept_plainly(
        self, table: Table, fields: Row, given: tuple[int, ...] | None, changed: set[int] | None
    ) -> Row | None:
        """The same without asking SQLite; None where it has to be asked after all."""
        row = fields[:]
        for ordinal, column in enumerate(table.columns):
            if changed is not None and ordinal not in changed:
                continue
            value = row[ordinal]
            if value is None and given is not None and ordinal not in given:
                value = self.default(table, ordinal)
            kept = stored(value, column.affinity)
            if isinstance(kept, Undecided):
                return None
            if kept is None and column.notnull:
                raise apsw.ConstraintError(f"NOT NULL constraint failed: {table.name}.{column.name}")
            row[ordinal] = kept
        if table.key_kind == "rowid" and not isinstance(row[table.key_columns[0]], int):
            raise apsw.MismatchError("datatype mismatch")
        return row

    # Numbers

    def numbers_drawn(self) -> Numbers:
        """What this transaction has drawn, and what it was given to draw and has not yet."""
        counters = self._drawn.keys() | self._again.keys()
        return {c: self._drawn.get(c, []) + self._again.get(c, []) for c in counters}

    def is_over_numbers(self, conflict: Conflict) -> bool:
        """Whether a number that was drawn seems to be used. Then those in reserve are given up as well."""
        used = not self._numbered.isdisjoint(conflict.keys)
        if used:
            self._sequences.give_up()
        return used

    def _next_number(self, table: Table, fields: Row, given: tuple[int, ...] | None) -> int:
        """A number from the table's sequence: one of the first run's, if this is a second run."""
        counter = table.sequence_key
        again = self._again.get(counter)
        number = again.pop(0) if again else self._new_number(table, fields, given)
        self._drawn.setdefault(counter, []).append(number)
        return number

    def _new_number(self, table: Table, fields: Row, given: tuple[int, ...] | None) -> int:
        counter = table.sequence_key
        # A row of this transaction that brought its own number has not raised the sequence yet, nor have
        # those with numbers that a fail-over has taken back.
        own = self._session.transaction.buffer.floor_of(counter)
        if own >= _GREATEST_NUMBER:
            raise apsw.FullError("database or disk is full")
        missing = 0
        while (number := self._sequences.take(counter, own)) is None:
            count = self._sequences.wanted(self._session.statement.rows_expected) + missing
            presence = self.checks.wanted() + self._foreseen(table, fields, given)
            first = self._session.transaction.load(presence=presence, allocate={counter: count})[counter]
            self._sequences.reserve(counter, first, count)
            missing = max(0, own + 1 - (first + count))
        return number

    def _foreseen(self, table: Table, fields: Row, given: tuple[int, ...] | None) -> list[bytes]:
        """What this row will have looked up, as far as its number has no part in it."""
        if table.needs_sqlite:
            return []
        width = len(table.columns)
        numbered = fields[:width]
        if table.key_kind == "rowid":
            numbered[table.key_columns[0]] = 0
        try:
            row = self._kept_plainly(table, numbered, given, None)
        except apsw.ConstraintError:
            return []  # to be said in due course, perhaps under OR IGNORE
        if row is None:
            return []
        found = []
        for index in table.indexes:
            values = [row[ordinal] for ordinal in index.columns]
            plain = index.unique and not index.computed and None not in values
            if plain and not set(index.columns) & set(table.key_columns):
                found.append(table.index_layouts[index.id].encode(values))
        if self.foreign_keys:
            for foreign_key in table.foreign_keys:
                if not foreign_key.deferred and not set(foreign_key.columns) & set(table.key_columns):
                    parent = self.references.parent_key(table, foreign_key, row)
                    if parent is not None and not self._session.transaction.buffer.written(parent)[0]:
                        found.append(parent)
        return found

    def _own_number(self, table: Table, number: Value) -> None:
        if isinstance(number, int) and number > 0:
            self._session.transaction.buffer.floor(table.sequence_key, number)
            self._sequences.raise_to(table.sequence_key, number)


def _unique(entries: list[Entry]) -> list[tuple[Index | None, bytes]]:
    """The entries that only one row may have."""
    return [(index, key) for index, key, is_claim in entries if is_claim]
