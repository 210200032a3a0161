"""The check: does everything in a database agree, as one snapshot sees it?

    catalog       it can be read, and its numbers contradict neither each other nor its statements
    tables        rows, index entries, unique and foreign keys, counts and sequences
                  (see rome.tools.inspection)
    key spaces    no keys of tables and indexes that are not in the catalog

Writers are not held up. On LMDB the snapshot is pinned, and they are not noticed, but the file
grows by what they write meanwhile. On Redis the walk begins again when they change what it has
read, a bounded number of times: a database that is written to all the time is checked when it is not.
(A memory store's counters are not part of its snapshots: check it while nobody writes.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rome.errors import Conflict, FormatError, StoreError
from rome.records.keys import CATALOG_KEY, index_prefix, key_space, row_prefix, schema_key
from rome.sql.catalog import Catalog
from rome.stores import Range, Read, Scan, Store, prefix_range
from rome.tools.findings import NOTE, Finding, Findings
from rome.tools.inspection import TableInspection
from rome.tools.reader import Progress, Reader, Silent, StoredSchema, read_schema

TRIES = 5
"""So often a walk begins, where others keep changing what it has read."""

_LAST = b"\xff"
_ROWS, _ENTRIES = row_prefix(0)[:1], index_prefix(0)[:1]


@dataclass(slots=True)
class Report:
    """What one walk saw."""

    tables: int = 0
    rows: int = 0
    entries: int = 0
    tries: int = 1
    findings: Findings = field(default_factory=Findings)

    @property
    def sound(self) -> bool:
        """Nothing is wrong; notes may be there."""
        return not self.findings.faults

    def as_dict(self) -> dict[str, Any]:
        return {
            "sound": self.sound,
            "tables": self.tables,
            "rows": self.rows,
            "entries": self.entries,
            "tries": self.tries,
            "faults": [finding.as_dict() for finding in self.findings.faults],
            "notes": [finding.as_dict() for finding in self.findings.notes],
        }


def check(
    store: Store, foreign_keys: bool = True, progress: Progress | None = None, tries: int = TRIES
) -> Report:
    """Walk over everything. `foreign_keys`: whether a row without its parent is wrong, or only noted.

    Raises `StoreError` if the store cannot answer, or writers gave it no quiet moment.
    """
    for attempt in range(1, tries + 1):
        try:
            with Reader(store) as reader:
                report = _walk(reader, foreign_keys, progress or Silent())
        except Conflict:
            continue
        report.tries = attempt
        return report
    raise StoreError(
        f"other programs changed the database during each of {tries} walks: check it while they write less"
    )


def _walk(reader: Reader, foreign_keys: bool, progress: Progress) -> Report:
    report = Report()
    try:
        schema = read_schema(reader)
    except FormatError as error:
        report.findings.add("catalog", str(error))
        return report
    check_catalog(schema, report.findings)
    tables = sorted(schema.catalog.tables.values(), key=lambda table: table.name)
    counts = reader.ask(Read(counters=[table.count_key for table in tables])).counters
    progress.begin(sum(counts[table.count_key] * (1 + len(table.indexes)) for table in tables))
    for table in tables:
        inspection = TableInspection(reader, schema, table, report.findings, foreign_keys, progress)
        inspection.run()
        report.tables += 1
        report.rows += inspection.rows
        report.entries += inspection.entries
    for space in strange_spaces(reader, schema.catalog):
        _judge_space(space, schema.catalog, report.findings)
    return report


# The catalog


def check_catalog(schema: StoredSchema, findings: Findings) -> None:
    """The numbers, beyond what reading the catalog has seen to."""
    catalog = schema.catalog

    def wrong(text: str, example: str = "") -> None:
        findings.add("catalog", text, example)

    if schema.version and schema.marker != catalog.next_number.to_bytes(8, "big"):
        wrong("its version does not belong to it")
    used: dict[int, str] = {}
    for table in catalog.tables.values():
        owners = [(table.id, f"table {table.name}")]
        owners += [(index.id, f"index {index.name} of table {table.name}") for index in table.indexes]
        for number, owner in owners:
            if number in used:
                wrong("a number is used twice", f"{number}: {used[number]}, {owner}")
            if not 0 < number < catalog.next_number:
                wrong("a number lies beyond the next to be given", f"{number}: {owner}")
            used[number] = owner
        columns = [column.id for column in table.columns]
        columns += [table.hidden_id] if table.hidden_id >= 0 else []
        if len(set(columns)) < len(columns):
            wrong("two columns of a table have one number", f"table {table.name}")
        if any(not 0 <= number < table.next_column for number in columns):
            wrong("a column's number lies beyond the next to be given", f"table {table.name}")
        unknown = schema.numbers["tables"][table.name.lower()]["indexes"].keys() - table.index_ids.keys()
        for identity in sorted(unknown):
            wrong("an index has a number and no statement", f"{identity} of table {table.name}")
    for name in sorted(schema.numbers.get("tables", {}).keys() - catalog.tables.keys()):
        wrong("a table has numbers and no statement", name)


# Key spaces


def strange_spaces(reader: Reader, catalog: Catalog) -> Iterator[bytes]:
    """The key spaces that hold keys, and belong to nothing that the catalog knows.

    Only the first key between two known spaces is asked for, all of them in one round trip.
    """
    known = [Range(key, key + b"\x00") for key in (CATALOG_KEY, schema_key())]
    for table in catalog.tables.values():
        known.append(prefix_range(table.row_layout.prefix))
        known += [prefix_range(layout.prefix) for layout in table.index_layouts.values()]
    gaps = []
    start = b"\x00"
    for within in sorted(known):
        gaps.append(Range(start, within.start))
        start = within.end
    gaps = [gap for gap in [*gaps, Range(start, _LAST)] if gap.start < gap.end]
    while gaps:
        replies = reader.ask(Read(scans=[Scan(gap, limit=1) for gap in gaps])).scans
        remaining = []
        for gap, entries in zip(gaps, replies, strict=True):
            if entries:
                space = _space_of(entries[0].key)
                yield space
                remaining.append(Range(prefix_range(space).end, gap.end))
        gaps = [gap for gap in remaining if gap.start < gap.end]


def _space_of(key: bytes) -> bytes:
    if key.startswith(CATALOG_KEY):
        return key
    is_numbered = key[:1] in (_ROWS, _ENTRIES) and len(key) > 1
    return key_space(key) if is_numbered else key[:1]


def is_orphaned_index(space: bytes, catalog: Catalog) -> bool:
    """Whether a strange key space is that of an index that was dropped: its number was given once."""
    return any(space == index_prefix(number) for number in range(1, catalog.next_number))


def _judge_space(space: bytes, catalog: Catalog, findings: Findings) -> None:
    example = f"keys that begin with {space.hex()}"
    if is_orphaned_index(space, catalog):
        findings.add("entries", "entries of indexes that are not in the catalog", example)
    elif space[:1] in (_ROWS, _ENTRIES):
        findings.add("rows", "keys of tables that are not in the catalog", example)
    elif space.startswith(CATALOG_KEY):
        findings.add("catalog", "keys beside the catalog's own", example)
    else:
        findings.add(NOTE, "keys that this ROME knows nothing of", example)


def in_words(finding: Finding) -> str:
    """What a finding is about."""
    where = "catalog" if finding.kind == "catalog" else "database"
    if finding.table is not None:
        where = f"table {finding.table}"
    return f"{where}, {finding.index}" if finding.index is not None else where
