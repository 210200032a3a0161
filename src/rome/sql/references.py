"""Foreign keys: what a parent's end does to its children, and whether a child has its parent.

As in SQLite, an immediate foreign key is judged when the statement ends, a deferred one at COMMIT
(or by `PRAGMA defer_foreign_keys`). Deleted and changed parents are collected as events; when the
statement ends, the children of all of them are looked up together, in one round trip for each
generation, and the ON DELETE and ON UPDATE actions run, which may bring new events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import apsw

from rome.records.rows import Value
from rome.sql.affinity import BLOB, TEXT, always_decided, to_number
from rome.sql.catalog import Catalog, ForeignKey, Path, Row, Table
from rome.sql.checks import FOREIGN_KEY_VIOLATION, PendingChecks
from rome.sql.session import Session
from rome.stores.base import Range, Scan


@dataclass(frozen=True, slots=True)
class _Event:
    """A parent's key values went away (new: None) or changed."""

    parent: Table
    key: bytes
    old: tuple[Value, ...]
    new: tuple[Value, ...] | None
    child: Table
    foreign_key: ForeignKey


class RowWriter(Protocol):
    """What the actions need of the writer."""

    def delete_row(self, table: Table, key: bytes, row: Row) -> None: ...

    def change_row(self, table: Table, key: bytes, row: Row, changes: dict[int, Value]) -> None: ...

    def default(self, table: Table, ordinal: int) -> Value: ...


class References:
    """The foreign keys of one connection's statements."""

    def __init__(self, session: Session, catalog: Callable[[], Catalog], writer: RowWriter) -> None:
        self._session = session
        self._catalog = catalog
        self._writer = writer
        self._events: list[_Event] = []
        self._deferred_children: dict[tuple[bytes, ForeignKey], Table] = {}
        self._deferred_parents: list[_Event] = []
        self.defer_all = False

    def begin(self) -> None:
        """A transaction begins: nothing is put off yet."""
        self._events.clear()
        self._deferred_children.clear()
        self._deferred_parents.clear()
        self.defer_all = False

    # What is to be checked

    def child_written(
        self, table: Table, key: bytes, row: Row, changed: set[int] | None, checks: PendingChecks
    ) -> None:
        """A row with foreign keys was written; `changed`: these columns only."""
        for foreign_key in table.foreign_keys:
            if changed is not None and changed.isdisjoint(foreign_key.columns):
                continue
            if foreign_key.deferred or self.defer_all:
                self._deferred_children[key, foreign_key] = table
                continue
            parent_key = self.parent_key(table, foreign_key, row)
            if parent_key is not None:
                checks.parent(parent_key, key)

    def row_moved(self, table: Table, key: bytes, new_key: bytes) -> None:
        """A row has a new key: what was put off for it will be judged there."""
        for foreign_key in table.foreign_keys:
            if (key, foreign_key) in self._deferred_children:
                self._deferred_children[new_key, foreign_key] = table

    def require_parents(self, table: Table) -> None:
        """As SQLite does, refuse to insert into or delete from a table whose parent tables are not there."""
        for foreign_key in table.foreign_keys:
            if self._catalog().table(foreign_key.parent) is None:
                raise apsw.SQLError(f"no such table: main.{foreign_key.parent}")

    def parent_removed(self, table: Table, key: bytes, old: Row, new: Row | None) -> None:
        """A row that others may refer to was deleted (new: None) or changed."""
        for child, foreign_key in self._catalog().references.get(table.name.lower(), ()):
            ordinals = self._catalog().parent_columns(table, foreign_key)
            if ordinals is None:
                continue
            before = tuple(old[ordinal] for ordinal in ordinals)
            after = tuple(new[ordinal] for ordinal in ordinals) if new is not None else None
            if None not in before and before != after:
                self._events.append(_Event(table, key, before, after, child, foreign_key))

    def parent_key(self, table: Table, foreign_key: ForeignKey, row: Row) -> bytes | None:
        """The key in the store that must exist for this row's foreign key; None if any part is NULL."""
        values: Row = [row[ordinal] for ordinal in foreign_key.columns]
        catalog = self._catalog()
        parent = catalog.table(foreign_key.parent)
        if parent is None:
            raise apsw.SQLError(f"no such table: main.{foreign_key.parent}")
        if None in values:
            return None
        ordinals = catalog.parent_columns(parent, foreign_key)
        path = self._unique_path(parent, ordinals) if ordinals is not None else None
        if path is None or ordinals is None:
            raise apsw.SQLError(f'foreign key mismatch - "{table.name}" referencing "{foreign_key.parent}"')
        by_ordinal = dict(zip(ordinals, values, strict=True))
        return path.layout.encode(
            [_as_parent(by_ordinal[o], parent.affinities[o]) for o in path.columns[: len(ordinals)]]
        )

    @staticmethod
    def _unique_path(parent: Table, ordinals: tuple[int, ...]) -> Path | None:
        for path in parent.paths:
            count = path.unique_columns
            if count == len(ordinals) and set(path.columns[:count]) == set(ordinals):
                return path
        return None

    # The end of a statement

    def finish(self, checks: PendingChecks) -> None:
        """Judge the statement's events and run the actions they call for, until there are none."""
        while self._events:
            events, self._events = self._events, []
            events = [event for event in events if not self._put_off(event)]
            self._load_children(events)
            for event in events:
                self._act(event)
            checks.finish()

    def finish_transaction(self, checks: PendingChecks) -> None:
        """Judge at COMMIT what was deferred. It stays so if COMMIT is refused."""
        for (key, deferred), table_then in self._deferred_children.items():
            table, foreign_key = self._after_ddl(table_then, deferred)
            data = self._session.transaction.get(key)
            if data is not None and table is not None and foreign_key is not None:
                parent_key = self.parent_key(table, foreign_key, self._session.row(table, key, data))
                if parent_key is not None:
                    checks.parent(parent_key, key)
        checks.finish()
        events = [event for event in map(self._event_after_ddl, self._deferred_parents) if event is not None]
        self._load_children(events)
        for event in events:
            self._refuse(event)

    def _after_ddl(self, table: Table, foreign_key: ForeignKey) -> tuple[Table | None, ForeignKey | None]:
        """A table and its foreign key as they are now; this transaction may have altered or dropped them."""
        tables = self._catalog().tables
        now = tables.get(table.name.lower())
        if now is table:
            return table, foreign_key
        now = next((other for other in tables.values() if other.id == table.id), None)
        ids = [table.columns[ordinal].id for ordinal in foreign_key.columns]
        for other in now.foreign_keys if now is not None else ():
            if now is not None and [now.columns[ordinal].id for ordinal in other.columns] == ids:
                return now, other
        return now, None

    def _event_after_ddl(self, event: _Event) -> _Event | None:
        child, foreign_key = self._after_ddl(event.child, event.foreign_key)
        if child is event.child:
            return event
        parent = self._catalog().table(foreign_key.parent) if foreign_key is not None else None
        if child is None or foreign_key is None or parent is None:
            return None
        return replace(event, parent=parent, child=child, foreign_key=foreign_key)

    def discard(self) -> None:
        """The statement failed."""
        self._events.clear()

    def _put_off(self, event: _Event) -> bool:
        action = event.foreign_key.on_delete if event.new is None else event.foreign_key.on_update
        if action != "NO ACTION" or not (event.foreign_key.deferred or self.defer_all):
            return False
        self._deferred_parents.append(event)
        return True

    def _load_children(self, events: list[_Event]) -> None:
        scans = []
        for event in events:
            path, range, _ = self._children_range(event)
            scans.append(Scan(range, follow=path.index is not None))
        self._session.transaction.load(scans=scans)

    def _children_range(self, event: _Event) -> tuple[Path, Range, bool]:
        """Where an event's children are, and whether nothing else is there.

        As in SQLite, children are compared by the parent's affinities and collations. Where the child's
        columns differ from it in these, its index does not answer, and all of its rows are looked at.
        """
        wanted = event.foreign_key.columns
        parent, child = event.parent, event.child
        ordinals = self._catalog().parent_columns(parent, event.foreign_key)
        assert ordinals is not None, "an event has parent columns"
        own = dict(zip(wanted, ordinals, strict=True))
        by_ordinal = dict(zip(wanted, event.old, strict=True))
        path = next(path for path in child.paths if set(path.columns[: len(wanted)]) == set(wanted))
        values: Row = []
        exact = True
        for ordinal, collation in zip(path.columns[: len(wanted)], path.collations, strict=False):
            affinity, theirs = child.affinities[ordinal], parent.affinities[own[ordinal]]
            value = by_ordinal[ordinal]
            if parent.columns[own[ordinal]].collation not in ("BINARY", collation):
                return child.paths[0], child.row_layout.range([]), False
            if theirs == BLOB or affinity == theirs or (always_decided(affinity) and always_decided(theirs)):
                values.append(value)
                exact = exact and collation == parent.columns[own[ordinal]].collation
            elif always_decided(affinity) and isinstance(value, str):
                values.append(to_number(value))
                exact = False
            else:
                return child.paths[0], child.row_layout.range([]), False
        return path, path.layout.range(values), exact

    def _children(self, event: _Event) -> Iterator[tuple[bytes, Row]]:
        path, range, exact = self._children_range(event)
        transaction = self._session.transaction
        chunk = transaction.scan(range, follow=path.index is not None)
        for key, value in chunk.entries:
            row_key = key if path.index is None else value
            row = self._session.fetch(event.child, row_key)
            if exact or self.parent_key(event.child, event.foreign_key, row) == self._old_key(event):
                yield row_key, row

    def _has_no_child(self, event: _Event) -> bool:
        """Whether the parent has no child; if so, it must have none at COMMIT."""
        if next(iter(self._children(event)), None) is not None:
            return False
        _, range, exact = self._children_range(event)
        if exact:
            self._session.transaction.note_empty(range, event.key, FOREIGN_KEY_VIOLATION)
        return True

    def _old_key(self, event: _Event) -> bytes | None:
        """The key by which an event's children refer to the parent as it was."""
        row: Row = [None] * event.child.width
        for ordinal, value in zip(event.foreign_key.columns, event.old, strict=True):
            row[ordinal] = value
        return self.parent_key(event.child, event.foreign_key, row)

    def _act(self, event: _Event) -> None:
        deleted = event.new is None
        action = event.foreign_key.on_delete if deleted else event.foreign_key.on_update
        if action == "NO ACTION":
            self._refuse(event)
            return
        if action == "RESTRICT" and not self._has_no_child(event):
            # Even if the statement has put the parent's key back meanwhile.
            raise apsw.ConstraintError(FOREIGN_KEY_VIOLATION)
        for key, row in list(self._children(event)):
            columns = event.foreign_key.columns
            if action == "CASCADE" and event.new is None:
                self._writer.delete_row(event.child, key, row)
            elif action == "CASCADE":
                assert event.new is not None
                self._writer.change_row(event.child, key, row, dict(zip(columns, event.new, strict=True)))
            elif action == "SET NULL":
                self._writer.change_row(event.child, key, row, dict.fromkeys(columns))
            else:
                defaults = {column: self._writer.default(event.child, column) for column in columns}
                if all(row[column] == default for column, default in defaults.items()):
                    # Nothing changes: the child still refers to what is gone.
                    self._refuse(event)
                self._writer.change_row(event.child, key, row, defaults)

    def _refuse(self, event: _Event) -> None:
        """A violation, if children are left and the parent's old key was not written again."""
        if self._has_no_child(event):
            return
        _, child_row = next(iter(self._children(event)))
        key = self.parent_key(event.child, event.foreign_key, child_row)
        if key is not None and not self._session.transaction.present(key):
            raise apsw.ConstraintError(FOREIGN_KEY_VIOLATION)


def _as_parent(value: Value, affinity: str) -> Value:
    """A child's value as SQLite compares it with the parent's: under the parent column's affinity."""
    if affinity == TEXT and isinstance(value, int | float):
        return str(value)
    if always_decided(affinity) and isinstance(value, str):
        return to_number(value)
    return value
