"""Servers for one run: started on loopback in a temporary directory, ended by their own pid.

    with redis_server() as port: ...
    with mariadb_server() as url: ...
    database_url("lmdb", folder, "glance", None)

Nothing of the machine's own Redis or MariaDB is touched: other port, other directory, no
configuration file read. Used by the demo, the conformance runs and the benchmark; the programs
must be installed (scripts/system-packages sees to that).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 30.0
CREATE_DATABASE = """
    CREATE DATABASE rome CHARACTER SET utf8mb4;
    CREATE USER rome@'127.0.0.1' IDENTIFIED BY 'rome';
    GRANT ALL ON rome.* TO rome@'127.0.0.1';
"""


class ServiceError(Exception):
    """A server could not be started; the text carries the end of its log."""


def database_url(store: str, folder: Path, name: str, redis_port: int | None) -> str:
    """The URL of the database `name`: in `folder` where the store keeps files, else in the store."""
    if store == "sqlite":
        return f"sqlite:///{folder / name}.sqlite"
    if store == "lmdb":
        return f"rome+lmdb://{folder / name}.lmdb"
    if store == "redis":
        return f"rome+redis://127.0.0.1:{redis_port}/{name}"
    if store == "memory":
        return f"rome+memory://{name}"
    raise ServiceError(f"unknown store {store!r}: sqlite, memory, lmdb or redis")


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_redis(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A Redis that keeps an append-only file in `folder`, fsynced every second; ready when this returns."""
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
    return start(command, folder / "server.log", lambda: answers(port))


@contextmanager
def redis_server() -> Iterator[int]:
    """A Redis for as long as the block lasts; yields its port."""
    with tempfile.TemporaryDirectory(prefix="rome-redis-") as folder:
        port = free_port()
        with stopping(start_redis(Path(folder), port)):
            yield port


@contextmanager
def mariadb_server() -> Iterator[str]:
    """A MariaDB with its default settings of durability; yields a SQLAlchemy URL of an empty database."""
    with tempfile.TemporaryDirectory(prefix="rome-mariadb-") as folder:
        data, mariadb_socket, log = (
            Path(folder) / "data",
            Path(folder) / "sql.socket",
            Path(folder) / "server.log",
        )
        # Run as root, the server wants to be told to stay root; anyone else may not name a user.
        user = ["--user=root"] if os.getuid() == 0 else []
        install = [program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", *user]
        install += ["--auth-root-authentication-method=normal"]
        installed = subprocess.run(install, capture_output=True, text=True)
        if installed.returncode != 0:
            raise ServiceError(f"mariadb-install-db failed:\n{installed.stderr[-2000:]}")
        port = free_port()
        command = [program("mariadbd"), "--no-defaults", f"--datadir={data}", f"--socket={mariadb_socket}"]
        command += [f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={folder}/server.pid", *user]
        with stopping(start(command, log, lambda: answers(port))):
            created = subprocess.run(
                [program("mariadb"), "--no-defaults", f"--socket={mariadb_socket}", "--user=root"],
                input=CREATE_DATABASE,
                capture_output=True,
                text=True,
            )
            if created.returncode != 0:
                raise ServiceError(f"the MariaDB database could not be created:\n{created.stderr[-2000:]}")
            yield f"mysql+pymysql://rome:rome@127.0.0.1:{port}/rome?charset=utf8mb4"


def program(name: str) -> str:
    """The path of a server program; Debian keeps some where ordinary users do not look."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise ServiceError(f"{name} is not installed")
    return path


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def start(command: list[str], log: Path, ready: Callable[[], bool], **more: Any) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own and wait until it is ready; its output goes to `log`."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **more,
        )
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if server.poll() is not None or time.monotonic() > deadline:
            stop(server)
            raise ServiceError(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)
    return server


@contextmanager
def stopping(server: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a server with the block."""
    try:
        yield
    finally:
        stop(server)


def stop(server: subprocess.Popen[bytes], patience: float = 15.0) -> None:
    """End a server and what it started: politely first, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if server.poll() is not None:
            return
        os.killpg(server.pid, number)
        try:
            server.wait(patience)
        except subprocess.TimeoutExpired:
            continue
