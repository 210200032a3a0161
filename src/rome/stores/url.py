"""Connection URLs: which store, where, and with which parameters.

    rome+memory://name
    rome+lmdb:///absolute/directory?sync=full
    rome+redis://user:password@host:6379/database?read_timeout=5

`rome+` may be left out. The grammar is that of RFC 3986, read the way SQLAlchemy reads it: user,
password and path are percent-encoded, an IPv6 host stands in brackets. What a kind of store makes
of the parts, and its parameters, is told by the docstring of its module.

The query string is shared by all layers: `parse` sorts out the parameters that belong to the store
from those that its caller names as belonging to layers above, and refuses every other name, so that
a misspelt parameter never passes in silence. Neither `repr` nor an error text shows a password.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, unquote

from rome.errors import ConfigurationError
from rome.stores.base import Store

_DRIVERS = {
    "memory": "rome.stores.memory",
    "lmdb": "rome.stores.lmdb",
    "redis": "rome.stores.redis",
    "rediss": "rome.stores.redis",
}

_URL = re.compile(
    r"""
    (?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*) ://
    (?: (?P<username>[^:@/?]*) (?: : (?P<password>[^@/?]*) )? @ )?
    (?: \[ (?P<ipv6>[^\]/?]+) \] | (?P<host>[^:/?\[\]@]*) )
    (?: : (?P<port>[^/?@]*) )?
    (?: / (?P<database>[^?]*) )?
    (?: \? (?P<query>.*) )?
    """,
    re.VERBOSE | re.DOTALL,
)


class URLParts(Protocol):
    """What is asked of a URL that was taken apart before (SQLAlchemy's `URL` is one)."""

    @property
    def drivername(self) -> str: ...
    @property
    def username(self) -> str | None: ...
    @property
    def password(self) -> Any: ...
    @property
    def host(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def database(self) -> str | None: ...
    @property
    def query(self) -> Mapping[str, str | tuple[str, ...]]: ...


@dataclass(frozen=True)
class StoreURL:
    """The parts of a connection URL, decoded."""

    kind: str
    """memory, lmdb, redis or rediss."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    host: str = ""
    port: int | None = None
    database: str = ""
    """The path without its first slash."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Those of the store itself."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Those of the layers above."""

    def __str__(self) -> str:
        """The URL for people to read: with *** for the password."""
        user = quote(self.username or "", safe="")
        secret = ":***" if self.password else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port is not None else ""
        path = f"/{quote(self.database)}" if self.database else ""
        pairs = [f"{quote(name)}={quote(value)}" for name, value in self._all_parameters()]
        query = "?" + "&".join(pairs) if pairs else ""
        return f"rome+{self.kind}://{user}{secret}{'@' if user or secret else ''}{host}{port}{path}{query}"

    def _all_parameters(self) -> Iterator[tuple[str, str]]:
        yield from self.parameters.items()
        yield from self.extra.items()

    # typed access for the drivers

    def text(self, name: str, default: str = "") -> str:
        return self.parameters.get(name, default)

    def seconds(self, name: str, default: float) -> float:
        """A time in seconds, greater than 0."""
        given = self.parameters.get(name)
        if given is None:
            return default
        try:
            value = float(given)
        except ValueError:
            value = 0.0
        if not 0 < value < 1e9:
            raise ConfigurationError(f"{name}={given}: a number of seconds greater than 0 is needed")
        return value

    def whole(self, name: str, default: int, least: int = 0) -> int:
        given = self.parameters.get(name)
        if given is None:
            return default
        if not (given.isascii() and given.isdigit() and int(given) >= least):
            raise ConfigurationError(f"{name}={given}: a whole number of at least {least} is needed")
        return int(given)

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        given = self.parameters.get(name, default)
        if given not in choices:
            raise ConfigurationError(f"{name}={given}: one of {', '.join(choices)} is needed")
        return given

    def yes(self, name: str, default: bool) -> bool:
        return self.choice(name, ("yes", "no"), "yes" if default else "no") == "yes"


def parse(url: str | URLParts, extra: Collection[str] = ()) -> StoreURL:
    """Read a URL; `extra` names the parameters of the layers above.

    Raises `ConfigurationError` for a store or a parameter that is not known, and lists those that are.
    """
    parts = _split(url) if isinstance(url, str) else _adopt(url)
    known = _parameters_of(parts.kind)
    own: dict[str, str] = {}
    above: dict[str, str] = {}
    for name, value in parts.parameters.items():
        if name in known:
            own[name] = value
        elif name in extra:
            above[name] = value
        else:
            listed = ", ".join(sorted({*known, *extra})) or "none"
            raise ConfigurationError(
                f"unknown parameter {name!r} for a {parts.kind} store; known parameters: {listed}"
            )
    return StoreURL(
        parts.kind, parts.username, parts.password, parts.host, parts.port, parts.database, own, above
    )


def open_store(url: str | URLParts | StoreURL) -> Store:
    """Open the store that a URL names. Redis is not connected to before it is first used."""
    if not isinstance(url, StoreURL):
        url = parse(url)
    store = _driver(url.kind).open_url(url)
    assert isinstance(store, Store)
    return store


def _split(url: str) -> StoreURL:
    match = _URL.fullmatch(url)
    if match is None:
        raise ConfigurationError(
            "this is not a store URL; it should look like rome+redis://host:6379/database, "
            "rome+lmdb:///absolute/directory or rome+memory://name "
            "(special characters in a user name or password must be percent-encoded)"
        )
    port = match["port"]
    if port and not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigurationError("the port in the URL is not a number from 0 to 65535")
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(match["query"] or "", keep_blank_values=True):
        if name in parameters:
            raise ConfigurationError(f"the parameter {name!r} is given twice")
        parameters[name] = value
    return StoreURL(
        kind=_kind(match["scheme"]),
        username=_decoded(match["username"]),
        password=_decoded(match["password"]),
        host=unquote(match["ipv6"] or match["host"] or ""),
        port=int(port) if port else None,
        database=unquote(match["database"] or ""),
        parameters=parameters,
    )


def _adopt(url: URLParts) -> StoreURL:
    parameters: dict[str, str] = {}
    for name, value in url.query.items():
        if not isinstance(value, str):
            raise ConfigurationError(f"the parameter {name!r} is given twice")
        parameters[name] = value
    return StoreURL(
        kind=_kind(url.drivername),
        username=url.username or None,
        password=str(url.password) if url.password is not None else None,
        host=url.host or "",
        port=url.port,
        database=url.database or "",
        parameters=parameters,
    )


def _kind(scheme: str) -> str:
    kind = scheme.removeprefix("rome+")
    if kind not in _DRIVERS:
        known = ", ".join(f"rome+{name}" for name in _DRIVERS)
        raise ConfigurationError(f"unknown store {scheme!r}; known stores: {known}")
    return kind


def _decoded(part: str | None) -> str | None:
    return unquote(part) if part else None


def _driver(kind: str) -> Any:
    """The store's module. Imported late, since each wants its own client library installed."""
    try:
        return import_module(_DRIVERS[kind])
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("rome"):
            raise
        raise ConfigurationError(
            f"the {kind} store needs the Python package {error.name!r}: "
            f"pip install 'rome-orm[{kind.replace('rediss', 'redis')}]'"
        ) from error


def _parameters_of(kind: str) -> Collection[str]:
    parameters: Collection[str] = _driver(kind).PARAMETERS
    return parameters
