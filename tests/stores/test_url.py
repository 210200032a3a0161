"""Connection URLs: the grammar, unknown names, and that no password is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from rome.errors import ConfigurationError
from rome.stores import StoreURL, open_store, parse


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rome+memory://", StoreURL("memory")),
        ("memory://name", StoreURL("memory", host="name")),
        ("rome+lmdb:///var/lib/rome", StoreURL("lmdb", database="var/lib/rome")),
        (
            "lmdb:///a%20b?sync=no&map_size=1000000",
            StoreURL("lmdb", database="a b", parameters={"sync": "no", "map_size": "1000000"}),
        ),
        ("rome+redis://h", StoreURL("redis", host="h")),
        (
            "rome+redis://us%40er:p%3Aa%2Fs%25s@host:6380/name?db=3",
            StoreURL("redis", "us@er", "p:a/s%s", "host", 6380, "name", {"db": "3"}),
        ),
        ("rediss://:secret@[::1]:1/x", StoreURL("rediss", None, "secret", "::1", 1, "x")),
        (
            "redis:///x?socket=%2Frun%2Fr.sock",
            StoreURL("redis", database="x", parameters={"socket": "/run/r.sock"}),
        ),
    ],
)
def test_parts_of_a_url(url: str, expected: StoreURL) -> None:
    parsed = parse(url)
    assert parsed == expected
    assert parsed.password == expected.password
    if url.startswith("rome+"):
        assert parse(make_url(url)) == expected


def test_parameters_of_the_layers_above_are_kept_apart() -> None:
    url = parse("rome+redis://h/x?foreign_keys=off&db=2", extra={"foreign_keys", "replay"})
    assert (url.parameters, url.extra) == ({"db": "2"}, {"foreign_keys": "off"})


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "rome+mongo://h",
            "unknown store 'rome\\+mongo'; known stores: rome\\+memory, rome\\+lmdb, rome\\+redis",
        ),
        ("rome+redis://h?tiemout=3", "unknown parameter 'tiemout' .* connect_timeout, .* read_timeout"),
        ("rome+memory://?x=1", "unknown parameter 'x' .* known parameters: replay"),
        ("rome+redis://h?db=1&db=2", "'db' is given twice"),
        ("rome+redis://h:port/x", "port"),
        ("rome+redis://h:70000/x", "port"),
        ("no url", "not a store URL"),
        ("rome+redis://us@er:word@h", "percent-encoded"),
    ],
)
def test_a_wrong_url_is_told(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(url, extra={"replay"})


@pytest.mark.parametrize(
    "url",
    [
        "rome+redis://h?db=-1",
        "rome+redis://h?read_timeout=soon",
        "rome+redis://h?read_timeout=0",
        "rome+redis://h?connect_timeout=nan",
        "rome+redis://h?tls_ca_file=/x",
        "rome+rediss://h?tls_verify=maybe",
        "rome+rediss://h?tls_ca_file=/there/is/no/such/file",
        "rome+redis://h?socket=/x",
        "rome+redis://h/a{b}",
        "rome+redis://h/a?prefix={",
        "rome+lmdb:///",
        "rome+lmdb://host/dir",
        "rome+lmdb:///tmp/x?sync=sometimes",
        "rome+lmdb:///tmp/x?map_size=12",
    ],
)
def test_a_value_that_cannot_be_used_is_told_when_the_store_is_opened(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(url)


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    url = parse("rome+redis://user:hunter2@127.0.0.1:1/name")
    store = open_store(url)
    shown = [str(url), repr(url), repr(store), f"{url}"]
    with pytest.raises(Exception) as caught:
        store.health()
    shown += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    assert not [text for text in shown if "hunter2" in text]
    assert str(url) == "rome+redis://user:***@127.0.0.1:1/name"


def test_opening_redis_does_not_connect() -> None:
    store = open_store("rome+redis://127.0.0.1:1/name")
    store.snapshot().close()
    store.close()
