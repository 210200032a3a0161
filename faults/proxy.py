"""A TCP proxy on loopback that cuts connections where it is told to.

    with Proxy(server.port) as proxy:
        engine = create_engine(proxy.through(url))
        proxy.cut_question_after(100)      after 100 more bytes from the client
        proxy.cut_answer_after(0)          before one more byte reaches the client
        proxy.hold_answer(action)          the server has answered; run an action; then cut
        proxy.hold_question(action)        run an action before the server hears anything; then cut

Each of these happens once (or `times` times, counting anew), to the bytes of all connections together
from then on; connections made afterwards are whole. The client's side is closed with FIN or, every other
time, with RST.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit, urlunsplit

CHUNK: Final = 65536
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends RST."""


class Plan:
    """A cut that is to come: in which direction, after how many bytes, what to do then, how often."""

    def __init__(
        self, upward: bool, after: int, action: Callable[[], None] | None = None, times: int = 1
    ) -> None:
        self.upward = upward
        self.after = self.left = after
        self.action = action
        self.times = times


class Proxy:
    """Stands between clients and a server. Started and ended by `with`."""

    def __init__(self, port: int) -> None:
        self.cuts = 0
        self.upward = 0
        """Bytes that clients have sent."""
        self.downward = 0
        """Bytes that clients were sent."""
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._acting = threading.Lock()
        self._plan: Plan | None = None
        self._open: set[socket.socket] = set()

    def through(self, url: str) -> str:
        """The same URL by way of this proxy."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}"))

    def turn_to(self, port: int) -> None:
        """Connect to another server from now on; connections to the old one end with it."""
        self._target = ("127.0.0.1", port)

    # what is to happen

    def cut_question_after(self, count: int, times: int = 1) -> None:
        self._plan = Plan(True, count, times=times)

    def cut_answer_after(self, count: int, times: int = 1) -> None:
        self._plan = Plan(False, count, times=times)

    def hold_question(self, action: Callable[[], None]) -> None:
        self._plan = Plan(True, 0, action)

    def hold_answer(self, action: Callable[[], None]) -> None:
        self._plan = Plan(False, 0, action)

    def disarm(self) -> None:
        """Cut no more, and wait for an action that is being run."""
        with self._acting:
            self._plan = None

    # life

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in list(self._open):
            self._close(end)

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(end)
            for upward in (True, False):
                pair = (client, server, upward)
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket, upward: bool) -> None:
        """Carry bytes one way until one of the two ends, or the plan says cut."""
        source, sink = (client, server) if upward else (server, client)
        try:
            while data := source.recv(CHUNK):
                passing, plan = self._passing(data, upward)
                sink.sendall(passing)
                if plan:
                    if plan.action:
                        with self._acting:
                            plan.action()
                    if self.cuts % 2:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    break
        except OSError:
            pass
        for end in (client, server):
            self._close(end)

    def _passing(self, data: bytes, upward: bool) -> tuple[bytes, Plan | None]:
        """What may pass of these bytes, and the plan if this is where to cut."""
        with self._lock:
            plan = self._plan
            if plan is not None and plan.upward == upward:
                if len(data) > plan.left:
                    data = data[: plan.left]
                    self.cuts += 1
                    plan.times -= 1
                    plan.left = plan.after
                    if not plan.times:
                        self._plan = None
                else:
                    plan.left -= len(data)
                    plan = None
            else:
                plan = None
            if upward:
                self.upward += len(data)
            else:
                self.downward += len(data)
        return data, plan

    def _close(self, end: socket.socket) -> None:
        self._open.discard(end)
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
