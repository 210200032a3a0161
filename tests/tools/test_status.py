"""The status of a database, on each store, well and unwell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, text

import rome
from rome.records.keys import CATALOG_KEY
from rome.stores import Store, parse
from rome.tools import Status, status
from rome.tools.opening import parsed
from tests.servers import RedisServer, free_port


def ask(url: str, exact: bool = False) -> Status:
    return status(parsed(url), exact)


def test_what_a_database_holds(url: str, filled: Engine, breaker: Any) -> None:
    found = ask(url)
    assert found.healthy
    assert found.reason is None
    assert found.store == parse(url).kind == found.health["store"]
    assert found.health["durable"] in (True, False)
    assert found.schema_version == breaker.schema.version > 0
    assert found.catalog_format == 1
    assert [(t.name, t.rows, t.indexes) for t in found.tables] == [
        ("event", 28, 1),
        ("image", 30, 3),
        ("site", 30, 2),
    ]
    json.dumps(found.as_dict())


def test_bytes_are_exact_for_small_tables_and_near_for_large_ones(url: str, filled: Engine) -> None:
    assert ask(url).tables == ask(url, exact=True).tables
    with filled.begin() as connection:
        rows = [{"what": f"{n % 7} boots", "at": float(n)} for n in range(2000)]
        connection.execute(text("INSERT INTO event VALUES (:what, :at)"), rows)
    estimated, counted = ask(url).tables[0], ask(url, exact=True).tables[0]
    assert (estimated.rows, estimated.exact) == (2028, False)
    assert (counted.rows, counted.exact) == (2028, True)
    assert counted.bytes > 2028 * 30
    assert abs(estimated.bytes - counted.bytes) < counted.bytes / 5


def test_locks_that_are_held(url: str, engine: Engine) -> None:
    with rome.lock(engine, "resize instance 7", ttl=20) as mine:
        (found,) = ask(url).locks
        assert (found.name, found.owner, found.fencing) == ("resize instance 7", mine.owner, mine.fencing)
        assert 10 < found.remaining <= 20
        assert found.waiting == 0
        (shown,) = json.loads(json.dumps(ask(url).as_dict()))["locks"]
        assert shown["owner"] == mine.owner
    assert ask(url).locks == []


def test_round_trips_do_not_grow_with_the_rows(store: Store, filled: Engine) -> None:
    from rome.tools.status import _read

    before = store.round_trips
    _read(store, Status("", store.kind), exact=False)
    assert store.round_trips - before <= 4


def test_a_database_without_a_schema_is_healthy(url: str, engine: Engine) -> None:
    found = ask(url)
    assert found.healthy
    assert (found.schema_version, found.tables) == (0, [])


def test_a_newer_catalog_is_reachable_and_not_readable(url: str, breaker: Any) -> None:
    stored = msgspec.msgpack.decode(breaker.scan(CATALOG_KEY)[0].value)
    breaker.put(CATALOG_KEY, msgspec.msgpack.encode({**stored, "format": 2}))
    found = ask(url)
    assert (found.reachable, found.readable, found.healthy) == (True, False, False)
    assert "install a newer ROME" in str(found.reason)


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = ask(f"rome+lmdb://{tmp_path}/nothing")
    assert not found.reachable
    assert found.reason == f"there is no database in {tmp_path}/nothing"
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_database(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"x" * 8192)
    found = ask(f"rome+lmdb://{tmp_path}")
    assert not found.healthy
    assert "damaged or of another kind" in str(found.reason)


def test_a_server_that_is_down() -> None:
    found = ask(f"rome+redis://someone:hidden-word@127.0.0.1:{free_port()}/db")
    assert not found.reachable
    assert found.reason
    assert "hidden-word" not in json.dumps(found.as_dict())


def test_durability_as_found_on_the_server_and_a_password_that_is_wrong() -> None:
    with RedisServer(password="hidden-word", appendonly=True) as server:
        assert ask(server.url("db")).health["durable"] is True
        server.command("CONFIG", "SET", "appendfsync", "everysec")
        found = ask(server.url("db"))
        assert (found.health["appendfsync"], found.health["durable"]) == ("everysec", False)
        assert "hidden-word" not in json.dumps(found.as_dict())
        found = ask(server.url("db", password="wrong-word"))
        assert not found.reachable
        assert "wrong-word" not in json.dumps(found.as_dict())


def test_a_server_that_hangs() -> None:
    with RedisServer() as server:
        server.pause()
        found = ask(server.url("db", read_timeout=0.5, connect_timeout=0.5))
        server.resume()
    assert not found.reachable


def test_a_store_is_left_closed(tmp_path: Path) -> None:
    url = f"rome+lmdb://{tmp_path}/db"
    engine = rome.create_engine(url)
    engine.connect().close()
    engine.dispose()
    rome.store_of(engine).close()
    assert ask(url).healthy
    # Open with another sync= would be refused while this process still had it open.
    assert ask(f"{url}?sync=no").health["sync"] == "no"


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_a_private_memory_store_has_nothing_to_look_at(url: str) -> None:
    assert "private to its engine" in str(ask("rome+memory://").reason)
