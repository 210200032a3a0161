"""oslo.db's test databases, made and dropped on ROME.

Test suites of OpenStack ask oslo.db for an empty database of their own. It asks the environment where:

    OS_TEST_DBAPI_ADMIN_CONNECTION=rome+redis://127.0.0.1:6379/admin

oslo.db reads that while `oslo_db.sqlalchemy.provision` is being imported, before anybody could register
anything with it. But it looks up the URL's dialect to see whom to ask, and so the dialect registers this
implementation just in time (`RomeDialect.get_dialect_cls`).

A database is a name in a URL, and there as soon as it is used. To tell one that was made from one that was
not, making it commits an empty schema.

    rome+memory://      beside it: rome+memory://<name>, shared by the engines of the process
    rome+lmdb:///a/b    beside it: rome+lmdb:///a/<name>. Dropping empties it; its files stay
    rome+redis://h/b    beside it: rome+redis://h/<name>
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import sqlalchemy
from sqlalchemy.engine import URL, Engine, make_url

from rome.records.keys import schema_key
from rome.stores.base import Read, Store

MODULE = "oslo_db.sqlalchemy.provision"


def named_url(base: str | URL, name: str) -> URL:
    """The URL of another database where `base` has its own."""
    url = make_url(base)
    if url.drivername.endswith("+lmdb"):
        folder = (url.database or "").rpartition("/")[0]
        return url.set(database=f"{folder}/{name}")
    if url.drivername in ("rome", "rome+memory"):
        return url.set(host=name)
    return url.set(database=name)


def exists(store: Store) -> bool:
    """Whether a schema was ever committed to it, an empty one included, since it was wiped."""
    snapshot = store.snapshot()
    try:
        return snapshot.read(Read(keys=[schema_key()])).values[schema_key()] is not None
    finally:
        snapshot.close()


def make_empty(engine: Engine) -> None:
    """Wipe a database, and commit an empty schema."""
    with engine.connect() as connection:
        store: Store = connection.connection.dbapi_connection.store  # type: ignore[union-attr]
        store.wipe()
        connection.exec_driver_sql("CREATE TABLE made (a)")
        connection.exec_driver_sql("DROP TABLE made")
        connection.commit()


def opened(url: URL) -> Any:
    """An engine whose store is open."""
    engine = sqlalchemy.create_engine(url)
    engine.connect().close()
    return engine


def close(engine: Any) -> None:
    store = engine.dialect.store
    engine.dispose()
    store.close()


@cache
def register() -> None:
    """Once in a process in which oslo.db's provisioning is imported, or is just being imported."""
    provision: Any = sys.modules[MODULE]

    @provision.BackendImpl.impl.dispatch_for("rome")
    class RomeBackendImpl(provision.BackendImpl):  # type: ignore[misc]
        """Named databases of a store."""

        def __init__(self, drivername: str) -> None:
            super().__init__(drivername)
            self._made: dict[URL, Any] = {}
            """What was made and not dropped is kept open: a database in memory lives as long as that."""

        def create_opportunistic_driver_url(self) -> str:
            return "rome+memory://openstack_citest"

        def create_named_database(self, engine: Engine, ident: str, conditional: bool = False) -> None:
            if self.database_exists(engine, ident):
                if not conditional:
                    raise ValueError(f"database {ident} is there already")
                return
            url = named_url(engine.url, ident)
            self._made[url] = opened(url)
            make_empty(self._made[url])

        def drop_named_database(self, engine: Engine, ident: str, conditional: bool = False) -> None:
            url = named_url(engine.url, ident)
            named = self._made.pop(url, None) or opened(url)
            try:
                if not conditional and not exists(named.dialect.store):
                    raise ValueError(f"there is no database {ident}")
                named.dialect.store.wipe()
            finally:
                close(named)

        def database_exists(self, engine: Engine, ident: str) -> bool:
            named = opened(named_url(engine.url, ident))
            try:
                return exists(named.dialect.store)
            finally:
                close(named)

        def drop_all_objects(self, engine: Engine) -> None:
            make_empty(engine)

        def provisioned_database_url(self, base_url: str | URL, ident: str) -> URL:
            return named_url(base_url, ident)
