"""Make a virtual environment ready for one of the project's commands.

    python3 scripts/environment.py dev              .venv, for tests and checks
    python3 scripts/environment.py glance-2.0       .venv-glance: Glance, its tests' needs, ROME
    python3 scripts/environment.py openstack        .venv-openstack: all six services, ROME
    python3 scripts/environment.py sqlalchemy-1.4   .venv-sa14: SQLAlchemy's suite, ROME

The numbers are those of SQLAlchemy.

Needs nothing but Python 3.11 and pip. What was installed is noted in a stamp inside the
environment, so that a second run returns at once; a change of pyproject.toml or of the table
below makes it install again. Where packages come from is pip's own configuration, never ours.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
STAMP = "rome-environment.stamp"


class Environment(NamedTuple):
    folder: str
    requirements: list[str]


ROME = ["--editable", ".[redis,openstack]"]
GLANCE = [*ROME, "glance==33.*", "gunicorn", "PyMySQL"]
GLANCE_TESTS = ["ddt", "fixtures", "testresources", "testscenarios", "testtools"]
OPENSTACK = [
    *ROME,
    "glance==33.*",
    "nova==34.*",
    "keystone==30.*",
    "openstack-placement==16.*",
    "neutron==29.*",
    "cinder==29.*",
    "SQLAlchemy>=2.0,<2.1",
    "openstacksdk>=4,<5",
    "gunicorn",
    "PyMySQL",
]
OPENSTACK_TESTS = [
    *GLANCE_TESTS,
    "freezegun",
    "ldappool",
    "oslotest",
    "psycopg2-binary",
    "python-ldap",
    "requests-mock",
    "SQLAlchemy-Utils",
    "stestr",
    "WebTest",
    "wsgi-intercept",
]
SUITE = ["pytest>=8,<9", "alembic"]

ENVIRONMENTS = {
    "dev": Environment(".venv", ["--editable", ".[redis,openstack,dev]"]),
    "glance-2.0": Environment(".venv-glance", [*GLANCE, *GLANCE_TESTS, "SQLAlchemy>=2.0,<2.1"]),
    "glance-2.1": Environment(".venv-glance21", [*GLANCE, *GLANCE_TESTS, "SQLAlchemy>=2.1,<2.2"]),
    "openstack": Environment(".venv-openstack", [*OPENSTACK, *OPENSTACK_TESTS]),
    "sqlalchemy-1.4": Environment(".venv-sa14", [*ROME, "SQLAlchemy>=1.4.50,<2.0", *SUITE]),
    "sqlalchemy-2.0": Environment(".venv-sa20", [*ROME, "SQLAlchemy>=2.0,<2.1", *SUITE]),
    "sqlalchemy-2.1": Environment(".venv-sa21", [*ROME, "SQLAlchemy>=2.1,<2.2", *SUITE]),
}


class Progress:
    """What pip is doing: one line that is rewritten on a terminal, a line every few seconds in a log."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._begun = time.monotonic()
        self._shown = 0.0
        self._collected = 0
        self._terminal = sys.stdout.isatty()

    def feed(self, line: str) -> None:
        words = line.split()
        if not words:
            return
        if words[0] == "Collecting":
            self._collected += 1
            self.show(f"{self._collected} packages found, now {words[1]}")
        elif words[0] == "Installing" and words[1:2] == ["collected"]:
            self.show(f"installing {line.count(',') + 1} packages", at_once=True)

    def show(self, text: str, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._shown < (0.1 if self._terminal else 5):
            return
        self._shown = now
        line = f"{self._title}: {text} [{now - self._begun:.0f} s]"
        if self._terminal:
            print(f"\r\x1b[K{line[:100]}", end="", flush=True)
        else:
            print(line, flush=True)

    def done(self, text: str) -> None:
        self.show(text, at_once=True)
        if self._terminal:
            print()


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in ENVIRONMENTS]
    if unknown or not names:
        print(f"usage: environment.py {{{','.join(ENVIRONMENTS)}}}...")
        return 2
    return max(prepare(name, ENVIRONMENTS[name]) for name in names)


def prepare(name: str, environment: Environment) -> int:
    folder = ROOT / environment.folder
    stamp = folder / STAMP
    wanted = fingerprint(environment)
    if stamp.exists() and stamp.read_text() == wanted:
        return 0
    progress = Progress(f"environment {name}")
    python = folder / "bin" / "python"
    if not python.exists():
        progress.show(f"making {environment.folder}", at_once=True)
        if not make(folder):
            return 1
    log = ROOT / "build" / f"environment-{name}.log"
    log.parent.mkdir(exist_ok=True)
    if install(python, environment.requirements, progress, log) != 0:
        progress.done("FAILED")
        print("".join(log.read_text().splitlines(keepends=True)[-15:]))
        print(f"pip could not install what {environment.folder} needs; all of its output is in {log}")
        return 1
    stamp.write_text(wanted)
    progress.done("ready")
    return 0


def fingerprint(environment: Environment) -> str:
    parts = [sys.version, (ROOT / "pyproject.toml").read_text(), *environment.requirements]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def make(folder: Path) -> bool:
    """Create the environment: by venv, or by virtualenv where Debian's python3-venv is missing."""
    made = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, text=True)
    if made.returncode == 0:
        return True
    tool = ROOT / "build" / "virtualenv"
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", tool, "virtualenv"],
        capture_output=True,
        text=True,
    )
    if fetched.returncode == 0:
        made = subprocess.run(
            [sys.executable, "-m", "virtualenv", "--quiet", "--clear", folder],
            env={**os.environ, "PYTHONPATH": str(tool)},
            capture_output=True,
            text=True,
        )
        if made.returncode == 0:
            return True
    print(made.stdout + made.stderr + fetched.stderr)
    print("No virtual environment could be made. On Debian or Ubuntu: apt-get install python3-venv")
    return False


def install(python: Path, requirements: list[str], progress: Progress, log: Path) -> int:
    command = [str(python), "-m", "pip", "install", "--progress-bar", "off", *requirements]
    with log.open("w") as record:
        pip = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert pip.stdout is not None
        for line in pip.stdout:
            record.write(line)
            progress.feed(line)
        return pip.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
