"""Connections to a Redis server: a small pool, one exchange at a time, and errors in ROME's terms.

redis-py connects, authenticates and speaks TLS; its client, pool and retry classes are not used,
since they cost more per call than the call itself. An `Exchange` is one command and its reply.

**A connection is used by one thread or greenlet at a time.** Free ones lie on a stack (`list.append`
and `list.pop` are atomic, so there is no lock that a fork or a greenlet could leave held). A connection
in whose use anything went wrong is closed, never put back.

**A server that restarted** leaves dead connections on the stack. Whoever meets one throws all of
them away and tries once on a new connection: that is `ask`, for requests that may be made twice.
COMMIT may not, so it is done by `rome.stores.redis` with `take`, `exchange` and the commit's identity.

**A server that restarts** is waited for, so that nobody has to notice: once it has answered, a connection
that is refused, and a server that is still loading its data, are tried again until `connect_timeout` has
passed since it was first missed. After that, and before its first answer, it is said at once that it is not
there: a long outage makes nobody wait at each request.

**No secrets**: the texts of errors are made here, from the server's address and its reply.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Final

import redis
from redis import exceptions
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import NoScriptError

from rome.errors import (
    AuthenticationFailed,
    CommitUnknown,
    ConfigurationError,
    FormatError,
    LimitExceeded,
    LockLost,
    RomeError,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreTimeout,
    StoreUnavailable,
)
from rome.stores.leases import lost_text
from rome.stores.url import StoreURL

DEFAULT_PORT = 6379
_CODE = re.compile(r"(?:^|: -)([A-Z]{2,})\b")
_CODES: dict[type, str] = {
    exceptions.AskError: "ASK",
    exceptions.AuthenticationError: "WRONGPASS",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ClusterCrossSlotError: "CROSSSLOT",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.TryAgainError: "TRYAGAIN",
}

_PAUSE: Final = 0.05
"""Seconds between two questions whether a server is back."""

Argument = bytes | str | int


class Lost(Exception):
    """The connection ended before the reply came."""


class Server:
    """Where and how to connect, and the connections there are."""

    def __init__(self, url: StoreURL) -> None:
        self.address = address(url)
        self.exchanges = 0
        self.losses = 0
        """How often a connection ended that was not meant to: what answers next may be another server."""
        self._make, self._options = connection_options(url)
        self._patience: float = self._options["socket_connect_timeout"]
        self._missed_since: float | None = float("-inf")
        """When the server was first missed; None while it is there. For ever, before its first answer."""
        self._free: list[Any] = []
        self._pid = os.getpid()

    def take(self) -> tuple[Any, bool]:
        """A connection that nobody else has, and whether it is a new one."""
        if self._pid != os.getpid():
            self._free, self._pid = [], os.getpid()
        try:
            return self._free.pop(), False
        except IndexError:
            return self._connect(), True

    def _connect(self) -> Any:
        while True:
            try:
                return self._connected()
            except StoreTimeout:
                raise
            except StoreUnavailable:
                if not self.may_come_back():
                    raise

    def may_come_back(self) -> bool:
        """The server is not there: is it to be waited for? If so, wait a little."""
        now = time.monotonic()
        if self._missed_since is None:
            self._missed_since = now
        if now - self._missed_since >= self._patience:
            return False
        time.sleep(_PAUSE)
        return True

    def _connected(self) -> Any:
        connection = self._make(**self._options)
        try:
            connection.connect()
        except redis.TimeoutError as error:
            raise StoreTimeout(f"{self.address}: no connection within the time-out") from error
        except (redis.RedisError, OSError) as error:
            raise self.translated(error) from error
        return connection

    def put_back(self, connection: Any) -> None:
        self._free.append(connection)

    def is_stale(self, connection: Any) -> bool:
        """Has the server closed this idle connection, as far as that has been heard of?"""
        try:
            return bool(connection.can_read(0))
        except (redis.RedisError, OSError):
            return True
        except AttributeError:  # eventlet takes select.poll away, which redis-py may use here
            return False

    def exchange(self, connection: Any, command: tuple[Argument, ...]) -> Any:
        """Send one command and return its reply; afterwards the connection is free, or closed.

        Raises `Lost` where the connection ended, `StoreTimeout` where the reply did not come in
        time; the server's own complaints come as redis-py's errors.
        """
        self.exchanges += 1
        try:
            connection.send_packed_command(connection.pack_command(*_plain(command)), check_health=False)
            reply = connection.read_response(disable_decoding=True)
        except redis.ResponseError:
            self._free.append(connection)
            raise
        except redis.TimeoutError as error:
            connection.disconnect()
            self.losses += 1
            raise StoreTimeout(f"{self.address}: no answer within the time-out") from error
        except (redis.BusyLoadingError, redis.AuthenticationError):
            connection.disconnect()
            raise
        except (redis.ConnectionError, OSError) as error:
            connection.disconnect()
            self.forget()
            raise Lost(f"{self.address}: the connection was lost ({error})") from error
        except BaseException:
            connection.disconnect()
            raise
        self._free.append(connection)
        self._missed_since = None
        return reply

    def ask(self, command: tuple[Argument, ...]) -> Any:
        """An exchange for a command that may be sent twice. Raises ROME's errors and NoScriptError."""
        connection, new = self.take()
        while True:
            try:
                return self.exchange(connection, command)
            except Lost as error:
                if new and not self.may_come_back():
                    raise StoreUnavailable(str(error)) from error
            except redis.BusyLoadingError as error:
                if not self.may_come_back():
                    raise self.translated(error) from error
            except NoScriptError:
                raise
            except redis.RedisError as error:
                raise self.translated(error) from error
            # Not one from the stack: another thread may have put one back that is as dead.
            connection, new = self._connect(), True

    def post(self, commands: list[tuple[Argument, ...]]) -> None:
        """Send commands on a connection that lies idle, if there is one, and hang up without an answer."""
        if self._free and self._pid == os.getpid():
            connection = self._free.pop()
            connection.send_packed_command(
                connection.pack_commands([_plain(command) for command in commands]), check_health=False
            )
            connection.disconnect()

    def forget(self) -> None:
        """Close the free connections: what ended one has ended all of them."""
        self.losses += 1
        free, self._free = self._free, []
        for connection in free:
            connection.disconnect()

    def translated(self, error: Exception) -> RomeError:
        """What redis-py or the server said, in ROME's terms."""
        text, where = str(error), self.address
        code = _code(error)
        if code in ("WRONGPASS", "NOAUTH") or "unauthenticated" in text:
            return AuthenticationFailed(f"{where}: wrong user or password, or none given ({text})")
        if code == "NOPERM":
            return AuthenticationFailed(f"{where}: the user may not do this ({text})")
        if code == "OOM":
            return StoreFull(f"{where}: the server is out of memory (its maxmemory is reached)")
        if code == "READONLY":
            return StoreReadOnly(f"{where}: this server is a read-only replica; name the primary in the URL")
        if code == "MISCONF":
            return StoreReadOnly(f"{where}: the server takes no writes, since it cannot save them ({text})")
        if code == "NOREPLICAS":
            return StoreReadOnly(f"{where}: the server takes no writes, as it has too few replicas ({text})")
        if code == "LOADING":
            return StoreUnavailable(f"{where}: the server is still loading its data; try again")
        if code in ("MASTERDOWN", "BUSY", "CLUSTERDOWN", "TRYAGAIN"):
            return StoreUnavailable(f"{where}: the server cannot answer now ({text})")
        if code in ("MOVED", "ASK", "CROSSSLOT"):
            return ConfigurationError(f"{where}: this server is part of a Redis Cluster ({text})")
        if code == "ROMEFORGOTTEN":
            return CommitUnknown(
                f"{where}: the connection was lost, and the server does not remember what it did that long"
                " ago; COMMIT may or may not have happened"
            )
        if code == "ROMEDAMAGED":
            return self.damaged()
        if code == "ROMELOST":
            return LockLost(lost_text(text.partition("ROMELOST ")[2]))
        if code == "ROMELIMIT" or "would overflow" in text:
            return LimitExceeded(f"{where}: a counter would leave the range of 64-bit integers")
        if isinstance(error, (redis.ConnectionError, OSError)):
            return StoreUnavailable(f"{where}: cannot be reached ({text})")
        return StoreError(f"{where}: {text}")

    def damaged(self) -> FormatError:
        return FormatError(
            f"{self.address}: the database is damaged: entries and their order differ "
            "(maxmemory-policy must be noeviction, or the server deletes what it was given to keep)"
        )


def _plain(command: tuple[Argument, ...]) -> list[bytes | str]:
    """A command without numbers. hiredis asks Python to write a number, which lets a signal's handler run; if
    that throws something, hiredis goes on with nothing and ends the process (as of 3.5)."""
    return [b"%d" % word if isinstance(word, int) else word for word in command]


def _code(error: Exception) -> str:
    """The word that a Redis error begins with; redis-py makes a class of some, and drops the word."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    match = _CODE.search(str(error))
    return match[1] if match else ""


def address(url: StoreURL) -> str:
    """The server's address as people write it."""
    if url.text("socket"):
        return f"redis at {url.text('socket')}"
    host = url.host or "localhost"
    return f"redis at {f'[{host}]' if ':' in host else host}:{url.port or DEFAULT_PORT}"


def connection_options(url: StoreURL) -> tuple[Any, dict[str, Any]]:
    """The class of redis-py that makes the connection, and its arguments."""
    options: dict[str, Any] = {
        "db": url.whole("db", 0),
        "username": url.username,
        "password": url.password,
        "socket_connect_timeout": url.seconds("connect_timeout", 5.0),
        "socket_timeout": url.seconds("read_timeout", 10.0),
        "protocol": 2,
    }
    tls = {name for name in url.parameters if name.startswith("tls_")}
    if tls and url.kind != "rediss":
        raise ConfigurationError(f"{', '.join(sorted(tls))}: only for rome+rediss:// (TLS)")
    if path := url.text("socket"):
        if url.host or url.port or url.kind == "rediss":
            raise ConfigurationError(
                "socket= goes without a host and without TLS: rome+redis:///name?socket=/path"
            )
        return UnixDomainSocketConnection, options | {"path": path}
    options |= {"host": url.host or "localhost", "port": url.port or DEFAULT_PORT}
    if url.kind != "rediss":
        return Connection, options
    for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
        if name in tls and not os.path.isfile(url.text(name)):
            raise ConfigurationError(f"{name}={url.text(name)}: there is no such file")
    verify = url.yes("tls_verify", True)
    return SSLConnection, options | {
        "ssl_ca_certs": url.text("tls_ca_file") or None,
        "ssl_certfile": url.text("tls_cert_file") or None,
        "ssl_keyfile": url.text("tls_key_file") or None,
        "ssl_cert_reqs": "required" if verify else "none",
        "ssl_check_hostname": verify,
    }
