"""PEP 249's type constructors and type objects.

SQLite's storage classes are the types; dates and times are text, as SQLAlchemy keeps them there.
"""

from __future__ import annotations

import datetime
import time

Date = datetime.date
Time = datetime.time
Timestamp = datetime.datetime
Binary = memoryview


def DateFromTicks(ticks: float) -> datetime.date:
    return datetime.date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> datetime.time:
    return datetime.time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> datetime.datetime:
    return datetime.datetime(*time.localtime(ticks)[:6])


class _Type:
    """A type object: compares equal to the type codes of its kind."""

    def __init__(self, *names: str) -> None:
        self.names = names


STRING = _Type("TEXT", "CHAR", "CLOB")
BINARY = _Type("BLOB")
NUMBER = _Type("INT", "REAL", "FLOA", "DOUB", "NUMERIC")
DATETIME = _Type("DATE", "TIME")
ROWID = _Type("ROWID")
