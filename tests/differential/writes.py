"""Random INSERT, UPDATE, DELETE and DDL.

Where several rows are written and one may get into another's way, what is left depends on the
order in which they are visited, which SQL does not promise. Such statements are made only where
every order ends alike: unique columns are set to one value, or moved out of the others' way.
"""

from __future__ import annotations

from tests.differential.dice import Dice
from tests.differential.queries import Queries
from tests.differential.schemas import TYPES, Column, Schema, Table, default, make_index, make_table
from tests.differential.values import Text, Value, any_value

Row = tuple[Value, ...]


_ALTERATIONS = [
    *((25, "add"), (12, "rename column"), (8, "rename"), (15, "drop column"), (25, "index")),
    *((10, "drop index"), (5, "create"), (3, "drop")),
]


class Writes:
    """Makes statements that change something, into one text."""

    def __init__(self, dice: Dice, schema: Schema, text: Text) -> None:
        self.dice = dice
        self.schema = schema
        self.text = text
        self.queries = Queries(dice, schema, text)

    def table(self) -> Table:
        return self.dice.choice(self.schema.tables)

    def value(self, table: Table, column: Column) -> Value:
        """A value for a column: fresh where it has to be unique, a parent's where it refers to one."""
        dice = self.dice
        if column.is_number_of_row:
            if dice.chance(80):
                return table.take_fresh()
            return dice.choice([1, 2, 3, 4, 5, 2**53 + 1, 2**63 - 1, -7, "8", 9.0])
        if column.unique and dice.chance(70):
            number = table.take_fresh()
            if column.affinity in ("TEXT", "BLOB"):
                return dice.choice(
                    [f"v{number}", f"{'long' * 150}{number}"] if dice.chance(30) else [f"v{number}"]
                )
            return number
        if column.refers_to is not None and dice.chance(75):
            if dice.chance(20):
                return None
            number = dice.between(1, 5)
            return f"v{number}" if column.affinity in ("TEXT", "BLOB") else number
        return any_value(dice, column.affinity, null=3 if column.notnull else 20)

    def row(self, table: Table, columns: list[Column]) -> Row:
        return tuple(self.value(table, column) for column in columns)

    def _named(self, table: Table) -> list[Column]:
        """The columns that an INSERT names: sometimes not all, but always the row's number."""
        if self.dice.chance(75):
            return table.columns
        kept = [c for c in table.columns if c.is_number_of_row or c in table.key or self.dice.chance(60)]
        return kept or table.columns

    # Rows

    def insert(self, table: Table | None = None) -> str:
        dice = self.dice
        table = table or self.table()
        columns = self._named(table)
        mode = dice.weighted([(72, ""), (12, " OR IGNORE"), (14, " OR REPLACE"), (2, " OR ABORT")])
        if table.refers_to_itself:
            # SQLite forgets to check a reference to the own table under OR REPLACE.
            mode = mode.replace("OR REPLACE", "OR ABORT")
        rows = []
        for _ in range(dice.weighted([(5, 1), (3, 2), (3, 4)])):
            rows.append("(" + ", ".join(self.text.value(value) for value in self.row(table, columns)) + ")")
        names = self._columns(table, columns)
        return f"INSERT{mode} INTO {table.name}{names} VALUES {', '.join(rows)}{self._returning(table)}"

    def _columns(self, table: Table, columns: list[Column]) -> str:
        if columns == table.columns and table.kind != "made up" and self.dice.chance(20):
            return ""
        return f" ({', '.join(column.name for column in columns)})"

    def _returning(self, table: Table) -> str:
        if not self.dice.chance(12) or table.refers_to_itself:
            # In SQLite the actions of the rows before show in the rows behind.
            return ""
        names = [column.name for column in self.dice.some(table.columns, 1, 3)]
        if self.dice.chance(20):
            names.append(f"typeof({names[0]})")
        return f" RETURNING {', '.join(names)}"

    def insert_many(self) -> tuple[str, list[Row]]:
        """For executemany."""
        table = self.table()
        rows = [self.row(table, table.columns) for _ in range(self.dice.between(1, 6))]
        names = ", ".join(column.name for column in table.columns)
        marks = ", ".join("?" for _ in table.columns)
        return f"INSERT INTO {table.name} ({names}) VALUES ({marks})", rows

    def change_many(self) -> tuple[str, list[Row]]:
        """UPDATE or DELETE for executemany."""
        table = self.table()
        found = self.dice.choice(table.key if table.refers_to_itself else table.columns)
        count = self.dice.between(1, 3)
        if self.dice.chance(40):
            sql = f"DELETE FROM {table.name} WHERE {found.name} = ?"
            return sql, [(any_value(self.dice, found.affinity),) for _ in range(count)]
        changed = self.dice.choice(table.columns)
        sql = f"UPDATE {table.name} SET {changed.name} = ? WHERE {found.name} = ?"
        return sql, [(self.value(table, changed), any_value(self.dice, found.affinity)) for _ in range(count)]

    def insert_select(self) -> str:
        table, source = self.table(), self.table()
        places = self.queries.places("s", source)
        terms = []
        for column in table.columns:
            if column.is_number_of_row:
                numbers = [place.text for place in places if place.column.is_number_of_row]
                terms.append(f"{numbers[0]} + 100" if numbers else "NULL + 1")
            elif column.unique and column.affinity == "TEXT":
                terms.append(f"'n{table.take_fresh()}' || {self.dice.choice(places).text}")
            elif self.dice.chance(15):
                terms.append(self.text.value(self.value(table, column)))
            else:
                terms.append(self.dice.choice(places).text)
        if "NULL + 1" in terms:
            return self.insert(table)
        names = ", ".join(column.name for column in table.columns)
        where = self.queries.where(places)
        return f"INSERT INTO {table.name} ({names}) SELECT {', '.join(terms)} FROM {source.name} AS s{where}"

    def _target(self, table: Table) -> str:
        """A WHERE clause; only for one row where the order of rows would matter."""
        if table.refers_to_itself or (len(table.key) == 1 and self.dice.chance(45)):
            return " WHERE " + " AND ".join(
                f"{key.name} = {self.text.value(self._likely_key(key))}" for key in table.key
            )
        return self.queries.where(self.queries.places("", table), 90)

    def _likely_key(self, key: Column) -> Value:
        number = self.dice.between(1, 5)
        return f"v{number}" if key.affinity in ("TEXT", "BLOB") else number

    def update(self) -> str:
        dice = self.dice
        table = self.table()
        columns = dice.some(table.columns, 1, 1 if table.refers_to_itself else 2)
        one_row = len(table.key) == 1 and (table.refers_to_itself or dice.chance(40))
        mode = dice.choice(["", "", " OR IGNORE", " OR REPLACE"]) if one_row else ""
        if table.refers_to_itself:
            mode = mode.replace("OR REPLACE", "OR ABORT")
        sets = [f"{column.name} = {self._new_value(table, column)}" for column in columns]
        if one_row:
            where = f" WHERE {table.key[0].name} = {self.text.value(self._likely_key(table.key[0]))}"
        else:
            where = self.queries.where(self.queries.places("", table), 90)
        return f"UPDATE{mode} {table.name} SET {', '.join(sets)}{where}{self._returning(table)}"

    def _new_value(self, table: Table, column: Column) -> str:
        dice = self.dice
        if column.unique:
            if column.affinity == "TEXT" and dice.chance(50):
                return f"{column.name} || 'n{table.take_fresh()}'"
            if column.is_number_of_row and dice.chance(60):
                return f"{column.name} + {1_000_000 * table.take_fresh()}"
            return self.text.value(self.value(table, column))
        kind = dice.weighted(
            [(60, "value"), (15, "column"), (10, "expression"), (10, "query"), (5, "default")]
        )
        name = dice.choice([other for other in table.columns if not other.unique] or [column]).name
        if kind == "column":
            return name
        if kind == "expression":
            return dice.choice(
                [f"{name} || 'z'", f"length({name})", f"coalesce({name}, 0) + 1", f"lower({name})"]
            )
        if kind == "query" and len(self.schema.tables) > 1:
            # Not of the table itself: there SQLite sees the rows that it has updated already.
            other = dice.choice([other for other in self.schema.tables if other is not table])
            place = dice.choice(self.queries.places("q", other)).text
            return f"(SELECT count({place}) FROM {other.name} AS q WHERE {place} = {table.name}.{name})"
        return self.text.value(self.value(table, column))

    def delete(self) -> str:
        table = self.table()
        return f"DELETE FROM {table.name}{self._target(table)}{self._returning(table)}"

    # The schema

    def alter(self) -> str:
        dice = self.dice
        table = self.table()
        kind = dice.weighted(_ALTERATIONS)
        if kind == "add":
            return self._add_column(table)
        if kind == "rename column":
            column = dice.choice(table.columns)
            if column.name == "id":
                return make_index(dice, self.schema, table)
            old, column.name = column.name, self.schema.name("r")
            return f"ALTER TABLE {table.name} RENAME COLUMN {old} TO {column.name}"
        if kind == "rename":
            old, table.name = table.name, self.schema.name("t")
            self.schema.rename(old, table.name)
            return f"ALTER TABLE {old} RENAME TO {table.name}"
        if kind == "drop column":
            droppable = [c for c in table.columns if c not in table.key and not c.unique and not c.refers_to]
            if len(table.columns) > 1 and droppable:
                column = dice.choice(droppable)
                table.columns.remove(column)
                return f"ALTER TABLE {table.name} DROP COLUMN {column.name}"
        if kind == "drop index" and table.indexes:
            return f"DROP INDEX {table.indexes.pop()}"
        if kind == "create":
            self.schema.tables.append(make_table(dice, self.schema))
            return self.schema.tables[-1].create
        if kind == "drop" and len(self.schema.tables) > 1 and not self.schema.has_children(table):
            self.schema.tables.remove(table)
            return f"DROP TABLE {table.name}"
        return make_index(dice, self.schema, table)

    def _add_column(self, table: Table) -> str:
        type, affinity = self.dice.choice(TYPES)
        column = Column(self.schema.name("a"), type, affinity)
        if self.dice.chance(60):
            column.tail = f"DEFAULT {default(self.dice, affinity)}"
            column.notnull = self.dice.chance(40)
        table.columns.append(column)
        return f"ALTER TABLE {table.name} ADD COLUMN {column.definition}"
