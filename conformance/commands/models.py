"""Is the schema that a service's migrations made the one that its models ask for?

    models.py SERVICE URL

Each service has a test of its own that asks this with Alembic's `compare_metadata`, and knows the
differences that are meant (oslo.db's `ModelsMigrationsSync`). That test is run as it was installed, but on
the database at URL, which the service's command has migrated before. Exit status 0: there is no difference.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import sqlalchemy

TESTS = {
    "nova_api": "nova.tests.unit.db.api.test_migrations:NovaModelsMigrationsSync",
    "nova": "nova.tests.unit.db.main.test_migrations:NovaModelsMigrationsSync",
    "keystone": "keystone.tests.unit.common.sql.test_upgrades:KeystoneModelsMigrationsSync",
    "placement": "placement.tests.functional.db.test_migrations:_TestModelsMigrations",
    "neutron": "neutron.tests.functional.db.test_migrations:TestModelsMigrations",
    "cinder": "cinder.tests.unit.db.test_migrations:CinderModelsMigrationsSync",
    "glance": "glance.tests.functional.db.test_migrations:ModelsMigrationsSyncSqlite",
}


def main(service: str, url: str) -> int:
    engine = sqlalchemy.create_engine(url)
    module, name = TESTS[service].split(":")
    test: Any = getattr(import_module(module), name)

    class Sync(test):
        """The service's comparison, of this database."""

        def __init__(self) -> None:
            """Nothing of the test's own set-up: it would make a database."""

        def get_engine(self) -> Any:
            return engine

        def db_sync(self, engine: Any) -> None:
            """The service's command did it."""

        def addCleanup(self, *ignored: Any) -> None:
            """The database is to stay."""

        def fail(self, message: str) -> None:
            raise SystemExit(message)

    sync = Sync()
    compared = len(sync.get_metadata().tables)
    if not compared:
        raise SystemExit(f"{service}: its models are not loaded, so there is nothing to compare")
    sync.test_models_sync()
    print(f"{compared} tables are as the models ask for")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
