"""A pytest plugin beside SQLAlchemy's: provisions ROME's test databases, and records the results.

The suites are run by run.py, in a folder of their own; see there for the environment they expect.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

PLAIN_NAME = re.compile(r"_(sqlite|rome)\+\w+?(?=::)")
"""What the suite puts behind the name of a class: the name of the database."""

results: dict[str, dict[str, str]] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Tell SQLAlchemy's suite how a ROME test database is provisioned, before it begins."""
    from sqlalchemy.testing import provision

    @provision.temp_table_keyword_args.for_db("rome")
    def temporary_table(config: Any, engine: Any) -> dict[str, list[str]]:
        return {"prefixes": ["TEMPORARY"]}

    if hasattr(provision, "upsert"):

        @provision.upsert.for_db("rome")
        def upsert(config: Any, table: Any, returning: Any, *, set_lambda: Any = None, **options: Any) -> Any:
            from sqlalchemy.dialects.sqlite import insert

            statement = insert(table)
            if set_lambda:
                statement = statement.on_conflict_do_update(set_=set_lambda(statement.excluded))
            else:
                statement = statement.on_conflict_do_nothing()
            ordered = options.get("sort_by_parameter_order", False)
            return statement.returning(*returning, sort_by_parameter_order=ordered)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that need what ROME has not, where the suite itself does not ask for it."""
    from requirements import reason_to_skip

    if os.environ["ROME_STORE"] == "sqlite":
        return
    for item in items:
        if reason := reason_to_skip(plain_name(item.nodeid)):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep each test's worst outcome: failed before skipped before passed."""
    if report.when != "call" and report.outcome == "passed":
        return
    name = plain_name(report.nodeid)
    if results.get(name, {}).get("outcome") == "failed":
        return
    detail = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    results[name] = {"outcome": report.outcome, "detail": detail}


def pytest_sessionfinish(session: pytest.Session) -> None:
    Path(os.environ["ROME_RESULTS"]).write_text(json.dumps(results, indent=1))


def plain_name(node: str) -> str:
    """A test's name as it is on every database."""
    return PLAIN_NAME.sub("", node.split("::", 1)[-1])
