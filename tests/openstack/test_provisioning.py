"""oslo.db provisions test databases on each store, in a process that knows nothing of ROME but a URL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer

# Nothing but oslo.db is imported: OS_TEST_DBAPI_ADMIN_CONNECTION is read while provision is being imported.
BACKEND = """
from oslo_db.sqlalchemy import provision
backend = provision.Backend.backend_for_database_type("rome")
"""

LIFE = (
    BACKEND
    + """
import sqlalchemy as sa
url = backend.provisioned_database_url("one")
assert not backend.database_exists("one")
backend.create_named_database("one")
assert backend.database_exists("one") and not backend.database_exists("two")
engine = sa.create_engine(url)
with engine.begin() as connection:
    connection.exec_driver_sql("CREATE TABLE t (a REFERENCES t (a))")
    connection.exec_driver_sql("INSERT INTO t VALUES (NULL)")
try:
    backend.impl.create_named_database(backend.engine, "one")
    raise SystemExit("a database was made twice")
except ValueError:
    pass
backend.impl.create_named_database(backend.engine, "one", conditional=True)
assert sa.inspect(engine).get_table_names() == ["t"]
backend.drop_all_objects(engine)
assert sa.inspect(engine).get_table_names() == [] and backend.database_exists("one")
with engine.begin() as connection:
    connection.exec_driver_sql("CREATE TABLE t (a)")
assert sa.inspect(backend.engine).get_table_names() == []
backend.drop_named_database("one")
assert not backend.database_exists("one")
try:
    backend.drop_named_database("one")
    raise SystemExit("a database was dropped twice")
except ValueError:
    pass
backend.drop_named_database("one", conditional=True)
"""
)

FIXTURE = """
import sqlalchemy as sa, testtools
from oslo_db.sqlalchemy import enginefacade, test_fixtures

class Test(test_fixtures.OpportunisticDBTestMixin, testtools.TestCase):
    class FIXTURE(test_fixtures.OpportunisticDbFixture):
        DRIVER = "rome"

    def generate_schema_create_all(self, engine):
        sa.MetaData().create_all(engine)

    def test_engine(self):
        engine = enginefacade.writer.get_engine()
        assert engine.url.drivername.startswith("rome+"), engine.url
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (a)")
        assert sa.inspect(engine).get_table_names() == ["t"]

import unittest
result = unittest.TestResult()
unittest.TestLoader().loadTestsFromTestCase(Test).run(result)
assert result.wasSuccessful() and not result.skipped, (result.errors, result.failures, result.skipped)
assert result.testsRun == 1
"""


@pytest.fixture(params=["memory", "private", "lmdb", "redis"])
def admin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "redis":
        with RedisServer() as server:
            yield server.url("admin")
    elif request.param == "lmdb":
        yield f"rome+lmdb://{tmp_path}/admin"
    else:
        yield "rome+memory://" + ("admin" if request.param == "memory" else "")


def run(program: str, admin: str) -> None:
    environment = {**os.environ, "OS_TEST_DBAPI_ADMIN_CONNECTION": admin}
    command = [sys.executable, "-W", "ignore", "-c", program]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_life_of_a_named_database(admin: str) -> None:
    run(LIFE, admin)


def test_oslo_db_test_fixture(admin: str) -> None:
    run(FIXTURE, admin)


def test_lmdb_databases_lie_side_by_side(tmp_path: Path) -> None:
    run(BACKEND + "backend.create_named_database('one')", f"rome+lmdb://{tmp_path}/admin")
    assert {path.name for path in tmp_path.iterdir()} == {"admin", "one"}


def test_provisioning_without_rome_is_as_it_was() -> None:
    program = """
from oslo_db.sqlalchemy import provision
import rome, sqlalchemy as sa
before = set(provision.Backend.backends_by_database_type)
sa.create_engine("rome+memory://").connect().close()
assert set(provision.Backend.backends_by_database_type) == before == {"mysql", "postgresql", "sqlite"}
"""
    environment = {k: v for k, v in os.environ.items() if k != "OS_TEST_DBAPI_ADMIN_CONNECTION"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], env=environment, timeout=120, check=True)
