"""Column affinity: what SQLite turns a value into when it is stored, or compared with a column.

The rules are those of "Datatypes In SQLite" (sqlite.org/datatype3.html), sections 3 and 4.2. Two
uses are made of them here:

* **storing**: `stored` converts the common cases in Python. What it does not decide (a float
  for a text column, say) it leaves to SQLite itself, by `UNDECIDED`.
* **looking up**: `lookup` turns the value that a column is compared with into the value whose key
  is searched. Where SQLite's answer depends on the *other* side's affinity, which a virtual table
  is not told, it says `UNDECIDED`, and the index column is left out of the search: a wider search
  is slower, a narrower one would be wrong.
"""

from __future__ import annotations

import re
from typing import Final

from rome.records.rows import Value

INTEGER: Final = "INTEGER"
TEXT: Final = "TEXT"
BLOB: Final = "BLOB"
REAL: Final = "REAL"
NUMERIC: Final = "NUMERIC"


class Undecided:
    """The type of UNDECIDED."""


UNDECIDED: Final = Undecided()

_NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?[ \t\n\v\f\r]*", re.ASCII)
_INTEGER = re.compile(r"[ \t\n\v\f\r]*[+-]?\d+[ \t\n\v\f\r]*", re.ASCII)
_INT64 = range(-(2**63), 2**63)


def affinity_of(declared: str) -> str:
    """The affinity of a column declared with this type."""
    name = declared.upper()
    if "INT" in name:
        return INTEGER
    if "CHAR" in name or "CLOB" in name or "TEXT" in name:
        return TEXT
    if "BLOB" in name or not name:
        return BLOB
    if "REAL" in name or "FLOA" in name or "DOUB" in name:
        return REAL
    return NUMERIC


def looks_numeric(value: str) -> bool:
    """Whether SQLite would turn this text into a number for a numeric column."""
    return _NUMBER.fullmatch(value) is not None


def to_number(value: str) -> Value:
    """Text under numeric affinity: the number that it spells, or itself."""
    if not looks_numeric(value):
        return value
    if _INTEGER.fullmatch(value):
        number = int(value)
        if number in _INT64:
            return number
    return float(value)


def stored(value: Value, affinity: str) -> Value | Undecided:
    """The value as a column of this affinity keeps it; UNDECIDED where SQLite has to say."""
    if value is None:
        return None
    kind = type(value)
    if affinity == TEXT:
        if kind is str or kind is bytes:
            return value
        return str(value) if kind is int else UNDECIDED
    if affinity == BLOB:
        return value
    if kind is int:
        return float(value) if affinity == REAL else value
    if kind is bytes:
        return value
    if kind is str and not looks_numeric(value):  # type: ignore[arg-type]
        return value
    if kind is float and affinity == REAL:
        return value
    return UNDECIDED


def lookup(value: Value, affinity: str) -> Value | Undecided:
    """The key value to search a column of this affinity for, when it is compared with `value`."""
    if value is None:
        return None
    if affinity == TEXT:
        return value if isinstance(value, str | bytes) else UNDECIDED
    if affinity == BLOB:
        return value if isinstance(value, bytes) else UNDECIDED
    return to_number(value) if isinstance(value, str) else value


def always_decided(affinity: str) -> bool:
    """Whether `lookup` has an answer for every value."""
    return affinity not in (TEXT, BLOB)
