"""Types in CREATE TABLE.

SQLite numbers the rows of a table only if its primary key is declared as INTEGER, to the letter; with
BIGINT an INSERT has to bring the number. Programs that were written for other databases declare such keys as
BigInteger and rely on numbers. Both names stand for the same 64-bit integers, so a key that is to be numbered
(SQLAlchemy's `Table.autoincrement_column`) is declared as INTEGER whatever its size is said to be.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.sqlite.base import SQLiteTypeCompiler


class RomeTypeCompiler(SQLiteTypeCompiler):
    """Writes types as SQLite takes them."""

    def visit_BIGINT(self, type_: Any, **options: Any) -> str:
        return "INTEGER" if _is_numbered(options) else super().visit_BIGINT(type_, **options)

    def visit_SMALLINT(self, type_: Any, **options: Any) -> str:
        return "INTEGER" if _is_numbered(options) else super().visit_SMALLINT(type_, **options)


def _is_numbered(options: dict[str, Any]) -> bool:
    """Whether the type is written for the column that numbers the rows of its table."""
    column = options.get("type_expression")
    table = getattr(column, "table", None)
    return table is not None and getattr(table, "_autoincrement_column", None) is column
