"""The documents are right: what they show runs, and what they name is there.

Each block marked `python` is run as a program of its own, in an empty directory, with warnings as errors;
what it prints must be the block marked `output` right behind it. In such a block `127.0.0.1:6379` stands for
a Redis that is started here, and `/tmp/rome-example` for an empty directory.

The tables of parameters, errors, permissions and round trips are compared with the code, and so are the make
targets, variables, links and file names. Each comparison first sees to it that it has found something.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import rome.dialect.base
import rome.errors
from rome.dbapi import connect, translate
from rome.stores import url as stores
from rome.stores.leases import Wanted
from tests.openstack.test_round_trips import LIMITS
from tests.servers import RedisServer

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
REDIS = "127.0.0.1:6379"
FOLDER = "/tmp/rome-example"
SECONDS = 60

_FENCE = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Example(NamedTuple):
    """A program in a page, and what the page says that it prints."""

    page: Path
    line: int
    program: str
    output: str


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """The fenced blocks of a page: the line they begin at, their kind, their text."""
    text = page.read_text()
    return [(text.count("\n", 0, m.start()) + 1, m["kind"], m["text"]) for m in _FENCE.finditer(text)]


def examples() -> Iterator[Example]:
    for page in PAGES:
        found = blocks(page)
        for number, (line, kind, text) in enumerate(found):
            if kind == "python":
                _, following, output = found[number + 1] if number + 1 < len(found) else (0, "", "")
                yield Example(page, line, text, output if following == "output" else "")


def name_of(example: Example) -> str:
    return f"{example.page.name}:{example.line}"


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its own or a higher level."""
    text = (ROOT / page).read_text()
    match = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert match is not None, f"{page} has no heading {heading!r}"
    rest = text[match.end() :]
    following = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def rows(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without their heads."""
    lines = [line.strip() for line in text.splitlines()]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    rules = [number for number, row in enumerate(cells) if all(re.fullmatch(":?-+:?", cell) for cell in row)]
    heads = {number - 1 for number in rules}
    return [row for number, row in enumerate(cells) if number not in heads and number not in rules]


def spoken(page: Path) -> str:
    """The code in a page: blocks and spans."""
    text = page.read_text()
    return "\n".join([text for _, _, text in blocks(page)] + re.findall(r"`([^`\n]+)`", text))


# What they show runs


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize("example", list(examples()), ids=name_of)
def test_an_example_runs_and_prints_what_the_page_says(
    example: Example, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    program = example.program
    if REDIS in program:
        server: RedisServer = request.getfixturevalue("redis")
        server.command("FLUSHALL")
        program = program.replace(REDIS, f"127.0.0.1:{server.port}")
    (tmp_path / "empty").mkdir()
    program = program.replace(FOLDER, str(tmp_path / "empty"))
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout == example.output


def test_the_pages_that_promise_an_example_have_one() -> None:
    pages = {example.page.name for example in examples()}
    assert pages >= {"README.md", "install.md", "configuration.md", "operating.md", "sql.md"}
    assert all(example.output for example in examples())


# The tables are those of the code


def store_sections() -> dict[str, str]:
    """The heading under which each kind of store is configured."""
    headings = re.findall(r"^## (.*rome\+.*)$", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    return {kind: heading for heading in headings for kind in re.findall(r"rome\+(\w+)", heading)}


def parameters(heading: str) -> list[str]:
    found = rows(section("docs/configuration.md", heading))
    return [re.sub("`", "", row[0]) for row in found]


def test_every_kind_of_store_has_its_section() -> None:
    assert set(store_sections()) == set(stores._DRIVERS)


@pytest.mark.parametrize("kind", stores._DRIVERS)
def test_the_parameters_of_a_store_are_those_of_the_code(kind: str) -> None:
    listed = parameters(store_sections()[kind])
    assert sorted(listed) == sorted(import_module(stores._DRIVERS[kind]).PARAMETERS)


def test_the_parameters_of_the_engine_are_those_of_the_code() -> None:
    assert sorted(parameters("Parameters of the engine")) == sorted(rome.dialect.base.PARAMETERS)


def test_every_error_is_listed_with_what_it_becomes() -> None:
    listed = {
        row[0].strip("`"): re.findall(r"`(\w+)`", row[1])[0]
        for row in rows(section("docs/configuration.md", "Errors, and what to do"))
    }
    errors = {
        kind.__name__: kind
        for kind in vars(rome.errors).values()
        if isinstance(kind, type) and issubclass(kind, rome.errors.RomeError)
    }
    del errors["RomeError"]
    become = {
        name: type(translate(kind([b"key"]) if kind is rome.errors.Conflict else kind("why"))).__name__
        for name, kind in errors.items()
    }
    assert listed == become


def test_a_user_with_the_permissions_that_are_listed_can_work() -> None:
    text = section("docs/configuration.md", "`rome+redis` and `rome+rediss`")
    sentence = re.search(r"The user needs these commands.*?`INFO`", text, re.DOTALL)
    assert sentence is not None
    commands = [word for word in re.findall(r"`([A-Z]+)`", sentence[0]) if word != "INFO"]
    rule = " ".join(["app on >secret ~rome:{shop}:*", *(f"+{command.lower()}" for command in commands)])
    with RedisServer(acl=(rule,)) as server:
        connection = connect(server.url("shop", user="app", password="secret"))
        connection.executescript(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); CREATE INDEX i ON t (n)"
        )
        for number in (1, 2, 3):
            connection.execute("INSERT INTO t (n) VALUES (?)", (number,))
            connection.commit()
        connection.execute("INSERT INTO t (id, n) VALUES (500, 0)")
        connection.execute("UPDATE t SET n = n + 1 WHERE n >= 2")
        connection.execute("DELETE FROM t WHERE id = 1")
        connection.commit()
        found = connection.execute("SELECT n FROM t WHERE n >= 0 ORDER BY n DESC").fetchall()
        connection.rollback()
        assert found == [(4,), (3,), (0,)]
        leases = connection.store.leases
        for owner in ("first", "second"):
            leases.request(Wanted("lock", owner, seconds=30, queue=True))
        assert leases.renew([("lock", "first", 30)]) == [True]
        assert [held.waiting for held in leases.held()] == [1]
        assert leases.release("lock", "first")
        connection.store.wipe()
        connection.close()


def test_the_round_trips_are_those_that_are_asserted() -> None:
    listed = [int(row[1]) for row in rows(section("docs/openstack.md", "Round trips"))]
    assert listed == list(LIMITS.values())


def test_the_features_that_are_not_supported_are_those_that_are_declared() -> None:
    text = (ROOT / "conformance/sqlalchemy/requirements.py").read_text()
    table = re.search(r"^UNSUPPORTED = \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
    assert table is not None
    declared = dict(re.findall(r'"(\w+)": "([^"]+)"', table[1]))
    listed = rows(section("docs/openstack.md", "Conformance"))
    found = {row[0].strip("`"): re.sub("`", "", row[1]) for row in listed if row[0].strip("`") in declared}
    assert found == {name: re.sub("`", "", reason) for name, reason in declared.items()}


# What they name is there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def anchors(page: Path) -> set[str]:
    """The places of a page that a link can name, as GitHub makes them of its headings."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


def test_every_page_can_be_reached_from_the_first() -> None:
    links = set(_LINK.findall((ROOT / "README.md").read_text()))
    assert {str(page.relative_to(ROOT)) for page in PAGES[1:]} <= {link.partition("#")[0] for link in links}


def test_make_targets_and_variables_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    known = set(re.findall(r"\$\(([A-Z_]+)\)", makefile))
    named: set[str] = set()
    for page in PAGES:
        for target, arguments in re.findall(r"\bmake ([a-z][\w-]*)((?: +[A-Z_]+=\S+)*)", spoken(page)):
            named.add(target)
            assert target in targets, f"{page.name}: make {target}"
            for variable in re.findall(r"([A-Z_]+)=", arguments):
                assert variable in known, f"{page.name}: make {target} {variable}="
    assert named >= {"run", "test"}
    assert targets <= named, "a target that no page speaks of"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    bases = [ROOT, ROOT / "src" / "rome"]
    for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|lua|toml|md))`", page.read_text()):
        if name == "src/rome/stores/yours.py" or name.startswith("build/"):
            continue
        assert any((base / name).is_file() for base in bases), f"{page.name}: {name}"
