"""Runs the tests of one OpenStack service, one at a time, on the store it is told.

A child of run.py, which feeds it the ids of tests (see ../driver.py). The tests are upstream's,
imported as they were installed. They ask for `sqlite://` (a database in memory, private to its
engine, gone with `dispose()`) or for a file. What differs between two runs is one function: where
oslo.db builds an engine, the URL it is given is rewritten.

    sqlite://, sqlite:///:memory:   a new, empty database of the store, wiped by `dispose()`
    sqlite:///path                  the store's database of that name
    anything else                   left alone

Whether foreign keys are enforced is taken over too: as the suite has it on SQLite. A test that sends
a statement to any other database than the store's has failed, for it would prove nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import unittest
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / "scripts"), str(ROOT / "conformance")]

from one_test import flatten, run_test  # noqa: E402
from services import database_url  # noqa: E402
from suites import SERVICES, Suite  # noqa: E402


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--service", required=True)
    options.add_argument("--suite", required=True)
    options.add_argument("--store", required=True)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--redis-port", type=int)
    options.add_argument("--list", action="store_true", help="only print the ids of all tests")
    arguments = options.parse_args()
    suite = next(suite for suite in SERVICES[arguments.service] if suite.name == arguments.suite)

    # Whatever a test prints must not be taken for a result.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    tests = {test.id(): test for test in load(suite)}
    if arguments.list:
        print(json.dumps(list(tests)), file=answers)
        return
    databases = None
    if arguments.store != "sqlite":
        databases = Databases(arguments.store, arguments.folder, arguments.redis_port)
        databases.redirect()
    print("ready", file=answers)
    spoken_to = record_databases()
    wanted = "pysqlite" if arguments.store == "sqlite" else f"rome_{arguments.store}"
    for line in sys.stdin:
        name = line.strip()
        spoken_to.clear()
        if databases:
            databases.foreign_keys = "on" if re.search(suite.enforced, name) else suite.foreign_keys
        # A test that was run is let go, with all that it holds.
        result = run_test(name, unittest.TestSuite([tests.pop(name)]))
        if spoken_to - {wanted}:
            result.update(outcome="failed", detail=f"it used {', '.join(sorted(spoken_to))}")
        result["statements"] = wanted in spoken_to
        print(json.dumps(result), file=answers)


def load(suite: Suite) -> Iterator[unittest.TestCase]:
    top = os.getcwd()
    for pattern in suite.patterns:
        found = unittest.TestLoader().discover(str(Path(top) / suite.folder), pattern, top_level_dir=top)
        yield from flatten(found)


class Databases:
    """Gives each engine that the tests ask for a database of the store."""

    def __init__(self, store: str, folder: Path, redis_port: int | None) -> None:
        self._store = store
        self._folder = folder
        self._redis_port = redis_port
        self.foreign_keys = "off"
        """Whether connections opened from now on enforce them, if the maker of their engine does not say."""
        self._serial = count(1)

    def redirect(self) -> None:
        """Put this between oslo.db and its callers."""
        from oslo_db.sqlalchemy import engines
        from sqlalchemy import event, make_url

        stock = engines.create_engine

        def create_engine(sql_connection: Any, **settings: Any) -> Any:
            url = make_url(sql_connection)
            if url.get_backend_name() != "sqlite":
                return stock(sql_connection, **settings)
            private = url.database in (None, "", ":memory:")
            always = bool(settings.get("sqlite_fk"))
            foreign_keys = "on" if always else self.foreign_keys
            engine = stock(self.url(None if private else url.database, foreign_keys), **settings)
            if not always:
                event.listen(engine, "do_connect", set_foreign_keys)
            if private:
                event.listen(engine, "engine_disposed", wipe)
            return engine

        def set_foreign_keys(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
            # Some suites keep an engine for all tests of a process.
            options["foreign_keys"] = self.foreign_keys == "on"

        def wipe(engine: Any) -> None:
            engine.dialect.store.wipe()

        engines.create_engine = create_engine

    def url(self, place: str | None, foreign_keys: str) -> str:
        if place is None:
            name = f"private-{os.getpid()}-{next(self._serial)}"
        else:
            name = "file-" + hashlib.sha256(place.encode()).hexdigest()[:20]
        url = database_url(self._store, self._folder, name, self._redis_port)
        if self._store == "memory" and place is None:
            url = "rome+memory://"
        return f"{url}?foreign_keys={foreign_keys}"


def record_databases() -> set[str]:
    """The set that will hold the driver of every database that a statement was sent to."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    drivers: set[str] = set()

    def record(connection: Any, *statement: Any) -> None:
        drivers.add(connection.dialect.driver)

    event.listen(Engine, "before_cursor_execute", record)
    return drivers


if __name__ == "__main__":
    main()
    # Tests leave threads behind that nothing would ever end.
    sys.stdout.flush()
    os._exit(0)
