"""How often writers meet, what that costs, and how much of it their programs see.

    different rows     each client works on rows of its own, in the same tables: one row updated, one inserted
                       under an autoincrement key and a foreign key, an older one deleted; both tables indexed
    one row, added to  all clients run UPDATE … SET n = n + 1 on one row
    one row, read      all clients read one row, and write what they have worked out from it

A conflict is absorbed by an extension (what was read still holds), or by a replay (the program could not
tell the second run from the first). What is left reaches the program as a serialization failure, and
it runs the transaction again. The same with Glance's own database API, which runs a transaction again by
itself: what reaches its callers counts. Everything is counted, in each client by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Final

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import OperationalError

import rome
from proof import workers
from rome.dbapi import SERIALIZATION_FAILURE

SCHEMA: Final = (
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, note TEXT)",
    "CREATE INDEX accounts_n ON accounts (n)",
    "CREATE TABLE entries (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " account INTEGER NOT NULL REFERENCES accounts (id), n INTEGER NOT NULL)",
    "CREATE INDEX entries_account ON entries (account)",
)
KEPT: Final = 20
"""Entries that each account keeps."""
BY_GLANCE: Final = "retried by Glance"
COLUMNS: Final = ("transactions", "conflicts", "extensions", "replays", "raised", BY_GLANCE, "reached")
EACH_ITS_OWN: Final = "Glance, an image each"
ONE_FOR_ALL: Final = "Glance, one image"
PROMISED: Final = {"different rows": 1.0, "one row, added to": 0.99, EACH_ITS_OWN: 1.0, ONE_FOR_ALL: 0.99}
"""The least share of transactions of which whoever called hears nothing but success."""

Body = Callable[[Connection, int, int], None]


@dataclass(slots=True)
class Outcome:
    """What the clients of one scenario met, added up."""

    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    """transactions; reached: errors that whoever called saw; retried by Glance; and ROME's counters."""
    wrong: list[str] = field(default_factory=list)

    @property
    def absorbed(self) -> float:
        """The share of transactions of which whoever called heard nothing but success."""
        return max(0.0, 1.0 - self.counts["reached"] / max(1, self.counts["transactions"]))


def different_rows(connection: Connection, client: int, number: int) -> None:
    connection.exec_driver_sql("UPDATE accounts SET n = n + 1, note = ? WHERE id = ?", (f"{number}", client))
    connection.exec_driver_sql("INSERT INTO entries (account, n) VALUES (?, ?)", (client, number))
    connection.exec_driver_sql("DELETE FROM entries WHERE account = ? AND n < ?", (client, number - KEPT))


def one_row_added_to(connection: Connection, client: int, number: int) -> None:
    connection.exec_driver_sql("UPDATE accounts SET n = n + 1 WHERE id = 0")


def one_row_read(connection: Connection, client: int, number: int) -> None:
    n = connection.exec_driver_sql("SELECT n FROM accounts WHERE id = 0").scalar_one()
    connection.exec_driver_sql("UPDATE accounts SET n = ? WHERE id = 0", (n + 1,))


SCENARIOS: Final[dict[str, Body]] = {
    "different rows": different_rows,
    "one row, added to": one_row_added_to,
    "one row, read": one_row_read,
}


def run(url: str, body: Body, *, transactions: int, clients: int = 8) -> Outcome:
    """Run a scenario on an empty database: so many transactions in each client."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            for statement in SCHEMA:
                connection.exec_driver_sql(statement)
            for account in range(clients):
                connection.exec_driver_sql("INSERT INTO accounts VALUES (?, 0, '')", (account,))
        results = workers.run(url, clients, partial(_work, url, body, transactions))
        outcome = Outcome(seconds=max(seconds for seconds, _ in results))
        for _, counts in results:
            outcome.counts.update(counts)
        outcome.wrong = _wrong(engine, outcome.counts["transactions"])
        return outcome
    finally:
        engine.dispose()


def _wrong(engine: Engine, transactions: int) -> list[str]:
    with engine.connect() as connection:
        n = connection.exec_driver_sql("SELECT sum(n) FROM accounts").scalar_one()
    return [] if n == transactions else [f"{transactions} transactions were acknowledged, {n} are there"]


def _work(url: str, body: Body, transactions: int, client: int, begin: float) -> tuple[float, Counter[str]]:
    counts: Counter[str] = Counter()
    engine = create_engine(url)
    try:
        for number in range(transactions):
            counts["transactions"] += 1
            while True:
                try:
                    with engine.begin() as connection:
                        body(connection, client, number)
                    break
                except OperationalError as error:
                    if SERIALIZATION_FAILURE not in str(error):
                        raise
                    counts["reached"] += 1
        seconds = time.monotonic() - begin
        counts.update(asdict(rome.counters_of(engine)))
        return seconds, counts
    finally:
        engine.dispose()


def glance(url: str, *, images: int, updates: int, clients: int = 8) -> Outcome:
    """Glance's image_update, all clients on so many images (see `proof.glance_updates`)."""
    command = [sys.executable, "-W", "ignore", "-m", "proof.glance_updates", url]
    numbers = {"--images": images, "--updates": updates, "--clients": clients}
    command += [str(word) for pair in numbers.items() for word in pair]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(f"Glance failed:\n{ran.stderr[-3000:]}")
    found = json.loads(ran.stdout)
    seconds, wrong = found.pop("seconds"), found.pop("wrong")
    found["transactions"] = found.pop("updates")
    found[BY_GLANCE] = found.pop("retried")
    return Outcome(seconds, Counter(found), wrong)


def judged(outcomes: dict[str, Outcome]) -> list[str]:
    """What is promised of each scenario, and was not kept."""
    wrong = []
    for name, outcome in outcomes.items():
        least = PROMISED.get(name, 0.0)
        if outcome.absorbed < least:
            wrong.append(f"{name}: {outcome.absorbed:.2%} succeeded without an error, not {least:.0%}")
    return wrong


def table(outcomes: dict[str, Outcome]) -> list[str]:
    """The outcomes as lines of text."""
    width = max(len(name) for name in outcomes)
    lines = [" ".join([" " * width, "per second", "no error", *COLUMNS])]
    for name, outcome in outcomes.items():
        rate = outcome.counts["transactions"] / max(1e-9, outcome.seconds)
        share = f"{outcome.absorbed:.2%}"
        cells = " ".join(f"{outcome.counts[column]:>{len(column)}d}" for column in COLUMNS)
        lines.append(f"{name:<{width}} {rate:>10.0f} {share:>8} {cells}")
    return lines
