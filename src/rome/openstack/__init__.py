"""What only OpenStack needs: oslo.db is told which of ROME's errors is which.

oslo.db turns database errors into its own by filters: functions that it finds by the dialect's
name, the error's class and a pattern for its text. ROME's texts for broken constraints are SQLite's,
which oslo.db knows. Two things are missing:

**The serialization failure**, which SQLite does not have, is made a `DBDeadlock`: the error that
OpenStack's services answer by running the transaction again. (oslo.db's public decorator.)

**A constraint that only COMMIT found broken.** In a database with locks the second of two racing INSERTs
waits, and is refused at its statement. Here it is refused at COMMIT, where a service that catches
`DBDuplicateEntry` around its INSERT does not look any more. What such a service does have is a retry of
the whole transaction for `DBDeadlock`, and run again, the INSERT is refused where it is expected. So the
error of COMMIT is both: whichever the service is prepared for, it has. (A listener of SQLAlchemy's
public event `handle_error`. It must come after oslo.db's, which is added once the engine is made: so it
is added at the engine's first connect.)

The dialect calls `register` when an engine is made in a process where oslo.db is in use.

Beside that, oslo.db's test databases can be made on ROME: see rome.openstack.provisioning.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import event, exc
from sqlalchemy.engine import Engine

from rome.dbapi import SERIALIZATION_FAILURE


def register(engine: Engine) -> None:
    """See that oslo.db's errors on this engine are the right ones."""
    _add_filter()

    def first_connect(*ignored: Any) -> None:
        listener = _of_both_kinds()
        if not event.contains(engine, "handle_error", listener):
            event.listen(engine, "handle_error", listener, retval=True)

    event.listen(engine, "first_connect", first_connect)


@cache
def _add_filter() -> None:
    """Once in a process."""
    from oslo_db import exception
    from oslo_db.sqlalchemy.exc_filters import filters

    @filters("sqlite", exc.OperationalError, rf"^.*{SERIALIZATION_FAILURE}")  # type: ignore[untyped-decorator]
    def serialization_failure(error: Any, match: Any, engine_name: str, is_disconnect: bool) -> None:
        raise exception.DBDeadlock(error)


@cache
def _of_both_kinds() -> Any:
    """The listener that makes a late violation a deadlock as well."""
    from oslo_db import exception

    class DBDuplicateEntryAtCommit(exception.DBDuplicateEntry, exception.DBDeadlock):  # type: ignore[misc]
        """Another transaction took the unique value first."""

    class DBReferenceErrorAtCommit(exception.DBReferenceError, exception.DBDeadlock):  # type: ignore[misc]
        """Another transaction took away what is referred to, or referred to what was deleted."""

    def both(context: Any) -> Any:
        found = getattr(context, "chained_exception", None)  # unset where no listener has raised
        if not getattr(context.original_exception, "at_commit", False):
            return None
        if isinstance(found, exception.DBDeadlock):
            return None
        if isinstance(found, exception.DBDuplicateEntry):
            return DBDuplicateEntryAtCommit(found.columns, found.inner_exception, found.value)
        if isinstance(found, exception.DBReferenceError):
            details = (found.table, found.constraint, found.key, found.key_table)
            return DBReferenceErrorAtCommit(*details, found.inner_exception)
        return None

    return both
