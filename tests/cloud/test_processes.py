"""The processes of a cloud are ended by whoever finds their record, and nobody else's are."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from cloud.processes import Processes
from cloud.progress import Wrong

# A child that has a child of its own, as an API has workers, and tells its pid.
PARENT = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(worker.pid, flush=True)
worker.wait()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def start(folder: Path, program: str) -> Processes:
    processes = Processes(folder)
    processes.start("child", [sys.executable, "-c", program])
    return processes


def worker_of(processes: Processes) -> int:
    processes.await_ready("child", lambda: processes.log("child").read_text().strip() != "")
    return int(processes.log("child").read_text())


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # The workers of an ended parent may be left to an init that does not collect them.
    return ") Z " not in Path(f"/proc/{pid}/stat").read_text()


def test_another_command_ends_what_is_recorded_and_its_workers(folder: Path) -> None:
    processes = start(folder, PARENT)
    worker = worker_of(processes)
    assert Processes(folder).living()
    assert Processes(folder).stop() == 1
    assert not is_there(worker)
    assert not Processes(folder).living()
    assert Processes(folder).stop() == 0
    with pytest.raises(Wrong, match="child ended"):
        processes.check()


def test_a_pid_that_was_used_again_is_left_alone(folder: Path) -> None:
    processes = start(folder, PARENT)
    worker = worker_of(processes)
    record = folder / "processes.json"
    genuine = record.read_text()
    (child,) = json.loads(genuine)
    record.write_text(json.dumps([{**child, "began": child["began"] - 1}]))
    assert Processes(folder).stop() == 0
    assert is_there(worker)
    record.write_text(genuine)
    assert Processes(folder).stop() == 1
    with pytest.raises(Wrong, match="child ended"):
        processes.check()


def test_a_child_that_ends_is_noticed_with_the_end_of_its_log(folder: Path) -> None:
    processes = start(folder, "import sys; sys.exit('no such luck')")
    with pytest.raises(Wrong, match=r"(?s)status 1.*no such luck"):
        processes.await_ready("child", lambda: False)


def test_a_command_that_fails_says_what_it_printed(folder: Path) -> None:
    with pytest.raises(Wrong, match=r"(?s)status 3.*printed"):
        Processes(folder).run([sys.executable, "-c", "print('printed'); raise SystemExit(3)"], "command")
    assert "printed" in Processes(folder).log("command").read_text()
