"""ROME: SQLAlchemy programs on a distributed key/value store.

    from sqlalchemy import create_engine
    engine = create_engine("rome+redis://127.0.0.1:6379/glance")

or, by name:

    import rome
    engine = rome.create_engine("rome+lmdb:///var/lib/app/db")
    with rome.Session(engine) as session: ...

Everything else is SQLAlchemy. The errors below PEP 249 are in `rome.errors`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Query, Session

from rome.errors import ConfigurationError, LockError, LockLost, LockNotHeld, LockTimeout, RomeError
from rome.locks.lock import DEFAULT_TTL, Lock
from rome.sql.counters import Counters
from rome.sql.shared import shared_of
from rome.stores import Store

__version__ = "0.1.0"


def create_engine(url: Any, **options: Any) -> Engine:
    """SQLAlchemy's `create_engine`, for URLs with or without `rome+` in front."""
    if isinstance(url, str) and not url.startswith("rome+"):
        url = f"rome+{url}"
    return sqlalchemy.create_engine(url, **options)


def lock(
    engine: Engine,
    name: str,
    ttl: float = DEFAULT_TTL,
    *,
    blocking: bool = True,
    timeout: float | None = None,
    on_loss: Callable[[Lock], Any] | None = None,
) -> Lock:
    """A lock that all programs on the engine's database share; held by `with`, or by `acquire`.

    It is a lease of `ttl` seconds on the store's clock, renewed in the background until it is released,
    so that `ttl` is how long others wait for a holder that died. `timeout` (seconds; None: for ever) bounds
    the waiting, after which `with` raises `LockTimeout`; with `blocking=False` there is none. `on_loss` is
    called, in the thread that renews, with a lock that was lost. Raises `ConfigurationError`.
    """
    if not hasattr(type(getattr(engine, "dialect", None)), "store"):
        raise ConfigurationError(f"a lock needs an engine with a rome+… URL, not {engine!r}")
    return Lock(lambda: store_of(engine), name, ttl, blocking=blocking, timeout=timeout, on_loss=on_loss)


def store_of(engine: Engine) -> Store:
    """The store of an engine: its health, its counter of round trips."""
    dialect: Any = engine.dialect
    store: Store = dialect.store
    return store


def counters_of(engine: Engine) -> Counters:
    """What became of this process's transactions on an engine's store: commits, conflicts, replays.

    `rome status` shows the sums over all processes.
    """
    return shared_of(store_of(engine), 1).tally.counters


__all__ = [
    "Counters",
    "Engine",
    "Lock",
    "LockError",
    "LockLost",
    "LockNotHeld",
    "LockTimeout",
    "Query",
    "RomeError",
    "Session",
    "Store",
    "counters_of",
    "create_engine",
    "lock",
    "store_of",
]
