"""The whole database as a script of SQL statements, as sqlite3's `iterdump` gives it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rome.sql.results import run_on
from rome.sql.shadow import quote
from rome.sql.statement import analyse

if TYPE_CHECKING:
    from rome.sql.processor import Processor


def script(processor: Processor) -> Iterator[str]:
    """CREATE statements and INSERTs, between BEGIN and COMMIT. Runs within the transaction."""
    look = "SELECT 1 FROM sqlite_master LIMIT 0"
    processor.execute(analyse(look), look)  # adopts the newest schema
    processor.schema.installation.need(processor.schema.catalog.tables)
    yield "BEGIN TRANSACTION;"
    later = []
    for type, name, _, sql in processor.schema.catalog.entries:
        if type != "table":
            later.append(f"{sql};")
            continue
        yield f"{sql};"
        table = processor.schema.catalog.tables[name.lower()]
        columns = [column for column in table.columns if not column.generated]
        names = ", ".join(quote(column.name) for column in columns)
        values = " || ',' || ".join(f"quote({quote(column.name)})" for column in columns)
        into = f"INSERT INTO {quote(name)} ({names}) VALUES("
        query = f"SELECT ? || {values} || ');' FROM main.{quote(name)}"
        for (line,) in run_on(processor.db, query, (into,)).rows:
            yield str(line)
    yield from later
    yield "COMMIT;"
