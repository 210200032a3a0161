"""The processes of the cloud: started, watched, and ended by the pids that were recorded.

Each is started in a session of its own, so that its workers end with it, and writes to a log in
`logs`. What is started is recorded at once in `processes.json`: `python -m cloud down` ends the cloud
whatever became of the command that had started it. A pid is recorded with the time at which its process
began, since pids are used again; one that began at another time is somebody else's and is left alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from cloud.progress import Wrong, fail

START_SECONDS = 300.0
"""Long, since on few cores all services load their modules at the same time."""
STOP_SECONDS = 20.0
COMMAND_SECONDS = 900.0


@dataclass(frozen=True)
class Child:
    name: str
    pid: int
    began: int
    """In clock ticks since the machine's start, as the kernel has it."""


class Processes:
    """The children of one cloud. `folder` is the cloud's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._record = folder / "processes.json"
        self._children = _recorded(self._record)
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"

    def run(self, command: list[str], name: str, environment: dict[str, str] | None = None) -> str:
        """Run a command to its end; returns what it printed, which is also added to a log."""
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(environment),
            cwd=self._folder,
            timeout=COMMAND_SECONDS,
        )
        output = ended.stdout.decode(errors="replace")
        with self.log(name).open("a") as log:
            log.write(f"$ {' '.join(command)}\n{output}\n")
        if ended.returncode != 0:
            raise Wrong(f"{' '.join(command)}\nended with status {ended.returncode}:\n{output[-3000:]}")
        return output

    def start(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        """Start a child; does not wait until it answers."""
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_environment(environment),
                cwd=self._folder,
            )
        self._started[name] = child
        self._children.append(Child(name, child.pid, _began(child.pid) or 0))
        self._record.write_text(json.dumps([asdict(child) for child in self._children], indent=2))

    def await_ready(self, name: str, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait until a child answers."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                fail(f"{name} does not answer after {seconds:.0f} s:\n{self.tail(name)}")
            time.sleep(0.1)

    def check(self) -> None:
        """Every child that was started here is still running."""
        for name, child in self._started.items():
            if child.poll() is not None:
                fail(f"{name} ended with status {child.returncode}:\n{self.tail(name)}")

    def living(self) -> bool:
        """Is every child of the record still there? False if there is none."""
        return bool(self._children) and all(_lives(child) for child in self._children)

    def tail(self, name: str, lines: int = 30) -> str:
        try:
            written = self.log(name).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join([f"[end of {self.log(name)}]", *written[-lines:]])

    def last_errors(self) -> str:
        """The last line of each log that its service calls an error."""
        found = []
        for path in sorted((self._folder / "logs").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            errors = [line for line in lines if " ERROR " in line or " CRITICAL " in line]
            # An error is followed by its traceback, whose last line says most.
            telling = [line for line in errors if "Error: " in line or "Exception: " in line] or errors
            if telling:
                found.append(f"[{path.name}] {telling[-1][:400]}")
        return "\n".join(found)

    def stop(self) -> int:
        """End all that are recorded, the last first; returns how many were still there."""
        living = [child for child in reversed(self._children) if _lives(child)]
        self._end(living, signal.SIGTERM, STOP_SECONDS)
        self._end(living, signal.SIGKILL, STOP_SECONDS)
        left = [child.name for child in living if _lives(child)]
        if left:
            fail(f"could not be ended: {', '.join(left)}")
        self._children = []
        self._started = {}
        self._record.unlink(missing_ok=True)
        return len(living)

    def _end(self, children: list[Child], number: signal.Signals, patience: float) -> None:
        """The services all at once; then the servers, that the services still need while they end."""
        for group in _in_order_of_end(children):
            for child in group:
                if _lives(child):
                    os.killpg(child.pid, number)
            deadline = time.monotonic() + patience
            while any(_lives(child) for child in group) and time.monotonic() < deadline:
                time.sleep(0.1)


SERVERS = ("redis", "rabbitmq", "epmd")


def _in_order_of_end(children: list[Child]) -> list[list[Child]]:
    services = [child for child in children if child.name not in SERVERS]
    return [services, *([child] for child in children if child.name in SERVERS)]


def _recorded(record: Path) -> list[Child]:
    try:
        return [Child(**child) for child in json.loads(record.read_text())]
    except FileNotFoundError:
        return []


def _environment(more: dict[str, str] | None) -> dict[str, str]:
    # A proxy of the machine's must not come between services on loopback.
    return {**os.environ, "no_proxy": "127.0.0.1,localhost", "PYTHONUNBUFFERED": "1", **(more or {})}


def _lives(child: Child) -> bool:
    return _began(child.pid) == child.began


def _began(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine's start; None: it is not there, or a zombie."""
    try:
        # The name, in parentheses, may hold anything; the state is field 3, the start field 22.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
