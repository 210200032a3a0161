"""All is deleted, and nothing is left in any service's books."""

from __future__ import annotations

from cloud.books import balance
from cloud.checks.tenancy import Tenancy
from cloud.progress import equal, step, wait_for


def books(tenancy: Tenancy) -> None:
    with step("The books balance: Nova's servers, Placement's allocations, Neutron's ports") as remark:
        remark(balance(tenancy.cloud, tenancy.admin))


def delete_servers(tenancy: Tenancy) -> None:
    compute = tenancy.user.compute
    with step(f"Nova: {len(tenancy.servers)} servers are deleted, and so are their ports"):
        for server in tenancy.servers:
            compute.delete_server(server)
        wait_for("all servers are gone", lambda: not list(compute.servers()))
        deleted = tenancy.admin.compute.servers(all_projects=True, deleted_only=True)
        known = {server.id for server in deleted}
        equal("not known as deleted", [s.name for s in tenancy.servers if s.id not in known], [])
        ports = tenancy.admin.network.ports(network_id=tenancy.network.id)
        owners = [port.device_owner for port in ports]
        equal("ports of servers", [owner for owner in owners if owner.startswith("compute:")], [])


def delete_the_rest(tenancy: Tenancy) -> None:
    with step("Neutron, Glance, Nova, Keystone: the rest is deleted"):
        mine = tenancy.user.network
        mine.remove_interface_from_router(tenancy.router, subnet_id=tenancy.subnet.id)
        mine.delete_router(tenancy.router)
        mine.delete_network(tenancy.network)
        mine.delete_security_group(tenancy.security_group)
        tenancy.admin.network.delete_network(tenancy.external)
        equal("networks", list(tenancy.admin.network.networks()), [])
        equal("ports", list(tenancy.admin.network.ports()), [])
        tenancy.user.compute.delete_keypair("key")
        compute = tenancy.admin.compute
        for aggregate in compute.aggregates():
            for host in aggregate.hosts:
                compute.remove_host_from_aggregate(aggregate, host)
            compute.delete_aggregate(aggregate)
        for flavor in compute.flavors():
            compute.delete_flavor(flavor)
        tenancy.admin.image.delete_image(tenancy.image)
        equal("images", list(tenancy.admin.image.images()), [])
        identity = tenancy.admin.identity
        identity.delete_user(identity.find_user("demo"))
        identity.delete_project(tenancy.project)
        equal("projects", sorted(p.name for p in identity.projects()), ["admin", "service"])
