"""Races on the live cloud: many clients boot and delete many servers at once.

Every client is a thread with a connection of its own. Three rounds, with the books balanced after
each:

    boot      all servers are asked for at once; each must become ACTIVE, with an address of its own
    churn     each client deletes a server and boots another in its place, without waiting between
    delete    all are deleted at once; nothing of them may be left

What may not happen: a server lost or in ERROR, an address or a host's resource held twice or left
held, an answer 5xx. What is printed besides: how many conflicts there were and what became of them.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cloud.books import balance
from cloud.build import Cloud
from cloud.client import Connection
from cloud.progress import Wrong, equal, fail, step, that
from cloud.witness import Testimony, Witness

CLIENTS = 8
SERVERS = 100
CHURN = 2
"""Servers that each client replaces."""
SECONDS = 1200.0
CIDR = "10.20.0.0/24"


@dataclass
class Field:
    """What all clients share."""

    cloud: Cloud
    admin: Connection
    clients: list[Connection]
    flavor: Any
    image: Any
    network: Any


def run_races(cloud: Cloud, servers: int = SERVERS) -> None:
    with step(f"Races: {CLIENTS} clients sign in; flavor, image, network"):
        field = prepare(cloud)
    swapped = min(CLIENTS * CHURN, servers)
    witness = Witness(cloud)
    try:
        with step(f"Races: {servers} servers are booted at once") as remark:
            with ThreadPoolExecutor(CLIENTS) as threads:
                booted = list(threads.map(lambda n: boot(field, n), range(servers)))
            await_active(field, {server.id for server in booted}, remark)
        balanced(field)
        with step(f"Races: {swapped} servers are deleted while others are booted") as remark:
            with ThreadPoolExecutor(CLIENTS) as threads:
                swaps = list(threads.map(lambda n: swap(field, n, booted[n]), range(swapped)))
            booted = [*booted[swapped:], *swaps]
            await_active(field, {server.id for server in booted}, remark)
        balanced(field)
        with step(f"Races: {len(booted)} servers are deleted at once") as remark:
            with ThreadPoolExecutor(CLIENTS) as threads:
                list(threads.map(lambda n: delete(field, n, booted[n]), range(len(booted))))
            await_gone(field, remark)
        balanced(field)
    finally:
        heard = witness.testimony()
        report(heard)
    with step("Races: no HTTP status 5xx, no DBDeadlock that a service did not retry"):
        if heard.failures:
            fail(f"{len(heard.failures)} answers with 5xx:\n" + "\n".join(heard.failures[:5]))
        equal("DBDeadlocks that were not retried", heard.leaked, 0)
    with step("Races: what they were run on is deleted"):
        clear(field)


def prepare(cloud: Cloud) -> Field:
    admin = cloud.connect()
    clients = [cloud.connect() for _ in range(CLIENTS)]
    flavor = admin.compute.create_flavor(name="racer", ram=64, vcpus=1, disk=1)
    image = admin.image.create_image(
        name="racer",
        disk_format="raw",
        container_format="bare",
        data=b"nothing much",
        validate_checksum=False,
    )
    network = admin.network.create_network(name="track")
    admin.network.create_subnet(
        name="track", network_id=network.id, ip_version=4, cidr=CIDR, is_dhcp_enabled=False
    )
    equal("servers before the races", list(admin.compute.servers(all_projects=True)), [])
    for client in clients:
        that("every client is signed in", client.current_project_id)
    return Field(cloud, admin, clients, flavor, image, network)


def boot(field: Field, number: int) -> Any:
    return field.clients[number % CLIENTS].compute.create_server(
        name=f"racer-{number}",
        flavor_id=field.flavor.id,
        image_id=field.image.id,
        networks=[{"uuid": field.network.id}],
    )


def delete(field: Field, number: int, server: Any) -> None:
    field.clients[number % CLIENTS].compute.delete_server(server, ignore_missing=False)


def swap(field: Field, number: int, old: Any) -> Any:
    delete(field, number, old)
    return boot(field, CLIENTS * 1000 + number)


def await_active(field: Field, wanted: set[str], remark: Any) -> None:
    """Until exactly these servers are there, and all are ACTIVE."""
    deadline = time.monotonic() + SECONDS
    while True:
        servers = list(field.admin.compute.servers(all_projects=True))
        active = {server.id for server in servers if server.status == "ACTIVE"}
        broken = [server for server in servers if server.status == "ERROR"]
        remark(f"{len(active & wanted)} are ACTIVE")
        if broken:
            known = field.admin.compute.get_server(broken[0].id)
            fail(f"{len(broken)} servers are in ERROR; {known.name}: {known.fault}")
        lost = wanted - {server.id for server in servers}
        that(f"no server is lost: {sorted(lost)}", not lost)
        if active == wanted == {server.id for server in servers}:
            return
        _pause(field, deadline, f"{len(wanted) - len(active)} servers are not ACTIVE")


def await_gone(field: Field, remark: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while left := list(field.admin.compute.servers(all_projects=True)):
        remark(f"{len(left)} are left")
        broken = [server.name for server in left if server.status == "ERROR"]
        that(f"no server is in ERROR: {broken}", not broken)
        _pause(field, deadline, f"{len(left)} servers are left")
    remark("none is left")


def _pause(field: Field, deadline: float, why: str) -> None:
    field.cloud.processes.check()
    if time.monotonic() > deadline:
        fail(f"after {SECONDS:.0f} s: {why}")
    time.sleep(2)


def balanced(field: Field) -> None:
    """Placement learns of some deletions a moment after Nova has answered: it gets that moment."""
    with step("The books balance") as remark:
        deadline = time.monotonic() + 20
        while True:
            try:
                remark(balance(field.cloud, field.admin))
                return
            except Wrong:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)


def report(heard: Testimony) -> None:
    counters = heard.counters
    answers = ", ".join(f"{number} {kind}" for kind, number in sorted(heard.answers.items()))
    print(f"         HTTP answers: {answers}")
    print(
        f"         DBDeadlock seen by services: {heard.retried + heard.leaked}"
        f" ({heard.retried} retried, {heard.leaked} not); constraints broken at COMMIT: {heard.late}"
    )
    print("         ROME: " + ", ".join(f"{number} {name}" for name, number in sorted(counters.items())))


def clear(field: Field) -> None:
    field.admin.network.delete_network(field.network)
    field.admin.image.delete_image(field.image)
    field.admin.compute.delete_flavor(field.flavor)
