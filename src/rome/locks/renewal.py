"""Renewal: one thread for each open store keeps alive all the leases that this process has on it.

A lease is renewed when a third of its time is over, so that two renewals may fail before it is lost. What
is due at about the same time is renewed in one round trip. The thread is started with the first
lease and ends when there has been none for a while; it is a daemon, so that no program waits for it.

**What counts is the store's clock**, but a process that is cut off cannot ask for it. So each lease also
has a *deadline* on the local clock, reckoned from before the request was sent: the store lets it end
no sooner. Behind its deadline, a lease counts as lost here as well, and is not renewed any more.

**Leases belong to their locks.** The thread knows them by weak references only: a lock that a program
has forgotten without releasing it is renewed no more, and ends. After fork, the child has neither the
thread nor, by their process id, the leases.

It works with threads as well as with the greenlets of eventlet and gevent: all that waits here does so
by `threading`, which they replace. Under them, a program that never yields keeps the thread
from renewing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from rome.errors import RomeError
from rome.stores import Store

LINGER = 5.0
"""Seconds without a lease after which the thread ends."""

_logger = logging.getLogger(__name__)

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def local_clock() -> float:
    """Seconds; runs on while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(_CLOCK)


class Lease:
    """One lease of this process. Made when it has been granted."""

    def __init__(
        self, store: Store, name: str, owner: str, fencing: int, seconds: float, asked: float
    ) -> None:
        self.store = store
        self.name = name
        self.owner = owner
        self.fencing = fencing
        self.seconds = seconds
        self.pid = os.getpid()
        self.on_loss: Callable[[], Any] | None = None
        self._lost = False
        self.extend(asked)

    def extend(self, asked: float) -> None:
        """It was renewed by a request that was sent at this time."""
        self.deadline = asked + self.seconds
        self.due = asked + self.seconds / 3

    @property
    def inherited(self) -> bool:
        """Whether it is the lease of the process that this one was forked from."""
        return self.pid != os.getpid()

    @property
    def lost(self) -> bool:
        return self._lost or local_clock() >= self.deadline

    @property
    def remaining(self) -> float:
        """Seconds until it ends, unless it is renewed; 0 if it is lost."""
        return 0.0 if self._lost else max(0.0, self.deadline - local_clock())

    def lose(self) -> None:
        """Note that it is lost, and tell the lock, once."""
        if self._lost:
            return
        self._lost = True
        if self.on_loss is not None:
            try:
                self.on_loss()
            except Exception:
                _logger.exception("what was to be called when the lock %r was lost failed", self.name)


class Renewer:
    """Renews the leases on one store, which it knows by its leases only: it keeps no store open."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._leases: WeakSet[Lease] = WeakSet()
        self._changed = threading.Condition()
        self._running = False

    def add(self, lease: Lease) -> None:
        with self._changed:
            self._leases.add(lease)
            if self._running:
                self._changed.notify()
            else:
                self._running = True
                threading.Thread(target=self._run, name="rome-locks", daemon=True).start()

    def remove(self, lease: Lease) -> None:
        """It is about to be released, or is lost."""
        with self._changed:
            self._leases.discard(lease)

    def _run(self) -> None:
        idle_since = local_clock()
        while True:
            with self._changed:
                leases = list(self._leases)
                now = local_clock()
                if leases:
                    idle_since = now
                elif now - idle_since >= LINGER:
                    self._running = False
                    return
                pause = min((lease.due for lease in leases), default=idle_since + LINGER) - now
                del leases
                if pause > 0:
                    self._changed.wait(pause)
                    continue
            self._renew_what_is_due()

    def _renew_what_is_due(self) -> None:
        now = local_clock()
        with self._changed:
            due = [lease for lease in self._leases if lease.due <= now + lease.seconds / 6]
        over = [lease for lease in due if lease.lost]
        due = [lease for lease in due if not lease.lost]
        if due:
            try:
                owned = [(lease.name, lease.owner, lease.seconds) for lease in due]
                renewed = due[0].store.leases.renew(owned)
            except Exception as error:
                if not isinstance(error, RomeError):
                    _logger.exception("locks could not be renewed")
                for lease in due:
                    lease.due = local_clock() + lease.seconds / 20
                over += [lease for lease in due if lease.lost]
            else:
                for lease, good in zip(due, renewed, strict=True):
                    if good:
                        lease.extend(now)
                    else:
                        over.append(lease)
        for lease in over:
            self._lost(lease)

    def _lost(self, lease: Lease) -> None:
        with self._changed:
            released = lease not in self._leases
            self._leases.discard(lease)
        if not released:
            lease.lose()


_renewers: WeakKeyDictionary[Store, Renewer] = WeakKeyDictionary()
_registering = threading.Lock()


def renewer_of(store: Store) -> Renewer:
    """The renewer of this process for an open store."""
    with _registering:
        renewer = _renewers.get(store)
        if renewer is None or renewer.pid != os.getpid():
            renewer = _renewers[store] = Renewer()
        return renewer


def _forked() -> None:
    """In the child: the thread that held this lock may not have come along."""
    global _registering
    _registering = threading.Lock()


os.register_at_fork(after_in_child=_forked)
