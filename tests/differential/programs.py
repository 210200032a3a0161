"""A random program: a schema, rows, and statements in transactions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.differential.dice import Dice
from tests.differential.queries import Queries
from tests.differential.schemas import Schema, make_schema
from tests.differential.values import Text
from tests.differential.writes import Writes


@dataclass(frozen=True)
class Step:
    """One statement, and how its result is to be compared."""

    sql: str
    parameters: tuple[Any, ...] = ()
    many: bool = False
    """`parameters` are many sets of them, for executemany."""
    ordered: bool = False
    loose: bool = False
    any_count: bool = False
    """The row count depends on the order in which rows are visited."""
    any_text: bool = False
    """Which of several broken constraints is told depends on the order of rows or of actions."""

    def __str__(self) -> str:
        call = "executemany" if self.many else "execute"
        given = f", {list(self.parameters) if self.many else self.parameters!r}" if self.parameters else ""
        return f"{call}({self.sql!r}{given})"


@dataclass(repr=False)
class Program:
    steps: list[Step] = field(default_factory=list)
    tables: list[tuple[str, list[str]]] = field(default_factory=list)
    """What is to be compared in the end: tables, and the columns that are not made up."""

    def __repr__(self) -> str:
        return "Program:\n    " + "\n    ".join(map(str, self.steps))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How hypothesis shows it."""
        printer.text(repr(self))


_STEPS = [
    *((42, "query"), (12, "insert"), (12, "update"), (8, "delete"), (3, "insert select"), (3, "many")),
    *((2, "change many"), (8, "control"), (6, "alter")),
]
"""What comes next, by weight."""


class _Maker:
    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.program = Program()
        self.schema = Schema()
        self.savepoints: list[str] = []
        self.open = False

    def make(self) -> Program:
        self.schema, created = make_schema(self.dice)
        self.run("BEGIN")
        for sql in created:
            self.run(sql)
        for table in self.schema.tables:
            for _ in range(self.dice.between(1, 3)):
                self.write(lambda writes, table=table: writes.insert(table))
        self.run("COMMIT")
        for _ in range(self.dice.between(1, 24)):
            self.step()
        if self.open:
            self.run(self.dice.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
        # COMMIT fails where a deferred foreign key is broken, and leaves the transaction open.
        self.run("ROLLBACK")
        self.program.tables = [
            (table.name, [column.name for column in table.columns]) for table in self.schema.tables
        ]
        return self.program

    def run(self, sql: str, **how: Any) -> None:
        self.program.steps.append(Step(sql, **how))

    def write(self, make: Any) -> None:
        text = Text(self.dice)
        sql = make(Writes(self.dice, self.schema, text))
        parameters = tuple(text.parameters)
        acts = self._acts()
        self.run(
            sql,
            parameters=parameters,
            any_count=acts and sql.startswith("DELETE"),
            any_text=acts or " SELECT " in sql,
        )

    def _acts(self) -> bool:
        """Whether the actions of foreign keys may run: in SQLite at each row, in ROME behind the last one."""
        return any(
            action in constraint
            for table in self.schema.tables
            for constraint in table.constraints
            for action in ("CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT")
        )

    def write_many(self, make: Any) -> None:
        sql, rows = make(Writes(self.dice, self.schema, Text(self.dice)))
        acts = self._acts()
        self.run(
            sql, parameters=tuple(rows), many=True, any_count=acts and sql.startswith("DELETE"), any_text=acts
        )

    def _is_deferred(self) -> bool:
        """Where a foreign key is, executemany in autocommit ends in one COMMIT, which may be refused."""
        return any(
            "DEFERRED" in constraint for table in self.schema.tables for constraint in table.constraints
        )

    def query(self) -> None:
        text = Text(self.dice)
        query = Queries(self.dice, self.schema, text).query()
        self.run(query.sql, parameters=tuple(text.parameters), ordered=query.ordered, loose=query.loose)

    def step(self) -> None:
        kind = self.dice.weighted(_STEPS)
        if kind == "query":
            self.query()
        elif "many" in kind and not self.open and self._is_deferred():
            self.write(Writes.insert)
        elif kind == "many":
            self.write_many(Writes.insert_many)
        elif kind == "change many":
            self.write_many(Writes.change_many)
        elif kind == "control":
            self.control()
        else:
            self.write(getattr(Writes, kind.replace(" ", "_")))

    def control(self) -> None:
        if not self.open:
            self.open = True
            self.run("BEGIN")
            return
        kind = self.dice.weighted([(4, "savepoint"), (4, "back"), (3, "end"), (1, "release")])
        if kind == "savepoint" or (kind in ("back", "release") and not self.savepoints):
            self.savepoints.append(self.dice.choice(["s1", "s2", "s3"]))
            self.run(f"SAVEPOINT {self.savepoints[-1]}")
        elif kind == "back":
            self.run(f"ROLLBACK TO {self.dice.choice(self.savepoints)}")
        elif kind == "release":
            self.run(f"RELEASE {self.savepoints.pop()}")
        else:
            self.open = False
            self.savepoints.clear()
            self.run(self.dice.choice(["COMMIT", "COMMIT", "ROLLBACK"]))


@st.composite
def programs(draw: Any) -> Program:
    return _Maker(Dice(draw)).make()
