"""What a check finds: of each kind, in each table and index, how many and the first few of them.

    kind        what it says                                          repaired
    catalog     the catalog contradicts itself or cannot be read       no; nothing else is, either
    damaged     a row cannot be read, or stands under another's key    no; nothing else is, either
    duplicate   rows share a unique key                                no: which of them is to stay?
    parent      a row's foreign key finds no parent                    no: which of them is wrong?
    rows        rows of a table that is not in the catalog             no: perhaps the catalog is wrong
    missing     a row lacks its index entry                            yes
    stray       an index entry names a row that does not have it       yes
    wrong       a unique entry names another row                       yes
    entries     entries of an index that is not in the catalog         yes
    count       the counter of rows differs from the rows              yes
    sequence    the sequence would hand out numbers that are in use    yes
    note        worth knowing, not wrong                               -

Whatever follows from the rows can be made again; a row itself cannot. As long as a row or the
catalog cannot be read, it is not known what follows from them, and nothing is repaired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

EXAMPLES = 10
"""So many of a kind are shown one by one."""

REPAIRABLE = frozenset({"missing", "stray", "wrong", "entries", "count", "sequence"})
UNREADABLE = frozenset({"catalog", "damaged"})
NOTE = "note"


@dataclass(slots=True)
class Finding:
    """Everything of one kind about one table or index."""

    kind: str
    table: str | None
    index: str | None
    text: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_note(self) -> bool:
        return self.kind == NOTE

    @property
    def repairable(self) -> bool:
        return self.kind in REPAIRABLE

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "repairable": self.repairable}


class Findings:
    """The findings of one walk, in the order in which they came up."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None, str | None, str], Finding] = {}

    def add(
        self, kind: str, text: str, example: str = "", *, table: str | None = None, index: str | None = None
    ) -> None:
        """One more of this kind."""
        finding = self._found.setdefault((kind, table, index, text), Finding(kind, table, index, text))
        finding.count += 1
        if example and len(finding.examples) < EXAMPLES:
            finding.examples.append(example)

    def __iter__(self) -> Iterator[Finding]:
        return iter(list(self._found.values()))

    @property
    def faults(self) -> list[Finding]:
        return [finding for finding in self if not finding.is_note]

    @property
    def notes(self) -> list[Finding]:
        return [finding for finding in self if finding.is_note]

    @property
    def unreadable(self) -> list[Finding]:
        return [finding for finding in self if finding.kind in UNREADABLE]
