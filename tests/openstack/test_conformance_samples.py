"""A sample of each service's own DB suite: what passes on SQLite passes on every store.

`make conformance-openstack` runs the suites as a whole; here a few tests of each, taken at random.
ROME_SEED, which is printed, takes the same ones again.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-openstack" / "bin" / "python"
STORES = ("memory", "lmdb", "redis")

SAMPLES = {"nova": 4, "keystone": 10, "placement": 10, "neutron": 8, "cinder": 10}
"""Service → tests of each of its suites. Nova's suites set up several databases for each of theirs."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("service", SAMPLES)
def test_what_passes_on_sqlite_passes_on_every_store(service: str) -> None:
    assert PYTHON.exists(), "`make test` installs the services, into .venv-openstack"
    command = [str(PYTHON), "conformance/openstack/run.py", "--service", service, "--sample"]
    run = subprocess.run(
        [*command, str(SAMPLES[service]), "--store", *STORES],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout
    for store in STORES:
        worse = re.findall(rf"(\d+) tests pass on sqlite but not on {store}$", run.stdout, re.MULTILINE)
        speaking = re.findall(rf"(\d+) of the tests sent statements to {store}$", run.stdout, re.MULTILINE)
        assert worse, run.stdout
        assert set(worse) == {"0"}, run.stdout
        assert sum(map(int, speaking)) > 0, run.stdout
