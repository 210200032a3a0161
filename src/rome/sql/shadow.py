"""The shadow: the schema as real, empty tables, where SQLite itself answers about it.

A second in-memory database per connection. DDL runs here first, so that SQLite parses and checks
it with its own messages; PRAGMA and sqlite_master queries (all of SQLAlchemy's reflection) are
answered here; and a row that needs more than a look (CHECK, generated columns, an unusual value)
is written here first and read back as SQLite would keep it.

The shadow holds no data between statements. It can be thrown away at any time and built again
from a `Catalog`, which is what happens when a transaction that ran DDL rolls back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import apsw

from rome.records.keys import COLLATIONS
from rome.records.rows import Value
from rome.sql import regexp
from rome.sql.affinity import affinity_of
from rome.sql.binding import convert
from rome.sql.catalog import Catalog, Column, ForeignKey, Index, Row, Table, decode_catalog
from rome.sql.errors import NotSupported
from rome.sql.landmarks import deferred_references, index_terms, needs_sqlite

Entries = tuple[tuple[str, str, str, str], ...]

_ENTRIES = (
    "SELECT type, name, tbl_name, sql FROM main.sqlite_master"
    " WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY rowid"
)
_STABLE_GENERATED = (2, 3)


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class Shadow:
    """Real, empty tables of one catalog."""

    def __init__(self, entries: Entries = ()) -> None:
        self.db = apsw.Connection(":memory:")
        self.db.convert_binding = convert
        regexp.register(self.db)
        self.db.pragma("foreign_keys", 0)
        # Each table takes a page, and nothing is in it.
        self.db.pragma("page_size", 512)
        self.db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        with self.db:
            for _, _, _, sql in sorted(entries, key=lambda entry: _CREATION_ORDER[entry[0]]):
                self.db.execute(sql)

    def entries(self) -> Entries:
        return tuple(self._rows(_ENTRIES))

    def _rows(self, sql: str) -> list[Any]:
        """The rows of a query about the schema, whose columns are what SQLite's documentation says."""
        return self.db.execute(sql).fetchall()

    # The catalog

    def catalog(self, stored: bytes) -> Catalog:
        """The catalog that these bytes describe; this shadow was built from its entries."""
        numbers = decode_catalog(stored)
        tables = {}
        for type, name, _, _ in self.entries():
            if type == "table":
                known = numbers["tables"][name.lower()]
                tables[name.lower()] = self._describe(name, _Numbers.stored(known))
        return Catalog(self.entries(), tables, numbers["next"])

    def apply(self, sql: str, catalog: Catalog, altered: str | None) -> Catalog:
        """Run DDL; returns the catalog after it. `altered`: the table of an ALTER TABLE."""
        self.db.execute(sql)
        return self._changed(catalog, altered)

    def replace(self, table: Table, sql: str, without: Sequence[str], catalog: Catalog) -> Catalog:
        """Make a table anew from this CREATE statement, with its indexes but those; the catalog after it.

        A table whose rows cannot stay where they are gets a number of its own, as a new one would.
        """
        indexes = [
            entry
            for entry in catalog.entries
            if entry[0] == "index" and entry[2].lower() == table.name.lower() and entry[1] not in without
        ]
        with self.db:
            self.db.execute(f"DROP TABLE main.{quote(table.name)}")
            self.db.execute(sql)
            for _, _, _, index_sql in indexes:
                self.db.execute(index_sql)
        return self._changed(catalog, table.name)

    def _changed(self, catalog: Catalog, altered: str | None) -> Catalog:
        """The catalog after DDL: what is known stays as it is, what is new is described."""
        # The texts that stay are those of the catalog before, which lives on beside this one.
        known = {entry: entry for entry in catalog.entries}
        entries = tuple(known.get(entry, entry) for entry in self.entries())
        if entries == catalog.entries:
            return catalog
        before, after = _by_table(catalog.entries), _by_table(entries)
        next_number = catalog.next_number

        def take_number() -> int:
            nonlocal next_number
            next_number += 1
            return next_number - 1

        renamed = _renamed(before, after) if altered is not None else {}
        tables: dict[str, Table] = {}
        for name in after:
            old_name = renamed.get(name, name)
            previous = catalog.tables.get(old_name)
            if previous is not None and old_name == name and before[name] == after[name]:
                tables[name] = previous
            else:
                tables[name] = self._describe(after[name][0][1], _Numbers.grown(previous, take_number))
                if previous is not None and not _keeps_rows(previous, tables[name]):
                    tables[name] = self._describe(after[name][0][1], _Numbers.grown(None, take_number))
        return Catalog(entries, tables, next_number)

    def _describe(self, name: str, numbers: _Numbers) -> Table:
        sql = self.db.execute(
            "SELECT sql FROM main.sqlite_master WHERE type = 'table' AND name = ?", (name,)
        ).get
        info = self._rows(f"PRAGMA main.table_xinfo({quote(name)})")
        facts = [
            _ColumnFacts(
                column,
                type,
                self.db.column_metadata("main", name, column)[1],
                bool(notnull),
                default,
                hidden in _STABLE_GENERATED,
            )
            for _, column, type, notnull, default, _, hidden in info
            if hidden != 1
        ]
        primary_key = tuple(
            ordinal for _, ordinal in sorted((row[5], i) for i, row in enumerate(info) if row[5])
        )
        without_rowid = bool(
            self.db.execute(
                "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (name,)
            ).get
        )
        indexes = self._rows(f"PRAGMA main.index_list({quote(name)})")
        has_key_index = any(origin == "pk" for _, _, _, origin, _ in indexes)
        if primary_key and not has_key_index and not without_rowid:
            key_kind = "rowid"
        elif primary_key and (without_rowid or all(facts[i].notnull for i in primary_key)):
            key_kind = "clustered"
        else:
            key_kind = "hidden"
        columns = numbers.columns(facts, self._constant)
        if numbers.hidden is None:
            has_more = key_kind == "hidden" or (key_kind == "clustered" and not without_rowid)
            numbers.hidden = numbers.take_column() if has_more else -1
        found_indexes = [
            self._describe_index(index, bool(unique), sql, columns, numbers)
            for _, index, unique, origin, _ in reversed(indexes)
            if not (origin == "pk" and key_kind == "clustered")
        ]
        for index in found_indexes:
            _refuse_unknown_collations(index.collations)
        if key_kind == "clustered":
            _refuse_unknown_collations(tuple(columns[ordinal].collation for ordinal in primary_key))
        foreign_keys = self._foreign_keys(name, sql, {c.name.lower(): i for i, c in enumerate(columns)})
        key_columns = (len(columns),) if key_kind == "hidden" else primary_key
        leading = [index.columns for index in found_indexes if not index.computed] + [key_columns]
        for foreign_key in foreign_keys:
            wanted = foreign_key.columns
            if not any(existing[: len(wanted)] == wanted for existing in leading):
                found_indexes.append(_foreign_key_index(wanted, columns, numbers))
                leading.append(wanted)
        return Table(
            name=name,
            id=numbers.table,
            sql=sql,
            columns=columns,
            key_kind=key_kind,
            key_columns=key_columns,
            primary_key=primary_key,
            hidden_id=numbers.hidden,
            next_column=numbers.next_column,
            indexes=tuple(found_indexes),
            foreign_keys=foreign_keys,
            checked=_check_order(indexes, found_indexes, key_kind),
            needs_sqlite=any(fact.generated for fact in facts) or needs_sqlite(sql),
            index_ids=numbers.used_indexes,
        )

    def _describe_index(
        self, name: str, unique: bool, table_sql: str, columns: tuple[Column, ...], numbers: _Numbers
    ) -> Index:
        parts = [
            row
            for row in self._rows(f"PRAGMA main.index_xinfo({quote(name)})")
            if row[5]  # a key column, not the appended row id
        ]
        sql = self.db.execute("SELECT sql FROM main.sqlite_master WHERE name = ?", (name,)).get
        terms, where = index_terms(sql) if sql else ([], None)
        computed = any(row[1] < 0 for row in parts)
        if name.startswith("sqlite_autoindex_"):
            # These are numbered by place: one that goes moves up those behind it.
            terms_of_it = tuple((columns[row[1]].id, row[4].upper(), bool(row[3])) for row in parts)
            id = numbers.automatic_index("auto:" + name.rsplit("_", 1)[1], terms_of_it)
        else:
            id = numbers.index("index:" + name.lower())
        return Index(
            id=id,
            name=name,
            unique=unique,
            columns=() if computed else tuple(row[1] for row in parts),
            collations=tuple(row[4].upper() for row in parts),
            descending=tuple(bool(row[3]) for row in parts),
            expressions=tuple(terms) if computed else (),
            where=where,
        )

    def _foreign_keys(self, name: str, sql: str, ordinals: dict[str, int]) -> tuple[ForeignKey, ...]:
        grouped: dict[int, list[Any]] = {}
        for row in self._rows(f"PRAGMA main.foreign_key_list({quote(name)})"):
            grouped.setdefault(row[0], []).append(row)
        # SQLite numbers them backwards: the last one declared is number 0.
        rows = [sorted(grouped[number], key=lambda row: row[1]) for number in sorted(grouped, reverse=True)]
        deferred = deferred_references(sql)
        return tuple(
            ForeignKey(
                columns=tuple(ordinals[row[3].lower()] for row in group),
                parent=group[0][2],
                parent_columns=None if group[0][4] is None else tuple(row[4] for row in group),
                on_delete=group[0][6].upper(),
                on_update=group[0][5].upper(),
                deferred=deferred[position] if position < len(deferred) else False,
            )
            for position, group in enumerate(rows)
        )

    @staticmethod
    def _constant(type: str, default: str | None) -> Value:
        """What an added column of this type holds in the rows that were there before it."""
        if default is None:
            return None
        alone = apsw.Connection(":memory:")
        alone.execute("CREATE TABLE t (a); INSERT INTO t VALUES (NULL)")
        try:
            return cast(
                Value,
                alone.execute(f"ALTER TABLE t ADD COLUMN b {type} DEFAULT ({default}); SELECT b FROM t").get,
            )
        except apsw.SQLError:
            # Not a constant, which SQLite only takes where there are no rows.
            return None
        finally:
            alone.close()

    # Rows

    def keep(self, table: Table, mode: str, ordinals: Sequence[int], values: Sequence[Value]) -> Row | None:
        """A new row as SQLite would keep it: affinity, defaults, generated columns, checks.

        `ordinals` are the columns that were given. None: the row is to be ignored (OR IGNORE).
        Raises `apsw.ConstraintError` with SQLite's own text.
        """
        names = [quote(table.columns[ordinal].name) for ordinal in ordinals]
        if names:
            marks = ", ".join("?" * len(names))
            what = f"({', '.join(names)}) VALUES ({marks})"
        else:
            what = "DEFAULT VALUES"
        target = f"main.{quote(table.name)}"
        self.db.execute(f"INSERT OR {mode} INTO {target} {what}", tuple(values))
        try:
            all_names = ", ".join(quote(column.name) for column in table.columns)
            kept = self.db.execute(f"SELECT {all_names} FROM {target}").fetchone()
        finally:
            self.db.execute(f"DELETE FROM {target}")
        return list(kept) if kept is not None else None

    def compute(self, table: Table, index: Index, row: Row) -> Row | None:
        """The values of an index over expressions for a row; None if its WHERE leaves the row out."""
        target = f"main.{quote(table.name)}"
        own = [i for i in range(len(table.columns)) if i not in table.generated]
        names = ", ".join(quote(table.columns[i].name) for i in own)
        terms = index.expressions or tuple(quote(table.columns[i].name) for i in index.columns)
        condition = f" WHERE {index.where}" if index.where is not None else ""
        self.db.pragma("ignore_check_constraints", 1)
        try:
            self.db.execute(
                f"INSERT INTO {target} ({names}) VALUES ({', '.join('?' * len(own))})", [row[i] for i in own]
            )
            try:
                found = self.db.execute(f"SELECT {', '.join(terms)} FROM {target}{condition}").fetchone()
            except UnicodeDecodeError:
                # A text function of bytes: only to be told apart, which its bytes do.
                as_bytes = ", ".join(f"CAST({term} AS BLOB)" for term in terms)
                found = self.db.execute(f"SELECT {as_bytes} FROM {target}{condition}").fetchone()
        finally:
            self.db.execute(f"DELETE FROM {target}")
            self.db.pragma("ignore_check_constraints", 0)
        return list(found) if found is not None else None


def index_values(table: Table, index: Index, row: Row, shadow: Callable[[], Shadow]) -> Row | None:
    """The values of any index for a row; None if the row is left out of it."""
    if index.computed:
        return shadow().compute(table, index, row)
    return [row[ordinal] for ordinal in index.columns]


_CREATION_ORDER = {"table": 0, "index": 1, "view": 2, "trigger": 3}


class _ColumnFacts:
    def __init__(
        self, name: str, type: str, collation: str, notnull: bool, default: str | None, generated: bool
    ) -> None:
        self.name = name
        self.type = type
        self.collation = collation.upper()
        self.notnull = notnull
        self.default = default
        self.generated = generated


class _Numbers:
    """The numbers of one table while it is described: those it has, and new ones where needed."""

    def __init__(
        self,
        table: int,
        known: list[tuple[str, int, Value]],
        hidden: int | None,
        next_column: int,
        indexes: dict[str, int],
        take: Callable[[], int] | None,
        automatic: dict[_Terms, int] | None = None,
    ) -> None:
        self.table = table
        self.hidden = hidden
        self.next_column = next_column
        self.used_indexes: dict[str, int] = {}
        self._known = known
        self._indexes = indexes
        self._take = take
        self._automatic = automatic or {}
        self._is_new = not known

    @classmethod
    def stored(cls, numbers: dict[str, Any]) -> _Numbers:
        known = [(name, id, missing) for name, id, missing in numbers["columns"]]
        return cls(numbers["id"], known, numbers["hidden"], numbers["next"], numbers["indexes"], None)

    @classmethod
    def grown(cls, previous: Table | None, take: Callable[[], int]) -> _Numbers:
        if previous is None:
            return cls(take(), [], None, 0, {}, take)
        known = [(column.name, column.id, column.missing) for column in previous.columns]
        hidden, next_column = previous.hidden_id, previous.next_column
        automatic = {_terms(previous, index): index.id for index in previous.indexes if index.is_automatic}
        by_name = {k: id for k, id in previous.index_ids.items() if not k.startswith("auto:")}
        return cls(previous.id, known, hidden, next_column, by_name, take, automatic)

    def columns(
        self, facts: list[_ColumnFacts], constant: Callable[[str, str | None], Value]
    ) -> tuple[Column, ...]:
        """Number the columns: by place where their count is unchanged (renamed), else by name."""
        by_name = {name.lower(): (id, missing) for name, id, missing in self._known}
        found = []
        for place, fact in enumerate(facts):
            if len(facts) == len(self._known):
                _, id, missing = self._known[place]
            elif fact.name.lower() in by_name:
                id, missing = by_name[fact.name.lower()]
            else:
                id = self.take_column()
                missing = None if self._is_new else constant(fact.type, fact.default)
            affinity = affinity_of(fact.type)
            found.append(
                Column(
                    fact.name,
                    id,
                    fact.type,
                    affinity,
                    fact.collation,
                    fact.notnull,
                    fact.default,
                    fact.generated,
                    missing,
                )
            )
        return tuple(found)

    def take_column(self) -> int:
        self.next_column += 1
        return self.next_column - 1

    def automatic_index(self, identity: str, terms: _Terms) -> int:
        """The number of a constraint's index, which is known again by what it is over."""
        number = self._automatic.get(terms)
        if number is not None:
            self._indexes = {**self._indexes, identity: number}
        return self.index(identity)

    def index(self, identity: str) -> int:
        number = self._indexes.get(identity)
        if number is None:
            assert self._take is not None, f"the stored catalog lacks index {identity}"
            number = self._take()
        self.used_indexes[identity] = number
        return number


_Terms = tuple[tuple[int, str, bool], ...]
"""What an index is over: the columns' ids, with collation and direction."""


def _terms(table: Table, index: Index) -> _Terms:
    ids = (table.columns[ordinal].id for ordinal in index.columns)
    return tuple(zip(ids, index.collations, index.descending, strict=True))


def _keeps_rows(before: Table, after: Table) -> bool:
    """Whether the rows of a table can stay as they are stored: same keys, same kinds of values."""

    def key(table: Table) -> object:
        return table.key_kind, [
            (table.columns[ordinal].id, table.columns[ordinal].collation)
            for ordinal in table.key_columns
            if ordinal < len(table.columns)
        ]

    affinities = {column.id: column.affinity for column in before.columns}
    same = all(affinities.get(column.id, column.affinity) == column.affinity for column in after.columns)
    return same and key(before) == key(after)


def _check_order(indexes: list[tuple[Any, ...]], described: list[Index], key_kind: str) -> tuple[int, ...]:
    """A row's number first, then the indexes as PRAGMA index_list gives them, the key's among them."""
    ids = {index.name: index.id for index in described}
    unique = [ids.get(name, -1) for _, name, is_unique, _, _ in indexes if is_unique]
    return (-1, *unique) if key_kind == "rowid" else tuple(unique)


def _foreign_key_index(ordinals: tuple[int, ...], columns: tuple[Column, ...], numbers: _Numbers) -> Index:
    identity = "reference:" + ",".join(str(columns[ordinal].id) for ordinal in ordinals)
    return Index(
        id=numbers.index(identity),
        name="FOREIGN KEY (" + ", ".join(columns[ordinal].name for ordinal in ordinals) + ")",
        unique=False,
        columns=ordinals,
        collations=tuple(columns[ordinal].collation for ordinal in ordinals),
        descending=(False,) * len(ordinals),
        for_foreign_key=True,
    )


def _refuse_unknown_collations(collations: tuple[str, ...]) -> None:
    """A program's own comparison says nothing about the order of bytes."""
    for collation in collations:
        if collation not in COLLATIONS:
            raise NotSupported(
                f"collation {collation} in a key or index: only {', '.join(COLLATIONS)} can be kept in order"
            )


def _by_table(entries: Entries) -> dict[str, list[tuple[str, str, str, str]]]:
    """Each table's own entry, first, and those of its indexes."""
    found = {name.lower(): [entry] for entry in entries for type, name, _, _ in [entry] if type == "table"}
    for entry in entries:
        if entry[0] == "index":
            found[entry[2].lower()].append(entry)
    return found


def _renamed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """After ALTER TABLE: the new name → the old name, if the statement renamed a table."""
    new, old = after.keys() - before.keys(), before.keys() - after.keys()
    return {new.pop(): old.pop()} if len(new) == 1 and len(old) == 1 else {}
