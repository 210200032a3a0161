"""The repair: what follows from the rows is made again.

One transaction for each table: it reads the table as the check does, and writes what differs. The
commit is validated by everything that was read, so a table that others write to meanwhile is
begun again; what stands afterwards is right for the rows as they are at that instant.

Nothing is repaired while a row or the catalog cannot be read: entries that look like nobody's may
be all that is left of that row. No row is ever changed or removed.
"""

from __future__ import annotations

from rome.errors import Conflict, RomeError, StoreError
from rome.records.keys import index_prefix
from rome.sql.catalog import Table
from rome.stores import Scan, Store, Writes, prefix_range
from rome.stores.base import Read
from rome.tools.check import TRIES, Report, is_orphaned_index, strange_spaces
from rome.tools.findings import Findings
from rome.tools.inspection import TableInspection
from rome.tools.reader import Progress, Reader, Silent, read_schema

_PIECE = 1000


class RepairRefused(RomeError):
    """Something cannot be read, so that it is not known what would be right."""


def repair(store: Store, report: Report, progress: Progress | None = None) -> list[str]:
    """Mend what a check has found, as far as it can be; returns what was done.

    Raises `RepairRefused` before or in the middle: what is done by then is done, and right.
    """
    _refuse_unreadable(report.findings)
    done: list[str] = []
    faults = [finding for finding in report.findings.faults if finding.repairable]
    progress = progress or Silent()
    progress.begin(0)
    for name in dict.fromkeys(finding.table for finding in faults if finding.table is not None):
        writes = _mend(store, name, progress)
        if writes:
            done.append(f"table {name}: {_in_words(writes)}")
    if any(finding.kind == "entries" for finding in faults):
        removed = _clear_orphaned_indexes(store)
        done.append(f"indexes that are not in the catalog: {removed} entries removed")
    return done


def _refuse_unreadable(findings: Findings) -> None:
    if findings.unreadable:
        count = sum(finding.count for finding in findings.unreadable)
        raise RepairRefused(
            f"nothing is repaired while {count} rows or parts of the catalog cannot be read:"
            " restore them, or delete those rows, first"
        )


def _mend(store: Store, name: str, progress: Progress) -> Writes:
    for _ in range(TRIES):
        try:
            with Reader(store) as reader:
                schema = read_schema(reader)
                table: Table | None = schema.catalog.table(name)
                if table is None:
                    return Writes()
                findings = Findings()
                inspection = TableInspection(reader, schema, table, findings, True, progress)
                inspection.run()
                _refuse_unreadable(findings)
                if inspection.remedy:
                    store.commit(reader.snapshot, inspection.remedy)
                return inspection.remedy
        except Conflict:
            continue
    raise StoreError(f"table {name} was changed in each of {TRIES} tries to repair it: try when fewer write")


def _clear_orphaned_indexes(store: Store) -> int:
    """In pieces, each a transaction of its own: what an interrupted run leaves is found again."""
    removed = conflicts = 0
    while conflicts < TRIES:
        try:
            with Reader(store) as reader:
                catalog = read_schema(reader).catalog
                spaces = [s for s in strange_spaces(reader, catalog) if is_orphaned_index(s, catalog)]
                scans = [Scan(prefix_range(space), limit=_PIECE) for space in spaces]
                found = reader.ask(Read(scans=scans)).scans if scans else []
                keys = {entry.key for entries in found for entry in entries}
                if not keys:
                    return removed
                store.commit(reader.snapshot, Writes(deletes=keys))
                removed += len(keys)
        except Conflict:
            conflicts += 1
    raise StoreError(f"the schema was changed in each of {TRIES} tries to repair it: try when nobody does")


def _in_words(writes: Writes) -> str:
    first = index_prefix(0)[:1]
    assert all(key[:1] == first for key in (*writes.puts, *writes.deletes)), "only index entries are written"
    parts = []
    if writes.puts:
        parts.append(f"{len(writes.puts)} index entries written")
    if writes.deletes:
        parts.append(f"{len(writes.deletes)} index entries removed")
    parts += [f"row count corrected by {amount:+d}" for amount in writes.adds.values()]
    parts += [f"sequence raised to {least}" for least in writes.floors.values()]
    return ", ".join(parts)
