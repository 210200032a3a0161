"""Values that a database may stumble over, and how they are written into a statement.

The pools are small, so that values meet again: in another row, in another table, in a condition.
"""

from __future__ import annotations

from tests.differential.dice import Dice

Value = int | float | str | bytes | None

LONG = "long" * 150

INTEGERS: list[Value] = [0, 1, 2, 3, 5, -1, 10, 255, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**31]
FLOATS: list[Value] = [0.5, 1.0, 2.0, -1.5, 1e-7, 2.0**53, -(2.0**53), 1e300, float(2**63), -0.0, 3.25]
TEXTS: list[Value] = [
    *("a", "b", "A", "B", "ab", "aB", "", "a ", "é", "Éa", "日本語", "😀", "a\x00b", "a\x00B", "\x00"),
    *("1", "2", "1.0", "1e1", " 3", "0x10", "9007199254740993", "%", "a_c", "O'Brien", "-1"),
    *(LONG, LONG + "a", LONG + "b", LONG.upper() + "a", "longlong"),
]
# No bytes that are not UTF-8: SQLite keeps a text that a function made of them, Python has none such.
BLOBS: list[Value] = [b"", b"a", b"\x00", "ÿ".encode(), b"ab", b"1", LONG.encode(), LONG.encode() + b"\x01"]

POOLS = {
    "INTEGER": [(80, INTEGERS), (8, FLOATS), (8, TEXTS), (4, BLOBS)],
    "REAL": [(30, INTEGERS), (60, FLOATS), (8, TEXTS), (2, BLOBS)],
    "NUMERIC": [(50, INTEGERS), (30, FLOATS), (15, TEXTS), (5, BLOBS)],
    "TEXT": [(5, INTEGERS), (5, FLOATS), (86, TEXTS), (4, BLOBS)],
    "BLOB": [(25, INTEGERS), (20, FLOATS), (30, TEXTS), (25, BLOBS)],
}


def any_value(dice: Dice, affinity: str, null: int = 15) -> Value:
    """A value of the kind that a column of this affinity usually holds; `null` is in percent."""
    if dice.chance(null):
        return None
    return dice.choice(dice.weighted(POOLS[affinity]))


def literal(value: Value) -> str | None:
    """A value as SQL text; None where it can only be a parameter."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, str):
        return None if "\x00" in value else "'" + value.replace("'", "''") + "'"
    return repr(value)


class Text:
    """SQL text that grows, with the parameters it needs."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.parameters: list[Value] = []

    def value(self, value: Value) -> str:
        """A value as a parameter or written out. To be called in the order of the text."""
        written = literal(value)
        if written is not None and self.dice.chance(25):
            return written
        self.parameters.append(value)
        return "?"
