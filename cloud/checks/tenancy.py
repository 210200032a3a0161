"""A project with its user, and what a server needs before it can be booted."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

from openstack import exceptions

from cloud.build import Cloud
from cloud.client import Connection
from cloud.progress import equal, fail, step, that
from cloud.services.neutron import EXTERNAL

IMAGE_BYTES = 2 * 1024 * 1024
CIDR = "10.10.0.0/24"
EXTERNAL_CIDR = "203.0.113.0/24"


@dataclass
class Tenancy:
    """What the checks have made so far."""

    cloud: Cloud
    admin: Connection
    user: Connection = None
    project: Any = None
    image: Any = None
    flavor: Any = None
    ssd_flavor: Any = None
    """Only for hosts of the aggregate whose metadata say `disk=ssd`."""
    network: Any = None
    subnet: Any = None
    external: Any = None
    router: Any = None
    security_group: Any = None
    servers: list[Any] = field(default_factory=list)


def project_and_user(tenancy: Tenancy) -> None:
    identity = tenancy.admin.identity
    with step("Keystone: a project and a user with a role; who may do what"):
        tenancy.project = identity.create_project(name="demo", domain_id="default", tags=["a", "b"])
        user = identity.create_user(
            name="demo", password=tenancy.cloud.layout.password, domain_id="default", email="demo@example.org"
        )
        identity.assign_project_role_to_user(tenancy.project, user, identity.find_role("member"))
        equal("projects found by name", [p.id for p in identity.projects(name="demo")], [tenancy.project.id])
        that("users are listed", {"demo", "nova", "admin"} <= {found.name for found in identity.users()})
        equal("roles", len(list(identity.role_assignments(user_id=user.id))), 1)
        tenancy.user = tenancy.cloud.connect("demo", "demo")
        equal("the user's project", tenancy.user.current_project_id, tenancy.project.id)
        try:
            identity.create_project(name="demo", domain_id="default")
            fail("two projects of one name")
        except exceptions.ConflictException:
            pass
        try:
            list(tenancy.user.identity.users())
            fail("a member may list all users")
        except exceptions.ForbiddenException:
            pass


def image(tenancy: Tenancy) -> None:
    data = os.urandom(IMAGE_BYTES)
    digest = hashlib.sha512(data).hexdigest()
    with step(f"Glance: an image with {IMAGE_BYTES // 1024 // 1024} MiB of data"):
        images = tenancy.admin.image
        tenancy.image = images.create_image(
            name="debian",
            disk_format="raw",
            container_format="bare",
            visibility="public",
            data=data,
            os_distro="debian",
            validate_checksum=False,
        )
        found = images.get_image(tenancy.image.id)
        equal("status", found.status, "active")
        equal("size", found.size, IMAGE_BYTES)
        equal("checksum", found.hash_value, digest)
        got = tenancy.user.image.download_image(tenancy.image.id)
        equal("data", hashlib.sha512(got.content).hexdigest(), digest)
        equal(
            "images found", [i.id for i in tenancy.user.image.images(os_distro="debian")], [tenancy.image.id]
        )
        equal("images found", list(tenancy.user.image.images(os_distro="plan9")), [])


def flavors(tenancy: Tenancy) -> None:
    with step("Nova: flavors, their extra specs, listing and finding"):
        compute = tenancy.admin.compute
        tenancy.flavor = compute.create_flavor(name="tiny", ram=64, vcpus=1, disk=1)
        tenancy.ssd_flavor = compute.create_flavor(name="tiny-ssd", ram=64, vcpus=1, disk=1)
        large = compute.create_flavor(name="large", ram=4096, vcpus=4, disk=10, is_public=False)
        specs = {"aggregate_instance_extra_specs:disk": "ssd"}
        compute.create_flavor_extra_specs(tenancy.ssd_flavor, specs)
        equal("extra specs", compute.fetch_flavor_extra_specs(tenancy.ssd_flavor.id).extra_specs, specs)
        equal("flavors", sorted(f.name for f in tenancy.user.compute.flavors()), ["tiny", "tiny-ssd"])
        compute.flavor_add_tenant_access(large, tenancy.project.id)
        equal("flavors with 1 GiB", [f.name for f in tenancy.user.compute.flavors(min_ram=1024)], ["large"])
        compute.flavor_remove_tenant_access(large, tenancy.project.id)
        equal("flavors with 1 GiB", list(tenancy.user.compute.flavors(min_ram=1024)), [])
        compute.delete_flavor(large)
        equal("flavor by name", compute.find_flavor("tiny").id, tenancy.flavor.id)
        try:
            compute.create_flavor(name="tiny", ram=64, vcpus=1, disk=1)
            fail("two flavors of one name")
        except exceptions.ConflictException:
            pass


def network(tenancy: Tenancy) -> None:
    mine = tenancy.user.network
    with step("Neutron: network, subnet, security group with rules"):
        tenancy.network = mine.create_network(name="inside")
        tenancy.subnet = mine.create_subnet(
            name="inside", network_id=tenancy.network.id, ip_version=4, cidr=CIDR, is_dhcp_enabled=False
        )
        group = mine.create_security_group(name="web", description="what the web may do")
        for port in (80, 443):
            mine.create_security_group_rule(
                security_group_id=group.id,
                direction="ingress",
                protocol="tcp",
                port_range_min=port,
                port_range_max=port,
                remote_ip_prefix="0.0.0.0/0",
            )
        try:
            mine.create_security_group_rule(
                security_group_id=group.id,
                direction="ingress",
                protocol="tcp",
                port_range_min=80,
                port_range_max=80,
                remote_ip_prefix="0.0.0.0/0",
            )
            fail("the same rule twice")
        except exceptions.ConflictException:
            pass
        tenancy.security_group = mine.get_security_group(group.id)
        inwards = [r for r in tenancy.security_group.security_group_rules if r["direction"] == "ingress"]
        equal("ports let in", sorted(rule["port_range_min"] for rule in inwards), [80, 443])
        equal("networks", [n.id for n in mine.networks(name="inside")], [tenancy.network.id])
        equal("subnets", list(mine.get_network(tenancy.network.id).subnet_ids), [tenancy.subnet.id])


def router(tenancy: Tenancy) -> None:
    with step("Neutron: an outside network, and a router between it and the inside"):
        tenancy.external = tenancy.admin.network.create_network(
            name="outside",
            is_router_external=True,
            provider_network_type="flat",
            provider_physical_network=EXTERNAL,
        )
        tenancy.admin.network.create_subnet(
            name="outside",
            network_id=tenancy.external.id,
            ip_version=4,
            cidr=EXTERNAL_CIDR,
            is_dhcp_enabled=False,
        )
        mine = tenancy.user.network
        tenancy.router = mine.create_router(
            name="way-out", external_gateway_info={"network_id": tenancy.external.id}
        )
        mine.add_interface_to_router(tenancy.router, subnet_id=tenancy.subnet.id)
        ports = list(mine.ports(device_id=tenancy.router.id))
        equal(
            "the router's addresses",
            [p.fixed_ips[0]["ip_address"] for p in ports],
            [tenancy.subnet.gateway_ip],
        )
