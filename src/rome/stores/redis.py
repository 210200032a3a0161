"""The Redis store: a database on a Redis (or Valkey) server, for all who can reach it.

    rome+redis://user:password@host:6379/database       rome+rediss://…  the same through TLS
    rome+redis:///database?socket=/run/redis.sock       through a unix socket

`database` is ROME's own name (default: rome), so that many databases share a server. Parameters:

    db=N                  (0) the number of Redis' database
    prefix=TEXT           (rome:) what the names of the Redis keys begin with
    connect_timeout=S     (5) seconds to connect and authenticate, and to wait for a server that restarts
    read_timeout=S        (10) seconds to wait for an answer
    history=N             (10) seconds for which a commit keeps what it replaces, for readers that began
                          before it; 0: not at all
    tls_ca_file, tls_cert_file, tls_key_file=PATH, tls_verify=yes|no   for rome+rediss://

The connection is made at first use, and made again after it was lost.

**What an acknowledged commit survives** is the server's configuration, not ROME's:

    appendonly yes, appendfsync always      a crash of the server and of its machine
    appendonly yes, appendfsync everysec    a crash of the server or of its machine but for the last
                                            second or two
    appendonly no (RDB snapshots only)      what was committed before the last snapshot
    fail-over to a replica                  replication is asynchronous: what the primary had not
                                            sent yet is lost, with everything else acknowledged then

A commit is one write to the append-only file, so that a restart finds all of it or nothing.
`maxmemory-policy` must be `noeviction` (the default): a server that evicts deletes data that it was
given to keep; ROME notices most of such losses and refuses to go on (FormatError), but cannot notice
the loss of everything at once. `health()` tells these settings.

**Eight Redis keys**, in one hash slot: `rome:{database}:order`, a sorted set of all keys, which Redis
keeps in byte order; `:entries`, a hash of key → 8 bytes version, then the value, with the commit
number under the empty key; `:counters`; `:commits`, the identities of the last minute's commits;
`:leases`, those of locks; and `:past`, `:old`, `:log`, what the last commits have replaced.
Commit numbers follow the server's clock in microseconds and never go back, so that a version is not
used twice, not even after the database was wiped, or lost its last commits by a fail-over.

**Every exchange is one instant on the server**: HMGET for keys alone, else one of the scripts. A
snapshot is *lazy*: it takes the number that came with its first reply. When a later reply shows that
the store has moved on, the request is sent again along with the read set; the script validates and
answers in one, and the snapshot moves forward. If something that it has read is no longer so, it goes on
in the past, at the number it is at, which the script answers from the old versions (past.lua); Conflict
is raised if the transaction has written already, or if that state is no longer kept.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, ClassVar

import redis
from redis.exceptions import NoScriptError

from rome.errors import (
    AuthenticationFailed,
    CommitUnknown,
    ConfigurationError,
    Conflict,
    RomeError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from rome.stores.base import Characteristics, Read, Reply, Snapshot, Store, Writes
from rome.stores.leases import Leases
from rome.stores.redis_connection import Argument, Lost, Server
from rome.stores.redis_leases import RedisLeases
from rome.stores.redis_protocol import (
    ANSWER,
    COMMIT,
    DIFFERENT,
    FORWARD,
    FORWARD_OR_PAST,
    IN_THE_PAST,
    MOVED,
    PAST,
    READ,
    UNMOVED,
    Script,
    decoded_reply,
    encoded_leases,
    encoded_reads,
    encoded_request,
    encoded_writes,
    entry,
)
from rome.stores.validation import check_limits

if TYPE_CHECKING:
    from rome.stores.url import StoreURL

PARAMETERS = frozenset(
    {
        "db",
        "prefix",
        "socket",
        "connect_timeout",
        "read_timeout",
        "history",
        "tls_ca_file",
        "tls_cert_file",
        "tls_key_file",
        "tls_verify",
    }
)

DEFAULT_DATABASE = "rome"
DEFAULT_PREFIX = "rome:"

_NO_VERSION = b""
_number = int.from_bytes


class RedisSnapshot(Snapshot):
    """A lazy snapshot: at the number of its newest reply."""

    def __init__(self, store: RedisStore) -> None:
        super().__init__()
        self._store: RedisStore | None = store
        self._version = _NO_VERSION
        self._is_past = False
        """The store has moved on without this snapshot."""

    @property
    def version(self) -> int | None:
        return _number(self._version) if self._version else None

    def _fetch(self, request: Read) -> Reply:
        if self._store is None:
            raise StoreError("this snapshot is closed")
        if self._is_past or request.presence or request.scans or request.counters or request.allocate:
            return self._ask(request)
        found = self._store.get(request.keys)
        number = found.pop(0) or bytes(8)
        if number == self._version or not self.reads:
            self._version = self._store.newest = number
            return Reply({key: entry(key, stored) for key, stored in zip(request.keys, found, strict=True)})
        return self._ask(request, moved=True)

    def _ask(self, request: Read, moved: bool = False) -> Reply:
        assert self._store is not None
        wanted = encoded_request(request)
        if self._is_past:
            reply = self._store.run(READ, [self._version, IN_THE_PAST, *wanted])
        else:
            if not moved:
                expected = self._version if self.reads else _NO_VERSION
                reply = self._store.run(READ, [expected, UNMOVED, *wanted])
                moved = reply[0] == MOVED
            if moved:
                may_stay = not (self.newest_only or self.reads.assumed)
                how = FORWARD_OR_PAST if may_stay else FORWARD
                reply = self._store.run(READ, [self._version, how, *encoded_reads(self.reads), *wanted])
                self._is_past = reply[0] == PAST
                self.extensions += reply[0] == ANSWER
        if reply[0] == DIFFERENT:
            raise Conflict(reply[2])
        if not self._is_past:
            self._version = self._store.newest = reply[1]
        if any(None in stored for _, stored, *_ in reply[4]):
            raise self._store.server.damaged()
        return decoded_reply(request, reply)

    def close(self) -> None:
        self._store = None


class RedisStore(Store):
    """A database on a Redis server."""

    kind: ClassVar[str] = "redis"
    characteristics = Characteristics(
        durable=True,
        shared="network",
        remote=True,
        max_key_bytes=2**29 - 1024,
        max_value_bytes=2**29 - 1024,
    )

    def __init__(self, url: StoreURL) -> None:
        self._server = Server(url)
        super().__init__()
        self.database = url.database or DEFAULT_DATABASE
        if "{" in self.database or "}" in self.database:
            raise ConfigurationError("the name of a database on Redis cannot contain { or }")
        prefix = url.text("prefix", DEFAULT_PREFIX)
        if "{" in prefix:
            raise ConfigurationError("prefix= cannot contain {")
        self._patience = url.seconds("read_timeout", 10.0)
        base = f"{prefix}{{{self.database}}}:"
        self._history = url.whole("history", 10) * 1_000_000
        names = ("order", "entries", "counters", "commits", "leases", "past", "old", "log")
        self._keys = tuple((base + name).encode() for name in names)
        _, self._entries, self._counters, *_ = self._keys
        self._permissions_checked = False
        self.newest = _NO_VERSION
        """The number that came with the last reply."""
        self._open = True

    def __repr__(self) -> str:
        return f"<RedisStore {self.database!r} on {self._server.address}>"

    @property
    def leases(self) -> Leases:
        return RedisLeases(self)

    @property
    def server(self) -> Server:
        if not self._open:
            raise StoreError("this store is closed")
        return self._server

    @property
    def round_trips(self) -> int:
        return self._server.exchanges

    @round_trips.setter
    def round_trips(self, value: int) -> None:
        self._server.exchanges = value

    @property
    def losses(self) -> int:
        return self._server.losses

    # reading

    def snapshot(self) -> Snapshot:
        return RedisSnapshot(self)

    def get(self, keys: list[bytes]) -> list[bytes | None]:
        """The commit number and what is stored under each key, at one instant."""
        found: list[bytes | None] = self.server.ask(("HMGET", self._entries, b"", *keys))
        return found

    def run(self, script: Script, arguments: list[Argument]) -> Any:
        """Run a script that may run twice."""
        try:
            return self.server.ask(("EVALSHA", script.digest, len(self._keys), *self._keys, *arguments))
        except NoScriptError:
            return self.server.ask(("EVAL", script.text, len(self._keys), *self._keys, *arguments))

    def allocate(self, counter: bytes, count: int = 1) -> int:
        last: int = self.server.ask(("HINCRBY", self._counters, counter, count))
        return last - count + 1

    # writing

    def commit(self, snapshot: Snapshot | None, writes: Writes) -> int:
        check_limits(writes, self.characteristics)
        expected, reads = _NO_VERSION, None
        if snapshot is not None:
            assert isinstance(snapshot, RedisSnapshot)
            reads = snapshot.reads
            # At the version it was read at, the read set holds and need not be looked at again.
            expected = _NO_VERSION if reads.assumed else snapshot._version
            snapshot.close()
        validation = encoded_reads(reads) if reads else []
        identity = os.urandom(16)
        rest = [
            "0" if self._permissions_checked else "1",
            self._history,
            *encoded_leases(reads.leases if reads else {}),
            expected,
            len(validation),
            *validation,
            *encoded_writes(writes),
        ]
        reply = self._commit(identity, rest)
        self._permissions_checked = True
        if isinstance(reply, list):
            raise Conflict(reply)
        self.newest = reply[:8]
        if snapshot is not None and snapshot.version is not None and len(reply) > 8:
            snapshot.extensions += _number(reply[8:]) != snapshot.version
        return _number(reply[:8])

    def _commit(self, identity: bytes, rest: list[Argument]) -> Any:
        """Send a commit until it is known what became of it, as long as there is time.

        A commit whose connection was lost may or may not have happened. Sent again with the same
        identity it does not happen twice, and its reply tells. It goes along with a number that is older
        than the first try, by which the server knows whether it still remembers that time. Raises
        `CommitUnknown` where it does not, and where it could not be asked within the read time-out.
        """
        server = self.server
        since = self.newest or self.get([])[0] or bytes(8)
        deadline = float("inf")
        script: tuple[Argument, ...] = ("EVALSHA", COMMIT.digest)
        lost: Exception | None = None
        latest: Exception | None = None
        while True:
            try:
                connection = self._live_connection()
            except RomeError as error:
                if lost is None:
                    raise
                latest = error
            else:
                again = since if lost else b""
                try:
                    return server.exchange(
                        connection, (*script, len(self._keys), *self._keys, identity, again, *rest)
                    )
                except NoScriptError:
                    script = ("EVAL", COMMIT.text)
                    continue
                except Lost as error:
                    if lost is None:
                        deadline = time.monotonic() + self._patience
                    lost = error
                except StoreTimeout as error:
                    raise _unknown(error) from error
                except redis.RedisError as error:
                    latest = server.translated(error)
                    if lost is None and isinstance(error, redis.BusyLoadingError) and server.may_come_back():
                        continue
                    may_pass = isinstance(latest, StoreUnavailable | AuthenticationFailed)
                    if lost is None or not may_pass or isinstance(latest, CommitUnknown):
                        raise latest from error
            if time.monotonic() > deadline:
                raise _unknown(lost, latest) from lost
            time.sleep(0.05)

    def _live_connection(self) -> Any:
        """A connection that the server has not closed, as far as can be known without asking it."""
        connection, new = self.server.take()
        if not new and self.server.is_stale(connection):
            connection.disconnect()
            self.server.forget()
            connection, _ = self.server.take()
        return connection

    def add_in_passing(self, adds: dict[bytes, int]) -> None:
        """Send it on a connection that lies idle, and do not wait for the answer."""
        if self._open:
            self._server.post([("HINCRBY", self._counters, key, amount) for key, amount in adds.items()])

    # the operator's view

    def health(self) -> dict[str, str | int | bool]:
        version = _number(self.get([])[0] or b"")
        facts: dict[str, str | int | bool] = {
            "store": self.kind,
            "server": self._server.address,
            "database": self.database,
            "version": version,
        }
        info = self._information()
        for name in ("redis_version", "role", "maxmemory", "maxmemory_policy", "used_memory"):
            if name in info:
                facts[name] = int(info[name]) if info[name].isdigit() else info[name]
        if "aof_enabled" in info:
            facts["appendonly"] = info["aof_enabled"] == "1"
        if fsync := self._setting("appendfsync"):
            facts["appendfsync"] = fsync
        if "maxmemory_policy" in info:
            facts["evicts"] = info["maxmemory_policy"] != "noeviction"
        facts["durable"] = facts.get("appendonly") is True and facts.get("appendfsync") == "always"
        return facts

    def _information(self) -> dict[str, str]:
        """INFO, or nothing where the user may not ask for it."""
        try:
            text: str = self.server.ask(("INFO",)).decode()
        except StoreUnavailable:
            raise
        except StoreError:
            return {}
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def _setting(self, name: str) -> str:
        """One setting of the server, or nothing where CONFIG is forbidden (as hosted servers have it)."""
        try:
            reply = self.server.ask(("CONFIG", "GET", name))
        except StoreUnavailable:
            raise
        except StoreError:
            return ""
        return reply[1].decode() if len(reply) > 1 else ""

    def wipe(self) -> None:
        self.server.ask(("UNLINK", *self._keys))

    def close(self) -> None:
        self._open = False
        self._server.forget()


def _unknown(lost: Exception, latest: Exception | None = None) -> CommitUnknown:
    """What is said of a COMMIT that cannot be asked after, and of the server since then."""
    since = f"; since then: {latest}" if latest else ""
    return CommitUnknown(f"{lost}{since}; COMMIT may or may not have happened")


def open_url(url: StoreURL) -> RedisStore:
    """Open what `rome+redis://…` names; connects at first use."""
    return RedisStore(url)
