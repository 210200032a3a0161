"""What docs/guarantees.md names is there: tests, faults, races; and it names every fault there is."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from faults.registry import all_faults
from proof.contention import PROMISED
from proof.races import RACES
from tests.docs.test_documents import ROOT, rows, section

PAGE = "docs/guarantees.md"
TEXT = (ROOT / PAGE).read_text()
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


@cache
def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("path", "name"), TESTS, ids=["::".join(pair) for pair in TESTS])
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in names_in(ROOT / path)


def test_every_promise_names_what_shows_it() -> None:
    assert len(TESTS) > 50
    shown = [
        row
        for heading in ("All or nothing", "The answer to COMMIT", "Conflicts and replay", "Locks")
        for row in rows(section(PAGE, heading))
    ]
    assert len(shown) > 20
    for row in shown:
        assert "::test_" in row[-1] or "fault" in row[-1], row


def named_faults() -> set[str]:
    told = re.findall(r"\bfaults? ((?:`\w+`(?: \([^)]*\))?(?:, | and )?)+)", TEXT)
    told += [row[-1] for row in rows(section(PAGE, "When things break"))]
    return {name for text in told for name in re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", text))}


def test_the_faults_that_are_named_are_those_there_are() -> None:
    known = set(all_faults())
    assert named_faults() <= known, "the page names faults that are not there"
    assert known <= named_faults(), f"name new faults in {PAGE}, in the table of 'When things break'"


def test_the_races_that_are_named_are_there() -> None:
    assert set(re.findall(r"race \*([\w ]+)\*", TEXT)) <= set(RACES)


def test_the_table_of_contention_has_every_scenario() -> None:
    block = re.search(r"```text\n(.*?)```", TEXT, re.DOTALL)
    assert block is not None
    for name in [*PROMISED, "one row, read"]:
        assert any(line.strip().startswith(f"{name} ") for line in block[1].splitlines()), name
