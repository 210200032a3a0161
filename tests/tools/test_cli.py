"""The command line, as an operator and a monitoring program see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

import rome
from rome.cli import main
from tests.servers import RedisServer, free_port
from tests.tools.conftest import Breaker, opened_engine


def run(*arguments: str, **environment: str) -> Result:
    result = CliRunner(env={"COLUMNS": "200", **environment}).invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def answer(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def test_status_for_people(visible_url: str) -> None:
    result = run("status", visible_url)
    assert result.exit_code == 0
    assert "reachable and readable" in result.stdout
    assert "durable" in result.stdout
    assert "schema version" in result.stdout
    assert any(line.split()[:2] == ["image", "30"] for line in result.stdout.splitlines())


def test_status_shows_counters_and_locks_whole(visible_url: str) -> None:
    with opened_engine(visible_url) as engine, rome.lock(engine, "resize instance 7", ttl=30) as mine:
        lines = [line.split() for line in run("status", visible_url, COLUMNS="80").stdout.splitlines()]
        assert ["commits", "1"] in lines
        assert ["conflicts", "0"] in lines
        (shown,) = [line for line in lines if line[:3] == ["resize", "instance", "7"]]
        assert shown[3:5] == [mine.owner, str(mine.fencing)]
        assert 0 < float(shown[5]) <= 30
        (lock,) = answer("status", visible_url)["locks"]
        assert (lock["name"], lock["owner"], lock["waiting"]) == ("resize instance 7", mine.owner, 0)


def test_status_for_programs(visible_url: str) -> None:
    found = answer("status", visible_url)
    assert found["healthy"] is True
    assert {table["name"]: table["rows"] for table in found["tables"]} == {
        "event": 28,
        "image": 30,
        "site": 30,
    }
    assert all(table["exact"] for table in answer("status", "--exact", visible_url)["tables"])


def test_status_of_what_cannot_be_reached(tmp_path: Path) -> None:
    for url in (f"rome+lmdb://{tmp_path}/nothing", f"rome+redis://x:hidden-word@127.0.0.1:{free_port()}/db"):
        result = run("status", url)
        assert result.exit_code == 1
        assert "not reachable: " in result.stdout
        assert "hidden-word" not in result.output
        assert run("status", url, "--json").exit_code == 1
        assert answer("status", url)["reachable"] is False


def test_a_password_is_not_shown() -> None:
    with RedisServer(password="hidden-word") as server:
        url = server.url("db")
        for command in ("status", "check"):
            for result in (run(command, url), run(command, url, "--json")):
                assert result.exit_code == 0
                assert "hidden-word" not in result.output
        assert ":***@" in run("status", url).stdout


def test_the_url_may_come_from_the_environment(visible_url: str) -> None:
    assert run("status", ROME_URL=visible_url).exit_code == 0
    assert run("check", ROME_URL=visible_url).exit_code == 0


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("rome+memory://name", "cannot be seen from another"),
        ("rome+lmdb:///tmp/db?colour=blue", "unknown parameter 'colour'"),
        ("nonsense", "not a store URL"),
        ("rome+redis://u:hidden-word@h:port/db", "the port in the URL is not a number"),
    ],
)
def test_wrong_arguments(url: str, why: str) -> None:
    for command in ("status", "check"):
        result = run(command, url)
        assert result.exit_code == 2
        assert why in result.stderr
        assert "hidden-word" not in result.output


def test_check_of_a_sound_database(visible_url: str) -> None:
    result = run("check", visible_url)
    assert result.exit_code == 0
    assert result.stdout == "nothing is wrong: 3 tables, 88 rows, 163 index entries\n"
    assert answer("check", visible_url)["sound"] is True
    assert run("check", "--repair", visible_url).exit_code == 0


def test_check_finds_and_repairs(visible_url: str, break_at: Callable[[str], Breaker]) -> None:
    breaker = break_at(visible_url)
    breaker.delete(*(entry.key for entry in breaker.entries("image", "image_by_title")[:12]))
    breaker.add(breaker.table("site").count_key, 2)
    result = run("check", visible_url)
    assert result.exit_code == 1
    assert "table image, image_by_title: rows without their entry (12)" in result.stdout
    assert "… and 2 more" in result.stdout
    assert "table site: the counter says 32 rows, there are 30" in result.stdout
    found = answer("check", visible_url)
    assert [(fault["kind"], fault["count"]) for fault in found["faults"]] == [("missing", 12), ("count", 1)]
    result = run("check", "--repair", visible_url)
    assert result.exit_code == 0
    assert "table image: 12 index entries written" in result.stdout
    assert "nothing is wrong" in result.stdout
    assert run("check", visible_url).exit_code == 0


def test_repair_for_programs(visible_url: str, break_at: Callable[[str], Breaker]) -> None:
    breaker = break_at(visible_url)
    breaker.add(breaker.table("site").count_key, 2)
    result = answer("check", "--repair", visible_url)
    assert result["sound"] is True
    assert result["found"]["sound"] is False
    assert result["repaired"] == ["table site: row count corrected by -2"]


def test_repair_is_refused_beside_a_damaged_row(visible_url: str, break_at: Callable[[str], Breaker]) -> None:
    breaker = break_at(visible_url)
    breaker.put(breaker.rows("site")[0].key, b"\xc1")
    breaker.add(breaker.table("site").count_key, 2)
    result = run("check", "--repair", visible_url)
    assert result.exit_code == 1
    assert "not repaired: nothing is repaired while 1 rows" in result.stdout
    assert breaker.counter(breaker.table("site").count_key) == 32
    assert "cannot be read" in answer("check", "--repair", visible_url)["refused"]


def test_foreign_keys_off_in_the_url_makes_orphans_a_note(visible_url: str) -> None:
    off = f"{visible_url}?foreign_keys=off"
    with opened_engine(off) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE image SET site_id = 999 WHERE id = 'id-1'"))
    assert run("check", visible_url).exit_code == 1
    result = run("check", off)
    assert result.exit_code == 0
    assert "note" in result.stdout


def test_a_name_is_not_taken_for_markup(visible_url: str, break_at: Callable[[str], Breaker]) -> None:
    with opened_engine(visible_url) as engine, engine.begin() as connection:
        connection.execute(text('CREATE TABLE "[red]odd[/blue]" (n INTEGER PRIMARY KEY)'))
    breaker = break_at(visible_url)
    breaker.add(breaker.table("[red]odd[/blue]").count_key, 1)
    assert "[red]odd[/blue]" in run("status", visible_url).stdout
    assert "[red]odd[/blue]" in run("check", visible_url).stdout


def test_check_of_what_cannot_be_reached(tmp_path: Path) -> None:
    url = f"rome+lmdb://{tmp_path}/nothing"
    result = run("check", url)
    assert result.exit_code == 2
    assert "could not be checked: there is no database" in result.stderr
    result = run("check", url, "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["sound"] is None
    assert list(tmp_path.iterdir()) == []


def test_help_tells_the_exit_codes() -> None:
    assert run("--help").exit_code == 0
    for command in ("status", "check"):
        assert "Exit code: 0" in run(command, "-h").stdout
