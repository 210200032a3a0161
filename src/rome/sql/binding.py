"""Parameters that are not SQLite values: made into one the way Python's sqlite3 does it.

Dates and times become ISO text; for any other type, the adapters count that the program registered
with `sqlite3.register_adapter`, and the `__conform__` method. What is left is refused.
"""

from __future__ import annotations

import datetime
import sqlite3
from typing import Any

import apsw


def convert(cursor: apsw.Cursor, number: int, value: Any) -> Any:
    """The SQLite value for a parameter (apsw.Connection.convert_binding)."""
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    if isinstance(value, datetime.date):
        return value.isoformat()
    try:
        adapted = sqlite3.adapt(value, sqlite3.PrepareProtocol)
    except sqlite3.ProgrammingError:
        adapted = value
    if adapted is None or isinstance(adapted, int | float | str | bytes | bytearray | memoryview):
        return adapted
    raise apsw.BindingsError(
        f"Error binding parameter {number}: type '{type(value).__name__}' is not supported"
    )
