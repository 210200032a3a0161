"""Addresses under contention: many clients ask at once for more than there are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from openstack import exceptions

from cloud.checks.tenancy import Tenancy
from cloud.progress import equal, fail, step

CLIENTS = 8
ASKED = 40
CIDR = "192.0.2.0/27"
ADDRESSES = 29
"""Of a /27's 32: without the network's, the broadcast's and the gateway's."""


def contention(tenancy: Tenancy) -> None:
    title = f"Neutron: {CLIENTS} clients ask for {ASKED} addresses of {ADDRESSES}, and get each once"
    with step(title) as remark:
        mine = tenancy.user.network
        network = mine.create_network(name="narrow")
        mine.create_subnet(
            name="narrow", network_id=network.id, ip_version=4, cidr=CIDR, is_dhcp_enabled=False
        )
        clients = [tenancy.cloud.connect("demo", "demo") for _ in range(CLIENTS)]

        def ask(number: int) -> str | None:
            try:
                port = clients[number % CLIENTS].network.create_port(
                    network_id=network.id, name=f"narrow-{number}"
                )
            except exceptions.ConflictException as refusal:
                if "No more IP addresses" not in str(refusal):
                    fail(f"refused, but not for want of addresses: {refusal}")
                return None
            return str(port.fixed_ips[0]["ip_address"])

        with ThreadPoolExecutor(CLIENTS) as threads:
            got = [address for address in threads.map(ask, range(ASKED)) if address is not None]
        remark(f"{len(got)} given, {ASKED - len(got)} refused")
        equal("different addresses", len(set(got)), len(got))
        equal("addresses given", len(got), ADDRESSES)
        ports = list(mine.ports(network_id=network.id))
        equal("ports", sorted(p.fixed_ips[0]["ip_address"] for p in ports), sorted(got))
        for port in ports:
            mine.delete_port(port)
        mine.delete_network(network)
