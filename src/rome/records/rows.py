"""Rows: the values of one row as MessagePack.

A row is an array, and the value of the column with id *n* is its element *n*. Column ids are never
used twice within a table, so adding, renaming or dropping a column rewrites no row: a row written
before a column was added is simply shorter, and the reader supplies that column's default.

SQLite's five storage classes map to MessagePack's nil, integer, float, string and binary; integers
and floats stay apart. What does not decode to an array is damage; a changed byte within a value
passes for a value, as it would in any format without a checksum.

The value of an index entry needs no encoding: it is the key of its row.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rome.errors import FormatError

Value = None | int | float | str | bytes
"""One value of SQLite's: NULL, INTEGER (64 bits, signed), REAL, TEXT or BLOB."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Value]] = msgspec.msgpack.Decoder(list)


def encode_row(values: Sequence[Value]) -> bytes:
    """A row as bytes; `values` in the order of column ids."""
    return _encoder.encode(values)


def decode_row(data: bytes) -> list[Value]:
    """The values of a row, by column id. Raises `FormatError` for what is not a row."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"a stored row is damaged: {error}") from None
