"""A lock, as a program holds it.

    with rome.lock(engine, "host-7", ttl=10) as lock:
        with Session(engine) as session, session.begin():
            lock.guard(session)
            ...                        COMMIT fails unless the lock was held all the time

**What is lost is told.** A process that sleeps, hangs or is cut off for longer than `ttl` loses its
lease, and cannot be hindered from going on. It is told as soon as it can be: `lost` is true, `on_loss` is
called, and `check`, `guard` and `release` raise `LockLost`, as does the end of a `with` block that
nothing else ended. What was done to the database under `guard` is safe: it is COMMIT that looks, on the
store's clock. For what is done elsewhere there is the fencing number.

**Waiting** is asking, again and again, with a pause that grows and is never the same (so that many do
not ask at once). Who is next in line asks most often; the others have time. Asking keeps one's place.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from rome.errors import (
    ConfigurationError,
    LockError,
    LockLost,
    LockNotHeld,
    LockTimeout,
    RomeError,
)
from rome.locks.renewal import Lease, local_clock, renewer_of
from rome.stores import Store
from rome.stores.leases import PLACE_SECONDS, Answer, Wanted, lost_text, new_owner

MAX_NAME_BYTES: Final = 255
DEFAULT_TTL: Final = 10.0

_FIRST_PAUSE: Final = 0.002
_NEXT_IN_LINE: Final = 0.1
"""Seconds that the first in line pauses at most."""
_LONGEST_PAUSE: Final = PLACE_SECONDS / 4


class Lock:
    """A lock on one name, shared by all that use the database. Not reentrant; usable again after release.

    Made by `rome.lock`. One object is one contender: threads that contend have one each.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        name: str,
        ttl: float = DEFAULT_TTL,
        *,
        blocking: bool = True,
        timeout: float | None = None,
        on_loss: Callable[[Lock], Any] | None = None,
    ) -> None:
        _check_name(name)
        if not 0 < ttl < 1e6:
            raise ConfigurationError(f"ttl={ttl}: a number of seconds greater than 0 is needed")
        _check_patience(blocking, timeout)
        self.name = name
        self.ttl = float(ttl)
        self._store_of = store
        self._blocking = blocking
        self._timeout = timeout
        self._on_loss = on_loss
        self._lease: Lease | None = None
        self._acquiring = threading.Lock()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        state = "held" if self.locked else "lost" if self.lost else "not held"
        return f"<rome.lock {self.name!r}, {state}>"

    # What it is now. None of this asks the store.

    @property
    def locked(self) -> bool:
        """Whether this object holds the lock, as far as this process knows."""
        lease = self._own()
        return lease is not None and not lease.lost

    @property
    def lost(self) -> bool:
        """Whether the lock was lost while it was held. Until it is released or acquired again."""
        lease = self._own()
        return lease is not None and lease.lost

    @property
    def remaining(self) -> float:
        """Seconds until the lease ends, unless it is renewed; 0 where it is not held."""
        lease = self._own()
        return lease.remaining if lease is not None else 0.0

    @property
    def owner(self) -> str:
        """The name of this owner, as `rome status` shows it: host, process, and what tells it from others.

        Another one each time that the lock is acquired. Raises `LockNotHeld`.
        """
        return self._required().owner

    @property
    def fencing(self) -> int:
        """The fencing number: greater than that of each owner before. Raises `LockNotHeld`."""
        return self._required().fencing

    def check(self) -> None:
        """Raise `LockLost` or `LockNotHeld` unless the lock is held, as far as this process knows."""
        if self._required().lost:
            raise LockLost(lost_text(self.name))

    # Acquiring and releasing

    def acquire(self, blocking: bool | None = None, timeout: float | None = None) -> bool:
        """Acquire the lock; False where it is not to be had (in time).

        `blocking` and `timeout` (seconds; None: for ever) are the lock's own where they are not given.
        Raises `LockError` where this object holds it or is acquiring it, `StoreError` where the store does
        not do it.
        """
        if blocking is None:
            blocking = self._blocking
        if timeout is None and blocking:
            timeout = self._timeout
        _check_patience(blocking, timeout)
        lease = self._own()
        if lease is not None and not lease.lost:
            raise LockError(f"this object holds the lock {self.name!r} already; it is not reentrant")
        if not self._acquiring.acquire(blocking=False):
            raise LockError(f"this object is acquiring the lock {self.name!r} already, in another thread")
        try:
            self._lease = None
            self._lease = self._wait(blocking, timeout)
        finally:
            self._acquiring.release()
        return self._lease is not None

    def release(self) -> None:
        """Release the lock.

        Raises `LockLost` where its lease had ended before, `LockNotHeld` where this object does not hold
        it, `StoreError` where the store does not answer; it then ends with its lease. In any case
        this object does not hold it any more.
        """
        lease = self._required()
        self._lease = None
        renewer_of(lease.store).remove(lease)
        lost = lease.lost
        if not lease.store.leases.release(lease.name, lease.owner) or lost:
            raise LockLost(lost_text(self.name))

    def __enter__(self) -> Self:
        if not self.acquire():
            raise LockTimeout(f"the lock {self.name!r} is held by others, and was not released in time")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except RomeError:
            # Why the block was left says more than what became of the lock since.
            if error is None:
                raise

    # Transactions

    def guard(self, session: Any) -> None:
        """Let the COMMIT of a transaction fail unless the lock is still held then.

        `session` is a Session, a Connection or a DBAPI connection on the lock's engine. Its transaction
        begins with this call, or has begun but not read yet. COMMIT then raises an OperationalError whose
        `orig` is a `LockLost` where the lease has ended meanwhile. Costs no round trip, and COMMIT
        none but for a transaction that writes nothing.

        Raises `LockLost` and `LockNotHeld` as `check` does, `LockError` for a transaction elsewhere, and
        ProgrammingError for a transaction that has read already, or in autocommit.
        """
        self.check()
        lease = self._required()
        connection = _dbapi_connection(session)
        if getattr(connection, "store", None) is not lease.store:
            raise LockError(f"the lock {self.name!r} is kept by another engine than this transaction's")
        connection.require_lease(lease.name, lease.fencing)

    # How it is done

    def _own(self) -> Lease | None:
        """The lease, if it is this process's."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._acquiring = threading.Lock()
        lease = self._lease
        return None if lease is None or lease.inherited else lease

    def _required(self) -> Lease:
        lease = self._own()
        if lease is not None:
            return lease
        if self._lease is not None:
            raise LockNotHeld(
                f"the lock {self.name!r} is held by process {self._lease.pid}, not by this one, which was"
                " forked from it"
            )
        raise LockNotHeld(f"the lock {self.name!r} is not held by this object")

    def _wait(self, blocking: bool, timeout: float | None) -> Lease | None:
        store = self._store_of()
        owner = new_owner()
        wanted = Wanted(self.name, owner, self.ttl, queue=blocking)
        deadline = local_clock() + timeout if timeout is not None else None
        pauses = Pauses()
        try:
            while True:
                asked = local_clock()
                answer = store.leases.request(wanted)
                if answer.fencing:
                    return self._granted(Lease(store, self.name, owner, answer.fencing, self.ttl, asked))
                if not blocking:
                    return None
                pause = pauses.after(answer)
                if deadline is not None:
                    pause = min(pause, deadline - local_clock())
                    if pause <= 0:
                        store.leases.release(self.name, owner)
                        return None
                time.sleep(pause)
        except BaseException:
            _give_up(store, self.name, owner)
            raise

    def _granted(self, lease: Lease) -> Lease:
        if self._on_loss is not None:
            on_loss = self._on_loss
            lease.on_loss = lambda: on_loss(self)
        renewer_of(lease.store).add(lease)
        return lease


class Pauses:
    """How long to wait before asking again: longer each time, until the line moves."""

    def __init__(self) -> None:
        self._pause = _FIRST_PAUSE
        self._position = -1

    def after(self, answer: Answer) -> float:
        if answer.position != self._position:
            self._position, self._pause = answer.position, _FIRST_PAUSE * (1 + 4 * answer.position)
        else:
            self._pause *= 1.5
        self._pause = min(self._pause, _NEXT_IN_LINE * (1 + answer.position), _LONGEST_PAUSE)
        pause = random.uniform(self._pause / 2, self._pause)
        if answer.position == 0 and answer.remaining > 0:
            # No later than the end of the lease that is in the way, should nobody renew it.
            pause = min(pause, answer.remaining + _FIRST_PAUSE)
        return pause


def _give_up(store: Store, name: str, owner: str) -> None:
    """Leave the line, and give back what may have been granted without our hearing of it."""
    try:
        store.leases.release(name, owner)
    except Exception:
        # The store does not answer; place and lease end by themselves.
        return


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise ConfigurationError(f"the name of a lock is a text, not {type(name).__name__}")
    if not name:
        raise ConfigurationError("the name of a lock cannot be empty")
    if any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for character in name):
        raise ConfigurationError("the name of a lock cannot contain control characters")
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        raise ConfigurationError(f"the name of a lock has {size} bytes; {MAX_NAME_BYTES} are the most")


def _check_patience(blocking: bool, timeout: float | None) -> None:
    if timeout is not None and not 0 <= timeout < 1e9:
        raise ConfigurationError(
            f"timeout={timeout}: a number of seconds, or None to wait for ever, is needed"
        )
    if timeout is not None and not blocking:
        raise ConfigurationError("timeout= is for blocking locks")


def _dbapi_connection(session: Any) -> Any:
    """What is beneath a Session, a Connection, or a pool's wrapper."""
    if hasattr(session, "dbapi_connection"):
        return session.dbapi_connection
    beneath = getattr(session, "connection", None)
    if beneath is None:
        return session
    return _dbapi_connection(beneath() if callable(beneath) else beneath)
