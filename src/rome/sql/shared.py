"""What all connections to one open store share: the newest schema known, counts, sequences.

A connection is cheap because of this: the catalog is decoded once in a process for each version of
the schema, and a connection's shadow database is a copy of an image that was built once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

from rome.records.keys import CATALOG_KEY, schema_key
from rome.sql.catalog import Catalog, decode_catalog
from rome.sql.sequences import Sequences
from rome.sql.shadow import Shadow
from rome.stores.base import ABSENT, Read, Store


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """A catalog, and the version of the key that every transaction checks it by."""

    number: int
    catalog: Catalog


@dataclass(slots=True)
class Counters:
    """What became of this process's transactions on one store, for an operator to read."""

    commits: int = 0
    """Commits that wrote."""
    conflicts: int = 0
    """Commits that found another transaction in their way."""
    replays: int = 0
    """Runs of a transaction beyond its first."""
    raised: int = 0
    """Conflicts that reached the program."""


@dataclass(slots=True)
class Shared:
    """Shared by the connections to one store; safe for use by many threads."""

    store: Store
    sequences: Sequences
    newest: SchemaVersion = SchemaVersion(ABSENT, Catalog())
    counts: dict[bytes, int] = field(default_factory=dict)
    """Row counts as last seen, moved by this process's own commits; hints for planning."""
    counters: Counters = field(default_factory=Counters)
    _images: dict[int, bytes] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def load(self) -> SchemaVersion:
        """Read the schema as it is now; two round trips."""
        snapshot = self.store.snapshot()
        try:
            reply = snapshot.read(Read(keys=[schema_key(), CATALOG_KEY]))
            marker, stored = reply.values[schema_key()], reply.values[CATALOG_KEY]
            if marker is None or stored is None:
                version = SchemaVersion(ABSENT, Catalog())
            elif marker.version == self.newest.number:
                version = self.newest
            else:
                shadow = Shadow(tuple(map(tuple, decode_catalog(stored.value)["entries"])))
                version = SchemaVersion(marker.version, shadow.catalog(stored.value))
            keys = [table.count_key for table in version.catalog.tables.values()]
            if keys:
                self.counts.update(snapshot.read(Read(counters=keys)).counters)
        finally:
            snapshot.close()
        with self._lock:
            self.newest = version
        return version

    def announce(self, version: SchemaVersion) -> None:
        """This process committed a new schema."""
        with self._lock:
            if version.number > self.newest.number:
                self.newest = version

    def shadow(self, version: SchemaVersion) -> Shadow:
        """A shadow of a committed schema, copied from an image."""
        image = self._images.get(version.number)
        if image is None:
            built = Shadow(version.catalog.entries)
            image = built.db.serialize("main")
            with self._lock:
                self._images.clear()
                self._images[version.number] = image
            return built
        shadow = Shadow()
        if image:
            shadow.db.deserialize("main", image)
        return shadow

    def moved(self, adds: dict[bytes, int]) -> None:
        """A commit of this process changed row counts."""
        for counter, amount in adds.items():
            self.counts[counter] = self.counts.get(counter, 0) + amount


def shared_of(store: Store, sequence_block: int) -> Shared:
    """The shared state of an open store."""
    with _registry_lock:
        found: Shared | None = getattr(store, "_rome_shared", None)
        if found is None:
            found = Shared(store, Sequences(sequence_block))
            store._rome_shared = found  # type: ignore[attr-defined]
        return found


_registry_lock = Lock()
