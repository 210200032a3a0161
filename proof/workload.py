"""Random transactions, and the record of what they saw.

Each worker has a connection of its own and runs transactions of one to five operations, one in ten
of which it rolls back. All work on the same few lists, and on the same few names. As time goes on these
move: old lists are left alone before they grow long, and new rows come into being all the time, so
that ranges are read while rows appear in them.

    read          SELECT v FROM lists WHERE k = ?
    range read    SELECT k, v FROM lists WHERE k BETWEEN ? AND ?          by the primary key
                  … AND n >= ?                                            by an index whose entries move
    claim         a range read, and an append to a list that it did not find
    append        UPDATE lists SET v = v || ?, n = n + 1 WHERE k = ?      and INSERT, if no row was there
    upsert        INSERT … ON CONFLICT (k) DO UPDATE SET v = v || … RETURNING v      an append and a read
    undo          SAVEPOINT, append, ROLLBACK TO
    insert        INSERT INTO names (name, writer) VALUES (?, ?)          name is UNIQUE
    look up       SELECT writer FROM names WHERE name = ?
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from proof import workers
from proof.history import (
    Append,
    Operation,
    Outcome,
    RangeRead,
    Read,
    Refused,
    Transaction,
    list_object,
    load,
    name_object,
    save,
)
from rome.dbapi import SERIALIZATION_FAILURE, Connection, IntegrityError, OperationalError, connect

Open = Callable[[str], Connection]

LISTS: Final = 8
LISTS_PER_SECOND: Final = 10.0
NAMES: Final = 10
NAMES_PER_SECOND: Final = 20.0

SCHEMA: Final = (
    "CREATE TABLE lists (k INTEGER PRIMARY KEY, v TEXT NOT NULL, n INTEGER NOT NULL)",
    "CREATE INDEX lists_n ON lists (n)",
    "CREATE TABLE names (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, writer TEXT NOT NULL)",
)

APPEND: Final = "UPDATE lists SET v = v || ?, n = n + 1 WHERE k = ?"

UPSERT: Final = (
    "INSERT INTO lists (k, v, n) VALUES (?, ?, 1)"
    " ON CONFLICT (k) DO UPDATE SET v = v || ' ' || excluded.v, n = n + 1 RETURNING v"
)

LAST: Final = -1
"""The worker number of the last transaction, which reads everything when all others are done."""


@dataclass(slots=True)
class Worker:
    """One client: it runs transactions until the time is over."""

    number: int
    connection: Connection
    begin: float
    end: float
    choice: random.Random
    done: list[Transaction] = field(default_factory=list)
    _operations: list[Operation] = field(default_factory=list)
    _elements: int = 0

    def run(self) -> list[Transaction]:
        while time.monotonic() < self.end:
            self._transaction()
        return self.done

    def _transaction(self) -> None:
        self._operations = []
        began = time.monotonic()
        outcome, error = self._attempt()
        ended = time.monotonic()
        self.done.append(
            Transaction(self.number, len(self.done), began, ended, outcome, tuple(self._operations), error)
        )

    def _attempt(self) -> tuple[Outcome, str]:
        try:
            for _ in range(self.choice.randint(1, 5)):
                self._operation()
            if self.choice.random() < 0.1:
                self.connection.rollback()
                return "failed", "rolled back"
        except (OperationalError, IntegrityError) as error:
            self.connection.rollback()
            return "failed", str(error)
        try:
            self.connection.commit()
        except IntegrityError as error:
            self.connection.rollback()
            return "failed", str(error)
        except OperationalError as error:
            self.connection.rollback()
            return "failed" if str(error).startswith(SERIALIZATION_FAILURE) else "unknown", str(error)
        return "committed", ""

    def _operation(self) -> None:
        dice = self.choice.random()
        if dice < 0.2:
            self._append(self._any_list())
        elif dice < 0.3:
            self._upsert(self._any_list())
        elif dice < 0.35:
            self._append_and_undo(self._any_list())
        elif dice < 0.5:
            self._read(self._any_list())
        elif dice < 0.6:
            self._range(self._any_list(), self.choice.randint(1, LISTS), 1)
        elif dice < 0.7:
            self._range(self._any_list() - LISTS, 2 * LISTS, self.choice.randint(2, 20))
        elif dice < 0.8:
            self._claim(self._any_list() + LISTS // 2)
        elif dice < 0.9:
            self._insert(self._any_name())
        else:
            self._look_up(self._any_name())

    def _any_list(self) -> int:
        """One of the lists of this moment, more often than not one that has just come up."""
        newest = max(self.choice.randrange(LISTS), self.choice.randrange(LISTS))
        return int((time.monotonic() - self.begin) * LISTS_PER_SECOND) + newest

    def _any_name(self) -> str:
        return f"n{int((time.monotonic() - self.begin) * NAMES_PER_SECOND) + self.choice.randrange(NAMES)}"

    def _element(self) -> str:
        self._elements += 1
        return f"{self.number}.{self._elements}"

    def _append(self, key: int) -> None:
        element = self._element()
        changed = self.connection.execute(APPEND, (f" {element}", key)).rowcount
        if not changed:
            self._operations.append(Read(list_object(key), ()))
            self.connection.execute("INSERT INTO lists (k, v, n) VALUES (?, ?, 1)", (key, element))
        self._operations.append(Append(list_object(key), element, was_empty=not changed))

    def _upsert(self, key: int) -> None:
        element = self._element()
        ((text,),) = self.connection.execute(UPSERT, (key, element)).fetchall()
        self._operations += [Append(list_object(key), element), Read(list_object(key), tuple(text.split()))]

    def _append_and_undo(self, key: int) -> None:
        """What a savepoint takes back is not written down: the checker knows no element of this name."""
        self.connection.execute("SAVEPOINT here")
        self.connection.execute(APPEND, (f" {self._element()}", key))
        self.connection.execute("ROLLBACK TO here")
        self.connection.execute("RELEASE here")

    def _read(self, key: int) -> None:
        rows = self.connection.execute("SELECT v FROM lists WHERE k = ?", (key,)).fetchall()
        self._operations.append(Read(list_object(key), tuple(rows[0][0].split()) if rows else ()))

    def _range(self, low: int, width: int, at_least: int) -> None:
        sql, parameters = "SELECT k, v FROM lists WHERE k BETWEEN ? AND ?", [low, low + width - 1]
        if at_least > 1:
            sql, parameters = f"{sql} AND n >= ?", [*parameters, at_least]
        rows = self.connection.execute(sql, parameters).fetchall()
        found = {key: tuple(text.split()) for key, text in rows}
        self._operations.append(RangeRead(low, low + width - 1, found, at_least))

    def _claim(self, low: int) -> None:
        """Look which lists are there, and begin one that is not: what phantoms come from."""
        self._range(low, LISTS, 1)
        seen = self._operations[-1]
        assert isinstance(seen, RangeRead)
        free = [key for key in range(seen.low, seen.high + 1) if key not in seen.found]
        if free:
            self._append(self.choice.choice(free))

    def _insert(self, name: str) -> None:
        element = self._element()
        try:
            self.connection.execute("INSERT INTO names (name, writer) VALUES (?, ?)", (name, element))
        except IntegrityError:
            self._operations.append(Refused(name_object(name)))
        else:
            self._operations.append(Append(name_object(name), element, was_empty=True))

    def _look_up(self, name: str) -> None:
        rows = self.connection.execute("SELECT writer FROM names WHERE name = ?", (name,)).fetchall()
        self._operations.append(Read(name_object(name), tuple(writer for (writer,) in rows)))


def run(
    url: str, directory: Path, *, seconds: float, seed: int, clients: int = 8, open: Open = connect
) -> list[Transaction]:
    """Run the workload on an empty database; the history, with a last transaction that read everything.

    `open` makes each worker's connection. `directory` keeps the history's files.
    """
    connection = open(url)
    try:
        for statement in SCHEMA:
            connection.execute(statement)
        connection.commit()
        work = partial(_work, url, directory, seconds, seed, open)
        files = workers.run(url, clients, work)
        save(directory / "last.json", [_read_everything(connection)])
    finally:
        connection.close()
    return load([*files, directory / "last.json"])


def _work(
    url: str, directory: Path, seconds: float, seed: int, open: Open, number: int, begin: float
) -> Path:
    connection = open(url)
    try:
        choice = random.Random(f"{seed} {number}")
        done = Worker(number, connection, begin, begin + seconds, choice).run()
    finally:
        connection.close()
    path = directory / f"worker-{number}.json"
    save(path, done)
    return path


def _read_everything(connection: Connection) -> Transaction:
    began = time.monotonic()
    lists: dict[int, str] = dict(connection.execute("SELECT k, v FROM lists").fetchall())
    names = connection.execute("SELECT name, writer FROM names").fetchall()
    connection.rollback()
    writers: dict[str, list[str]] = {}
    for name, writer in names:
        writers.setdefault(name, []).append(writer)
    operations: list[Operation] = [
        RangeRead(
            min(lists, default=0),
            max(lists, default=0),
            {key: tuple(text.split()) for key, text in lists.items()},
        )
    ]
    operations += [Read(name_object(name), tuple(found)) for name, found in writers.items()]
    return Transaction(LAST, 0, began, time.monotonic(), "committed", tuple(operations))
