"""Real Glance on ROME, over HTTP: what `make run` does once everything is installed.

    run.py [--store lmdb|redis] [--keep]

Glance is configured as an operator would do it, and one line of glance-api.conf says where its
database is. Then: the tables are made by glance-manage, Glance's WSGI application is served by
gunicorn on loopback, and an image is created, uploaded, downloaded, listed, changed, tagged and
deleted. Each step is printed with its time as it goes. Exit status 0 only if every step was right.

There is no Keystone: the paste pipeline takes the user from the headers that Keystone's middleware
would set. Everything is kept in build/demo, which is emptied at the beginning.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from services import ServiceError, database_url, free_port, start, start_redis, stop  # noqa: E402

PROJECT = "0f4a2c5e6d7b48f39a1e2d3c4b5a6978"
HEADERS = {
    "X-Identity-Status": "Confirmed",
    "X-User-Id": "demo",
    "X-Project-Id": PROJECT,
    "X-Roles": "admin,member,reader",
}
IMAGE_BYTES = 4 * 1024 * 1024

GLANCE_API_CONF = """\
[DEFAULT]
enabled_backends = local:file
worker_self_reference_url = http://127.0.0.1:{port}

[database]
connection = {connection}

[glance_store]
default_backend = local

[local]
filesystem_store_datadir = {folder}/images

[os_glance_staging_store]
filesystem_store_datadir = {folder}/staging

[os_glance_tasks_store]
filesystem_store_datadir = {folder}/tasks

[oslo_concurrency]
lock_path = {folder}/locks

[paste_deploy]
config_file = {folder}/glance-api-paste.ini
"""

GLANCE_API_PASTE_INI = """\
[pipeline:glance-api]
pipeline = versionnegotiation context rootapp

[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app

[app:apiversions]
paste.app_factory = glance.api.versions:create_resource

[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory

[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory

[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
"""


class StepFailed(Exception):
    """What came back is not what Glance should answer."""


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--store", default="lmdb", help="lmdb or redis")
    options.add_argument("--url", help=argparse.SUPPRESS)  # to try the demo itself on another database
    options.add_argument("--keep", action="store_true", help="leave Glance running")
    arguments = options.parse_args()
    if arguments.store not in ("lmdb", "redis"):
        options.error(
            f"STORE={arguments.store}: lmdb or redis. Glance is several processes, so that a store\n"
            "in the memory of one of them cannot serve it."
        )

    folder = ROOT / "build" / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("images", "staging", "tasks", "locks", "redis"):
        (folder / name).mkdir(parents=True)
    servers: list[subprocess.Popen[bytes]] = []
    begun = time.monotonic()
    finished = False
    try:
        connection = arguments.url or start_store(arguments.store, folder, servers)
        port = run_glance(connection, folder, servers)
        use_glance(port)
        finished = True
    except (StepFailed, ServiceError, OSError, http.client.HTTPException) as error:
        print(f"\n{error}\nThe logs are in {folder}")
    finally:
        if not (arguments.keep and finished):
            for server in reversed(servers):
                stop(server)
    if not finished:
        return 1
    print(f"Every step was right. {time.monotonic() - begun:.1f} s in all.")
    if arguments.keep:
        explain(port, servers, folder)
    return 0


def start_store(store: str, folder: Path, servers: list[subprocess.Popen[bytes]]) -> str:
    """The URL of the database; where the store is a server, it is started first."""
    redis_port = None
    if store == "redis":
        redis_port = free_port()
        with step("start redis-server"):
            servers.append(start_redis(folder / "redis", redis_port))
    return database_url(store, folder, "glance", redis_port)


def run_glance(connection: str, folder: Path, servers: list[subprocess.Popen[bytes]]) -> int:
    """Make the tables and start Glance on them; returns the port where Glance listens."""
    print(f"[database] connection = {connection}")
    port = free_port()
    configuration = GLANCE_API_CONF.format(port=port, connection=connection, folder=folder)
    (folder / "glance-api.conf").write_text(configuration)
    (folder / "glance-api-paste.ini").write_text(GLANCE_API_PASTE_INI)
    programs = Path(sys.executable).parent
    with step("glance-manage db_sync"):
        manage = [programs / "glance-manage", "--config-file", folder / "glance-api.conf", "db_sync"]
        run_logged(manage, folder / "db_sync.log")
    with step("start Glance under gunicorn, 2 processes"):
        command = [str(programs / "gunicorn"), "--bind", f"127.0.0.1:{port}", "--workers", "2"]
        command += ["--threads", "4", "glance.wsgi.api:application"]
        environment = {**os.environ, "OS_GLANCE_CONFIG_DIR": str(folder)}
        servers.append(start(command, folder / "glance.log", lambda: serves(port), env=environment))
    return port


def run_logged(command: list[Any], log: Path) -> None:
    with log.open("wb") as output:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    if ended.returncode != 0:
        text = log.read_text(errors="replace")
        raise StepFailed(f"{command[0].name} ended with status {ended.returncode}:\n{text[-2000:]}")


def serves(port: int) -> bool:
    try:
        return ask(port, "GET", "/")[0] == 300
    except (OSError, http.client.HTTPException):
        return False


def use_glance(port: int) -> None:
    """The life of one image. Raises StepFailed at the first answer that is not right."""
    data = os.urandom(IMAGE_BYTES)
    with step("create an image"):
        description = {
            "name": "demo",
            "disk_format": "raw",
            "container_format": "bare",
            "os_distro": "debian",
            "tags": ["first"],
        }
        image = expect(201, *ask(port, "POST", "/v2/images", json.dumps(description).encode()))
        equal("status", image["status"], "queued")
        path = f"/v2/images/{image['id']}"
    with step(f"upload {IMAGE_BYTES // 1024 // 1024} MiB"):
        expect(204, *ask(port, "PUT", f"{path}/file", data, "application/octet-stream"))
        image = expect(200, *ask(port, "GET", path))
        equal("status", image["status"], "active")
        equal("size", image["size"], IMAGE_BYTES)
        equal("sha512", image["os_hash_value"], hashlib.sha512(data).hexdigest())
    with step("download it and compare"):
        status, body = ask(port, "GET", f"{path}/file")
        equal("HTTP status", status, 200)
        equal("data", hashlib.sha512(body).hexdigest(), hashlib.sha512(data).hexdigest())
    with step("list with a filter"):
        expect(201, *ask(port, "POST", "/v2/images", json.dumps({"name": "other"}).encode()))
        matching = "/v2/images?os_distro=debian&tag=first&status=active&sort=name:asc"
        equal("images found", listed(port, matching), [image["id"]])
        equal("images found", listed(port, "/v2/images?os_distro=fedora"), [])
        equal("number of images", len(listed(port, "/v2/images?limit=10")), 2)
    with step("update a property"):
        patch = [
            {"op": "replace", "path": "/os_distro", "value": "ubuntu"},
            {"op": "add", "path": "/os_version", "value": "24.04"},
        ]
        kind = "application/openstack-images-v2.1-json-patch"
        expect(200, *ask(port, "PATCH", path, json.dumps(patch).encode(), kind))
        image = expect(200, *ask(port, "GET", path))
        equal("os_distro", image["os_distro"], "ubuntu")
        equal("os_version", image["os_version"], "24.04")
    with step("add a tag"):
        expect(204, *ask(port, "PUT", f"{path}/tags/second"))
        image = expect(200, *ask(port, "GET", path))
        equal("tags", sorted(image["tags"]), ["first", "second"])
    with step("delete it"):
        expect(204, *ask(port, "DELETE", path))
        equal("HTTP status of what was deleted", ask(port, "GET", path)[0], 404)
        equal("number of images", len(listed(port, "/v2/images")), 1)


def listed(port: int, path: str) -> list[str]:
    return [image["id"] for image in expect(200, *ask(port, "GET", path))["images"]]


def ask(
    port: int, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
) -> tuple[int, bytes]:
    """One request to Glance; returns the HTTP status and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, {**HEADERS, "Content-Type": kind})
        response = connection.getresponse()
        return response.status, response.read()


def expect(wanted: int, status: int, body: bytes) -> Any:
    """The decoded body of an answer that must have this status."""
    if status != wanted:
        raise StepFailed(f"HTTP status {status} instead of {wanted}: {body[:500].decode(errors='replace')}")
    return json.loads(body) if body else None


def equal(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        fail(f"{what} is {found!r} instead of {wanted!r}")


def fail(text: str) -> NoReturn:
    raise StepFailed(text)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Print a step with its time; on a terminal, a clock runs while it lasts."""
    begun = time.monotonic()
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(0.2):
            print(f"\r  ... {title} [{time.monotonic() - begun:.0f} s]", end="", flush=True)

    clock = threading.Thread(target=tick, daemon=True)
    if sys.stdout.isatty():
        clock.start()
    outcome = "FAILED"
    try:
        yield
        outcome = "ok"
    finally:
        ended.set()
        if clock.ident is not None:
            clock.join()
            print("\r\x1b[K", end="")
        seconds = time.monotonic() - begun
        took = f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
        print(f"  {outcome:6} {title} ({took})", flush=True)


def explain(port: int, servers: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """How to talk to the Glance that is left running, and how to end it."""
    headers = folder / "headers"
    headers.write_text("".join(f"{name}: {value}\n" for name, value in HEADERS.items()))
    url = f"http://127.0.0.1:{port}/v2/images"
    new = """-H 'Content-Type: application/json' -d '{"name": "mine", "tags": ["a"]}'"""
    print(
        f"""
Glance is left running. It takes the user from headers, which are kept in a file:

    curl -s -H @{headers} {url}
    curl -s -H @{headers} {new} {url}
    curl -s -H @{headers} '{url}?tag=a'

Configuration, data and logs: {folder}
To end it: kill {" ".join(str(server.pid) for server in reversed(servers))}"""
    )


if __name__ == "__main__":
    sys.exit(main())
