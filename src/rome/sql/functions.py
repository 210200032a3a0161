"""Functions, aggregates and collations of the program, known to both databases of a connection.

A statement runs in the query processor, but a CHECK or an index over an expression is evaluated in
the shadow, which is thrown away and made again now and then; so what the program registered is kept
here, and given to each new shadow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

from rome.sql.schema import Schema


class Functions:
    """What one connection's program registered."""

    def __init__(self, db: apsw.Connection, schema: Schema) -> None:
        self._db = db
        self._schema = schema
        self._known: dict[tuple[str, str, int], Callable[[apsw.Connection], None]] = {}
        schema.on_shadow = self._register_all
        schema.has_own_functions = lambda: bool(self._known)

    def scalar(self, name: str, count: int, function: Callable[..., Any] | None, deterministic: bool) -> None:
        """A function of `count` arguments (-1: any number); None takes it away."""
        self._register(
            ("function", name.lower(), count),
            lambda db: db.create_scalar_function(name, function, count, deterministic=deterministic),
        )

    def aggregate(self, name: str, count: int, kind: type | None) -> None:
        """A class with `step` and `finalize`, as sqlite3 takes it."""

        def factory() -> Any:
            aggregate = kind()  # type: ignore[misc]
            return aggregate, lambda self, *values: self.step(*values), lambda self: self.finalize()

        self._register(
            ("aggregate", name.lower(), count),
            lambda db: db.create_aggregate_function(name, factory if kind is not None else None, count),
        )

    def collation(self, name: str, compare: Callable[[str, str], int] | None) -> None:
        """A comparison of texts; it orders rows, but no keys."""
        self._register(("collation", name.lower(), 0), lambda db: db.create_collation(name, compare))

    def _register(self, identity: tuple[str, str, int], register: Callable[[apsw.Connection], None]) -> None:
        self._known[identity] = register
        register(self._db)
        if self._schema.has_shadow:
            register(self._schema.shadow.db)

    def _register_all(self, db: apsw.Connection) -> None:
        for register in self._known.values():
            register(db)
