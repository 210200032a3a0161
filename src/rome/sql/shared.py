"""What all connections to one open store share: the newest schema known, counts, sequences.

A connection is cheap because of this: the catalog is read once in a process for each version of the
schema (rome.sql.recall decodes it, and has images of the shadow database).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

from rome.records.keys import CATALOG_KEY, schema_key
from rome.sql import recall
from rome.sql.catalog import EMPTY, Catalog
from rome.sql.counters import Tally
from rome.sql.sequences import Sequences
from rome.sql.turns import Turns
from rome.stores.base import ABSENT, Read, Store


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """A catalog, and the version of the key that every transaction checks it by."""

    number: int
    catalog: Catalog


@dataclass(slots=True)
class Shared:
    """Shared by the connections to one store; safe for use by many threads."""

    store: Store
    sequences: Sequences
    newest: SchemaVersion = SchemaVersion(ABSENT, EMPTY)
    counts: dict[bytes, int] = field(default_factory=dict)
    """Row counts as last seen, moved by this process's own commits; hints for planning."""
    tally: Tally = field(init=False)
    turns: Turns | None = None
    """Present where the URL asks for them."""
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.tally = Tally(self.store)

    def take_turns(self) -> None:
        """From now on, transactions that write wait for each other."""
        with self._lock:
            self.turns = self.turns or Turns(self.store)

    def load(self) -> SchemaVersion:
        """Read the schema as it is now; two round trips."""
        snapshot = self.store.snapshot()
        try:
            reply = snapshot.read(Read(keys=[schema_key(), CATALOG_KEY]))
            marker, stored = reply.values[schema_key()], reply.values[CATALOG_KEY]
            if marker is None or stored is None:
                version = SchemaVersion(ABSENT, EMPTY)
            elif marker.version == self.newest.number:
                version = self.newest
            else:
                version = SchemaVersion(marker.version, recall.decode(stored.value))
            keys = [table.count_key for table in version.catalog.tables.values()]
            if keys:
                self.counts.update(snapshot.read(Read(counters=keys)).counters)
        finally:
            snapshot.close()
        if version is not self.newest:
            # The database may have been wiped, and its numbers begin anew.
            self.sequences.give_up()
        with self._lock:
            self.newest = version
        return version

    def announce(self, version: SchemaVersion) -> None:
        """This process committed a new schema."""
        with self._lock:
            if version.number > self.newest.number:
                self.newest = version

    def moved(self, adds: dict[bytes, int]) -> None:
        """A commit of this process changed row counts."""
        for counter, amount in adds.items():
            self.counts[counter] = self.counts.get(counter, 0) + amount


def shared_of(store: Store, sequence_block: int) -> Shared:
    """The shared state of an open store."""
    with _registry_lock:
        found: Shared | None = getattr(store, "_rome_shared", None)
        if found is None:
            found = Shared(store, Sequences(sequence_block, store))
            store._rome_shared = found  # type: ignore[attr-defined]
        return found


_registry_lock = Lock()
