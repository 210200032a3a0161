"""REGEXP, which SQLite leaves to the program; every connection has it."""

from __future__ import annotations

import re
from typing import Any

import apsw


def register(db: apsw.Connection) -> None:
    """Make `value REGEXP pattern` known to a connection."""
    db.create_scalar_function("regexp", _regexp, 2, deterministic=True)


def _regexp(*arguments: Any) -> bool | None:
    """`value REGEXP pattern`: Python's re.search, as SQLAlchemy and oslo.db define it for SQLite."""
    pattern, value = arguments
    if pattern is None or value is None:
        return None
    return re.search(pattern, str(value)) is not None
