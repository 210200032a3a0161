"""What a statement gives: running one on an SQLite connection, and its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw

from rome.records.rows import Value

Parameters = Sequence[Any] | Mapping[str, Any]
Description = tuple[tuple[str, str | None], ...]


@dataclass(slots=True)
class Result:
    """What a statement gave."""

    description: Description | None = None
    """Names and declared types of the columns; None for a statement without rows."""
    rows: list[tuple[Value, ...]] = field(default_factory=list)
    changed: int = -1
    """The number of rows written; -1 for a statement that does not write rows."""
    last_row_id: int | None = None


def run_on(db: apsw.Connection, sql: str, parameters: Parameters) -> Result:
    """Run a statement on a connection and fetch everything it gives."""
    result = Result()

    def describe(cursor: apsw.Cursor, text: str, bindings: Any) -> bool:
        try:
            result.description = tuple(cursor.get_description()) or None
        except apsw.ExecutionCompleteError:
            result.description = None
        return True

    cursor = db.cursor()
    cursor.exec_trace = describe
    try:
        rows: Iterable[Any] = cursor.execute(sql, parameters)
    except KeyError as error:
        if isinstance(parameters, Mapping) and error.args[0] not in parameters:
            text = f"You did not supply a value for binding parameter :{error.args[0]}."
            raise apsw.BindingsError(text) from None
        raise
    result.rows = list(rows)
    return result
