"""Random choices drawn from hypothesis, so that a failing program shrinks to a small one.

Everything shrinks towards the first choice, the least number and "no".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


@cache
def _below(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, count - 1)


class Dice:
    """What the generators draw from."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self._draw = draw

    def below(self, count: int) -> int:
        """A number from 0 to count - 1."""
        return int(self._draw(_below(count))) if count > 1 else 0

    def between(self, least: int, most: int) -> int:
        return least + self.below(most - least + 1)

    def choice(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        return self.below(100) >= 100 - percent

    def weighted(self, options: Sequence[tuple[int, T]]) -> T:
        """One of the options, by weight."""
        at = self.below(sum(weight for weight, _ in options))
        for weight, option in options:
            at -= weight
            if at < 0:
                return option
        raise AssertionError("the weights were added up wrongly")

    def some(self, options: Sequence[T], least: int = 1, most: int | None = None) -> list[T]:
        """Some of the options, each at most once, in any order."""
        remaining = list(options)
        count = self.between(min(least, len(remaining)), min(len(remaining), most or len(remaining)))
        return [remaining.pop(self.below(len(remaining))) for _ in range(count)]
