"""The Redis server is there and says no: locked, read-only, busy or loading.

One pattern for all: something makes the server refuse, between two transactions or, every other time, in
the midst of one, when only COMMIT is left. The attempt must then fail soon, with an error that says why
and leaves nothing open, and nothing of it may be there. Reads go on where they can. When the cause is
gone, the same engine goes on.
"""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.exc import DBAPIError

from faults import ledger
from faults.databases import Made, database, problems_of
from faults.ledger import ACKNOWLEDGED, REFUSED, Told, Writer
from faults.registry import Report, fault
from tests.servers import RedisServer, free_port

LONGEST: Final = 5.0
"""Seconds that a refusal may take; it takes milliseconds, and a busy machine may add some."""
_SECRETS: Final = ("the-first-secret", "the-second-secret")
_LOADED_KEYS: Final = 30_000
_LOAD_DELAY: Final = "200"
"""Microseconds for each key; clients are listened to after every 1024 of them."""

Change = Callable[[RedisServer], None]


@fault(stores=("redis",), times=20, sample=4)
def password_changed(store: str, times: int, seed: int) -> Report:
    """The server's password is changed and connections are closed: clear error, without the password."""

    def lock(server: RedisServer) -> None:
        setting(server, "requirepass", _SECRETS[1])
        server.password = _SECRETS[1]
        server.command("CLIENT", "KILL", "TYPE", "normal")

    def unlock(server: RedisServer) -> None:
        setting(server, "requirepass", _SECRETS[0])
        server.password = _SECRETS[0]

    return refused(store, times, lock, unlock, "wrong user or password", reads=False, password=_SECRETS[0])


@fault(stores=("redis",), times=20, sample=4)
def password_set(store: str, times: int, seed: int) -> Report:
    """The server, which had no password, is given one, and connections are closed (NOAUTH): clear error."""

    def lock(server: RedisServer) -> None:
        setting(server, "requirepass", _SECRETS[0])
        server.password = _SECRETS[0]
        server.command("CLIENT", "KILL", "TYPE", "normal")

    def unlock(server: RedisServer) -> None:
        setting(server, "requirepass", "")
        server.password = None

    return refused(store, times, lock, unlock, "wrong user or password, or none given", reads=False)


@fault(stores=("redis",), times=20, sample=4)
def becomes_replica(store: str, times: int, seed: int) -> Report:
    """The server becomes a read-only replica (REPLICAOF): writes are refused, reads go on."""
    nobody = str(free_port())
    return refused(
        store,
        times,
        lambda server: said(server, "REPLICAOF", "127.0.0.1", nobody),
        lambda server: said(server, "REPLICAOF", "NO", "ONE"),
        "read-only replica",
    )


@fault(stores=("redis",), times=20, sample=4)
def becomes_stale_replica(store: str, times: int, seed: int) -> Report:
    """The server becomes a replica that does not answer while it has no primary: clear error."""
    nobody = str(free_port())
    return refused(
        store,
        times,
        lambda server: said(server, "REPLICAOF", "127.0.0.1", nobody),
        lambda server: said(server, "REPLICAOF", "NO", "ONE"),
        "read-only replica|cannot answer now",
        reads=False,
        settings={"replica-serve-stale-data": "no"},
    )


@fault(stores=("redis",), times=20, sample=4)
def script_busy(store: str, times: int, seed: int) -> Report:
    """Somebody's script runs for ever (BUSY): clear error, and work goes on after SCRIPT KILL."""
    others: list[subprocess.Popen[bytes]] = []

    def begin(server: RedisServer) -> None:
        command = ["redis-cli", "-p", str(server.port), "EVAL", "while true do end", "0"]
        others.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        until(lambda: "BUSY" in server.command("PING"))

    def end(server: RedisServer) -> None:
        said(server, "SCRIPT", "KILL")
        others.pop().wait(LONGEST)

    return refused(
        store, times, begin, end, "cannot answer now", reads=False, settings={"busy-reply-threshold": "50"}
    )


@fault(stores=("redis",), times=10, sample=2)
def server_loading(store: str, times: int, seed: int) -> Report:
    """The server is LOADING for longer than it is waited for: clear error, then work goes on."""
    starts: list[threading.Thread] = []

    def fill(server: RedisServer) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"".join(b"SET filling:%d x\r\n" % n for n in range(_LOADED_KEYS)))
            answers = b""
            while answers.count(b"+OK") < _LOADED_KEYS:
                answers += connection.recv(65536)

    def restart(server: RedisServer) -> None:
        server.kill()
        starts.append(threading.Thread(target=server.start))
        starts[-1].start()
        until(lambda: _says(server.port).startswith(b"-LOADING"))

    def let_load(server: RedisServer) -> None:
        setting(server, "key-load-delay", "0")
        starts[-1].join()

    return refused(
        store,
        times,
        restart,
        let_load,
        "still loading its data",
        reads=False,
        settings={"key-load-delay": _LOAD_DELAY},
        parameters={"connect_timeout": "0.2"},
        prepare=fill,
    )


def refused(
    store: str,
    times: int,
    begin: Change,
    end: Change,
    says: str,
    *,
    reads: bool = True,
    password: str | None = None,
    settings: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    prepare: Change | None = None,
) -> Report:
    """Have the server refuse so many times, and see what becomes of transactions and reads.

    `says` is a pattern that the errors must match; `reads`: whether they go on meanwhile.
    """
    report = Report()
    errors: set[str] = set()
    with database(store, settings=settings, password=password, parameters=parameters) as made:
        ledger.prepare(made.url, [0])
        if prepare:
            prepare(made.redis)
        engine = create_engine(made.url)
        writer = Writer(engine)
        for number in range(times):
            report.require(writer.attempt().outcome == ACKNOWLEDGED, "refused without a cause")
            told = _attempt(writer, made, begin, number % 2 == 1)
            try:
                report.counts["refused at COMMIT" if number % 2 else "refused before"] += 1
                report.problems += wrong_refusal(told, says)
                errors.add(told.error)
                text = read_error(engine)
                fine = not text if reads else re.search(says, text) is not None
                report.require(fine, f"a read meanwhile: {text or 'there was no error'}")
                report.counts["reads meanwhile"] += 1
            finally:
                end(made.redis)
            told = writer.attempt()
            report.require(told.outcome == ACKNOWLEDGED, f"the cause is gone, and still: {told.error}")
        report.counts += ledger.counts_of(writer.told)
        report.problems += ledger.differences(made.url, writer.told)
        engine.dispose()
        report.problems += problems_of(made.url)
    where = f":{made.redis.port}"
    report.notes += sorted({f"the error says: {error.replace(where, '')}" for error in errors})
    return report


def _attempt(writer: Writer, made: Made, begin: Change, in_midst: bool) -> Told:
    if in_midst:
        return writer.attempt(before_commit=lambda token: begin(made.redis))
    begin(made.redis)
    return writer.attempt()


def wrong_refusal(told: Told, says: str) -> list[str]:
    """What is wrong with how an attempt was refused."""
    wrong = []
    if told.outcome != REFUSED:
        wrong.append(f"{told.token} was {told.outcome}: {told.error}")
    elif not re.search(says, told.error):
        wrong.append(f"{told.token} failed without saying why: {told.error}")
    if told.seconds > LONGEST:
        wrong.append(f"{told.token} took {told.seconds:.1f} s")
    if any(secret in told.error for secret in _SECRETS):
        wrong.append(f"{told.token}: the error tells the password")
    return wrong


def read_error(engine: Engine) -> str:
    """Read a little; returns the error's text, empty if there was none."""
    try:
        with engine.begin() as connection:
            connection.execute(select(func.max(ledger.orders.c.token))).all()
    except DBAPIError as error:
        return str(error.orig)
    return ""


def setting(server: RedisServer, name: str, value: str) -> None:
    said(server, "CONFIG", "SET", name, value)


def said(server: RedisServer, *words: str) -> None:
    """A command that the server must answer with OK."""
    answer = server.command(*words)
    assert answer.startswith("OK"), f"{' '.join(words)}: {answer}"


def until(holds: Callable[[], bool], patience: float = 10.0) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "what was waited for has not come"
        time.sleep(0.005)


def _says(port: int) -> bytes:
    """What the server says to PING; nothing if it does not listen."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100)
    except OSError:
        return b""
