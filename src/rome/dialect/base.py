"""The dialects, one for each kind of store; they differ in name only."""

from __future__ import annotations

import sys
from threading import Lock
from typing import Any

import sqlalchemy
from sqlalchemy import exc, pool
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import URL, Dialect, Engine

import rome.dbapi
from rome.dbapi import Connection
from rome.dbapi.replay import ReplayLimits
from rome.dialect.compiler import RomeCompiler
from rome.dialect.types import RomeTypeCompiler
from rome.errors import ConfigurationError
from rome.openstack import provisioning
from rome.sql.shared import shared_of
from rome.stores import Store, open_store, parse

PARAMETERS = (
    "foreign_keys",
    "like_operator",
    "replay",
    "replay_time",
    "replay_tries",
    "sequence_cache",
    "turns",
)
"""The URL parameters that are the engine's, not the store's."""


class StoreHolder:
    """The one store of an engine: opened with its first connection.

    A private memory store ends with the last connection, as a `sqlite://` database does, so that
    `engine.dispose()` wipes it; any other store stays open as long as the engine.
    """

    def __init__(self, url: Any) -> None:
        self._url = url
        self._private = url.kind == "memory" and not url.host and not url.database
        self._lock = Lock()
        self._store: Store | None = None
        self._connections = 0

    def open(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = open_store(self._url)
            return self._store

    def connected(self) -> None:
        with self._lock:
            self._connections += 1

    def closed(self) -> None:
        with self._lock:
            self._connections -= 1
            if self._private and self._connections == 0 and self._store is not None:
                self._store.close()
                self._store = None


class RomeDialect(SQLiteDialect):
    """SQLAlchemy dialect for SQLite's SQL over a key/value store."""

    driver = "rome"
    default_paramstyle = "qmark"
    supports_statement_cache = True
    supports_native_enum = False
    type_compiler_cls = RomeTypeCompiler

    alters_in_place = True
    """How `rome.migrations` tells ROME's dialects from SQLite's."""

    statement_compiler = RomeCompiler
    like_is_regexp = False
    """See rome.dialect.compiler."""
    takes_turns = False
    """See rome.sql.turns."""

    _holder: StoreHolder | None = None

    @classmethod
    def import_dbapi(cls) -> Any:
        return rome.dbapi

    if sqlalchemy.__version__.startswith("1.4"):
        type_compiler = RomeTypeCompiler

        @classmethod
        def dbapi(cls) -> Any:  # type: ignore[override]
            """What `import_dbapi` was called in SQLAlchemy 1.4."""
            return rome.dbapi

    @classmethod
    def get_pool_class(cls, url: URL) -> type[pool.Pool]:
        return pool.QueuePool

    @classmethod
    def get_dialect_cls(cls, url: URL) -> type[Dialect]:
        """SQLAlchemy asks this of the class that a URL names, oslo.db's provisioning while it is imported."""
        if provisioning.MODULE in sys.modules:
            provisioning.register()
        return cls

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        if "oslo_db" in sys.modules:
            from rome.openstack import register

            register(engine)
        _register_with_alembic()

    # Connecting

    def create_connect_args(self, url: URL) -> Any:
        try:
            parsed = parse(url, extra=PARAMETERS)
            options = _options(parsed.extra)
            self.like_is_regexp = _like_is_regexp(parsed.extra)
            self.takes_turns = _takes_turns(parsed.extra)
        except ConfigurationError as error:
            raise exc.ArgumentError(str(error)) from error
        if self._holder is None:
            self._holder = StoreHolder(parsed)
        return (), options

    def connect(self, *arguments: Any, **options: Any) -> Any:
        """A new DBAPI connection to the engine's store. Costs no round trip."""
        assert self._holder is not None, "SQLAlchemy asks for the connect arguments first"
        _register_with_alembic()
        options.pop("check_same_thread", None)
        try:
            store = self._holder.open()
        except Exception as error:
            raise rome.dbapi.translate(error) from error
        connection = Connection(store, on_close=self._holder.closed, **options)
        if self.takes_turns:
            shared_of(store, 1).take_turns()
        self._holder.connected()
        return connection

    @property
    def store(self) -> Store:
        """The engine's store; opened if it is not yet."""
        assert self._holder is not None, "the engine has not connected yet"
        return self._holder.open()

    def get_indexes(
        self, connection: Any, table_name: str, schema: str | None = None, **kw: Any
    ) -> list[Any]:
        """As SQLAlchemy's for SQLite, with `unique` as the bool that other dialects give."""
        found: Any = super().get_indexes(connection, table_name, schema, **kw)  # type: ignore[no-untyped-call]
        return [{**index, "unique": bool(index["unique"])} for index in found]

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:
        return rome.dbapi.sqlite_version_info

    def is_disconnect(self, e: Exception, connection: Any, cursor: Any) -> bool:
        return getattr(e, "disconnected", False) or (
            isinstance(e, rome.dbapi.ProgrammingError) and "closed database" in str(e)
        )

    def do_ping(self, dbapi_connection: Any) -> bool:
        return not dbapi_connection.closed

    # Isolation. SQLite's READ UNCOMMITTED is accepted; a program that asks for less gets more.

    def get_isolation_level_values(self, dbapi_connection: Any) -> list[str]:  # type: ignore[override]
        return list(self._isolation_lookup)

    # SQLAlchemy 1.4 reads this name.
    _isolation_lookup: Any = {"SERIALIZABLE": 0, "READ UNCOMMITTED": 1, "AUTOCOMMIT": 2}  # noqa: RUF012

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        level = level.replace("_", " ")
        if level not in self._isolation_lookup:
            raise exc.ArgumentError(
                f"Invalid value {level!r} for isolation_level."
                f" Valid isolation levels for {self.name} are {', '.join(self._isolation_lookup)}"
            )
        # SQLAlchemy 1.4 hands over the pool's wrapper, which would keep the attribute to itself.
        connection = getattr(dbapi_connection, "dbapi_connection", dbapi_connection)
        connection.isolation_level = None if level == "AUTOCOMMIT" else level

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        level = dbapi_connection.isolation_level
        return "AUTOCOMMIT" if level is None else level or "SERIALIZABLE"

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        return bool(dbapi_conn.isolation_level is None)


class MemoryDialect(RomeDialect):
    """rome+memory://"""

    driver = "rome_memory"
    supports_statement_cache = True


class LMDBDialect(RomeDialect):
    """rome+lmdb:///directory"""

    driver = "rome_lmdb"
    supports_statement_cache = True


class RedisDialect(RomeDialect):
    """rome+redis://host/database"""

    driver = "rome_redis"
    supports_statement_cache = True


class RedisTLSDialect(RomeDialect):
    """rome+rediss://host/database, over TLS"""

    driver = "rome_rediss"
    supports_statement_cache = True


def _register_with_alembic() -> None:
    """For programs that import Alembic after the engine was made, and Alembics that know no plugins."""
    if "alembic.ddl.impl" in sys.modules:
        from rome.migrations import register

        register()


def _options(parameters: Any) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if "foreign_keys" in parameters:
        given = parameters["foreign_keys"].lower()
        if given not in ("on", "off"):
            raise ConfigurationError(f"foreign_keys={given}: one of on, off is needed")
        options["foreign_keys"] = given == "on"
    if "sequence_cache" in parameters:
        given = parameters["sequence_cache"]
        if not given.isdigit() or int(given) < 1:
            raise ConfigurationError(f"sequence_cache={given}: a whole number of at least 1 is needed")
        options["sequence_cache"] = int(given)
    options["replay"] = _replay(parameters)
    return options


def _like_is_regexp(parameters: Any) -> bool:
    given = parameters.get("like_operator", "like").lower()
    if given not in ("like", "regexp"):
        raise ConfigurationError(f"like_operator={given}: one of like, regexp is needed")
    return bool(given == "regexp")


def _takes_turns(parameters: Any) -> bool:
    given = parameters.get("turns", "off").lower()
    if given not in ("on", "off"):
        raise ConfigurationError(f"turns={given}: one of on, off is needed")
    return bool(given == "on")


def _replay(parameters: Any) -> ReplayLimits:
    given = {
        name: parameters[name] for name in ("replay", "replay_tries", "replay_time") if name in parameters
    }
    if given.get("replay", "on").lower() not in ("on", "off"):
        raise ConfigurationError(f"replay={given['replay']}: one of on, off is needed")
    if given.get("replay", "on").lower() == "off":
        return ReplayLimits(tries=0)
    standard = ReplayLimits()
    try:
        tries = int(given.get("replay_tries", standard.tries))
        seconds = float(given.get("replay_time", standard.seconds))
    except ValueError:
        tries, seconds = -1, 0.0
    if tries < 0 or not 0 < seconds < 1e6:
        raise ConfigurationError(
            "replay_tries is a whole number of at least 0, replay_time a number of seconds"
        )
    return ReplayLimits(tries, seconds)
