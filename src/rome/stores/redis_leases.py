"""The leases of a database on Redis: the requests to `leases.lua`, and its replies.

The script runs at one instant and on the server's clock (TIME), so that clients need no common time. It
may run twice, as it does where a connection was lost in the middle: asking again as the owner gives
the same lease, and giving back what was given back already is told apart by `RedisLeases.release`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rome.stores.leases import SECOND, Answer, Held, Leases, Wanted
from rome.stores.redis_connection import Argument
from rome.stores.redis_protocol import LEASES, encoded_leases

if TYPE_CHECKING:
    from rome.stores.redis import RedisStore


class RedisLeases(Leases):
    """See `Leases`."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def request(self, wanted: Wanted) -> Answer:
        name, owner, seconds, queue = wanted
        fencing, position, remaining = self._run("request", name, owner, _time(seconds), int(queue))
        return Answer(fencing, position, remaining / SECOND)

    def renew(self, owned: list[tuple[str, str, float]]) -> list[bool]:
        arguments: list[Argument] = [len(owned)]
        for name, owner, seconds in owned:
            arguments += (name, owner, _time(seconds))
        return [renewed == 1 for renewed in self._run("renew", *arguments)]

    def release(self, name: str, owner: str) -> bool:
        return bool(self._run("release", name, owner) == 1)

    def require(self, fencing: Mapping[str, int]) -> None:
        self._run("require", *encoded_leases(dict(fencing)))

    def held(self) -> list[Held]:
        found = self._run("held")
        return sorted(
            Held(name.decode(), owner.decode(), fencing, remaining / SECOND, waiting)
            for name, owner, fencing, remaining, waiting in found
        )

    def _run(self, *arguments: Argument) -> Any:
        return self._store.run(LEASES, list(arguments))


def _time(seconds: float) -> int:
    return round(seconds * SECOND)
