"""What only Alembic needs: migrations that alter constraints and columns do so in place.

Alembic finds its implementation for a database by the dialect's name, and ROME's is "sqlite". There it
registers, through Alembic's own registry, a class that looks at the dialect: an engine of ROME's gets
`RomeImpl` (rome.migrations.implementation), every other one gets what was registered before, so that
nothing changes for the SQLite databases of the same process.

Two ways lead here, so that no program has to know of it: Alembic (1.18 and later) loads the plugin
`rome` by its entry point when it is imported, and the dialect calls `register` when an engine is made or
connects in a process where Alembic is in use.

Alembic 1.18 and 1.19 iterate over what the entry point leads to, where later ones take it for the plugin:
so this module can be iterated over, and yields itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import Any

DISTINCTION = "alters_in_place"
"""The attribute that ROME's dialects have and SQLite's has not."""


def setup(plugin: Any) -> None:
    """What Alembic calls for the plugin, in the midst of its own import."""
    with suppress(ImportError, KeyError):  # too early: the dialect will call
        register()


@cache
def register() -> None:
    """Make Alembic find `RomeImpl` for ROME's engines. Once in a process."""
    from alembic.ddl.impl import DefaultImpl
    from sqlalchemy.dialects.sqlite.base import SQLiteDialect

    from rome.migrations.implementation import RomeImpl  # and with it Alembic's own for SQLite

    registered: Any = DefaultImpl.get_by_dialect(SQLiteDialect())

    class SQLiteOrRomeImpl(registered):  # type: ignore[misc]
        """Chosen by name; makes an object of the class that the dialect asks for."""

        __dialect__ = "sqlite"

        def __new__(cls, dialect: Any, *arguments: Any, **options: Any) -> Any:
            if cls is not SQLiteOrRomeImpl:
                return super().__new__(cls)
            chosen = RomeImpl if getattr(dialect, DISTINCTION, False) else registered
            return chosen(dialect, *arguments, **options)


class _Plugin(ModuleType):
    """This module, for Alembics that iterate."""

    def __iter__(self) -> Iterator[ModuleType]:
        return iter([self])


sys.modules[__name__].__class__ = _Plugin
