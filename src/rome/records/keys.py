"""Keys: tuples of SQLite values as bytes whose order is SQLite's order of the values.

A store keeps its entries in byte order, so an index is nothing but keys that begin with the
indexed columns, provided that comparing bytes and comparing values always agree:

    NULL  <  numbers, integers and floats together  <  text  <  bytes

Each component says by itself where it ends, so no key is the beginning of another key of the same
layout, and a key prefix is a set of leading columns:

    NULL     10
    number   20  double (8 bytes, sign-adjusted)  [residual (2 bytes), from 2**53 on]
    text     30  UTF-8, folded by the collation, 00 written as 00 FF   end
    bytes    40  the bytes, 00 written as 00 FF                        end

    end      00 01                        the value is complete
             00 02 digest (16 bytes)      the value was cut: it goes on beyond its budget

**Numbers.** SQLite compares an integer with a float exactly, so 1 and 1.0 have one encoding and
2**53 + 1 lies above 2.0**53. The double is the greatest one that is not above the number; from
2**53 on, where neighbouring doubles lie further apart than integers, the residual says how far
above it the number is (at most 1023, for 64 bits).

**Cut values.** The smallest limit on keys among the stores is LMDB's 511 bytes. Each column gets an
equal share of what a key may have; a value beyond its share is cut there and completed by a
digest of all of it. Order holds up to the cut: `00 01 < 00 02 < 00 FF`, so a value that ends at the
cut comes before all that go on. Among values with the same first bytes the order is the digest's,
so a range whose bound is cut takes in all of them, and order from such a column is not to be
trusted; equality is. The store layer's user checks the rows that such a range brings.

**Descending** columns have all bytes of the component inverted. Type bytes, inverted or not, are
never FF: `component + FF` is thus just behind all keys that begin with the component.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from rome.errors import LimitExceeded
from rome.records.rows import Value
from rome.stores.base import Range

MAX_KEY_BYTES = 440
"""No key is longer, whatever it holds; the rest up to LMDB's 511 is left to the store's own prefix."""
MAX_KEY_COLUMNS = 16

_NULL = 0x10
_NUMBER = 0x20
_TEXT = b"\x30"
_BYTES = b"\x40"
_COMPLETE = b"\x00\x01"
_CUT = b"\x00\x02"
_DIGEST_BYTES = 16
_OVERHEAD = len(_TEXT) + len(_CUT) + _DIGEST_BYTES
_BEHIND = b"\xff"

_INVERTED = bytes(range(255, -1, -1))
_NULL_KEY = bytes([_NULL])
_ABOVE_NULL = bytes([_NULL + 1])
_ZERO_KEY = struct.pack(">BQ", _NUMBER, 1 << 63)
_EXACT = 1 << 53
"""Below this, every integer is a double."""

_pack_double = struct.Struct(">Bd").pack
_pack_bits = struct.Struct(">BQ").pack
_pack_residual = struct.Struct(">H").pack
_raw_double = struct.Struct(">d").pack
_raw_bits = struct.Struct(">Q").unpack

Bound = tuple[Value, bool]
"""A value, and whether it belongs to the range itself."""


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """How one column stands in a key."""

    collation: str = "BINARY"
    descending: bool = False


class KeyLayout:
    """The keys of one table or index: what they begin with, and their columns.

    Raises `LimitExceeded` for more columns than a key can have.
    """

    __slots__ = ("_encoders", "columns", "cut_limit", "prefix")

    def __init__(self, prefix: bytes, columns: Sequence[KeyColumn], unlimited: bool = False) -> None:
        """`unlimited` keys are never cut, for sorting in memory."""
        if len(columns) > MAX_KEY_COLUMNS and not unlimited:
            raise LimitExceeded(
                f"a key has at most {MAX_KEY_COLUMNS} columns (those of the index and of the"
                f" primary key together), not {len(columns)}"
            )
        self.prefix = prefix
        self.columns = tuple(columns)
        share = (MAX_KEY_BYTES - len(prefix)) // max(1, len(columns))
        self.cut_limit = share - _OVERHEAD if not unlimited else sys.maxsize
        """Text and bytes longer than this (in bytes, a NUL counting twice) are cut."""
        self._encoders = tuple(_encoder(column, self.cut_limit) for column in columns)

    def encode(self, values: Sequence[Value]) -> bytes:
        """The key of these values, or what all keys with these leading values begin with."""
        encoders = self._encoders
        if len(values) == 1:
            return self.prefix + encoders[0](values[0])
        if len(values) > len(encoders):
            raise ValueError(f"{len(values)} values for a key of {len(encoders)} columns")
        key = self.prefix
        for encode, value in zip(encoders, values):  # noqa: B905 - a leading part has fewer values
            key += encode(value)
        return key

    def is_cut(self, values: Sequence[Value]) -> bool:
        """Whether one of the values is too long to stand in a key whole."""
        certain = self.cut_limit // 4
        for value, encode in zip(values, self._encoders, strict=False):
            long = isinstance(value, str | bytes) and len(value) > certain
            if long and self._ends_in_digest(encode(value), value):
                return True
        return False

    def range(self, equal: Sequence[Value], low: Bound | None = None, high: Bound | None = None) -> Range:
        """All keys whose leading columns are `equal`, and whose next column lies within the bounds.

        In `equal`, None finds NULL. As in SQL, a column compared with a bound is not NULL, and
        nothing compares with a bound that is NULL. A cut bound brings in every value that
        agrees with it up to the cut: the digest orders nothing.
        """
        base = self.encode(equal)
        if low is None and high is None:
            return Range(base, base + _BEHIND)
        if (low is not None and low[0] is None) or (high is not None and high[0] is None):
            return Range(base, base)
        column = self.columns[len(equal)]
        encode = self._encoders[len(equal)]
        first, last = (high, low) if column.descending else (low, high)
        start = end = base
        if first is not None:
            component = encode(first[0])
            if self._ends_in_digest(component, first[0]):
                start += component[:-_DIGEST_BYTES]
            else:
                start += component if first[1] else component + _BEHIND
        elif not column.descending:
            start += _ABOVE_NULL
        if last is not None:
            component = encode(last[0])
            if self._ends_in_digest(component, last[0]):
                end += component[: -_DIGEST_BYTES - 1] + bytes([component[-_DIGEST_BYTES - 1] + 1])
            else:
                end += component + _BEHIND if last[1] else component
        else:
            end += _NULL_KEY.translate(_INVERTED) if column.descending else _BEHIND
        return Range(start, max(start, end))

    def _ends_in_digest(self, component: bytes, value: Value) -> bool:
        longest_complete = len(_TEXT) + self.cut_limit + len(_COMPLETE)
        return isinstance(value, str | bytes) and len(component) > longest_complete


def _encoder(column: KeyColumn, limit: int) -> Callable[[Value], bytes]:
    """The function that encodes one column's values: the hot path of every read and write."""
    fold = _FOLDS[column.collation]

    def ascending(value: Value) -> bytes:
        if type(value) is str:
            raw = value.encode()
            if fold is not None:
                raw = fold(raw)
            if len(raw) <= limit and 0 not in raw:
                return b"\x30%b\x00\x01" % raw
            return _TEXT + _finished(raw, limit)
        if type(value) is int:
            if 0 < value < _EXACT:
                # The double's order-preserving form has its sign bit set: that of its negative.
                return _pack_double(_NUMBER, -value)
            return _encode_integer(value)
        if value is None:
            return _NULL_KEY
        if isinstance(value, float):
            return _encode_float(value)
        if isinstance(value, int):
            return _encode_integer(value)
        if isinstance(value, str):
            return ascending(str(value))
        return _BYTES + _finished(bytes(value), limit)

    if not column.descending:
        return ascending
    return lambda value: ascending(value).translate(_INVERTED)


def _encode_integer(value: int) -> bytes:
    if value == 0:
        return _ZERO_KEY
    if -_EXACT < value < _EXACT:
        return _encode_double(float(value))
    below = float(value)
    if below > value:
        below = math.nextafter(below, -math.inf)
    return _encode_double(below) + _pack_residual(value - int(below))


def _encode_float(value: float) -> bytes:
    if value == 0.0:  # -0.0 too
        return _ZERO_KEY
    if -_EXACT < value < _EXACT:
        return _encode_double(value)
    return _encode_double(value) + b"\x00\x00"


def _encode_double(value: float) -> bytes:
    if value > 0:
        return _pack_double(_NUMBER, -value)
    (bits,) = _raw_bits(_raw_double(value))
    return _pack_bits(_NUMBER, bits ^ 0xFFFF_FFFF_FFFF_FFFF)


def _escape(raw: bytes) -> bytes:
    return raw.replace(b"\x00", b"\x00\xff") if 0 in raw else raw


def _finished(raw: bytes, limit: int) -> bytes:
    """Escaped bytes and their end. The cut comes between two bytes, never within an escape."""
    escaped = _escape(raw)
    if len(escaped) <= limit:
        return escaped + _COMPLETE
    kept = escaped[:limit]
    if kept.endswith(b"\x00"):
        kept = kept[:-1]
    return kept + _CUT + blake2b(raw, digest_size=_DIGEST_BYTES).digest()


def _fold_case(raw: bytes) -> bytes:
    """What NOCASE compares: ASCII letters fold. Behind a NUL it only compares the whole lengths."""
    if 0 in raw:
        head = raw[: raw.index(0) + 1]
        return head.lower() + len(raw).to_bytes(4, "big")
    return raw.lower()


def _strip_spaces(raw: bytes) -> bytes:
    """What RTRIM compares."""
    return raw.rstrip(b" ")


COLLATIONS = ("BINARY", "NOCASE", "RTRIM")
"""The collations that keys know."""

_FOLDS: dict[str, Callable[[bytes], bytes] | None] = {
    "BINARY": None,
    "NOCASE": _fold_case,
    "RTRIM": _strip_spaces,
}


# The key spaces of one database (the store adds the database's name in front):
#
#     00                        catalog
#     01 <table>                sequence: the last number handed out
#     02 <table>                count: how many rows
#     03 <table> <pk...>        row
#     04 <index> <columns...>   index entry

CATALOG_KEY = b"\x00"
"""What the catalog's keys begin with, and the key of its main entry."""


def sequence_key(table_id: int) -> bytes:
    """The counter that numbers a table's rows."""
    return b"\x01" + _identifier(table_id)


def count_key(table_id: int) -> bytes:
    """The counter of a table's rows."""
    return b"\x02" + _identifier(table_id)


def row_prefix(table_id: int) -> bytes:
    """What the keys of a table's rows begin with."""
    return b"\x03" + _identifier(table_id)


def index_prefix(index_id: int) -> bytes:
    """What the keys of an index's entries begin with."""
    return b"\x04" + _identifier(index_id)


def statistic_key(name: str) -> bytes:
    """The counter of something that operators ask after: commits, conflicts …"""
    return b"\x07" + name.encode()


def _identifier(number: int) -> bytes:
    """One byte below 240; otherwise 239 + the number of bytes that follow, and those."""
    if number < 0:
        raise ValueError("identifiers are not negative")
    if number < 240:
        return bytes([number])
    size = (number.bit_length() + 7) // 8
    return bytes([239 + size]) + number.to_bytes(size, "big")


def key_space(key: bytes) -> bytes:
    """What `key` begins with: the prefix of its table or index, as the functions above give it."""
    if key.startswith(CATALOG_KEY):
        return CATALOG_KEY
    number = key[1]
    return key[:2] if number < 240 else key[: number - 237]


def schema_key() -> bytes:
    """The small entry that every transaction reads: whoever changes the schema writes it."""
    return CATALOG_KEY + b"\x01"
