"""Where the commands of one service run: its configuration files, its databases, and a look into them.

A `Step` is one command with what it is to do. Rows that a command is to find are written before it, and
looked at after it, through SQLAlchemy: the service's own process is the only one that uses its code.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sqlalchemy
from services import database_url

Look = Callable[[], str]
"""Looks at what a command did; returns it in a few words. Raises `Failed`."""


class Failed(Exception):
    """A command did not do what it is to do."""


@dataclass(frozen=True)
class Step:
    """One command."""

    command: Sequence[str]
    title: str
    before: Callable[[], None] | None = None
    after: Look | None = None
    status: int = 0
    says: str = ""
    """A regular expression that its output must match somewhere."""
    sampled: bool = False
    """Whether it is part of a short run; what such a step relies on must be, too."""


class Workspace:
    """The folder, the store and the databases of one run."""

    def __init__(self, store: str, folder: Path, redis_port: int | None) -> None:
        self.store = store
        self.folder = folder
        self._redis_port = redis_port

    def url(self, name: str) -> str:
        """As an operator would write it: Nova adds `_cell0` to it, and has the URL of cell0."""
        if self.store == "lmdb":
            return f"rome+lmdb://{self.folder / name}"
        if self.store == "sqlite":
            return f"sqlite:///{self.folder / name}"
        return database_url(self.store, self.folder, name, self._redis_port)

    def configuration(self, name: str, text: str) -> str:
        """Write a configuration file; returns its path."""
        path = self.folder / f"{name}.conf"
        path.write_text(text)
        return str(path)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONWARNINGS": "ignore", "COLUMNS": "200"}

    # Steps

    def step(self, *command: str, configuration: str, **expected: Any) -> Step:
        """A command of a service, with its configuration file."""
        program, *rest = command
        line = [program, "--config-file", configuration, *rest]
        title = " ".join(word for word in command if not word.startswith(("/", "rome+", "http")))
        return Step(line, title if len(title) < 80 else title[:77] + "...", **expected)

    def database_steps(self, name: str, models: str, sampled: bool = False) -> list[Step]:
        """What must be true of a database at the end."""
        url = self.url(name)
        worker = str(Path(__file__).resolve().parent.parent / "models.py")
        title, says = f"the models of {models} and {name}", ".* tables are as the models ask for"
        steps = [Step(["python", worker, models, url], title, says=says, sampled=sampled)]
        if self.store != "sqlite":
            title, says = f"rome check {name}", "nothing is wrong.*"
            steps.append(Step(["rome", "check", url], title, says=says, sampled=sampled))
        return steps

    def arrange(self, step: Step) -> None:
        if step.before is not None:
            step.before()

    def judge(self, step: Step, output: str, status: int) -> str:
        """What the command did, in a few words. Raises `Failed`."""
        if status != step.status:
            raise Failed(f"exit status {status}, and not {step.status}")
        said = re.search(step.says, output)
        if said is None:
            raise Failed(f"it did not say {step.says!r}")
        found = [step.after()] if step.after is not None else []
        words = " ".join(said.group(0).replace("|", " ").split())[:80]
        return ", ".join([f"exit status {status}", *filter(None, [words, *found])])

    # Looking into databases

    def query(self, name: str, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        engine = sqlalchemy.create_engine(self.url(name))
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(sqlalchemy.text(sql), parameters)]
        finally:
            engine.dispose()

    def insert(self, name: str, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Insert rows by table; a column that must not be NULL and is not given gets a value of its type."""
        engine = sqlalchemy.create_engine(self.url(name))
        metadata = sqlalchemy.MetaData()
        try:
            with engine.begin() as connection:
                for table_name, values in rows.items():
                    table = sqlalchemy.Table(
                        table_name, metadata, autoload_with=connection, resolve_fks=False
                    )
                    for row in values:
                        connection.execute(table.insert().values({**_needed(table), **row}))
        finally:
            engine.dispose()

    # What steps look for

    def holds(self, name: str, **counts: int) -> Look:
        """Tables of a database, and how many rows they are to have."""

        def look() -> str:
            for table, expected in counts.items():
                ((found,),) = self.query(name, f"SELECT count(*) FROM {table}")
                if found != expected:
                    raise Failed(f"{table} has {found} rows, and not {expected}")
            return ", ".join(f"{count} in {table}" for table, count in counts.items())

        return look

    def is_at_heads(self, name: str, migrations: str, branches: str = "") -> Look:
        """The revisions of a database are the newest that the package has."""

        def look() -> str:
            expected = heads(migrations, branches)
            found = {version for (version,) in self.query(name, "SELECT version_num FROM alembic_version")}
            if found != expected:
                raise Failed(f"{name} is at {sorted(found)}, and not at {sorted(expected)}")
            ((tables,),) = self.query(name, "SELECT count(*) FROM sqlite_master WHERE type = 'table'")
            return f"{name}: {tables} tables, at {', '.join(sorted(found))}"

        return look


def all_of(*looks: Look) -> Look:
    return lambda: ", ".join(look() for look in looks)


def heads(migrations: str, branches: str = "") -> set[str]:
    """The newest revisions of a folder of migrations, `package/folder`; those whose path matches.

    The files are read, not run: two services in one process do not get along.
    """
    package, _, rest = migrations.partition("/")
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations))) / rest / "versions"
    paths: dict[str, Path] = {}
    followed: set[str] = set()
    for path in folder.rglob("*.py"):
        said = _constants(path)
        if "revision" in said:
            paths[said["revision"]] = path
            down = said.get("down_revision")
            followed.update([down] if isinstance(down, str) else down or ())
    found = {head for head in paths.keys() - followed if re.search(branches, str(paths[head]))}
    assert found, f"no migrations in {folder}"
    return found


def _constants(path: Path) -> dict[str, Any]:
    """What a module sets its names to, as far as these are constants."""
    found: dict[str, Any] = {}
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            with contextlib.suppress(ValueError):
                found[statement.targets[0].id] = ast.literal_eval(statement.value)
    return found


def _needed(table: sqlalchemy.Table) -> dict[str, Any]:
    """A value for each column that must have one."""
    needed: dict[str, Any] = {}
    for column in table.columns:
        if column.nullable or column.server_default is not None or column.primary_key:
            continue
        needed[column.name] = "x" if isinstance(column.type, sqlalchemy.String) else 0
    return needed
