"""Rows come back as they were written, and damage is noticed."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rome.errors import FormatError
from rome.records.rows import Value, decode_row, encode_row

values = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)


@given(st.lists(values))
def test_a_row_comes_back_with_its_values_and_types(row: list[Value]) -> None:
    back = decode_row(encode_row(row))
    assert back == row
    assert [type(value) for value in back] == [type(value) for value in row]


def test_infinity_and_the_sign_of_zero_survive() -> None:
    back = decode_row(encode_row([math.inf, -math.inf, -0.0]))
    assert back[:2] == [math.inf, -math.inf]
    assert math.copysign(1, back[2]) == -1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xc1",
        encode_row([1, "text"])[:-1],
        encode_row([1]) + b"x",
        msgspec.msgpack.encode({"a": 1}),
        b"\x91\xa1\xff",
    ],
    ids=["empty", "not MessagePack", "cut", "longer", "a map", "not UTF-8"],
)
def test_damaged_rows_are_a_format_error(damaged: bytes) -> None:
    with pytest.raises(FormatError, match="damaged"):
        decode_row(damaged)


@given(st.binary(max_size=40))
def test_random_bytes_are_a_row_or_a_format_error(data: bytes) -> None:
    try:
        row = decode_row(data)
    except FormatError:
        return
    assert isinstance(row, list)
