"""Where everything of the cloud is: its folder, its ports, its passwords, its databases.

A layout is made once, for a new cloud, and kept in `cloud.json`, so that the commands that come later
(races, down) find the cloud. Ports are free ones of loopback: nothing of the machine's own Redis or
RabbitMQ is in the way, nor touched. The passwords are new for each cloud.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scripts.services import database_url

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "cloud"
REGION = "here"

PORTS = ["redis", "rabbitmq", "erlang", "epmd"]
PORTS += ["keystone", "glance", "placement", "neutron", "nova", "cinder"]


@dataclass(frozen=True)
class Layout:
    store: str
    ports: dict[str, int]
    password: str = field(default_factory=lambda: secrets.token_hex(12))
    """That of every account of the cloud."""
    folder: Path = FOLDER

    def database(self, name: str) -> str:
        """The URL of a database; the one thing that a service is told about ROME."""
        return database_url(self.store, self.folder / "databases", name, self.ports["redis"])

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    @property
    def keystone(self) -> str:
        return f"{self.url('keystone')}/v3"

    @property
    def transport(self) -> str:
        """Of oslo.messaging."""
        return f"rabbit://guest:guest@127.0.0.1:{self.ports['rabbitmq']}/"

    def directory(self, *names: str) -> Path:
        """A directory of the cloud, made if it is missing."""
        directory = self.folder.joinpath(*names)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def save(self) -> None:
        written = {**asdict(self), "folder": str(self.folder)}
        (self.folder / "cloud.json").write_text(json.dumps(written, indent=2))


def new_layout(store: str) -> Layout:
    """An empty folder and free ports for a new cloud."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    layout = Layout(store, free_ports(PORTS))
    layout.directory("databases")
    layout.directory("logs")
    layout.save()
    return layout


def saved_layout() -> Layout | None:
    """That of the cloud that was made last, if it is still there."""
    try:
        written = json.loads((FOLDER / "cloud.json").read_text())
    except FileNotFoundError:
        return None
    return Layout(**{**written, "folder": Path(written["folder"])})


def free_ports(names: list[str]) -> dict[str, int]:
    """A port of its own for each; all are held until the last is found, so that no two are the same."""
    ports = {}
    with contextlib.ExitStack() as held:
        for name in names:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports[name] = int(probe.getsockname()[1])
    return ports


def program(name: str) -> str:
    """A program of the virtual environment that runs this one."""
    return str(Path(sys.executable).parent / name)


def packaged(*path: str) -> Path:
    """A file that a service's package brings for /etc."""
    return Path(sys.prefix).joinpath("etc", *path)
