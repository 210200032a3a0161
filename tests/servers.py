"""Real servers for tests: redis-server on a free port of loopback, in a directory of its own.

    with RedisServer(password="secret", appendonly=True) as server:
        store = open_store(server.url("name"))

Every server is ended by its process id; nothing is left behind but what pytest keeps of `tmp_path`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, urlencode

START_SECONDS = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """One redis-server. Started by `with` or `start`; `restart` keeps its port and its directory."""

    def __init__(
        self,
        *,
        password: str | None = None,
        acl: tuple[str, ...] = (),
        tls: TLSFiles | None = None,
        unix_socket: bool = False,
        appendonly: bool = False,
        appendfsync: str = "always",
        replica_of: RedisServer | None = None,
        settings: Mapping[str, str] | None = None,
        within: Path | None = None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rome-redis-", dir=within))
        self.port = free_port()
        self.password = password
        self.acl = acl
        self.tls = tls
        self.socket = self.directory / "redis.sock" if unix_socket else None
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = {
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "save": '""',
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": appendfsync,
            "repl-diskless-sync-delay": "0",
            **({"tls-port": str(self.port), "port": "0"} if tls else {"port": str(self.port)}),
            **({"unixsocket": str(self.socket)} if self.socket else {}),
            **({"requirepass": password} if password else {}),
            **({"replicaof": f"127.0.0.1 {replica_of.port}"} if replica_of else {}),
            **(settings or {}),
        }

    # life

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        lines = [f"{name} {value}" for name, value in self._settings.items()]
        lines += [f"user {rule}" for rule in self.acl]
        if self.tls:
            lines += [
                f"tls-cert-file {self.tls.certificate}",
                f"tls-key-file {self.tls.key}",
                f"tls-ca-cert-file {self.tls.authority}",
                "tls-auth-clients no",
            ]
        configuration = self.directory / "redis.conf"
        configuration.write_text("\n".join(lines) + "\n")
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", str(configuration)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start:\n{(self.directory / 'log').read_text()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        """Does it listen, and is its data loaded? (Any complaint but LOADING will do.)"""
        if self.tls:
            return self._listens()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(100)
                return answer != b"" and not answer.startswith(b"-LOADING")
        except OSError:
            return False

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    @property
    def running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "the server is not running"
        return self.process

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server: SIGTERM lets it save what it is configured to save, SIGKILL does not."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(timeout=START_SECONDS)
            self.process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let the server hang: connections are taken by the system, but nothing is answered."""
        self.running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.running.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    # talking to it

    def url(
        self,
        database: str = "",
        *,
        user: str | None = None,
        password: str | None = None,
        prefix: str = "rome+",
        **parameters: str | int | float,
    ) -> str:
        """The store's URL; with the server's own password unless another is given."""
        password = self.password if password is None else password
        secret = f"{quote(user or '', safe='')}:{quote(password, safe='')}@" if password else ""
        query = "?" + urlencode(parameters) if parameters else ""
        if self.tls:
            return f"{prefix}rediss://{secret}localhost:{self.port}/{database}{query}"
        return f"{prefix}redis://{secret}127.0.0.1:{self.port}/{database}{query}"

    def socket_url(self, database: str = "") -> str:
        return f"rome+redis:///{database}?{urlencode({'socket': str(self.socket)})}"

    def command(self, *words: str) -> str:
        """Run one command with redis-cli, and return what it prints."""
        login = ["-a", self.password, "--no-auth-warning"] if self.password else []
        tls = ["--tls", "--cacert", str(self.tls.authority)] if self.tls else []
        return subprocess.run(
            ["redis-cli", "-p", str(self.port), *login, *tls, *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
        ).stdout.strip()


class TLSFiles:
    """A certificate authority of our own, and a certificate for localhost signed by it."""

    def __init__(self, directory: Path) -> None:
        self.authority = directory / "ca.crt"
        self.certificate = directory / "server.crt"
        self.key = directory / "server.key"
        authority_key = directory / "ca.key"
        request = directory / "server.csr"
        names = directory / "names"
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority"),
            *("-keyout", authority_key, "-out", self.authority),
        )
        self._openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
            *("-keyout", self.key, "-out", request),
        )
        self._openssl(
            *("x509", "-req", "-days", "2", "-in", request, "-CA", self.authority, "-CAkey", authority_key),
            *("-CAcreateserial", "-extfile", names, "-out", self.certificate),
        )

    def _openssl(self, *words: str | os.PathLike[str]) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)
