"""The virtual tables and views in a connection's query processor, made when a statement names them.

A schema has hundreds of tables, a connection of a service uses a few of them, and a short-lived
connection one or two; SQLite takes its time to make each. So a change of the schema only takes away
what is no longer right, and each statement, before it runs, has made what it names and is not there.
A view needs what its own text names, and so on.

What was made inside of a transaction of SQLite's own (there is one while temporary tables are in
use) is gone when that rolls back: then all is taken away, to be made again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import apsw

from rome.sql.catalog import EMPTY, Catalog, Table
from rome.sql.module import VirtualTable, declaration
from rome.sql.session import Session
from rome.sql.shadow import quote
from rome.sql.statement import analyse
from rome.sql.writer import Writer

_MODULE = "rome"


class _Departed:
    """A table that is connected to just once more, to be dropped (apsw.VTTable)."""

    def Disconnect(self) -> None:
        """Nothing is held."""

    Destroy = Disconnect


class Installation:
    """What stands for a catalog in one connection's query processor."""

    def __init__(self, session: Session, db: apsw.Connection) -> None:
        self._session = session
        self._db = db
        self._catalog = EMPTY
        self._tables: dict[str, Table] = {}
        self._virtual: dict[str, VirtualTable] = {}
        self._views: dict[str, str] = {}
        self._absent: set[str] | None = None
        """The names in the catalog that have not been made; None: not known."""
        self._making = ""
        """What is being made. If it still says so later, that was interrupted, nobody knows how far on."""
        self._writer: Writer | None = None
        db.create_module(_MODULE, cast("apsw.VTModule", self), use_bestindex_object=True, use_no_change=True)

    def bind(self, writer: Writer) -> None:
        """The writer needs the schema, and the virtual tables need the writer."""
        self._writer = writer

    # apsw.VTModule

    def Create(
        self, db: apsw.Connection, module: str, database: str, name: str, *arguments: str
    ) -> tuple[str, VirtualTable | _Departed]:
        # SQLite connects to a table again after it rolled back, if only to drop it.
        table = self._tables.get(name.lower()) or self._catalog.tables.get(name.lower())
        if table is None:
            return "CREATE TABLE x(gone)", _Departed()
        db.vtab_config(apsw.SQLITE_VTAB_CONSTRAINT_SUPPORT, 1)
        assert self._writer is not None
        virtual = VirtualTable(table, self._session, self._writer, db)
        self._virtual[name.lower()] = virtual
        return declaration(table), virtual

    Connect = Create

    # What is there

    def follow(self, catalog: Catalog) -> None:
        """Stand for this catalog from now on: what is no longer right is taken away."""
        if self._making:
            self.clear()
        self._catalog = catalog
        self._absent = None
        departed = [name for name, table in self._tables.items() if catalog.tables.get(name) is not table]
        if departed or any(catalog.views.get(name) != sql for name, sql in self._views.items()):
            # With a table go the views: the next statement may name only the view.
            for name in self._views:
                self._db.execute(f"DROP VIEW IF EXISTS main.{quote(name)}")
            self._views.clear()
        for name in departed:
            self._db.execute(f"DROP TABLE IF EXISTS main.{quote(name)}")
            del self._tables[name]
            self._virtual.pop(name, None)

    def need(self, names: Iterable[str]) -> None:
        """Make what is named, in small letters, if it is a table or a view that is not there."""
        if self._making:
            self.clear()
        if self._absent is None:
            known = self._catalog.tables.keys() | self._catalog.views.keys()
            self._absent = known - self._tables.keys() - self._views.keys()
        if self._absent:
            for name in self._absent.intersection(names):
                self._make(name)

    def _make(self, name: str) -> None:
        assert self._absent is not None
        if name not in self._absent:  # made for a view that was named beside it
            return
        table = self._catalog.tables.get(name)
        if table is not None:
            self._making = name
            self._absent.discard(name)
            self._db.execute(f"CREATE VIRTUAL TABLE main.{quote(table.name)} USING {_MODULE}")
            self._tables[name] = table
        else:
            view = self._catalog.views[name]
            self._absent.discard(name)
            self.need(analyse(view).names)
            self._making = name
            self._db.execute(view)
            self._views[name] = view
        self._making = ""

    def virtual(self, name: str) -> VirtualTable:
        """The virtual table of this name. Raises `KeyError`."""
        self.need((name.lower(),))
        return self._virtual[name.lower()]

    def clear(self) -> None:
        """Take everything away."""
        for type, name in self._db.execute(
            "SELECT type, name FROM main.sqlite_master WHERE type IN ('table', 'view')"
        ).fetchall():
            self._db.execute(f"DROP {type} main.{quote(str(name))}")
        self._tables.clear()
        self._views.clear()
        self._virtual.clear()
        self._absent = None
        self._making = ""
