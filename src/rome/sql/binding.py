"""Parameters that are not SQLite values: made into one the way Python's sqlite3 does it.

Dates and times become ISO text; for any other type, the adapters count that the program registered
with `sqlite3.register_adapter`, and the `__conform__` method. What is left is refused.

A statement that may be run again (see rome.dbapi.replay) needs its parameters as they were, whatever
the program has done to its lists, dictionaries and buffers since: that is `frozen`. A statement that runs
in two parts shares its parameters out to them: that is `split`.
"""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Final

import apsw

from rome.sql.lexer import parameter_numbers, tokens

_LASTING: Final = frozenset([int, float, str, bytes, bool, type(None), datetime.datetime, datetime.date])
"""Types whose values do not change."""


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


def frozen(parameters: Any) -> Any:
    """The parameters of a statement as they are at this moment."""
    if isinstance(parameters, Mapping):
        taken = copy(parameters)
        if type(taken) is dict and not _LASTING.issuperset(map(type, taken.values())):
            return {name: _frozen_value(value) for name, value in taken.items()}
        return taken
    if not isinstance(parameters, list | tuple | Sequence):
        return parameters
    if _LASTING.issuperset(map(type, parameters)):
        return tuple(parameters)
    return tuple(map(_frozen_value, parameters))


def _frozen_value(value: Any) -> Any:
    """A value that lasts, where one can be made; the others are refused when they are bound."""
    if type(value) in _LASTING:
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    try:
        adapted = sqlite3.adapt(value, sqlite3.PrepareProtocol)
    except sqlite3.ProgrammingError:
        return value
    return bytes(adapted) if isinstance(adapted, bytearray | memoryview) else adapted


def split(sql: str, at: int, parameters: Sequence[Any] | Mapping[str, Any]) -> tuple[Any, Any]:
    """The parameters of a statement before a place in its text, and those behind it.

    Raises `apsw.BindingsError` if they are too many or too few, before one of the parts runs.
    """
    if isinstance(parameters, Mapping):
        return parameters, parameters
    numbers = parameter_numbers(tokens(sql))
    wanted = max(numbers.values(), default=0)
    if len(parameters) != wanted:
        raise apsw.BindingsError(
            f"Incorrect number of bindings supplied.  The current statement uses {wanted}"
            f" and there are {len(parameters)} supplied."
        )
    before = max((number for start, number in numbers.items() if start < at), default=0)
    return tuple(parameters[:before]), tuple(parameters[before:])
