"""The schema: what the tables, indexes and foreign keys are, and which keys they own in the store.

SQLite's own CREATE statements are the schema; this module keeps what ROME adds to them: stable
numbers. A table, an index and a column each get a number at birth that is never used again, so
that renaming writes nothing and a dropped column's old values are never mistaken for a new one's.

    Catalog  ─ Table ─ Column
                     ├ Index        an access path, with its own key space (see records.keys)
                     └ ForeignKey

A table keeps its rows under one of three kinds of keys:

    rowid       INTEGER PRIMARY KEY: the number itself, as in SQLite
    clustered   another PRIMARY KEY whose columns are all NOT NULL: its values
    hidden      no such key: a number from the table's sequence, stored behind the columns

A clustered row has its birth (see rome.sql.births) stored behind the columns, so that rows that are
asked for in no order can come as SQLite's do.

All of it is immutable. DDL makes a new catalog, and a transaction that rolls back returns to the
old one. The stored form (`encode`, `decode`) is MessagePack with a format number; a database
written in a newer format is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec

from rome.errors import FormatError
from rome.records.keys import KeyColumn, KeyLayout, count_key, index_prefix, row_prefix, sequence_key
from rome.records.rows import Value, decode_row, encode_row

FORMAT = 1
"""The catalog format that this ROME writes; the greatest that it reads."""

Row = list[Value]
"""A row in memory: the values by ordinal, and for a hidden table its number behind them."""


@dataclass(frozen=True)
class Column:
    name: str
    id: int
    type: str
    affinity: str
    collation: str
    notnull: bool
    default: str | None
    generated: bool
    missing: Value
    """What rows hold that were written before the column was added."""


@dataclass(frozen=True)
class ForeignKey:
    columns: tuple[int, ...]
    parent: str
    parent_columns: tuple[str, ...] | None
    """None: the parent's primary key."""
    on_delete: str
    on_update: str
    deferred: bool


@dataclass(frozen=True)
class Index:
    """An index in the store: explicit, of a constraint, or made for a foreign key's columns."""

    id: int
    name: str
    unique: bool
    columns: tuple[int, ...]
    """Ordinals; empty for an index over expressions, whose values `expressions` give."""
    collations: tuple[str, ...]
    descending: tuple[bool, ...]
    expressions: tuple[str, ...] = ()
    where: str | None = None
    for_foreign_key: bool = False

    @property
    def is_automatic(self) -> bool:
        """Whether SQLite made it for a constraint of the table."""
        return self.name.startswith("sqlite_autoindex_")

    @property
    def computed(self) -> bool:
        """Whether SQLite has to evaluate something to know an entry."""
        return bool(self.expressions) or self.where is not None


@dataclass(frozen=True)
class Path:
    """A way to the rows in key order: the rows themselves (index None) or an index."""

    index: Index | None
    columns: tuple[int, ...]
    """Ordinals, in key order; for an index, the row key's columns come last."""
    layout: KeyLayout
    unique_columns: int
    """So many leading columns, if none is NULL, find at most one row. 0: no number of them."""
    collations: tuple[str, ...]
    descending: tuple[bool, ...]

    @property
    def name(self) -> str:
        return self.index.name if self.index is not None else "PRIMARY KEY"

    @property
    def searched(self) -> tuple[int, ...]:
        """The columns to search by: an entry of a unique index has the row's key only beside a NULL."""
        return self.columns[: self.unique_columns] if self.unique_columns else self.columns


@dataclass(frozen=True)
class Table:
    name: str
    id: int
    sql: str
    columns: tuple[Column, ...]
    key_kind: str
    """"rowid", "clustered" or "hidden"."""
    key_columns: tuple[int, ...]
    """Ordinals; of a hidden table, the one behind its columns."""
    primary_key: tuple[int, ...]
    """The ordinals that PRIMARY KEY names."""
    hidden_id: int
    """The id of what is stored behind the columns: a hidden row's number, a clustered row's birth; or -1."""
    next_column: int
    indexes: tuple[Index, ...]
    foreign_keys: tuple[ForeignKey, ...]
    checked: tuple[int, ...]
    """The order in which SQLite checks what is unique: numbers of indexes, and -1 for the row's key."""
    needs_sqlite: bool
    """CHECK constraints, generated columns or STRICT: each written row is put to SQLite."""
    index_ids: dict[str, int] = field(hash=False)

    # Derived, once

    @cached_property
    def ordinals(self) -> dict[str, int]:
        return {column.name.lower(): ordinal for ordinal, column in enumerate(self.columns)}

    @cached_property
    def affinities(self) -> tuple[str, ...]:
        return (*(column.affinity for column in self.columns), "INTEGER")

    @cached_property
    def row_layout(self) -> KeyLayout:
        return KeyLayout(row_prefix(self.id), self._key_layout_columns)

    @cached_property
    def _key_layout_columns(self) -> tuple[KeyColumn, ...]:
        if self.key_kind != "clustered":
            return (KeyColumn(),)
        return tuple(KeyColumn(self.columns[ordinal].collation) for ordinal in self.key_columns)

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """Every access path, the rows themselves first."""
        rows = Path(
            None,
            self.key_columns,
            self.row_layout,
            len(self.key_columns),
            tuple(column.collation for column in self._key_layout_columns),
            (False,) * len(self.key_columns),
        )
        return (rows, *(self.index_path(index) for index in self.indexes if not index.computed))

    def index_path(self, index: Index) -> Path:
        count = len(index.expressions) or len(index.columns)
        return Path(
            index,
            index.columns + self.key_columns,
            self.index_layouts[index.id],
            count if index.unique else 0,
            index.collations + tuple(column.collation for column in self._key_layout_columns),
            index.descending + (False,) * len(self.key_columns),
        )

    @cached_property
    def index_layouts(self) -> dict[int, KeyLayout]:
        return {
            index.id: KeyLayout(
                index_prefix(index.id),
                (*map(KeyColumn, index.collations, index.descending), *self._key_layout_columns),
            )
            for index in self.indexes
        }

    @cached_property
    def count_key(self) -> bytes:
        return count_key(self.id)

    @cached_property
    def sequence_key(self) -> bytes:
        return sequence_key(self.id)

    @cached_property
    def generated(self) -> frozenset[int]:
        return frozenset(i for i, column in enumerate(self.columns) if column.generated)

    @cached_property
    def width(self) -> int:
        """How many values a row in memory has."""
        return len(self.columns) + (self.hidden_id >= 0)

    @cached_property
    def has_births(self) -> bool:
        """Whether a row's last value says when it was inserted."""
        return self.key_kind == "clustered" and self.hidden_id >= 0

    @cached_property
    def _ids(self) -> tuple[int, ...]:
        ids = tuple(column.id for column in self.columns)
        return (*ids, self.hidden_id) if self.hidden_id >= 0 else ids

    @cached_property
    def _stored_as_is(self) -> bool:
        return self._ids == tuple(range(self.width))

    # Rows

    def row_key(self, row: Row) -> bytes:
        return self.row_layout.encode([row[ordinal] for ordinal in self.key_columns])

    def key_values(self, row: Row) -> Row:
        return [row[ordinal] for ordinal in self.key_columns]

    def entry_key(self, index: Index, values: Row, row: Row) -> bytes:
        """The key of a row's entry in an index, given the indexed values."""
        if index.unique and None not in values:
            return self.index_layouts[index.id].encode(values)
        return self.index_layouts[index.id].encode(values + self.key_values(row))

    def encode(self, row: Row) -> bytes:
        if self._stored_as_is:
            return encode_row(row)
        stored: Row = [None] * self.next_column
        for value, id in zip(row, self._ids, strict=True):
            stored[id] = value
        return encode_row(stored)

    def decode(self, data: bytes) -> Row:
        stored = decode_row(data)
        count = len(stored)
        if self._stored_as_is and count == self.width:
            return stored
        row = [stored[c.id] if c.id < count else c.missing for c in self.columns]
        if self.hidden_id >= 0:
            if self.hidden_id < count:
                row.append(stored[self.hidden_id])
            elif self.has_births:
                row.append(0)
            else:
                raise FormatError(f"a stored row of table {self.name} lacks its number")
        return row

    def unique_violation(self, index: Index | None) -> str:
        """SQLite's text for a broken unique constraint; None stands for the row key."""
        if index is not None and index.expressions:
            return f"UNIQUE constraint failed: index '{index.name}'"
        ordinals = index.columns if index is not None else self.primary_key
        names = ", ".join(f"{self.name}.{self.columns[ordinal].name}" for ordinal in ordinals)
        return f"UNIQUE constraint failed: {names}"

    # The stored form of the numbers

    def numbers(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "columns": [[column.name, column.id, column.missing] for column in self.columns],
            "hidden": self.hidden_id,
            "next": self.next_column,
            "indexes": self.index_ids,
        }

    @cached_property
    def packed(self) -> bytes:
        """Its numbers as they are stored."""
        return msgspec.msgpack.encode(self.numbers())


@dataclass(frozen=True, eq=False)
class Catalog:
    """One version of the schema. Two are the same if they are one object."""

    entries: tuple[tuple[str, str, str, str], ...] = ()
    """(type, name, table name, sql), in the order of creation."""
    tables: dict[str, Table] = field(default_factory=dict)
    """By lower-case name."""
    next_number: int = 1
    """The next table or index gets this number."""

    def table(self, name: str) -> Table | None:
        return self.tables.get(name.lower())

    @cached_property
    def views(self) -> dict[str, str]:
        """By lower-case name."""
        return {name.lower(): sql for type, name, _, sql in self.entries if type == "view"}

    @cached_property
    def references(self) -> dict[str, tuple[tuple[Table, ForeignKey], ...]]:
        """Parent table (lower case) → the foreign keys that refer to it, with their tables."""
        found: dict[str, list[tuple[Table, ForeignKey]]] = {}
        for table in self.tables.values():
            for foreign_key in table.foreign_keys:
                found.setdefault(foreign_key.parent.lower(), []).append((table, foreign_key))
        return {name: tuple(pairs) for name, pairs in found.items()}

    def cyclic(self, table: Table) -> bool:
        """Whether foreign keys lead from this table's children back to it."""
        seen: set[str] = set()
        waiting = [table]
        while waiting:
            for child, _ in self.references.get(waiting.pop().name.lower(), ()):
                if child is table:
                    return True
                if child.name not in seen:
                    seen.add(child.name)
                    waiting.append(child)
        return False

    def parent_columns(self, parent: Table, foreign_key: ForeignKey) -> tuple[int, ...] | None:
        """The ordinals in the parent that a foreign key refers to; None if there are none such."""
        if foreign_key.parent_columns is None:
            ordinals = parent.primary_key
        else:
            found = [parent.ordinals.get(name.lower(), -1) for name in foreign_key.parent_columns]
            ordinals = tuple(found)
        if -1 in ordinals or len(ordinals) != len(foreign_key.columns):
            return None
        return ordinals

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(
            {
                "format": FORMAT,
                "next": self.next_number,
                "entries": self.entries,
                "tables": {name: msgspec.Raw(table.packed) for name, table in self.tables.items()},
            }
        )


EMPTY = Catalog()
"""The catalog of every database before its first DDL statement."""


def decode_catalog(data: bytes) -> dict[str, Any]:
    """The stored catalog; `rome.sql.shadow` makes a `Catalog` of it."""
    try:
        stored = msgspec.msgpack.decode(data)
        found = stored["format"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise FormatError(f"the stored catalog is damaged: {error}") from None
    if not isinstance(found, int) or found > FORMAT:
        raise FormatError(
            f"this database was written in catalog format {found}; this ROME reads up to {FORMAT}:"
            " install a newer ROME"
        )
    return dict(stored)
