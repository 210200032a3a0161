"""What only OpenStack needs: oslo.db is told which of ROME's errors is which.

oslo.db turns database errors into its own by filters: functions that it finds by the dialect's
name, the error's class and a pattern for its text. ROME's texts for broken constraints are SQLite's,
which oslo.db knows. Missing is the serialization failure, which SQLite does not have; here it is
made a `DBDeadlock`, the error that OpenStack's services answer by running the transaction again.

`register` uses oslo.db's public decorator. The dialect calls it when an engine is made in a process
where oslo.db is in use.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from rome.dbapi import SERIALIZATION_FAILURE


@cache
def register() -> None:
    """Add the filter, once in a process."""
    from oslo_db import exception
    from oslo_db.sqlalchemy.exc_filters import filters
    from sqlalchemy import exc

    @filters("sqlite", exc.OperationalError, rf"^.*{SERIALIZATION_FAILURE}")  # type: ignore[untyped-decorator]
    def serialization_failure(error: Any, match: Any, engine_name: str, is_disconnect: bool) -> None:
        raise exception.DBDeadlock(error)
