"""PRAGMA: what the connection answers itself, and what it leaves to the shadow.

Questions about the schema go to the shadow, which has it as SQLite's own. Settings that change how
statements are evaluated go to both databases. Foreign keys are ROME's to enforce.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rome.records.rows import Value
from rome.sql.catalog import Table
from rome.sql.results import Result, run_on
from rome.sql.shadow import quote
from rome.sql.statement import Statement

if TYPE_CHECKING:
    from rome.sql.processor import Processor

EVALUATION = frozenset(["case_sensitive_like", "recursive_triggers", "automatic_index", "temp_store"])
_TRUE = frozenset(["1", "on", "yes", "true"])


def run(processor: Processor, statement: Statement, sql: str) -> Result:
    """Answer a PRAGMA."""
    name = (statement.name or "").lower()
    value = statement.pragma_value.strip("'\"").lower() if statement.pragma_value is not None else None
    if name == "foreign_keys":
        if value is None:
            return Result((("foreign_keys", None),), [(int(processor.writer.foreign_keys),)])
        # As in SQLite, no effect in the middle of a transaction that has written.
        if not processor.session.transaction.buffer.mark():
            processor.writer.foreign_keys = value in _TRUE
        return Result()
    if name == "defer_foreign_keys":
        references = processor.writer.references
        if value is None:
            return Result((("defer_foreign_keys", None),), [(int(references.defer_all),)])
        references.defer_all = value in _TRUE
        return Result()
    if name == "foreign_key_check":
        return _foreign_key_check(processor, value)
    if name in EVALUATION:
        run_on(processor.db, sql, ())
    return run_on(processor.schema.shadow.db, sql, ())


def _foreign_key_check(processor: Processor, only: str | None) -> Result:
    """The rows whose parents are missing: table, rowid, parent, number of the foreign key."""
    catalog = processor.schema.catalog
    found: list[tuple[Value, ...]] = []
    processor.schema.installation.need(catalog.tables)
    for table in catalog.tables.values():
        if only is not None and table.name.lower() != only:
            continue
        for number, foreign_key in enumerate(reversed(table.foreign_keys)):
            parent = catalog.table(foreign_key.parent)
            own = [quote(table.columns[ordinal].name) for ordinal in foreign_key.columns]
            if parent is None:
                condition = " AND ".join(f"c.{name} IS NOT NULL" for name in own)
            else:
                condition = _orphaned(parent, catalog.parent_columns(parent, foreign_key), own)
            sql = f"SELECT c.rowid FROM main.{quote(table.name)} AS c WHERE {condition}"
            for (rowid,) in run_on(processor.db, sql, ()).rows:
                found.append((table.name, rowid, foreign_key.parent, number))
    description = (("table", None), ("rowid", None), ("parent", None), ("fkid", None))
    return Result(description, found)


def _orphaned(parent: Table, ordinals: tuple[int, ...] | None, own: list[str]) -> str:
    set_ = " AND ".join(f"c.{name} IS NOT NULL" for name in own)
    theirs = [quote(parent.columns[ordinal].name) for ordinal in ordinals or ()]
    match = " AND ".join(f"p.{a} = c.{b}" for a, b in zip(theirs, own, strict=False)) or "0"
    return f"{set_} AND NOT EXISTS (SELECT 1 FROM main.{quote(parent.name)} AS p WHERE {match})"
