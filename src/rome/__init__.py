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

from typing import Any

import sqlalchemy
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Query, Session

from rome.errors import RomeError
from rome.sql.shared import Counters, shared_of
from rome.stores import Store

__version__ = "0.1.0"


def create_engine(url: Any, **options: Any) -> Engine:
    """SQLAlchemy's `create_engine`, for URLs with or without `rome+` in front."""
    if isinstance(url, str) and not url.startswith("rome+"):
        url = f"rome+{url}"
    return sqlalchemy.create_engine(url, **options)


def store_of(engine: Engine) -> Store:
    """The store of an engine: its health, its counter of round trips."""
    dialect: Any = engine.dialect
    store: Store = dialect.store
    return store


def counters_of(engine: Engine) -> Counters:
    """What became of this process's transactions on an engine's store: commits, conflicts, replays."""
    return shared_of(store_of(engine), 1).counters


__all__ = [
    "Counters",
    "Engine",
    "Query",
    "RomeError",
    "Session",
    "Store",
    "counters_of",
    "create_engine",
    "store_of",
]
