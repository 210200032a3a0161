"""Opening a store to look at it.

A program that opens an LMDB directory wants it made if it is missing. An operator who asks after a
database wants to hear that it is not there, and not to find an empty one made by a misspelt path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rome.dialect.base import PARAMETERS
from rome.errors import ConfigurationError, StoreUnavailable
from rome.stores import Store, StoreURL, open_store, parse


def parsed(url: str) -> StoreURL:
    """The URL as programs write it. Raises `ConfigurationError`; `str` of the result hides the password."""
    return parse(url, extra=PARAMETERS)


def enforces_foreign_keys(url: StoreURL) -> bool:
    """Whether programs that use this URL have foreign keys enforced."""
    return url.extra.get("foreign_keys", "on").lower() != "off"


@contextmanager
def opened(url: StoreURL) -> Iterator[Store]:
    """The store of a URL, closed at the end. Raises what `open_store` raises, and `StoreUnavailable`."""
    if url.kind == "lmdb":
        directory = "/" + url.database.strip("/")
        if url.database.strip("/") and not os.path.exists(os.path.join(directory, "data.mdb")):
            raise StoreUnavailable(f"there is no database in {directory}")
    if url.kind == "memory" and not (url.host or url.database):
        raise ConfigurationError("a memory store without a name is private to its engine: nothing to look at")
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()
