"""Redis: where it is, who may, and what its settings mean."""

from __future__ import annotations

import pytest

from rome.errors import (
    AuthenticationFailed,
    StoreUnavailable,
)
from rome.stores import Read, Scan, Writes
from tests.servers import RedisServer, TLSFiles
from tests.stores.redis_helpers import ALL, Open, check_works, get, put


def test_unix_socket(connect: Open) -> None:
    with RedisServer(unix_socket=True) as server:
        store = connect(server.socket_url("name"))
        check_works(store)
        assert str(server.socket) in repr(store)
        server.kill()
        with pytest.raises(StoreUnavailable, match=r"redis\.sock"):
            get(store, b"check")


def test_databases_prefixes_and_numbers_are_apart(server: RedisServer, connect: Open) -> None:
    urls = [
        server.url("one"),
        server.url("two"),
        server.url("one", prefix="rome+", db=1),
        server.url("one") + "?prefix=other:",
    ]
    for number, url in enumerate(urls):
        put(connect(url), b"a", b"%d" % number)
    assert [get(connect(url), b"a") for url in urls] == [b"0", b"1", b"2", b"3"]
    connect(urls[0]).wipe()
    assert [get(connect(url), b"a") for url in urls] == [None, b"1", b"2", b"3"]
    names = set(server.command("keys", "*").split())
    assert names == {
        f"{base}:{kind}"
        for base in ("rome:{two}", "other:{one}")
        for kind in ("order", "entries", "counters", "commits", "past", "old", "log")
    }


def test_password(connect: Open) -> None:
    with RedisServer(password="p@ss:w/ö%rd") as server:
        check_works(connect(server.url("name")))
        for wrong in (server.url("name", password="wrong"), server.url("name", password="")):
            with pytest.raises(AuthenticationFailed, match="wrong user or password") as caught:
                get(connect(wrong), b"a")
            assert "p@ss" not in str(caught.value)
            with pytest.raises(AuthenticationFailed):
                put(connect(wrong), b"a")


def test_users_and_their_permissions(connect: Open) -> None:
    rules = (
        "glance on >gl@nce ~rome:{glance}:* +@all",
        "reader on >read ~rome:* +@read +@connection +evalsha +eval",
        "half on >half ~rome:* +@all -zrem",
    )
    with RedisServer(acl=rules) as server:
        check_works(connect(server.url("glance", user="glance", password="gl@nce")))
        with pytest.raises(AuthenticationFailed, match="may not"):
            get(connect(server.url("nova", user="glance", password="gl@nce")), b"a")
        with pytest.raises(AuthenticationFailed, match="wrong user"):
            get(connect(server.url("glance", user="nobody", password="gl@nce")), b"a")
        reader = connect(server.url("glance", user="reader", password="read"))
        assert get(reader, b"check") == b"works"
        assert len(reader.snapshot().read(Read(scans=[Scan(ALL)])).scans[0]) == 1
        with pytest.raises(AuthenticationFailed, match="may not"):
            put(reader, b"a")
        half = connect(server.url("glance", user="half", password="half"))
        with pytest.raises(AuthenticationFailed, match="ZREM"):
            half.commit(None, Writes(puts={b"new": b""}, deletes={b"check"}))
        owner = connect(server.url("glance", user="glance", password="gl@nce"))
        assert (get(owner, b"check"), get(owner, b"new")) == (b"works", None)


def test_health_without_permission_for_info_and_config(connect: Open) -> None:
    with RedisServer(acl=("plain on >plain ~rome:* +@read +@write +evalsha +eval",)) as server:
        facts = connect(server.url("name", user="plain", password="plain")).health()
        assert (facts["version"], facts["durable"]) == (0, False)


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TLSFiles:
    return TLSFiles(tmp_path_factory.mktemp("tls"))


def test_tls(tls_files: TLSFiles, connect: Open) -> None:
    with RedisServer(tls=tls_files, password="secret") as server:
        check_works(connect(server.url("name", tls_ca_file=str(tls_files.authority))))
        check_works(connect(server.url("name", tls_verify="no")))
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
            get(connect(server.url("name")), b"a")
        plain = server.url("name").replace("rediss", "redis")
        with pytest.raises(StoreUnavailable):
            get(connect(plain), b"a")
        store = connect(server.url("name", tls_ca_file=str(tls_files.authority)))
        check_works(store)
        server.restart()
        check_works(store)
