"""PEP 249 over ROME's query processor: `connect`, `Connection`, `Cursor` and the errors."""

from typing import Any

import apsw

from rome.dbapi.connection import Connection
from rome.dbapi.cursor import Cursor
from rome.dbapi.errors import (
    SERIALIZATION_FAILURE,
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    LockLost,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,
    translate,
)
from rome.dbapi.types import (
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    Date,
    DateFromTicks,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
)

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"

sqlite_version = apsw.sqlite_lib_version()
sqlite_version_info = tuple(int(part) for part in sqlite_version.split("."))


def connect(url: str, **options: Any) -> Connection:
    """Open a connection to the database that a store URL names.

    The options are those of `Connection`. Raises PEP 249 errors.
    """
    from rome.stores import open_store

    try:
        store = open_store(url)
    except Exception as error:
        raise translate(error) from error
    return Connection(store, on_close=store.close, **options)


__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "SERIALIZATION_FAILURE",
    "STRING",
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "LockLost",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "sqlite_version",
    "sqlite_version_info",
    "threadsafety",
    "translate",
]
