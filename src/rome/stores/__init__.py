"""Ordered, versioned key/value stores behind one contract, `rome.stores.base`.

`open_store` opens the store that a URL names; the docstring of each store's module gives its URL
grammar, and says honestly what that store promises.
"""

from rome.stores.base import (
    ABSENT,
    Characteristics,
    Entry,
    Range,
    RangeRead,
    Read,
    ReadSet,
    Reply,
    Scan,
    Snapshot,
    Store,
    Writes,
    prefix_range,
    range_read,
    total_bytes,
)
from rome.stores.url import StoreURL, open_store, parse

__all__ = [
    "ABSENT",
    "Characteristics",
    "Entry",
    "Range",
    "RangeRead",
    "Read",
    "ReadSet",
    "Reply",
    "Scan",
    "Snapshot",
    "Store",
    "StoreURL",
    "Writes",
    "open_store",
    "parse",
    "prefix_range",
    "range_read",
    "total_bytes",
]
