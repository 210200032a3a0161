"""Random ALTERs of random tables with rows, beside SQLite.

ROME alters a table step by step. SQLite is handed each step's result: the new CREATE statement, in an empty
database, and the rows as they were before, which it must take and keep as ROME has kept them. Then both get
the same writes. Where ROME refuses a step, nothing may have changed. ROME_SEED repeats a run; each prints it.
"""

from __future__ import annotations

import os
import random
import sqlite3
from typing import Any

import pytest
from sqlalchemy.engine import Engine

import rome
from rome.dbapi import Connection, DatabaseError, IntegrityError
from rome.sql.lexer import tokens, unquoted
from rome.tools.check import check

TYPES = ("INTEGER", "VARCHAR(5)", "NUMERIC(4, 2)", "BIGINT", "TEXT", "DOUBLE PRECISION", "BLOB", "")
NAMES = ('"odd name"', "[in brackets]", "`check`", "plain", '"with ""quotes"""', "Ünï", "typ")
DEFAULTS = ("7", "'d'", "(2 * 3)")
VALUES = (None, 0, 1, 2, 5, -3, 2.5, "1", "2", "x", "", "y z", b"\x00a")


class Case:
    """One table on ROME, and the dice that made it."""

    def __init__(self, db: Connection, dice: random.Random) -> None:
        self.db = db
        self.dice = dice
        self.columns = ["id", *dice.sample(NAMES, dice.randint(2, 4))]
        self.constraints = 0
        self.names: list[str] = []

    def column(self) -> str:
        return self.dice.choice(self.columns)

    def name(self) -> str:
        self.constraints += 1
        self.names.append(f"c{self.constraints}")
        return self.names[-1]

    def constraint(self) -> str:
        columns = ", ".join(self.dice.sample(self.columns, min(len(self.columns), self.dice.randint(1, 2))))
        kind = self.dice.choice(["unique", "check", "foreign key"])
        named = f"CONSTRAINT {self.name()} " if self.dice.random() < 0.7 else ""
        if kind == "unique":
            return f"{named}UNIQUE ({columns})"
        if kind == "check":
            return f"{named}CHECK ({self.column()} IS NOT 'y z' OR {self.column()} <> ')')"
        return f"{named}FOREIGN KEY ({self.column()}) REFERENCES parent (n) ON DELETE SET NULL"

    def clauses(self) -> str:
        found = []
        if self.dice.random() < 0.3:
            found.append(
                "DEFAULT " + self.dice.choice(["1", "-2", "'it''s, (so)'", "(1 + 1)", "NULL", "x'00'"])
            )
        if self.dice.random() < 0.2:
            found.append("NOT NULL")
        if self.dice.random() < 0.2:
            found.append("COLLATE NOCASE")
        self.dice.shuffle(found)
        return " ".join(found)

    def create(self) -> str:
        gap = self.dice.choice([" ", "\n\t", " -- a comment, (really)\n", " /* , */ "])
        key = self.dice.choice(["INTEGER PRIMARY KEY", "INTEGER NOT NULL", "TEXT NOT NULL", "INTEGER"])
        parts = [f"id {key}"]
        parts += [f"{name}{gap}{self.dice.choice(TYPES)} {self.clauses()}" for name in self.columns[1:]]
        parts += [self.constraint() for _ in range(self.dice.randint(0, 3))]
        if "PRIMARY" not in key and self.dice.random() < 0.5:
            parts.append("PRIMARY KEY (id)")
        return f"CREATE TABLE t ({f',{gap}'.join(parts)})"

    def alteration(self) -> str:
        return (
            "ALTER TABLE t "
            + self.dice.choice(
                [
                    lambda: f"ADD {self.constraint()}",
                    lambda: f"ADD {self.constraint()}",
                    lambda: f"DROP CONSTRAINT {self.dice.choice(self.names or ['c0'])}",
                    lambda: f"ALTER COLUMN {self.column()} SET NOT NULL",
                    lambda: f"ALTER {self.column()} DROP NOT NULL",
                    lambda: f"ALTER {self.column()} SET DEFAULT {self.dice.choice(DEFAULTS)}",
                    lambda: f"ALTER {self.column()} DROP DEFAULT",
                    lambda: f"ALTER COLUMN {self.column()} TYPE {self.dice.choice(TYPES[:-1])}",
                    lambda: f"ADD PRIMARY KEY ({self.column()})",
                    lambda: "DROP PRIMARY KEY",
                    self.drop_column,
                ]
            )()
        )

    def drop_column(self) -> str:
        return f"DROP COLUMN {self.dice.choice(self.columns[1:] or ['id'])} CASCADE"

    def write(self) -> tuple[str, list[Any]]:
        columns = self.dice.sample(self.columns, self.dice.randint(1, len(self.columns)))
        values = [self.dice.choice(VALUES) for _ in columns]
        return f"INSERT INTO t ({', '.join(columns)}) VALUES ({', '.join('?' * len(values))})", values


def rows(db: Any, table: str = "t") -> list[tuple[Any, ...]]:
    names = [
        f'"{name.replace(chr(34), chr(34) * 2)}"'
        for (name,) in db.execute(f"SELECT name FROM pragma_table_info('{table}')")
    ]
    typed = ", ".join(f"{name}, typeof({name})" for name in names)
    return sorted((tuple(row) for row in db.execute(f"SELECT {typed} FROM {table}")), key=repr)


def attempt(db: Any, sql: str, values: Any = ()) -> str:
    """What came of a statement: nothing wrong, or the kind of refusal."""
    try:
        db.execute(sql, values)
    except (IntegrityError, sqlite3.IntegrityError) as error:
        return str(error)
    except (DatabaseError, sqlite3.DatabaseError):
        return "refused"
    return ""


def sqlite_with(schema: list[str], kept: list[tuple[str, list[Any]]]) -> tuple[sqlite3.Connection, str]:
    """SQLite with this schema and these rows; and what it says of them."""
    beside = sqlite3.connect(":memory:", isolation_level=None)
    beside.execute("PRAGMA foreign_keys = ON")
    beside.execute("CREATE TABLE parent (n UNIQUE)")
    beside.execute("INSERT INTO parent VALUES (1), (2), ('x')")
    for sql in schema:
        beside.execute(sql)
    for sql, values in kept:
        refusal = attempt(beside, sql, values)
        if refusal:
            return beside, refusal
    return beside, ""


def stored(db: Connection, columns: list[str]) -> list[tuple[str, list[Any]]]:
    names = ", ".join(columns)
    sql = f"INSERT INTO t ({names}) VALUES ({', '.join('?' * len(columns))})"
    return [(sql, list(row)) for row in db.execute(f"SELECT {names} FROM t").fetchall()]


def schema(db: Connection) -> list[str]:
    found = db.execute(
        "SELECT sql FROM sqlite_master WHERE tbl_name = 't' AND sql IS NOT NULL ORDER BY type DESC"
    )
    return [sql for (sql,) in found]


def remaining(db: Connection, columns: list[str]) -> list[str]:
    there = {name for (name,) in db.execute("SELECT name FROM pragma_table_info('t')")}
    return [name for name in columns if unquoted(tokens(name)[0]) in there]


def run(db: Connection, dice: random.Random) -> int:
    """One table's life; returns how many of the changes were made."""
    case = Case(db, dice)
    made = 0
    db.executescript("DROP TABLE IF EXISTS t; DROP TABLE IF EXISTS parent; CREATE TABLE parent (n UNIQUE)")
    db.execute("INSERT INTO parent VALUES (1), (2), ('x')")
    db.execute(case.create())
    if dice.random() < 0.5:
        db.execute(f"CREATE INDEX i ON t ({', '.join(dice.sample(case.columns, 2))})")
    for _ in range(6):
        attempt(db, *case.write())
    db.commit()
    for _ in range(6):
        before, kept = rows(db), stored(db, case.columns)
        statement = case.alteration()
        refusal = attempt(db, statement)
        if refusal:
            assert rows(db) == before, statement
        case.columns = remaining(db, case.columns)
        if "DROP COLUMN" in statement:
            kept = stored(db, case.columns)
        made += not refusal
        beside, complaint = sqlite_with(schema(db), kept)
        assert not complaint, (statement, schema(db), complaint)
        assert rows(beside) == rows(db), (statement, schema(db), kept)
        for _ in range(4):
            sql, values = case.write()
            given = dict(zip(sql.split("(")[1].split(")")[0].split(", "), values, strict=True))
            if given.get("id") is not None:  # else the row may be numbered, and numbers may have gaps
                said = attempt(db, sql, values)
                # Of two broken rules each may name its own.
                assert bool(said) == bool(attempt(beside, sql, values)), (statement, schema(db), sql, values)
        assert rows(beside) == rows(db), (statement, schema(db), kept)
        beside.close()
        if dice.random() < 0.3:
            db.commit()
    db.commit()
    return made


@pytest.mark.timeout(600)
def test_an_altered_table_is_what_sqlite_makes_of_its_statement(
    connection: Connection, engine: Engine
) -> None:
    seed = int(os.environ.get("ROME_SEED", random.randrange(10**9)))
    print(f"ROME_SEED={seed}")
    in_memory = engine.url.drivername.endswith("memory")
    tables = int(os.environ.get("ROME_ALTERS", "25" if in_memory else "6"))
    made = sum(run(connection, random.Random(f"{seed}/{number}")) for number in range(tables))
    assert made > tables, "hardly anything was altered"
    report = check(rome.store_of(engine))
    assert report.sound, report.as_dict()
