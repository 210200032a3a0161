"""The books of the cloud: what Nova, Placement and Neutron each hold of the same servers must agree.

    each server     one allocation in Placement, of its flavor's size, on the host where Nova has it
    each host       what Placement counts as used is the sum of its servers' flavors, and no more than
                    the host has
    each address    belongs to one port, and each port of a server to a server that is there

Nova's answer comes from its cells, Placement's and Neutron's from their own databases: a server lost,
or counted twice, shows.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import sqlalchemy

from cloud.build import Cloud
from cloud.client import Connection
from cloud.progress import equal, that


def balance(cloud: Cloud, admin: Connection) -> str:
    """Raises `Wrong` where books do not agree; returns what there is in words."""
    servers = [s for s in admin.compute.servers(all_projects=True) if s.compute_host]
    hosts = {host.id: host.name for host in admin.compute.hypervisors()}
    used = _placement(admin, servers, hosts)
    addresses = _neutron(cloud, admin, servers)
    return f"{len(servers)} servers, {used} VCPU in use, {addresses} addresses"


def resources(server: Any) -> dict[str, int]:
    """What a server must have of its host, by Placement's names."""
    wanted = {"VCPU": server.flavor.vcpus, "MEMORY_MB": server.flavor.ram, "DISK_GB": server.flavor.disk}
    return {kind: amount for kind, amount in wanted.items() if amount}


def _placement(admin: Connection, servers: list[Any], hosts: dict[str, str]) -> int:
    by_id = {server.id: server for server in servers}
    vcpus = 0
    seen: list[str] = []
    for provider, host in hosts.items():
        held = _get(admin, f"/resource_providers/{provider}/allocations")["allocations"]
        total: Counter[str] = Counter()
        for consumer, allocation in held.items():
            that(f"the holder {consumer} of {host}'s resources is a server", consumer in by_id)
            server = by_id[consumer]
            equal(f"host of {server.name}", server.compute_host, host)
            equal(f"resources of {server.name}", allocation["resources"], resources(server))
            total.update(allocation["resources"])
            seen.append(consumer)
        usages = _get(admin, f"/resource_providers/{provider}/usages")["usages"]
        equal(f"what is used of {host}", {kind: n for kind, n in usages.items() if n}, dict(total))
        inventories = _get(admin, f"/resource_providers/{provider}/inventories")["inventories"]
        for kind, amount in total.items():
            entry = inventories[kind]
            room = (entry["total"] - entry["reserved"]) * entry["allocation_ratio"]
            that(f"{amount} of {kind} fit into {host}", amount <= room)
        vcpus += total["VCPU"]
    equal("servers with resources", sorted(seen), sorted(by_id))
    return vcpus


def _get(admin: Connection, path: str) -> Any:
    response = admin.placement.get(path)
    equal(f"HTTP status of {path}", response.status_code, 200)
    return response.json()


def _neutron(cloud: Cloud, admin: Connection, servers: list[Any]) -> int:
    ports = list(admin.network.ports())
    addresses = [(p.network_id, ip["ip_address"]) for p in ports for ip in p.fixed_ips]
    twice = [address for address, count in Counter(addresses).items() if count > 1]
    equal("addresses given twice", twice, [])
    owners = [port.device_id for port in ports if port.device_owner.startswith("compute:")]
    equal("servers with ports", sorted(owners), sorted(server.id for server in servers))
    shown = {(p.id, ip["ip_address"]) for p in ports for ip in p.fixed_ips}
    equal("addresses in Neutron's tables", _allocated(cloud), shown)
    return len(addresses)


def _allocated(cloud: Cloud) -> set[tuple[str, str]]:
    """What Neutron's own table says, read from beside the service by one more SQLAlchemy program."""
    engine = sqlalchemy.create_engine(cloud.layout.database("neutron"))
    try:
        with engine.connect() as connection:
            rows = connection.execute(sqlalchemy.text("SELECT port_id, ip_address FROM ipallocations"))
            return {(port, address) for port, address in rows}
    finally:
        engine.dispose()
