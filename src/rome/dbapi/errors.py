"""The PEP 249 errors, and the one place where the errors of all layers below become them.

    Error
    ├── InterfaceError
    └── DatabaseError
        ├── OperationalError      store down, time-out, conflict, no such table, SQL errors
        │   └── LockLost          COMMIT under a lock whose lease had ended (a rome.errors.LockLost, too)
        ├── IntegrityError        NOT NULL, UNIQUE, CHECK, foreign keys
        ├── ProgrammingError      wrong parameters, closed connection
        ├── NotSupportedError     SQL without an implementation over a store
        ├── DataError             a key, value or statement beyond a limit
        └── InternalError         damaged records

Texts are SQLite's own where SQLite has one, since programs (oslo.db among them) read them. The
classes are those that Python's sqlite3 raises in the same situation.
"""

from __future__ import annotations

from typing import Final

import apsw

from rome import errors
from rome.sql.errors import NotSupported
from rome.transaction import ConstraintViolated

SERIALIZATION_FAILURE: Final = "serialization failure"
"""How the text of an OperationalError begins that a retry of the transaction may cure."""


class Warning(Exception):
    """PEP 249: important warnings. Never raised by ROME."""


class Error(Exception):
    """PEP 249: the root of all database errors."""


class InterfaceError(Error):
    """PEP 249: wrong use of the interface."""


class DatabaseError(Error):
    """PEP 249: errors of the database."""


class OperationalError(DatabaseError):
    """PEP 249: the store or the statement failed, not necessarily by the program's doing.

    `disconnected`: the connection cannot be used any more.
    """

    disconnected = False


class LockLost(OperationalError, errors.LockLost):
    """The transaction ran under a lock whose lease ended before COMMIT; nothing of it was written.

    Not to be cured by running the transaction again: the lock has to be acquired again first.
    """


class IntegrityError(DatabaseError):
    """PEP 249: a constraint is broken.

    `at_commit`: only COMMIT could see it, since another transaction got there first. Run again, the
    transaction would see it at its statement.
    """

    at_commit = False


class ProgrammingError(DatabaseError):
    """PEP 249: the program made a mistake."""


class NotSupportedError(DatabaseError):
    """PEP 249: not available over a key/value store."""


class DataError(DatabaseError):
    """PEP 249: the data is beyond a limit."""


class InternalError(DatabaseError):
    """PEP 249: the database is in a state that it should not be in."""


_APSW: Final[tuple[tuple[type[BaseException], type[Error]], ...]] = (
    (apsw.ConstraintError, IntegrityError),
    (apsw.MismatchError, IntegrityError),
    (apsw.BindingsError, ProgrammingError),
    (apsw.TooBigError, DataError),
    (apsw.MisuseError, ProgrammingError),
    (apsw.RangeError, ProgrammingError),
    (apsw.InternalError, InternalError),
    (apsw.Error, OperationalError),
)


def translate(error: BaseException) -> BaseException:
    """The PEP 249 error for an error from below; other exceptions are returned as they are."""
    if isinstance(error, errors.RomeError) and not isinstance(error, Error):
        return _translate_own(error)
    if isinstance(error, apsw.Error):
        text = str(error)
        for kind, translated in _APSW:
            if isinstance(error, kind):
                return translated(text)
    if isinstance(error, UnicodeDecodeError):
        return OperationalError(f"Could not decode to UTF-8: {error}")
    return error


def _translate_own(error: errors.RomeError) -> Error:
    if isinstance(error, errors.Conflict):
        return OperationalError(f"{SERIALIZATION_FAILURE}: {error}; run the transaction again")
    if isinstance(error, ConstraintViolated):
        late = IntegrityError(str(error))
        late.at_commit = True
        return late
    if isinstance(error, NotSupported):
        return NotSupportedError(str(error))
    if isinstance(error, errors.LimitExceeded):
        return DataError(str(error))
    if isinstance(error, errors.FormatError):
        return InternalError(str(error))
    if isinstance(error, errors.LockLost):
        return LockLost(f"{error}; nothing of the transaction was written")
    if isinstance(error, errors.ConfigurationError | errors.LockError):
        return ProgrammingError(str(error))
    found = OperationalError(str(error))
    found.disconnected = isinstance(error, errors.StoreUnavailable)
    return found
