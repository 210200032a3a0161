"""Random schemas, and what the generators of statements know of them.

The model follows what the statements should do, not what they did: where an ALTER TABLE fails, what
is made up afterwards may name a column that is not there, which has to fail alike everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.differential.dice import Dice
from tests.differential.values import Value, any_value, literal

TYPES = [
    *(("INTEGER", "INTEGER"), ("TEXT", "TEXT"), ("VARCHAR(30)", "TEXT"), ("REAL", "REAL")),
    *(("NUMERIC(10, 2)", "NUMERIC"), ("BLOB", "BLOB"), ("", "BLOB"), ("BIGINT", "INTEGER")),
    *(("BOOLEAN", "NUMERIC"), ("DATETIME", "NUMERIC"), ("FLOAT", "REAL")),
]
ACTIONS = ["NO ACTION", "CASCADE", "SET NULL", "RESTRICT", "SET DEFAULT"]


@dataclass
class Column:
    name: str
    type: str
    affinity: str
    collation: str = "BINARY"
    notnull: bool = False
    unique: bool = False
    """Values are mostly fresh: the column alone, or together with others, is unique."""
    refers_to: tuple[str, str] | None = None
    tail: str = ""
    """The rest of its definition."""

    @property
    def is_numeric(self) -> bool:
        return self.affinity not in ("TEXT", "BLOB")

    @property
    def is_number_of_row(self) -> bool:
        """INTEGER PRIMARY KEY: without a value, the database makes one up."""
        return self.type == "INTEGER" and self.tail.startswith("PRIMARY KEY")

    @property
    def definition(self) -> str:
        words = [self.name, self.type]
        if self.collation != "BINARY":
            words.append(f"COLLATE {self.collation}")
        if self.notnull:
            words.append("NOT NULL")
        return " ".join(word for word in [*words, self.tail] if word)


@dataclass
class Table:
    name: str
    columns: list[Column]
    """Those that statements may name: not a number that the database makes up."""
    key: list[Column]
    """The columns of the primary key among them."""
    kind: str
    """"rowid", "made up", "single", "composite" or "none"."""
    constraints: list[str] = field(default_factory=list)
    without_rowid: bool = False
    indexes: list[str] = field(default_factory=list)
    fresh: int = 0

    @property
    def refers_to_itself(self) -> bool:
        """Then what the actions of its foreign key do depends on the order in which rows are visited."""
        return any(re.search(rf"REFERENCES {self.name}\b", constraint) for constraint in self.constraints)

    @property
    def create(self) -> str:
        parts = [column.definition for column in self.columns]
        if self.kind == "made up":
            parts.insert(0, "id INTEGER PRIMARY KEY AUTOINCREMENT")
        parts += self.constraints
        tail = " WITHOUT ROWID" if self.without_rowid else ""
        return f"CREATE TABLE {self.name} ({', '.join(parts)}){tail}"

    def take_fresh(self) -> int:
        self.fresh += 1
        return self.fresh


@dataclass
class Schema:
    tables: list[Table] = field(default_factory=list)
    serial: int = 0

    def name(self, prefix: str) -> str:
        self.serial += 1
        return f"{prefix}{self.serial}"

    def rename(self, old: str, new: str) -> None:
        for table in self.tables:
            table.constraints = [re.sub(rf"\b{old}\b", new, constraint) for constraint in table.constraints]

    def has_children(self, parent: Table) -> bool:
        """Whether other tables refer to this one. ROME misses a parent only when a row is written."""
        return any(
            re.search(rf"REFERENCES {parent.name}\b", constraint)
            for table in self.tables
            if table is not parent
            for constraint in table.constraints
        )


def make_schema(dice: Dice) -> tuple[Schema, list[str]]:
    """A schema, and the statements that create it."""
    schema = Schema()
    statements = []
    for _ in range(dice.between(1, 3)):
        table = make_table(dice, schema)
        schema.tables.append(table)
        statements.append(table.create)
        for _ in range(dice.below(3)):
            statements.append(make_index(dice, schema, table))
    return schema, statements


def make_table(dice: Dice, schema: Schema) -> Table:
    kind = dice.weighted([(40, "rowid"), (25, "single"), (15, "composite"), (10, "none"), (10, "made up")])
    columns = [make_column(dice, schema, f"c{number}") for number in range(dice.between(1, 4))]
    table = Table(schema.name("t"), columns, [], kind)
    if kind == "rowid":
        table.key = [Column("id", "INTEGER", "INTEGER", unique=True, tail="PRIMARY KEY")]
        columns[:0] = table.key
    elif kind == "single":
        column = dice.choice([c for c in columns if not c.tail] or [make_column(dice, schema, "c9")])
        if column not in columns:
            columns.append(column)
        column.unique = True
        column.tail = "PRIMARY KEY" + (" DESC" if dice.chance(10) else "")
        table.key = [column]
    elif kind == "composite":
        while len(columns) < 2:
            columns.append(make_column(dice, schema, "c8"))
        table.key = dice.some(columns, 2, 3)
        table.key[0].unique = True
        for column in table.key:
            column.notnull = column.notnull or dice.chance(70)
        names = ", ".join(column.name for column in table.key)
        table.constraints.append(f"PRIMARY KEY ({names})")
    if kind in ("single", "composite"):
        table.without_rowid = dice.chance(20)
    _add_constraints(dice, schema, table)
    return table


def make_column(dice: Dice, schema: Schema, name: str) -> Column:
    type, affinity = dice.choice(TYPES)
    column = Column(name, type, affinity)
    if affinity in ("TEXT", "BLOB") and dice.chance(30):
        column.collation = dice.choice(["NOCASE", "NOCASE", "RTRIM"])
    column.notnull = dice.chance(25)
    if dice.chance(25):
        column.tail = f"DEFAULT {default(dice, affinity)}"
    return column


def default(dice: Dice, affinity: str) -> str:
    if dice.chance(20):
        return dice.choice(["(1 + 1)", "(lower('ABC'))", "(NULL)", "(abs(-5))"])
    value: Value = any_value(dice, affinity, null=10)
    written = literal(value) if not (isinstance(value, str) and len(value) > 100) else None
    return written or "'d'"


def _add_constraints(dice: Dice, schema: Schema, table: Table) -> None:
    plain = [column for column in table.columns if column not in table.key]
    if plain and dice.chance(25):
        column = dice.choice(plain)
        column.unique = True
        table.constraints.append(f"UNIQUE ({column.name})")
    if len(plain) > 1 and dice.chance(20):
        pair = dice.some(plain, 2, 2)
        pair[0].unique = True
        table.constraints.append(f"UNIQUE ({pair[0].name}, {pair[1].name})")
    if plain and dice.chance(20):
        table.constraints.append(f"CHECK ({_check(dice, dice.choice(plain))})")
    if dice.chance(50):
        _add_foreign_key(dice, schema, table)


def _check(dice: Dice, column: Column) -> str:
    name = column.name
    return dice.choice(
        [
            f"{name} <> 5",
            f"length({name}) < 600",
            f"{name} IS NOT 'b'",
            f"typeof({name}) <> 'blob'",
            f"{name} > -9",
        ]
    )


def _add_foreign_key(dice: Dice, schema: Schema, table: Table) -> None:
    """A reference to the key of a table that is there already, or to the table's own."""
    parents = [parent for parent in [*schema.tables, table] if parent.key]
    if not parents:
        return
    parent = dice.choice(parents)
    if parent is table and any(column.collation != "BINARY" for column in table.key):
        return  # SQLite sees that a row refers to itself only where both values are the same bytes.
    own = [column for column in table.columns if column not in table.key]
    if len(own) < len(parent.key):
        return
    children = dice.some(own, len(parent.key), len(parent.key))
    for child, target in zip(children, parent.key, strict=True):
        child.refers_to = (parent.name, target.name)
        # For the same reason both must be of one type.
        if parent is table or dice.chance(70):
            child.type, child.affinity, child.collation = target.type, target.affinity, target.collation
            child.tail = ""
    names = ", ".join(column.name for column in children)
    targets = f" ({', '.join(column.name for column in parent.key)})" if dice.chance(80) else ""
    clause = f"FOREIGN KEY ({names}) REFERENCES {parent.name}{targets}"
    if dice.chance(70):
        clause += f" ON DELETE {dice.choice(ACTIONS)}"
    if dice.chance(60):
        clause += f" ON UPDATE {dice.choice(ACTIONS)}"
    if dice.chance(20):
        clause += " DEFERRABLE INITIALLY DEFERRED"
    table.constraints.append(clause)


def make_index(dice: Dice, schema: Schema, table: Table) -> str:
    """CREATE INDEX on a table."""
    name = schema.name("i")
    table.indexes.append(name)
    unique = dice.chance(15)
    terms = []
    for column in dice.some(table.columns, 1, 3):
        term = column.name
        if dice.chance(15):
            term = dice.choice(
                [f"lower({term})", f"length({term})", f"{term} || 'x'", f"coalesce({term}, 0)"]
            )
        if dice.chance(10):
            term += f" COLLATE {dice.choice(['NOCASE', 'BINARY'])}"
        if dice.chance(25):
            term += " DESC"
        terms.append(term)
    where = ""
    if dice.chance(20):
        column = dice.choice(table.columns)
        where = f" WHERE {column.name} {dice.choice(['IS NOT NULL', '> 1', 'IS NULL', '<> 2'])}"
    return f"CREATE {'UNIQUE ' if unique else ''}INDEX {name} ON {table.name} ({', '.join(terms)}){where}"
