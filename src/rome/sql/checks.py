"""The checks of a statement that wait for its end, so that they cost one round trip together.

An INSERT or UPDATE has to know whether its unique keys are free, and whether the parents of its
foreign keys are there. What the transaction knows already is decided at once; the rest is noted
here, and asked for in one go when the statement (or the batch of an executemany) is over.

Each check also leaves a note for COMMIT (see rome.transaction): another transaction may have got
there first in the meantime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import apsw

from rome.transaction import Transaction

FOREIGN_KEY_VIOLATION = "FOREIGN KEY constraint failed"


@dataclass(slots=True)
class _Claim:
    key: bytes
    message: str


class PendingChecks:
    """What has to be looked up before the statement may stand."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._claims: list[_Claim] = []
        self._parents: dict[bytes, bytes] = {}

    def claim(self, key: bytes, witness: bytes, message: str) -> None:
        """`key` must be free; `witness` is the row's key. Raises at once where it is known not to be."""
        transaction = self._transaction
        written, value = transaction.buffer.written(key)
        if written:
            if value is not None:
                raise apsw.ConstraintError(message)
            return
        transaction.note_free(key, key, message)
        if transaction.knows(key):
            if transaction.stored(key):
                self._refuse(message)
            return
        self._claims.append(_Claim(key, message))

    def claim_now(self, key: bytes) -> bool:
        """Whether `key` is free, for OR IGNORE and OR REPLACE, which have to know."""
        return not self._transaction.present(key)

    def parent(self, key: bytes, child: bytes) -> None:
        """The row or unique entry `key` must be there when the statement ends, for row `child`."""
        self._parents[key] = child

    def wanted(self) -> list[bytes]:
        """The keys whose presence will be asked for, to let them travel with another request."""
        unwritten = [key for key in self._parents if not self._transaction.buffer.written(key)[0]]
        return [claim.key for claim in self._claims] + unwritten

    def finish(self) -> None:
        """Decide everything. Raises `apsw.ConstraintError`."""
        if not self._claims and not self._parents:
            return
        transaction = self._transaction
        transaction.load(presence=self.wanted())
        self.finish_claims()
        parents, self._parents = self._parents, {}
        for key, child in parents.items():
            if not transaction.present(key):
                raise apsw.ConstraintError(FOREIGN_KEY_VIOLATION)
            transaction.note_there(key, child, FOREIGN_KEY_VIOLATION)

    def finish_claims(self) -> None:
        """Decide what has to be free."""
        claims, self._claims = self._claims, []
        self._transaction.load(presence=[claim.key for claim in claims])
        for claim in claims:
            if self._transaction.stored(claim.key):
                self._refuse(claim.message)

    def _refuse(self, message: str) -> NoReturn:
        """A unique key is taken. (If it is for a number that another row has as well, that is a conflict.)"""
        self._transaction.verify_absent()
        raise apsw.ConstraintError(message)

    def discard(self) -> None:
        """The statement failed: nothing is to be decided any more."""
        self._claims.clear()
        self._parents.clear()
