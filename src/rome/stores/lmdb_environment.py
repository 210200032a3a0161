"""One open LMDB environment for each directory of this process, and what LMDB asks of its users.

LMDB is a memory-mapped B+tree with one writer at a time and readers that never wait. Four of its
rules need care; they are kept here, so that `rome.stores.lmdb` can read like the contract:

**Never open one directory twice in a process**: its locks belong to the process, and closing one
handle would drop those of the other. So the environments are kept by real path, and shared.

**The map has a size.** When a commit does not fit, or another process has made the map larger, the
map must be replaced, and that needs every read transaction of this process to end. So each open
snapshot registers here as a `Reader`: growing takes the reader's lock, ends its transaction, and
the reader finds out at its next use. (It then reopens at the newest state and validates what it
has read so far: no state is mixed.)

**A child after fork must leave the environment alone**; it opens its own at its next use. To close
what it inherited would end the parent's read transactions, for their reader slots are shared; so
forking ends them first, and each snapshot reopens at its next use, as after growing. No thread may
be inside LMDB while the process forks, so forking takes all the locks.

**Readers of dead processes** keep old pages from being used again, and the file grows; they are cleared
when a directory is opened, while it is written to (every CLEARING_INTERVAL), when the table of readers
is full, and before the map grows.

**One writer at a time**: see `rome.stores.lmdb_turn`, whose lock of this process is `writing` here.

Locks are taken in the order `writing`, `_registering`, the readers' own, `_opening`.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakSet, WeakValueDictionary

import lmdb

from rome.errors import (
    ConfigurationError,
    FormatError,
    LimitExceeded,
    RomeError,
    StoreError,
    StoreFull,
    StoreReadOnly,
)
from rome.stores.lmdb_turn import FILE, Turn

MAX_READERS = 1024
"""Open snapshots, over all processes that use a directory."""

CLEARING_INTERVAL: Final = 1.0
"""Seconds between two looks of a process that writes for the slots of dead readers."""

_LOCK_FILE_BYTES = 4096 + MAX_READERS * 64
_LAYOUT = b"1"
_DAMAGED = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)

T = TypeVar("T")


class Reader(Protocol):
    """An open snapshot, as far as its environment must know it."""

    lock: threading.Lock

    def ended(self) -> Any:
        """Forget the read transaction, and return it. Called with the lock held."""


class Environment:
    """The environment of one directory, shared by all stores and snapshots of this process.

    `writing` is held around every write transaction of this process. `write_timeout`: seconds to wait for
    others to have written while it is opened; each store brings its own for what it writes.
    """

    entries: Any
    counters: Any
    leases: Any
    meta: Any

    def __init__(self, path: str, sync: str, map_size: int, write_timeout: float) -> None:
        self.path = path
        self.sync = sync
        self.writing = threading.Lock()
        self._turn = Turn(path, self.writing)
        self._write_timeout = write_timeout
        self._clearing_at = 0.0
        self.users = 0
        self._map_size = map_size
        self._registering = threading.Lock()
        self._readers: WeakSet[Reader] = WeakSet()
        self._opening = threading.Lock()
        self._handle: Any = None

    @property
    def handle(self) -> Any:
        """The open lmdb.Environment (again opened after fork)."""
        return self._handle if self._handle is not None else self._open()

    def _open(self) -> Any:
        with self._opening:
            if self._handle is None:
                if self.users == 0:
                    raise StoreError("this store is closed")
                try:
                    self._handle = self._opened()
                except (lmdb.Error, OSError) as error:
                    raise translated(error, self.path) from error
            return self._handle

    def _opened(self) -> Any:
        prepare_directory(self.path)
        handle = self._mapped()
        try:
            handle.reader_check()
            self._make_whole(handle)
            self._open_databases(handle)
        except BaseException:
            handle.close()
            raise
        return handle

    def _mapped(self) -> Any:
        """The file, opened. That begins a transaction, and others may have grown the map just before it."""
        while True:
            with suppress(lmdb.MapResizedError):
                return lmdb.open(
                    self.path,
                    map_size=self._map_size,
                    max_dbs=8,
                    max_readers=MAX_READERS,
                    max_spare_txns=0,  # a spare one would be freed, with the parent's slot, by a forked child
                    sync=self.sync != "no",
                    metasync=self.sync == "full",
                    mode=0o770,
                )

    def _make_whole(self, handle: Any) -> None:
        """Give a file that was cut short its full length again.

        To read a mapped page behind a file's end kills the process; to read a page of zeros
        there is an error that can be told. (LMDB itself may leave unused last pages unwritten.)
        """
        path = os.path.join(self.path, "data.mdb")
        length = (handle.info()["last_pgno"] + 1) * handle.stat()["psize"]
        if os.path.getsize(path) < length:
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), length - 1, 1)

    def _open_databases(self, handle: Any) -> None:
        """Open the trees, or make them. (lmdb offers no way to do that without a write transaction.)"""

        def act() -> None:
            with _begun(handle) as txn:
                fresh = txn.stat()["entries"] == 0
                if not fresh and txn.get(b"meta") is None:
                    raise FormatError(f"the LMDB database in {self.path} was not written by ROME")
                self.entries = handle.open_db(b"entries", txn=txn)
                self.counters = handle.open_db(b"counters", txn=txn)
                self.leases = handle.open_db(b"leases", txn=txn)
                self.meta = handle.open_db(b"meta", txn=txn)
                if fresh:
                    txn.put(b"layout", _LAYOUT, db=self.meta)
                elif (layout := txn.get(b"layout", db=self.meta)) != _LAYOUT:
                    raise FormatError(
                        f"the database in {self.path} has layout {layout!r}; this ROME reads {_LAYOUT!r}"
                    )

        # `writing` is for those who write through the handle, which is not there yet.
        Turn(self.path, threading.Lock()).run(act, self._write_timeout)

    # writing

    def write(self, action: Callable[[Any], T], patience: float) -> T:
        """Run an action in a write transaction, which is committed then, when it is this process's turn.

        Raises `StoreBusy` if that was not within `patience` seconds; what LMDB raises is for `persist`.
        """

        handle = self.handle  # to open it takes a turn

        def act() -> T:
            if self._handle is not handle:
                raise StoreError(f"{self.path} was closed when another thread failed; try again")
            self._clear_now_and_then(handle)
            with handle.begin(write=True) as txn:
                return action(txn)

        return self._turn.run(act, patience)

    def _clear_now_and_then(self, handle: Any) -> None:
        now = time.monotonic()
        if now >= self._clearing_at:
            self._clearing_at = now + CLEARING_INTERVAL
            handle.reader_check()

    def is_free(self) -> bool:
        """Whether a write would not have to wait, as far as can be said in advance."""
        return self._turn.is_free()

    # readers

    def register(self, reader: Reader) -> None:
        with self._registering:
            self._readers.add(reader)

    def persist(self, action: Callable[[], T], room: int = 0) -> T:
        """Run an action that begins a transaction, seeing to the map and the reader table between tries.

        `room` is the number of bytes that the action writes. Raises ROME's errors only.
        """
        checked = False
        while True:
            size = self._map_size
            try:
                return action()
            except lmdb.MapFullError:
                self._grow(size, room)
            except lmdb.MapResizedError:
                self._grow(size, None)
            except lmdb.ReadersFullError as error:
                if checked:
                    raise StoreError(f"more than {MAX_READERS} snapshots of {self.path} are open") from error
                self.handle.reader_check()
                checked = True
            except lmdb.PanicError as error:
                self._replace(self._close)
                raise translated(error, self.path) from error
            except (lmdb.Error, OSError) as error:
                raise translated(error, self.path) from error

    def _grow(self, seen: int, room: int | None) -> None:
        """Make the map larger than `seen`, or (without room) as large as another process made it."""
        if self.handle.reader_check() and room is not None:
            return  # the pages that the dead held back may be room enough

        def resize() -> None:
            if room is None:
                self.handle.set_mapsize(0)
            elif self._map_size == seen:
                wanted = 2 * max(seen, self.handle.info()["map_size"]) + 4 * room
                self.handle.set_mapsize(wanted - wanted % 65536 + 65536)
            self._map_size = self.handle.info()["map_size"]

        try:
            self._replace(resize)
        except lmdb.Error as error:
            raise translated(error, self.path) from error

    def _close(self) -> None:
        with self._opening:
            if self._handle is not None:
                self._handle.close()
                self._handle = None

    def _replace(self, action: Callable[[], None]) -> None:
        """Run an action that needs every transaction of this process ended."""
        with self.writing, self._registering, ExitStack() as held:
            for reader in list(self._readers):
                held.enter_context(reader.lock)
                txn = reader.ended()
                if txn is not None:
                    txn.abort()
            action()

    # life and death

    def release(self) -> None:
        """One user less; the last one closes."""
        with _registry_lock:
            self.users -= 1
            if self.users == 0:
                if _registry.get(self.path) is self:
                    del _registry[self.path]
                self._replace(self._close)

    def still(self, held: ExitStack) -> None:
        """Take every lock there is, so that no thread of this process is inside LMDB; end all readers."""
        for lock in (self.writing, self._registering):
            held.enter_context(lock)
        for reader in list(self._readers):
            held.enter_context(reader.lock)
        held.enter_context(self._opening)
        for reader in list(self._readers):
            transaction = reader.ended()
            if transaction is not None:
                transaction.abort()

    def abandon(self) -> None:
        """In a child after fork, with the locks held: leave what belongs to the parent.

        Closing gives up files and memory of this process only, since no read transaction is open:
        one that were would be ended for the parent, too. (It would wait forever for a writer that
        did not come along, hence `still`.)
        """
        if self._handle is not None:
            self._handle.close()
            self._handle = None


_registry: WeakValueDictionary[str, Environment] = WeakValueDictionary()
_registry_lock = threading.Lock()

_forking = ExitStack()


def _before_fork() -> None:
    _forking.enter_context(_registry_lock)
    for environment in list(_registry.values()):
        environment.still(_forking)


def _after_fork_in_child() -> None:
    for environment in list(_registry.values()):
        environment.abandon()
    _forking.close()


os.register_at_fork(before=_before_fork, after_in_parent=_forking.close, after_in_child=_after_fork_in_child)


def acquire(path: str, sync: str, map_size: int, write_timeout: float) -> Environment:
    """The environment of a directory; opened if this process has not opened it yet."""
    path = os.path.realpath(path)
    with _registry_lock:
        environment = _registry.get(path)
        if environment is None:
            environment = _registry[path] = Environment(path, sync, map_size, write_timeout)
        elif environment.sync != sync:
            raise ConfigurationError(
                f"{path} is already open in this process with sync={environment.sync}, not sync={sync}"
            )
        environment.users += 1
    try:
        environment.handle  # noqa: B018 - opens it
    except BaseException:
        environment.release()
        raise
    return environment


def _begun(handle: Any) -> Any:
    """A write transaction of a handle that nobody else uses yet, in a map as large as others made it."""
    while True:
        try:
            return handle.begin(write=True)
        except lmdb.MapResizedError:
            handle.set_mapsize(0)


def prepare_directory(path: str) -> None:
    """Make the directory and room for the lock file, or say why that cannot be.

    The lock file is mapped and written to: were there no room for it, that would kill the process.
    """
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        raise ConfigurationError(f"{path}: the directory {parent} does not exist")
    if os.path.exists(path) and not os.path.isdir(path):
        raise ConfigurationError(f"{path} is a file; an LMDB store needs a directory")
    os.makedirs(path, mode=0o770, exist_ok=True)
    descriptor = os.open(os.path.join(path, "lock.mdb"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    try:
        os.posix_fallocate(descriptor, 0, _LOCK_FILE_BYTES)
    except OSError as error:
        if error.errno in _FULL:
            raise
    finally:
        os.close(descriptor)
    os.close(os.open(os.path.join(path, FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660))


def translated(error: Exception, path: str) -> RomeError:
    """The error of LMDB or of the system in ROME's terms."""
    number = error.errno if isinstance(error, OSError) else getattr(error, "code", None)
    text = str(error)
    if isinstance(error, lmdb.DiskError) or number in _FULL or (number == errno.EIO and _is_full(path)):
        return StoreFull(f"no space left on the disk of {path}")
    if isinstance(error, lmdb.MemoryError):
        return StoreFull(f"{path}: not enough address space or memory for the map ({text})")
    if isinstance(error, lmdb.ReadonlyError) or number in _FORBIDDEN:
        return StoreReadOnly(f"{path} cannot be written: {text}")
    if isinstance(error, _DAMAGED):
        return FormatError(f"the database in {path} is damaged or of another kind: {text}")
    if isinstance(error, lmdb.BadValsizeError):
        return LimitExceeded("a key is empty or longer than LMDB takes (511 bytes)")
    if isinstance(error, lmdb.TxnFullError):
        return LimitExceeded(f"{path}: the transaction writes more than LMDB takes at once")
    return StoreError(f"{path}: {text}")


def _is_full(path: str) -> bool:
    """LMDB calls it an input/output error when the system wrote a part of what it was given."""
    try:
        space = os.statvfs(path)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < 1 << 20
