"""A sample of `make commands`: the services' own commands, by URL alone.

Neutron's migrations, which alter constraints in place and stop on SQLite, must end where its models are.
Placement's rows from before must be seen by its upgrade check, and mended by its online migrations.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-openstack" / "bin" / "python"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("store", ["lmdb", "redis"])
def test_commands_do_what_they_are_to_do(store: str) -> None:
    assert PYTHON.exists(), "`make test` installs the services, into .venv-openstack"
    command = [str(PYTHON), "-W", "ignore", "conformance/commands/run.py", "--sample", "--store", store]
    run = subprocess.run(
        [*command, "--services", "neutron,placement"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout
    counted = re.search(
        r"^(\d+) commands on (\w+): (\d+) did what they should, 0 did not", run.stdout, re.MULTILINE
    )
    assert counted is not None, run.stdout
    assert counted.groups() == ("8", store, "8")
