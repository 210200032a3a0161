"""Runs Glance's own functional tests, one at a time, on the database it is told.

A child of run.py. Reads the ids of tests from standard input and writes one line of JSON for each
to standard output; everything the tests print goes to standard error. The tests are upstream's,
imported as they were installed; all that differs between two runs is the URL of the database:

    functional.db          reads it from OS_DATABASE__CONNECTION, set by run.py
    functional.v2          asks for a fresh file `sqlite:///<test's folder>/test.db` in every test's
                           setUp: that URL is replaced where it is handed to oslo.config
    functional.db's        get theirs from oslo.db's provisioning of test databases, which is given a
    migrations             back end of type "sqlite" whose databases are the store's

A test that connects to any other database than the one it was given has failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import unittest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "conformance")]

from one_test import flatten, run_test  # noqa: E402
from services import database_url  # noqa: E402


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--store", required=True)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--redis-port", type=int)
    options.add_argument("--list", action="store_true", help="only print the ids of all tests")
    arguments = options.parse_args()

    # Whatever a test prints must not be taken for a result.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # Some tests rely on options that modules of other tests register, so all of them are imported.
    found = unittest.TestLoader().discover("glance/tests/functional", top_level_dir=os.getcwd())
    if arguments.list:
        for test in flatten(found):
            print(test.id(), file=answers)
        return
    if arguments.store != "sqlite":
        redirect(arguments.store, arguments.folder, arguments.redis_port)
    print("ready", file=answers)
    connected = record_connections()
    wanted = "sqlite" if arguments.store == "sqlite" else "rome"
    for line in sys.stdin:
        connected.clear()
        name = line.strip()
        result = run_test(name, unittest.TestLoader().loadTestsFromName(name))
        if connected - {wanted}:
            result.update(outcome="failed", detail=f"it connected to {', '.join(sorted(connected))}")
        print(json.dumps(result), file=answers)


def redirect(store: str, folder: Path, redis_port: int | None) -> None:
    """Give the tests that name a SQLite database themselves one of the store's instead."""
    from glance.tests.utils import BaseTestCase
    from oslo_db.sqlalchemy import provision
    from sqlalchemy import make_url

    configure = BaseTestCase.config

    def config(test: Any, **settings: Any) -> None:
        if settings.get("group") == "database" and "connection" in settings:
            place = Path(settings["connection"].removeprefix("sqlite:///"))
            # Redis keeps the databases of all tests: the test's own folder makes the name unique.
            settings["connection"] = database_url(store, place.parent, place.parent.name, redis_port)
        configure(test, **settings)

    BaseTestCase.config = config

    sqlite: Any = type(provision.BackendImpl.impl("sqlite"))

    class Databases(sqlite):  # type: ignore[misc]
        """A new name is a new, empty database; the run's folder or server takes them all away."""

        def provisioned_database_url(self, base_url: Any, ident: str) -> Any:
            return make_url(database_url(store, folder, ident, redis_port))

        def create_named_database(self, engine: Any, ident: str, conditional: bool = False) -> None:
            pass

        def drop_named_database(self, engine: Any, ident: str, conditional: bool = False) -> None:
            pass

        def dispose(self, engine: Any) -> None:
            engine.dispose()

    backend = provision.Backend("sqlite", database_url(store, folder, f"admin{os.getpid()}", redis_port))
    backend.impl = Databases("sqlite")
    provision.Backend.backends_by_database_type["sqlite"] = backend


def record_connections() -> set[str]:
    """The set that will hold the kind of every database that is connected to."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    kinds: set[str] = set()

    def record(connection: Any, *branch: Any) -> None:
        kinds.add(connection.engine.url.get_backend_name())

    event.listen(Engine, "engine_connect", record)
    return kinds


if __name__ == "__main__":
    main()
    # Glance's tests leave threads behind that nothing would ever end.
    sys.stdout.flush()
    os._exit(0)
