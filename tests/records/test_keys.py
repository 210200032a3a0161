"""Keys sort as SQLite sorts their values, and ranges hold what SQLite's comparisons select.

SQLite is the judge: the values go into a real table, and its ORDER BY and its operators say what
is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rome.errors import LimitExceeded
from rome.records import keys
from rome.records.keys import KeyColumn, KeyLayout
from rome.records.rows import Value
from rome.stores.base import Range

EDGES = [0, 1, -1, 2**53, 2**53 + 1, 2**53 - 1, -(2**53), -(2**53) - 1, 2**62 + 1, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 1.0, 0.5, 2.0**53, 2.0**53 + 2, -(2.0**53), 2.0**63, -(2.0**63), math.inf, -math.inf]

integers = st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300)
floats = st.sampled_from(FLOATS) | st.floats(allow_nan=False) | st.integers(-(2**63), 2**63).map(float)
texts = (
    st.text("aAbB \x00\x01é\U0001f600", max_size=6)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.text("aB \x00", min_size=180, max_size=200).map(lambda end: "x" * 300 + end)
    | st.builds(lambda n, end: "x" * n + end, st.integers(400, 440), st.text("aB \x00", max_size=3))
)
blobs = st.binary(max_size=5) | st.builds(
    lambda n, end: b"x" * n + end, st.integers(400, 440), st.binary(max_size=3)
)
values = st.none() | integers | floats | texts | blobs
columns = st.builds(KeyColumn, st.sampled_from(["BINARY", "NOCASE", "RTRIM"]), st.booleans())
rows = st.lists(values, min_size=1, max_size=20)
PREFIX = keys.index_prefix(7)


def judge(column: KeyColumn, stored: Sequence[Value]) -> apsw.Connection:
    """A table with one row for each value; `n` is its number."""
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE t (n INTEGER PRIMARY KEY, v BLOB COLLATE {column.collation})")
    connection.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(stored)))
    return connection


@given(columns, rows)
@example(KeyColumn("NOCASE"), ["a\x00b", "A\x00c", "a", "ab", "a\x00"])
@example(KeyColumn(), [2**53 + 1, 2.0**53, 2**53, 2.0**53 + 2, 1, 1.0, True])
def test_keys_sort_as_sqlite_sorts_their_values(column: KeyColumn, stored: list[Value]) -> None:
    layout = KeyLayout(PREFIX, [column])
    direction = "DESC" if column.descending else "ASC"
    rank = f"SELECT v, dense_rank() OVER (ORDER BY v {direction}) FROM t ORDER BY v {direction}"
    ranked = list(judge(column, stored).execute(rank))
    for (value, place), (other, other_place) in pairwise(ranked):
        if layout.is_cut([value]) and layout.is_cut([other]):
            assert (layout.encode([value]) == layout.encode([other])) == (place == other_place)
        elif place == other_place:
            assert layout.encode([value]) == layout.encode([other])
        else:
            assert layout.encode([value]) < layout.encode([other])


@given(columns, columns, st.lists(st.tuples(values, values), min_size=2, max_size=12))
def test_keys_of_two_columns_sort_as_sqlite_sorts_the_pairs(
    first: KeyColumn, second: KeyColumn, stored: list[tuple[Value, Value]]
) -> None:
    layout = KeyLayout(PREFIX, [first, second])
    connection = apsw.Connection(":memory:")
    connection.execute(
        f"CREATE TABLE t (a BLOB COLLATE {first.collation}, b BLOB COLLATE {second.collation})"
    )
    whole = [pair for pair in stored if not layout.is_cut(pair)]
    connection.executemany("INSERT INTO t VALUES (?, ?)", whole)
    order = f"a {'DESC' if first.descending else 'ASC'}, b {'DESC' if second.descending else 'ASC'}"
    rank = f"SELECT a, b, dense_rank() OVER (ORDER BY {order}) FROM t ORDER BY {order}"
    ranked = list(connection.execute(rank))
    for (a, b, place), (c, d, other_place) in pairwise(ranked):
        if place == other_place:
            assert layout.encode((a, b)) == layout.encode((c, d))
        else:
            assert layout.encode((a, b)) < layout.encode((c, d))


@given(st.lists(columns, min_size=1, max_size=3), st.data())
def test_no_key_is_the_beginning_of_another(layout_columns: list[KeyColumn], data: st.DataObject) -> None:
    layout = KeyLayout(PREFIX, layout_columns)
    row = st.tuples(*[values] * len(layout_columns))
    one, other = (layout.encode(data.draw(row)) for _ in range(2))
    assert one == other or not other.startswith(one)


@given(columns, rows, values, values, st.sampled_from(["", ">", ">="]), st.sampled_from(["", "<", "<="]))
def test_a_range_holds_what_sqlite_selects(
    column: KeyColumn, stored: list[Value], low: Value, high: Value, above: str, below: str
) -> None:
    stored = [*stored, low, high]
    layout = KeyLayout(PREFIX, [column])
    found = layout.range(
        [],
        (low, above == ">=") if above else None,
        (high, below == "<=") if below else None,
    )
    terms = [f"v {above} ?1"] * bool(above) + [f"v {below} ?2"] * bool(below)
    query = f"SELECT n FROM t WHERE {' AND '.join(terms) or 'TRUE'} AND ?1 IS ?1 AND ?2 IS ?2"
    selected = {n for (n,) in judge(column, stored).execute(query, (low, high))}
    held = {n for n, value in enumerate(stored) if found.holds(layout.encode([value]))}
    cut = {n for n, value in enumerate(stored) if layout.is_cut([value])}
    assert selected <= held
    assert held - selected <= cut


@given(columns, columns, st.lists(st.tuples(values, values), max_size=12), values, values)
def test_a_range_behind_equal_columns_holds_only_their_rows(
    first: KeyColumn, second: KeyColumn, stored: list[tuple[Value, Value]], equal: Value, low: Value
) -> None:
    stored = [*stored, (equal, low), (equal, None), (equal, b"zz")]
    layout = KeyLayout(PREFIX, [first, second])
    leading = KeyLayout(PREFIX, [first, second])
    of_equal = layout.range([equal])
    bounded = layout.range([equal], low=(low, True))
    whole = layout.range([equal, low])
    for pair in stored:
        key = layout.encode(pair)
        same = leading.encode([pair[0]]) == leading.encode([equal])
        assert of_equal.holds(key) == same
        assert not bounded.holds(key) or (same and pair[1] is not None)
        assert whole.holds(key) == (key == layout.encode((equal, low)))
    assert bounded.holds(layout.encode((equal, low))) == (low is not None)


def test_without_bounds_null_belongs_to_the_range_and_with_one_it_does_not() -> None:
    for column in (KeyColumn(), KeyColumn(descending=True)):
        layout = KeyLayout(PREFIX, [column])
        null = layout.encode([None])
        assert layout.range([]).holds(null)
        assert layout.range([None]).holds(null)
        assert not layout.range([], high=(5, True)).holds(null)
        assert not layout.range([], low=(5, True)).holds(null)


def test_nothing_compares_with_a_bound_that_is_null() -> None:
    layout = KeyLayout(PREFIX, [KeyColumn()])
    empty = layout.range([], low=(None, True))
    assert empty.start == empty.end


@given(st.lists(columns, min_size=1, max_size=16), st.data())
def test_no_key_is_longer_than_promised(layout_columns: list[KeyColumn], data: st.DataObject) -> None:
    layout = KeyLayout(keys.index_prefix(2**40), layout_columns)
    long = texts | blobs | st.just("\x00" * 500) | st.just("é" * 500) | st.just(-(2**63)) | st.just(math.inf)
    row = data.draw(st.tuples(*[long] * len(layout_columns)))
    assert len(layout.encode(row)) <= keys.MAX_KEY_BYTES


@given(st.text("aB\x00é\U0001f600", max_size=240), st.integers(1, 4))
def test_a_value_is_cut_exactly_when_its_escaped_bytes_exceed_the_limit(text: str, width: int) -> None:
    layout = KeyLayout(PREFIX, [KeyColumn()] * width)
    exceeds = len(text.encode()) + text.count("\x00") > layout.cut_limit
    assert layout.is_cut([text]) == exceeds
    assert layout.is_cut([text.encode()]) == exceeds


def test_a_value_that_ends_at_the_cut_comes_before_all_that_go_on() -> None:
    layout = KeyLayout(PREFIX, [KeyColumn()])
    whole = "x" * layout.cut_limit
    assert not layout.is_cut([whole])
    assert layout.is_cut([whole + "\x00"])
    assert layout.encode([whole]) < layout.encode([whole + "\x00"])
    assert layout.encode([whole + "z"]) != layout.encode([whole + "y"])


def test_a_cut_never_splits_an_escaped_nul() -> None:
    layout = KeyLayout(PREFIX, [KeyColumn()])
    beginning = "x" * (layout.cut_limit - 1)
    in_order = [beginning, beginning + "\x00", beginning + "\x00z", beginning + "\x01"]
    encoded = [layout.encode([text]) for text in in_order]
    assert layout.is_cut([in_order[1]])
    assert encoded[0] < min(encoded[1:3])
    assert max(encoded[1:3]) < encoded[3]
    shared = layout.range([], low=(in_order[1], False), high=(in_order[2], False))
    assert [shared.holds(key) for key in encoded] == [False, True, True, False]


def test_more_than_sixteen_columns_are_refused() -> None:
    KeyLayout(PREFIX, [KeyColumn()] * 16)
    with pytest.raises(LimitExceeded, match="at most 16 columns"):
        KeyLayout(PREFIX, [KeyColumn()] * 17)


def test_more_values_than_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values for a key of 1"):
        KeyLayout(PREFIX, [KeyColumn()]).encode([1, 2])


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 300), min_size=2, max_size=5, unique=True))
def test_no_key_space_reaches_into_another(identifiers: list[int]) -> None:
    spaces = [keys.row_prefix, keys.index_prefix, keys.count_key, keys.sequence_key]
    prefixes = [keys.CATALOG_KEY, *(space(number) for space in spaces for number in identifiers)]
    assert len(set(prefixes)) == len(prefixes)
    assert not any(a != b and b.startswith(a) for a in prefixes for b in prefixes)


def test_a_small_identifier_costs_one_byte() -> None:
    assert len(keys.row_prefix(239)) == 2
    assert len(keys.row_prefix(240)) == 3


def test_ranges_are_the_stores_ranges() -> None:
    assert isinstance(KeyLayout(PREFIX, [KeyColumn()]).range([1]), Range)
