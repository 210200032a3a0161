"""The LMDB store's own: a map that grows, several processes, full disks, damaged files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from rome.errors import ConfigurationError, Conflict, FormatError, RomeError, StoreFull, StoreReadOnly
from rome.stores import Range, Read, Scan, Store, Writes, open_store
from rome.stores.lmdb_environment import CLEARING_INTERVAL, MAX_READERS

SMALL = 1 << 16
ALL = Range(b"", b"\xff")

Open = Callable[..., Store]


@pytest.fixture
def open_lmdb(tmp_path: Path) -> Iterator[Open]:
    stores: list[Store] = []

    def make(directory: Path | None = None, parameters: str = "") -> Store:
        stores.append(open_store(f"rome+lmdb://{directory or tmp_path / 'db'}{parameters}"))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def put(store: Store, count: int, size: int = 1000, prefix: bytes = b"k") -> None:
    store.commit(None, Writes(puts={prefix + b"%05d" % n: bytes(size) for n in range(count)}))


def count(store: Store) -> int:
    snapshot = store.snapshot()
    try:
        return len(snapshot.read(Read(scans=[Scan(ALL)])).scans[0])
    finally:
        snapshot.close()


def in_child(task: Callable[[], None]) -> None:
    """Run a task in a forked child, which must end well."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            task()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


# the map grows


def test_the_map_grows_by_itself(open_lmdb: Open) -> None:
    store = open_lmdb(parameters=f"?map_size={SMALL}")
    for n in range(5):
        put(store, 100, prefix=b"%d" % n)
    store.commit(None, Writes(puts={b"large": bytes(5_000_000)}))
    assert count(store) == 501
    map_bytes = store.health()["map_bytes"]
    assert isinstance(map_bytes, int)
    assert map_bytes > 5_000_000


def test_an_open_snapshot_outlives_the_growth_if_what_it_read_still_holds(open_lmdb: Open) -> None:
    store = open_lmdb(parameters=f"?map_size={SMALL}")
    put(store, 1)
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"k00000"], scans=[Scan(ALL, limit=1)]))
    before = snapshot.version
    put(store, 2000, prefix=b"other")
    assert snapshot.read(Read(presence=[b"other00001"])).presence == {b"other00001": True}
    assert snapshot.version != before
    store.commit(snapshot, Writes(puts={b"x": b""}))


def test_an_open_snapshot_conflicts_after_the_growth_if_what_it_read_has_changed(open_lmdb: Open) -> None:
    store = open_lmdb(parameters=f"?map_size={SMALL}")
    put(store, 1)
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"k00000"]))
    put(store, 2000)
    with pytest.raises(Conflict) as caught:
        snapshot.read(Read(keys=[b"k00001"]))
    assert caught.value.keys == [b"k00000"]


def test_the_map_grows_while_threads_read(open_lmdb: Open) -> None:
    store = open_lmdb(parameters=f"?map_size={SMALL}&sync=no")
    put(store, 10, prefix=b"a")
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                snapshot = store.snapshot()
                for _ in range(3):
                    assert len(snapshot.read(Read(scans=[Scan(Range(b"a", b"b"))])).scans[0]) == 10
                snapshot.close()
                time.sleep(0.001)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for n in range(12):
        put(store, 10, size=1000 << n, prefix=b"k%d-" % n)
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_a_map_that_another_process_made_larger_is_adopted(open_lmdb: Open) -> None:
    store = open_lmdb(parameters=f"?map_size={SMALL}")
    put(store, 1, prefix=b"a")
    reader = store.snapshot()
    reader.read(Read(keys=[b"a00000"]))
    url = f"rome+lmdb://{store.health()['directory']}?map_size={SMALL}"
    script = (
        "from rome.stores import Writes, open_store; "
        f"open_store({url!r}).commit(None, Writes(puts={{b'k%05d' % n: bytes(1000) for n in range(5000)}}))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert count(store) == 5001
    assert reader.read(Read(keys=[b"a00000"])).values[b"a00000"] is not None
    put(store, 10, prefix=b"z")
    assert count(store) == 5011


# many users


def test_stores_of_one_directory_share_one_environment(tmp_path: Path, open_lmdb: Open) -> None:
    one = open_lmdb()
    (tmp_path / "link").symlink_to(tmp_path / "db")
    two = open_lmdb(tmp_path / "link")
    put(one, 3)
    one.close()
    assert count(two) == 3
    two.close()
    assert count(open_lmdb()) == 3


def test_one_directory_with_two_ways_to_sync_is_refused(open_lmdb: Open) -> None:
    open_lmdb()
    with pytest.raises(ConfigurationError, match="sync=full"):
        open_lmdb(parameters="?sync=no")


@pytest.mark.parametrize(("sync", "durable"), [("full", True), ("meta", False), ("no", False)])
def test_health_tells_how_durable_a_commit_is(open_lmdb: Open, sync: str, durable: bool) -> None:
    facts = open_lmdb(parameters=f"?sync={sync}").health()
    assert (facts["sync"], facts["durable"]) == (sync, durable)


def test_a_reader_that_was_killed_leaves_no_slot_behind(open_lmdb: Open) -> None:
    store = open_lmdb()
    put(store, 1)

    def read_and_die() -> None:
        snapshot = store.snapshot()
        snapshot.read(Read(keys=[b"k00000"]))
        os._exit(0)

    in_child(read_and_die)
    assert store.health()["snapshots"] == 1
    script = f"from rome.stores import open_store; open_store('rome+lmdb://{store.health()['directory']}')"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert store.health()["snapshots"] == 0


def test_writers_clear_the_slots_of_readers_that_were_killed(open_lmdb: Open) -> None:
    store = open_lmdb()
    put(store, 1)
    child = os.fork()
    if child == 0:
        snapshot = store.snapshot()
        snapshot.read(Read(keys=[b"k00000"]))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert store.health()["snapshots"] == 1
    time.sleep(CLEARING_INTERVAL)
    put(store, 1)
    assert store.health()["snapshots"] == 0


def test_more_snapshots_than_lmdb_takes_are_told_and_freed(open_lmdb: Open) -> None:
    store = open_lmdb()
    put(store, 1)
    snapshots = []
    with pytest.raises(RomeError, match="snapshots"):  # noqa: PT012 - the one too many raises
        for _ in range(MAX_READERS + 200):
            snapshots.append(store.snapshot())
            snapshots[-1].read(Read(keys=[b"k00000"]))
    assert len(snapshots) > MAX_READERS - 10
    for snapshot in snapshots:
        snapshot.close()
    assert count(store) == 1


def test_a_snapshot_open_across_fork_mixes_no_two_states(tmp_path: Path) -> None:
    """The child's environment shares the table of readers with the parent, whose pages must stay its own."""
    store = open_store(f"rome+lmdb://{tmp_path / 'db'}")
    store.commit(None, Writes(puts={b"a": b"1", b"b": b"1"}))
    snapshot = store.snapshot()
    assert snapshot.read(Read(keys=[b"a"])).values[b"a"] is not None
    process = multiprocessing.get_context("fork").Process(
        target=lambda: store.commit(None, Writes(puts={b"b": b"2"}))
    )
    process.start()
    process.join()
    for number in range(50):
        store.commit(None, Writes(puts={b"c%d" % number: bytes(5000)}))
    later = snapshot.read(Read(keys=[b"b"])).values[b"b"]
    assert later is not None
    assert later.value in (b"1", b"2")
    store.commit(None, Writes(puts={b"a": b"3", b"b": b"3"}))
    process = multiprocessing.get_context("fork").Process(target=store.snapshot)
    process.start()
    process.join()
    with pytest.raises(Conflict):
        snapshot.read(Read(keys=[b"c1"]))
    store.close()


def test_a_writer_killed_in_the_middle_leaves_nothing(open_lmdb: Open, tmp_path: Path) -> None:
    store = open_lmdb()
    put(store, 3)

    def write_half_and_die() -> None:
        own = open_store(f"rome+lmdb://{tmp_path / 'db'}")
        txn = own.environment.handle.begin(write=True)  # type: ignore[attr-defined]
        txn.put(b"half", b"12345678", db=own.environment.entries)  # type: ignore[attr-defined]
        os._exit(0)

    in_child(write_half_and_die)
    assert count(store) == 3
    put(store, 4)
    assert count(store) == 4


def test_a_forgotten_snapshot_frees_its_slot(open_lmdb: Open) -> None:
    store = open_lmdb()
    put(store, 1)
    for _ in range(MAX_READERS + 200):
        store.snapshot().read(Read(keys=[b"k00000"]))
    assert count(store) == 1


# what can be wrong with a directory


def test_a_missing_directory_is_made_but_not_its_parent(tmp_path: Path, open_lmdb: Open) -> None:
    store = open_lmdb(tmp_path / "new")
    put(store, 1)
    assert (tmp_path / "new" / "data.mdb").exists()
    with pytest.raises(ConfigurationError, match=r"no/such.*does not exist"):
        open_lmdb(tmp_path / "no" / "such" / "db")


def test_others_cannot_read_what_is_in_the_directory(tmp_path: Path, open_lmdb: Open) -> None:
    open_lmdb()
    for path in (tmp_path / "db", *(tmp_path / "db").iterdir()):
        assert path.stat().st_mode & 0o007 == 0


def test_a_file_in_the_place_of_the_directory(tmp_path: Path, open_lmdb: Open) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="is a file"):
        open_lmdb(tmp_path / "file")


def test_a_directory_that_cannot_be_written(tmp_path: Path, open_lmdb: Open) -> None:
    store = open_lmdb(tmp_path / "db")
    put(store, 1)
    store.close()
    for path in (tmp_path / "db", *(tmp_path / "db").iterdir()):
        path.chmod(0o555)
    for path in (tmp_path, *list(tmp_path.parents)[:-2]):
        path.chmod(0o755)

    def open_as_nobody() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setuid(65534)
        for name in ("db", "new"):
            with pytest.raises(StoreReadOnly, match="cannot be written"):
                open_store(f"rome+lmdb://{tmp_path / name}")

    in_child(open_as_nobody)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a small file system of our own can only be mounted by root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_loses_nothing_and_works_again(small_disk: Path) -> None:
    store = open_store(f"rome+lmdb://{small_disk / 'db'}")
    put(store, 100)
    (small_disk / "ballast").write_bytes(bytes(1_000_000))
    snapshot = store.snapshot()
    snapshot.read(Read(keys=[b"k00000"]))
    with pytest.raises(StoreFull, match="no space left"):
        put(store, 2000, prefix=b"more")
    with pytest.raises(StoreFull):
        store.commit(snapshot, Writes(puts={b"large": bytes(3_000_000)}))
    assert count(store) == 100
    (small_disk / "ballast").unlink()
    put(store, 200, prefix=b"more")
    assert count(store) == 300
    store.close()
    store = open_store(f"rome+lmdb://{small_disk / 'db'}")
    assert count(store) == 300
    store.close()


def test_a_disk_too_full_to_begin_with(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(2 * 1024 * 1024 - 8192))
    with pytest.raises(StoreFull, match="no space left"):
        open_store(f"rome+lmdb://{small_disk / 'db'}")
    (small_disk / "ballast").unlink()
    store = open_store(f"rome+lmdb://{small_disk / 'db'}")
    put(store, 1)
    store.close()


def damaged(tmp_path: Path, open_lmdb: Open, damage: Callable[[Path], None]) -> None:
    """Fill a database, damage its file, and read all of it again."""
    store = open_lmdb()
    put(store, 2000)
    store.close()
    damage(tmp_path / "db" / "data.mdb")
    store = open_lmdb()
    count(store)


def test_a_file_of_another_kind(tmp_path: Path, open_lmdb: Open) -> None:
    def replace(file: Path) -> None:
        file.write_bytes(b"no database at all" * 1000)

    with pytest.raises(FormatError, match="damaged or of another kind"):
        damaged(tmp_path, open_lmdb, replace)


def test_a_file_cut_short(tmp_path: Path, open_lmdb: Open) -> None:
    def cut(file: Path) -> None:
        os.truncate(file, file.stat().st_size // 3)

    with pytest.raises(FormatError, match="damaged"):
        damaged(tmp_path, open_lmdb, cut)


def test_pages_overwritten_with_zeros(tmp_path: Path, open_lmdb: Open) -> None:
    def overwrite(file: Path) -> None:
        size = file.stat().st_size
        with file.open("r+b") as data:
            data.seek(4096 * 3)
            data.write(bytes(size - 4096 * 3))

    with pytest.raises(FormatError, match="damaged"):
        damaged(tmp_path, open_lmdb, overwrite)


def test_an_lmdb_database_of_someone_else(tmp_path: Path, open_lmdb: Open) -> None:
    with lmdb.open(str(tmp_path / "db"), max_dbs=2) as other, other.begin(write=True) as txn:
        txn.put(b"theirs", b"1")
    with pytest.raises(FormatError, match="not written by ROME"):
        open_lmdb()


def test_a_database_of_a_newer_layout(tmp_path: Path, open_lmdb: Open) -> None:
    open_lmdb().close()
    with lmdb.open(str(tmp_path / "db"), max_dbs=8) as later:
        meta = later.open_db(b"meta")
        with later.begin(write=True, db=meta) as txn:
            txn.put(b"layout", b"2")
    with pytest.raises(FormatError, match="layout"):
        open_lmdb()
