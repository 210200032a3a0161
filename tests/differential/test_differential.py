"""SQLite and each store give the same answers to random programs.

ROME_FUZZ=long runs 1,000 programs for each store, ROME_EXAMPLES another number; ROME_SEED repeats a run,
and makes the program that fails a small one.

What ROME does differently, and the generators therefore leave out:

    row numbers        a store's sequence never gives one out twice, and loses some to refused statements
    order              without ORDER BY, rows come in the order of a key, not of their insertion; so too
                       where several are written, and one may get into another's way
    actions            those of foreign keys run when the statement ends, not at each row: where a table
                       refers to itself, RETURNING, the row count of DELETE and what NOT NULL or RESTRICT
                       refuse on the way do not depend on the order of rows
    OR REPLACE         into a table that refers to itself: SQLite then forgets to look for the parent
    executemany        in autocommit ends in one COMMIT, which a deferred foreign key may refuse
    UPDATE             a subquery on the table itself sees the rows as they were before the statement
    IN (SELECT …)      of a text column among numbers compares as text ('1.0' is not 1)
    UNION, EXCEPT …    of an INTEGER PRIMARY KEY with text: the key's collation is BINARY, not the text's
    text               is always valid UTF-8, also where a function makes it of bytes
    UPSERT             is refused with NotSupportedError
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

import rome.dbapi
from tests.differential.conftest import COUNTS, EXAMPLES, SEED, SHRINK
from tests.differential.programs import Program, programs
from tests.differential.running import Reference, check_indexes

KINDS = ("memory", "lmdb", "redis")

_serial = count()


@contextmanager
def database(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database."""
    if kind == "memory":
        yield f"rome+memory://differential{next(_serial)}"
    elif kind == "lmdb":
        with tempfile.TemporaryDirectory(prefix="rome-differential-") as directory:
            yield f"rome+lmdb://{directory}?sync=no&map_size=1048576"
    else:
        yield request.getfixturevalue("redis_server").url(f"differential{next(_serial)}")


def run(program: Program, url: str) -> None:
    """Run a program on SQLite and on a store; everything has to be the same, and to stay so."""
    reference = Reference(program)
    store, later = rome.dbapi.connect(url), rome.dbapi.connect(url)
    store.isolation_level = later.isolation_level = None
    try:
        reference.compare(store, rome.dbapi)
        for connection in (store, later):
            reference.compare_contents(connection)
        check_indexes(later)
    finally:
        store.close()
        later.close()
    COUNTS["statements"] += len(program.steps)
    COUNTS["refused alike"] += sum(outcome.error is not None for outcome in reference.outcomes)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_random_programs_give_what_sqlite_gives(kind: str, request: pytest.FixtureRequest) -> None:
    @seed(SEED + KINDS.index(kind))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if SHRINK else [Phase.generate],
    )
    @given(programs())
    def agree(program: Program) -> None:
        with database(kind, request) as url:
            run(program, url)
        COUNTS[f"programs on {kind}"] += 1

    test: Callable[[], None] = agree
    test()
