"""Running the same statements on a store and on Python's sqlite3, which must do the same."""

from __future__ import annotations

import sqlite3
from typing import Any

from rome.dbapi import Connection


class Beside:
    """A store's connection and SQLite's own, in step."""

    def __init__(self, connection: Connection, foreign_keys: bool = True) -> None:
        self.rome = connection
        self.plain = sqlite3.connect(":memory:")
        self.plain.execute(f"PRAGMA foreign_keys = {'on' if foreign_keys else 'off'}")

    def run(self, sql: str, parameters: tuple[Any, ...] = ()) -> Any:
        """What the statement gives, on both: its rows and row count, or its error's class and text."""
        expected, found = (_outcome(connection, sql, parameters) for connection in (self.plain, self.rome))
        assert found == expected, f"{sql}: {found}, not {expected}"
        return found

    def script(self, text: str) -> None:
        """Run several statements, one by one."""
        for sql in text.split(";\n"):
            if sql.strip():
                self.run(sql)

    def fails(self, sql: str, message: str) -> None:
        """The statement fails with this text, on both."""
        _, text = self.run(sql)
        assert text == message, sql

    def commit(self) -> None:
        self.plain.commit()
        self.rome.commit()

    def same(self, *tables: str) -> None:
        """The tables hold the same rows."""
        for table in tables:
            self.run(f"SELECT * FROM {table} ORDER BY 1, 2")

    def close(self) -> None:
        self.plain.close()


def _outcome(connection: Any, sql: str, parameters: tuple[Any, ...]) -> Any:
    try:
        cursor = connection.execute(sql, parameters)
        return cursor.fetchall(), cursor.rowcount
    except Exception as error:
        if not hasattr(connection, type(error).__name__):
            raise
        return type(error).__name__, str(error)
