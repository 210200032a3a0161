"""What this process has found out about schemas: the same questions have the same answers.

To describe a table, SQLite is asked a dozen questions; to describe a schema, hundreds. A process that
makes the same tables in many databases (a service has several, a test suite thousands) or opens the same
database again need not ask twice, for a catalog is immutable and depends on nothing but what made it:

    after     a catalog and a DDL statement → the catalog after it
    stored    a catalog → its stored form, and back
    shadow    a catalog → real, empty tables, copied from an image

A chain of DDL from the empty catalog is thus walked by one look-up a statement. What was not used for
long is forgotten. Safe for use by many threads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Final, Generic, TypeVar

from rome.sql.catalog import Catalog, decode_catalog
from rome.sql.shadow import Shadow

_STEPS: Final = 1024
_STORED: Final = 16
_IMAGES: Final = 16

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class _Recent(Generic[_Key, _Value]):
    """The most recently used values, by key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[_Key, _Value] = OrderedDict()
        self._lock = Lock()

    def get(self, key: _Key) -> _Value | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def keep(self, key: _Key, value: _Value) -> None:
        with self._lock:
            self._values[key] = value
            if len(self._values) > self._limit:
                self._values.popitem(last=False)


_steps: _Recent[tuple[Catalog, str, str | None], Catalog] = _Recent(_STEPS)
_catalogs: _Recent[bytes, Catalog] = _Recent(_STORED)
_encoded: _Recent[Catalog, bytes] = _Recent(_STORED)
_images: _Recent[Catalog, bytes] = _Recent(_IMAGES)


def after(catalog: Catalog, sql: str, altered: str | None) -> Catalog | None:
    """The catalog after a DDL statement; None if it has not been run on this catalog yet."""
    return _steps.get((catalog, sql, altered))


def remember(catalog: Catalog, sql: str, altered: str | None, result: Catalog) -> None:
    """`result` is the catalog after a DDL statement that depends on nothing but the catalog before it."""
    _steps.keep((catalog, sql, altered), result)


def encode(catalog: Catalog) -> bytes:
    """The stored form of a catalog."""
    encoded = _encoded.get(catalog)
    if encoded is None:
        encoded = catalog.encode()
        _encoded.keep(catalog, encoded)
        _catalogs.keep(encoded, catalog)
    return encoded


def decode(stored: bytes) -> Catalog:
    """The catalog of a stored form. Raises `FormatError`."""
    catalog = _catalogs.get(stored)
    if catalog is None:
        entries = tuple(map(tuple, decode_catalog(stored)["entries"]))
        catalog = Shadow(entries).catalog(stored)
        _catalogs.keep(stored, catalog)
    return catalog


def shadow(catalog: Catalog) -> Shadow:
    """A shadow of a catalog, copied from an image."""
    image = _images.get(catalog)
    if image is None:
        built = Shadow(catalog.entries)
        _images.keep(catalog, built.db.serialize("main"))
        return built
    copied = Shadow()
    if image:
        copied.db.deserialize("main", image)
    return copied
