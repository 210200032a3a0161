"""Everything that can be wrong in a database is broken on purpose, found, and repaired if it can be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, text

import rome
import rome.tools.reader
from rome.errors import StoreError
from rome.records.keys import CATALOG_KEY, index_prefix, row_prefix, schema_key
from rome.records.rows import encode_row
from rome.stores import Store, Writes
from rome.tools import RepairRefused, check, repair
from rome.tools.reader import Reader, read_schema


def faults(store: Store, **options: Any) -> list[tuple[str, str | None, str | None, int]]:
    return [(f.kind, f.table, f.index, f.count) for f in check(store, **options).findings.faults]


def mend(store: Store) -> list[str]:
    done = repair(store, check(store))
    assert faults(store) == []
    return done


def test_a_sound_database_has_no_faults_and_everything_was_seen(store: Store, breaker: Any) -> None:
    report = check(store)
    assert report.sound
    assert list(report.findings) == []
    assert (report.tables, report.rows) == (3, 30 + 30 + 28)
    # name and region; title, live ones, site; time
    assert report.entries == 60 + (30 + 15 + 30) + 28


def test_an_empty_database_is_sound(engine: Engine) -> None:
    report = check(rome.store_of(engine))
    assert report.sound
    assert report.tables == 0


def test_small_chunks_see_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = check(store)
    monkeypatch.setattr(rome.tools.reader, "_FIRST_CHUNK", 1)
    monkeypatch.setattr(rome.tools.reader, "_REPLY_BYTES", 200)
    before = store.round_trips
    pieces = check(store)
    assert store.round_trips - before > 50
    assert pieces.as_dict() == whole.as_dict()


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("site", ("name",)),
        ("site", ("region",)),
        ("image", ("image_by_title",)),
        ("image", ("image_live",)),
        ("image", ("site_id",)),
        ("event", ("at", "what")),
    ],
)
def test_a_deleted_and_a_stray_entry_of_every_kind_of_index(
    store: Store, breaker: Any, table: str, columns: tuple[str, ...]
) -> None:
    sound = breaker.everything()
    entries = breaker.entries(table, *columns)
    name = breaker.index(table, *columns).name
    breaker.delete(entries[3].key, entries[7].key)
    breaker.put(entries[0].key + b"\x10", entries[0].value)
    assert faults(store) == [("stray", table, name, 1), ("missing", table, name, 2)]
    assert mend(store) == [f"table {table}: 2 index entries written, 1 index entries removed"]
    assert breaker.everything() == sound


def test_a_missing_entry_is_told_by_its_row(store: Store, breaker: Any) -> None:
    entries = breaker.entries("image", "site_id")
    breaker.delete(*(entry.key for entry in entries))
    (fault,) = check(store).findings.faults
    assert (fault.count, len(fault.examples)) == (30, 10)
    assert fault.examples[0].startswith("row ('id-1'): entry 04")


def test_an_entry_without_its_row(store: Store, breaker: Any) -> None:
    table = breaker.table("event")
    breaker.delete(breaker.rows("event")[5].key)
    breaker.add(table.count_key, -1)
    assert faults(store) == [("stray", "event", "event_by_time", 1)]
    assert mend(store) == ["table event: 1 index entries removed"]


def test_a_unique_entry_that_names_another_row(store: Store, breaker: Any) -> None:
    sound = breaker.everything()
    name = breaker.index("site", "name").name
    first, second = breaker.entries("site", "name")[:2]
    breaker.put(first.key, second.value)
    assert faults(store) == [("wrong", "site", name, 1)]
    mend(store)
    assert breaker.everything() == sound


@pytest.mark.parametrize(("changed", "same_as"), [(4, 2), (2, 4)])
def test_rows_that_share_a_unique_key_are_told_and_left_alone(
    store: Store, breaker: Any, filled: Engine, changed: int, same_as: int
) -> None:
    table, name = breaker.table("site"), breaker.index("site", "name").name
    rows = [table.decode(entry.value) for entry in breaker.rows("site")]
    rows[changed][1] = rows[same_as][1]
    breaker.put(table.row_key(rows[changed]), table.encode(rows[changed]))
    report = check(store)
    assert faults(store) == [("duplicate", "site", name, 1), ("stray", "site", name, 1)]
    assert report.findings.faults[0].examples == ["(5)"]
    repair(store, report)
    assert faults(store) == [("duplicate", "site", name, 1)]
    with filled.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM site")).scalar() == 30


def test_a_row_count_that_is_wrong(store: Store, breaker: Any) -> None:
    counter = breaker.table("image").count_key
    breaker.add(counter, 5)
    assert faults(store) == [("count", "image", None, 1)]
    assert mend(store) == ["table image: row count corrected by -5"]
    assert breaker.counter(counter) == 30


@pytest.mark.parametrize("table", ["site", "event"])
def test_a_sequence_below_the_greatest_number(store: Store, breaker: Any, filled: Engine, table: str) -> None:
    counter = breaker.table(table).sequence_key
    breaker.add(counter, 10 - breaker.counter(counter))
    assert faults(store) == [("sequence", table, None, 1)]
    mend(store)
    assert breaker.counter(counter) >= 28


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"\xc1 no MessagePack", "a stored row is damaged"),
        (b"", "a stored row is damaged"),
        (encode_row([4, None, None]), "column name is NOT NULL and holds NULL"),
        (encode_row([4]), "column name is NOT NULL and holds NULL"),
        (encode_row([4, ["a"], None]), "column name holds what SQLite has no value for"),  # type: ignore[list-item]
        (encode_row([2**63, "a", None]), "column id holds what SQLite has no value for"),
        (encode_row([5, "site 4", None]), "its values are those of row (5)"),
    ],
)
def test_a_damaged_row_is_found_and_nothing_is_repaired_beside_it(
    store: Store, breaker: Any, value: bytes, why: str
) -> None:
    victim = breaker.rows("site")[3]
    breaker.put(victim.key, value)
    breaker.delete(breaker.entries("image", "site_id")[0].key)
    broken = breaker.everything()
    report = check(store)
    kinds = [(f.kind, f.table, f.count) for f in report.findings.faults]
    assert kinds == [("missing", "image", 1), ("damaged", "site", 1)]
    (example,) = report.findings.unreadable[0].examples
    assert example.startswith(f"key {victim.key.hex()}: ")
    assert why in example
    with pytest.raises(RepairRefused, match="cannot be read"):
        repair(store, report)
    assert breaker.everything() == broken


def test_a_row_that_was_damaged_after_the_check_stops_the_repair(store: Store, breaker: Any) -> None:
    breaker.delete(breaker.entries("site", "name")[0].key)
    report = check(store)
    breaker.put(breaker.rows("site")[3].key, b"")
    broken = breaker.everything()
    with pytest.raises(RepairRefused):
        repair(store, report)
    assert breaker.everything() == broken


def test_a_row_without_its_parent_is_a_fault_or_a_note(store: Store, filled: Engine) -> None:
    with filled.begin() as connection:
        connection.execute(text("UPDATE image SET site_id = 999 WHERE id IN ('id-1', 'id-2')"))
    report = check(store)
    assert faults(store) == [("parent", "image", None, 2)]
    assert report.findings.faults[0].examples == ["('id-1')", "('id-2')"]
    assert "FOREIGN KEY (site_id) REFERENCES site" in report.findings.faults[0].text
    assert repair(store, report) == []
    report = check(store, foreign_keys=False)
    assert report.sound
    assert [note.count for note in report.findings.notes] == [2]


def test_a_parent_whose_row_is_gone(store: Store, breaker: Any) -> None:
    key = breaker.rows("site")[0].key
    breaker.delete(key)
    kinds = {(kind, table) for kind, table, _, _ in faults(store)}
    assert kinds == {("parent", "image"), ("stray", "site"), ("count", "site")}


def test_a_foreign_key_to_a_table_that_is_not_there_is_a_note(store: Store, filled: Engine) -> None:
    with filled.begin() as connection:
        connection.execute(
            text("CREATE TABLE lost (n INTEGER PRIMARY KEY, p INTEGER REFERENCES nowhere (id))")
        )
        connection.execute(text("INSERT INTO lost VALUES (1, 1), (2, 2)"))
    report = check(store)
    assert report.sound
    assert [(note.table, note.count) for note in report.findings.notes] == [("lost", 1)]


def test_a_row_of_which_an_index_expression_can_make_nothing(store: Store, filled: Engine) -> None:
    with filled.begin() as connection:
        connection.execute(text("CREATE TABLE document (n INTEGER PRIMARY KEY, body TEXT)"))
        connection.execute(text("CREATE INDEX by_kind ON document (json_extract(body, '$.kind'))"))
        connection.execute(text("""INSERT INTO document VALUES (1, '{"kind": 1}'), (2, '{"kind": 2}')"""))
    assert check(store).sound
    with Reader(store) as reader:
        table = read_schema(reader).catalog.tables["document"]
    store.commit(None, Writes(puts={table.row_key([2, None]): table.encode([2, "{torn"])}))
    report = check(store)
    (fault,) = report.findings.faults
    assert (fault.kind, fault.table, fault.count) == ("damaged", "document", 1)
    assert "no index entry can be made of row (2): malformed JSON" in fault.examples[0]


def test_entries_of_an_index_that_was_dropped(store: Store, breaker: Any) -> None:
    sound = breaker.everything()
    number = next(
        number
        for number in range(1, breaker.schema.catalog.next_number)
        if not breaker.scan(index_prefix(number)) and not breaker.scan(row_prefix(number))
    )
    breaker.store.commit(None, Writes(puts={index_prefix(number) + bytes([n]): b"x" for n in range(9)}))
    assert faults(store) == [("entries", None, None, 1)]
    assert mend(store) == ["indexes that are not in the catalog: 9 entries removed"]
    assert breaker.everything() == sound


def test_rows_of_a_table_that_is_not_in_the_catalog_are_told_and_left_alone(
    store: Store, breaker: Any
) -> None:
    for number in (77, 300, 70000):
        breaker.put(row_prefix(number) + b"\x10", b"x")
    breaker.put(index_prefix(300) + b"\x10", b"x")
    report = check(store)
    found = [(f.kind, f.count) for f in report.findings.faults]
    assert found == [("rows", 4)]
    assert f"keys that begin with {row_prefix(300).hex()}" in report.findings.faults[0].examples
    assert repair(store, report) == []
    assert len(breaker.scan(row_prefix(70000))) == 1


def test_keys_of_a_space_that_is_not_known_are_a_note(store: Store, breaker: Any) -> None:
    breaker.put(b"\x09something", b"x")
    report = check(store)
    assert report.sound
    assert [note.examples for note in report.findings.notes] == [["keys that begin with 09"]]


@pytest.mark.parametrize(
    "breakage",
    [
        {CATALOG_KEY: b"\xc1"},
        {CATALOG_KEY: b"\x80"},
        {schema_key(): b"\x00" * 8},
        {CATALOG_KEY + b"\x05": b"?"},
    ],
)
def test_a_damaged_catalog(store: Store, breaker: Any, breakage: dict[bytes, bytes]) -> None:
    store.commit(None, Writes(puts=breakage))
    report = check(store)
    assert {f.kind for f in report.findings.faults} == {"catalog"}
    with pytest.raises(RepairRefused):
        repair(store, report)


@pytest.mark.parametrize("key", [CATALOG_KEY, schema_key()])
def test_half_a_catalog(store: Store, breaker: Any, key: bytes) -> None:
    breaker.delete(key)
    assert [kind for kind, *_ in faults(store)] == ["catalog"]


def test_a_catalog_whose_numbers_contradict_its_statements(store: Store, breaker: Any) -> None:
    stored = msgspec.msgpack.decode(breaker.scan(CATALOG_KEY)[0].value)
    stored["tables"]["event"]["id"] = stored["tables"]["site"]["id"]
    breaker.put(CATALOG_KEY, msgspec.msgpack.encode(stored))
    assert any("used twice" in finding.text for finding in check(store).findings.unreadable)
    del stored["tables"]["event"]
    breaker.put(CATALOG_KEY, msgspec.msgpack.encode(stored))
    assert faults(store) == [("catalog", None, None, 1)]


# Others at work


class Interference:
    """A progress that lets another program write, so many times, when the walk is in the middle."""

    def __init__(self, engine: Engine, statement: str, times: int) -> None:
        self.engine, self.statement, self.times = engine, statement, times
        self.begun = 0

    def begin(self, total: int) -> None:
        self.begun += 1

    def step(self, table: str, entries: int) -> None:
        if table == "image" and self.times:
            self.times -= 1
            with self.engine.begin() as connection:
                connection.execute(text(self.statement))


@pytest.mark.parametrize("url", ["lmdb", "redis"], indirect=True)
def test_a_check_beside_writers_sees_one_state(store: Store, filled: Engine) -> None:
    writer = Interference(filled, "UPDATE image SET title = title || '!' WHERE id = 'id-3'", times=2)
    assert check(store, progress=writer).sound
    assert writer.times == 0
    busy = Interference(filled, "DELETE FROM image WHERE id = (SELECT min(id) FROM image)", times=20)
    if store.kind == "redis":
        assert writer.begun > 1
        with pytest.raises(StoreError, match="other programs changed the database"):
            check(store, progress=busy)
        assert busy.begun == 5
    else:
        assert check(store, progress=busy).sound
        assert busy.begun == 1


def test_a_repair_beside_writers_is_right_for_what_they_wrote(
    store: Store, breaker: Any, filled: Engine
) -> None:
    breaker.delete(*(entry.key for entry in breaker.entries("image", "image_by_title")))
    breaker.add(breaker.table("image").count_key, 3)
    report = check(store)
    delete = "DELETE FROM image WHERE id = (SELECT min(id) FROM image)"
    writer = Interference(filled, delete, times=2)
    assert len(repair(store, report, writer)) == 1
    assert writer.times == 0
    assert faults(store) == []
    assert len(breaker.rows("image")) == 28


def test_a_repair_without_a_quiet_moment_says_so(store: Store, breaker: Any, filled: Engine) -> None:
    breaker.add(breaker.table("image").count_key, 3)
    writer = Interference(filled, "UPDATE image SET deleted = deleted + 2 WHERE id = 'id-1'", times=100)
    with pytest.raises(StoreError, match="in each of 5 tries"):
        repair(store, check(store), writer)
