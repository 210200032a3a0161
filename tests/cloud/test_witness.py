"""The witness hears what services write of conflicts and answers, and only what is new."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy

import rome
from cloud import witness
from cloud.build import Cloud
from cloud.layout import Layout
from cloud.processes import Processes
from cloud.witness import Witness
from rome.sql.counters import INTERVAL

RETRIED = (
    "DEBUG oslo_db.api [-] DB error: (rome.dbapi.errors.OperationalError) serialization failure: others\n"
)
IN_NEUTRON = (
    "DEBUG neutron_lib.db.api [-] Retry wrapper got retriable exception: "
    "(rome.dbapi.errors.OperationalError) serialization failure: others\n"
)
LATE = "DEBUG oslo_db.api [-] DB error: (rome.dbapi.errors.IntegrityError) UNIQUE constraint failed: a.b\n"
LEAKED = (
    "ERROR nova oslo_db.exception.DBDeadlock: (rome.dbapi.errors.OperationalError) serialization failure\n"
)


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.setattr(witness, "DATABASES", ("one",))
    layout = Layout("lmdb", {"redis": 0}, folder=tmp_path)
    layout.directory("databases")
    layout.directory("logs")
    return Cloud(layout, Processes(tmp_path))


def test_what_is_new_in_the_logs_is_counted_by_kind(cloud: Cloud) -> None:
    log = cloud.processes.log("nova-api")
    access = cloud.processes.log("nova-access")
    log.write_text(RETRIED + LEAKED)
    access.write_text('[21/Nov/2026:04:56:06 +0000] 500 14 ms "GET / HTTP/1.1"\n')
    asked = Witness(cloud)
    with log.open("a") as more:
        more.write(RETRIED + IN_NEUTRON + LATE + LEAKED + "INFO nothing of interest\n")
    with access.open("a") as more:
        more.write('[21/Nov/2026:04:56:07 +0000] 200 500 ms "GET / HTTP/1.1"\n')
        more.write('[21/Nov/2026:04:56:08 +0000] 503 1 ms "GET /new HTTP/1.1"\n')
    heard = asked.testimony()
    assert (heard.retried, heard.late, heard.leaked) == (2, 1, 1)
    assert heard.answers == {"2xx": 1, "5xx": 1}
    assert len(heard.failures) == 1
    assert "/new" in heard.failures[0]


def test_romes_counters_are_those_since_the_witness_was_called(cloud: Cloud) -> None:
    engine = sqlalchemy.create_engine(cloud.layout.database("one"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    asked = Witness(cloud)
    assert asked.testimony().counters["commits"] == 0
    time.sleep(INTERVAL + 0.1)  # Only then does a COMMIT tell the database of what came before it.
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    assert asked.testimony().counters["commits"] == 1
    engine.dispose()
    rome.store_of(engine).close()
