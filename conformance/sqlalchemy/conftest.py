"""SQLAlchemy's own pytest plugin, the provisioning of ROME's test databases, and a record of results.

The suites are run by run.py, in a folder of their own; see there for the environment they expect.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403
from sqlalchemy.testing.plugin.pytestplugin import pytest_sessionstart as start_sqlalchemy  # noqa: E402

results: dict[str, dict[str, str]] = {}


def pytest_sessionstart(session: pytest.Session) -> None:
    """Tell SQLAlchemy's suite how a ROME test database is provisioned, then let it begin."""
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

    session.config.pluginmanager.register(SecondSchema())
    start_sqlalchemy(session)


class SecondSchema:
    """Sixteen tests use the second schema without asking, as the others do, whether there is one."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        from requirements import UNSUPPORTED, on_rome
        from sqlalchemy.testing import config

        parameters = getattr(getattr(item, "callspec", None), "params", {})
        wanted = parameters.get("use_schema") is True or parameters.get("use_schema_fixture") is True
        if wanted and on_rome(config):
            pytest.skip(f"rome: schemas: {UNSUPPORTED['schemas']}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep each test's worst outcome: failed before skipped before passed."""
    name = report.nodeid.split("::", 1)[-1]
    if report.when != "call" and report.outcome == "passed":
        return
    known = results.get(name)
    if known is not None and known["outcome"] == "failed":
        return
    detail = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    results[name] = {"outcome": report.outcome, "detail": detail}


def pytest_sessionfinish(session: pytest.Session) -> None:
    Path(os.environ["ROME_RESULTS"]).write_text(json.dumps(results, indent=1))
