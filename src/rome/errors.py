"""Every error that ROME itself raises, below the PEP 249 line.

The lower layers (stores, records, transaction) speak in these errors; `rome.dbapi` translates
them, in one place, into the PEP 249 errors that programs catch. The tree:

    RomeError
    ├── ConfigurationError      the URL or one of its parameters is wrong
    ├── Conflict                another transaction changed what this one read
    ├── LimitExceeded           a key or value is larger than the store takes
    ├── FormatError             the database was written by a newer ROME, or is damaged
    ├── LockError               a lock cannot be used like this
    │   ├── LockLost            its lease ended while it was held
    │   ├── LockNotHeld         it is not held here
    │   └── LockTimeout         it was not to be had in time
    └── StoreError              the store could not do what was asked
        ├── StoreUnavailable    not reachable, or gone in the middle of a call
        │   └── StoreTimeout    no answer within the time-out
        ├── StoreBusy           others kept this one from writing for too long
        ├── AuthenticationFailed  wrong user or password, or the user may not do this
        ├── StoreFull           out of memory or disk
        ├── StoreReadOnly       a replica, or a directory that cannot be written
        └── CommitUnknown       the connection was lost while COMMIT was under way

Texts never contain a password; they say what to do where there is something to do.
"""

from collections.abc import Sequence


class RomeError(Exception):
    """The root of ROME's own errors."""


class ConfigurationError(RomeError):
    """A URL, one of its parameters or an option cannot be used as given."""


class Conflict(RomeError):
    """What the transaction read has been changed by another transaction.

    `keys` names the keys (and, for a range, its start) whose state differs, as far as the store
    found out; it may be shorter than the full list but is never empty.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        super().__init__("another transaction changed what this one had read")
        self.keys = list(keys)


class LimitExceeded(RomeError):
    """A key or a value is larger than the store takes."""


class FormatError(RomeError):
    """Stored bytes cannot be understood: damaged, or written by a newer ROME."""


class LockError(RomeError):
    """A lock cannot be used like this: it is held already, say, or of another database."""


class LockLost(LockError):
    """The lease of a lock ended while it was held: what was done since is not protected by it."""


class LockNotHeld(LockError):
    """The lock is not held: not yet, not any more, or by the process that this one was forked from."""


class LockTimeout(LockError):
    """Others held the lock for all the time that was given."""


class StoreError(RomeError):
    """The store could not do what was asked."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, or went away in the middle of a call."""


class StoreTimeout(StoreUnavailable):
    """The store gave no answer within the time-out."""


class AuthenticationFailed(StoreError):
    """The store refused the user or the password, or the user lacks a permission."""


class StoreBusy(StoreError):
    """Others kept this one from writing for all the time that was given; nothing was written."""


class StoreFull(StoreError):
    """The store is out of memory or disk; nothing of the transaction was written."""


class StoreReadOnly(StoreError):
    """The store takes no writes: a replica, or files that cannot be written."""


class CommitUnknown(StoreUnavailable):
    """The connection was lost while COMMIT was under way: it may or may not have happened."""
