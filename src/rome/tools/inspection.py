"""One table in one snapshot: what is wrong with it, and the writes that would mend it.

    rows       each is read, and says which entries it has in which index, and which parents it needs
    indexes    each entry must be one that a row has; what is left over of the rows' is missing
    counters   the count is that of the rows, the sequence lies above their numbers

The entries that rows should have are held in memory, for one table at a time.

A row that cannot be read might have any entry, so entries that name it are not judged.
"""

from __future__ import annotations

from itertools import islice
from typing import cast

import apsw

from rome.errors import FormatError
from rome.records.keys import KeyLayout
from rome.records.rows import Value
from rome.sql.catalog import ForeignKey, Index, Row, Table
from rome.sql.references import References, RowWriter
from rome.sql.session import Session
from rome.sql.shadow import index_values
from rome.stores import Entry, Read, Writes, prefix_range
from rome.tools.findings import EXAMPLES, NOTE, Findings
from rome.tools.reader import Progress, Reader, StoredSchema

_VALUES = (type(None), int, float, str, bytes)
_LONGEST_LABEL = 60


class TableInspection:
    """Run once; afterwards it has what it counted and the remedy, and `findings` has the rest."""

    def __init__(
        self,
        reader: Reader,
        schema: StoredSchema,
        table: Table,
        findings: Findings,
        foreign_keys: bool,
        progress: Progress,
    ) -> None:
        self.rows = 0
        self.entries = 0
        self.remedy = Writes()
        self._reader = reader
        self._schema = schema
        self._table = table
        self._findings = findings
        self._missing_parent = "parent" if foreign_keys else NOTE
        self._progress = progress
        # A foreign key's target depends on the catalog alone, not on a connection's session and writer.
        self._references = References(cast(Session, None), lambda: schema.catalog, cast(RowWriter, None))
        self._expected: dict[int, dict[bytes, bytes]] = {index.id: {} for index in table.indexes}
        self._rivals: dict[bytes, set[bytes]] = {}
        self._unreadable: set[bytes] = set()
        self._loose: set[ForeignKey] = set()
        self._greatest = 0

    def run(self) -> None:
        """Raises `Conflict` and `StoreError` as the snapshot does."""
        self._walk_rows()
        for index in self._table.indexes:
            self._walk_index(index)
        self._look_at_counters()

    # Rows

    def _walk_rows(self) -> None:
        for chunk in self._reader.chunks(prefix_range(self._table.row_layout.prefix)):
            self.rows += len(chunk)
            parents: dict[bytes, list[tuple[ForeignKey, str]]] = {}
            for entry in chunk:
                row = self._read(entry)
                wanted = self._wanted(entry, row) if row is not None else None
                if row is None or wanted is None:
                    self._unreadable.add(entry.key)
                    continue
                self._expect_entries(entry.key, row, wanted)
                self._expect_parents(row, parents)
                number = row[self._table.key_columns[0]]
                if self._table.key_kind != "clustered" and isinstance(number, int):
                    self._greatest = max(self._greatest, number)
            self._find_parents(parents)
            self._progress.step(self._table.name, len(chunk))

    def _read(self, entry: Entry) -> Row | None:
        table = self._table
        try:
            row = table.decode(entry.value)
        except FormatError as error:
            self._damaged(entry, str(error))
            return None
        for column, value in zip(table.columns, row, strict=False):
            if type(value) not in _VALUES or (isinstance(value, int) and not -(2**63) <= value < 2**63):
                self._damaged(entry, f"column {column.name} holds what SQLite has no value for")
                return None
            if value is None and column.notnull:
                self._damaged(entry, f"column {column.name} is NOT NULL and holds NULL")
                return None
        if table.row_key(row) != entry.key:
            self._damaged(entry, f"its values are those of row {self._label(row)}")
            return None
        return row

    def _wanted(self, entry: Entry, row: Row) -> list[tuple[Index, bytes]] | None:
        try:
            return self._entries_of(row)
        except apsw.Error as error:
            self._damaged(entry, f"no index entry can be made of row {self._label(row)}: {error}")
            return None

    def _damaged(self, entry: Entry, why: str) -> None:
        example = f"key {entry.key.hex()}: {why}"
        self._findings.add("damaged", "rows that cannot be read", example, table=self._table.name)

    def _label(self, row: Row) -> str:
        """A row by its key, for people."""
        values = ", ".join(map(_shown, self._table.key_values(row)))
        return f"({values})"

    # What the rows ask for

    def _expect_entries(self, key: bytes, row: Row, wanted: list[tuple[Index, bytes]]) -> None:
        for index, entry in wanted:
            owner = self._expected[index.id].setdefault(entry, key)
            if owner != key:
                self._rivals.setdefault(entry, {owner}).add(key)
                text = "rows that share a unique key"
                where = {"table": self._table.name, "index": index.name}
                self._findings.add("duplicate", text, self._label(row), **where)

    def _entries_of(self, row: Row) -> list[tuple[Index, bytes]]:
        """The entries that a row has. Raises `apsw.Error` where SQLite cannot compute one."""
        table, found = self._table, []
        for index in table.indexes:
            values = index_values(table, index, row, lambda: self._schema.shadow)
            if values is not None:
                found.append((index, table.entry_key(index, values, row)))
        return found

    def _expect_parents(self, row: Row, parents: dict[bytes, list[tuple[ForeignKey, str]]]) -> None:
        for foreign_key in self._table.foreign_keys:
            if foreign_key in self._loose:
                continue
            try:
                parent = self._references.parent_key(self._table, foreign_key, row)
            except apsw.SQLError as error:
                self._loose.add(foreign_key)
                self._findings.add(NOTE, f"{self._reference(foreign_key)}: {error}", table=self._table.name)
                continue
            if parent is not None:
                parents.setdefault(parent, []).append((foreign_key, self._label(row)))

    def _find_parents(self, parents: dict[bytes, list[tuple[ForeignKey, str]]]) -> None:
        if not parents:
            return
        present = self._reader.ask(Read(presence=list(parents))).presence
        for parent, children in parents.items():
            if not present[parent]:
                for foreign_key, label in children:
                    text = f"rows without a parent by {self._reference(foreign_key)}"
                    self._findings.add(self._missing_parent, text, label, table=self._table.name)

    def _reference(self, foreign_key: ForeignKey) -> str:
        columns = ", ".join(self._table.columns[ordinal].name for ordinal in foreign_key.columns)
        return f"FOREIGN KEY ({columns}) REFERENCES {foreign_key.parent}"

    # Indexes

    def _walk_index(self, index: Index) -> None:
        expected = self._expected.pop(index.id)
        layout: KeyLayout = self._table.index_layouts[index.id]
        where = {"table": self._table.name, "index": index.name}
        for chunk in self._reader.chunks(prefix_range(layout.prefix)):
            self.entries += len(chunk)
            self._progress.step(self._table.name, len(chunk))
            for key, named, _ in chunk:
                owner = expected.pop(key, None)
                example = f"entry {key.hex()} names row {named.hex()}"
                if owner is None:
                    if named not in self._unreadable:
                        self._findings.add("stray", "entries of rows that do not have them", example, **where)
                        self.remedy.deletes.add(key)
                elif named != owner and named not in self._rivals.get(key, ()):
                    self._findings.add("wrong", "entries that name another row", example, **where)
                    self.remedy.puts[key] = owner
        labels = self._labels_of(list(islice(expected.values(), EXAMPLES)))
        for key, owner in expected.items():
            example = f"row {labels[owner]}: entry {key.hex()}" if owner in labels else ""
            self._findings.add("missing", "rows without their entry", example, **where)
            self.remedy.puts[key] = owner

    def _labels_of(self, keys: list[bytes]) -> dict[bytes, str]:
        """What people call these rows, all of which were read before."""
        values = self._reader.ask(Read(keys=keys)).values if keys else {}
        return {key: self._label(self._table.decode(e.value)) for key, e in values.items() if e is not None}

    # Counters

    def _look_at_counters(self) -> None:
        """Read behind the rows, of which the store says that they are still the same."""
        table = self._table
        counters = self._reader.ask(Read(counters=[table.count_key, table.sequence_key])).counters
        counted, last = counters[table.count_key], counters[table.sequence_key]
        if counted != self.rows:
            text = f"the counter says {counted} rows, there are {self.rows}"
            self._findings.add("count", text, table=table.name)
            self.remedy.adds[table.count_key] = self.rows - counted
        if last < self._greatest:
            text = f"the last number handed out is {last}, the greatest in use {self._greatest}"
            self._findings.add("sequence", text, table=table.name)
            self.remedy.floors[table.sequence_key] = self._greatest


def _shown(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
