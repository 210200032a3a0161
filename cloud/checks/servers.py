"""Ten servers: booted, placed as asked, listed in every way, and what was noted of their lives."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cloud.checks.hosts import ZONE, ZONE_HOST
from cloud.checks.tenancy import Tenancy
from cloud.client import Connection
from cloud.progress import equal, fail, step, that, wait_for

COUNT = 10


def boot(tenancy: Tenancy) -> None:
    compute = tenancy.user.compute
    with step(f"Nova: {COUNT} servers, booted 4 at a time, are ACTIVE") as remark:
        compute.create_keypair(name="key")
        with ThreadPoolExecutor(4) as threads:
            asked = list(threads.map(lambda number: create(tenancy, number), range(COUNT)))

        def all_active() -> list[Any] | None:
            servers = [compute.get_server(server.id) for server in asked]
            broken = [server for server in servers if server.status == "ERROR"]
            if broken:
                fail(f"{broken[0].name} is in ERROR: {fault(tenancy, broken[0].id)}")
            active = [server for server in servers if server.status == "ACTIVE"]
            remark(f"{len(active)} are")
            return active if len(active) == COUNT else None

        tenancy.servers = wait_for("all are ACTIVE", all_active)
    with step("Nova: availability zone, and aggregates found by their metadata, were heeded"):
        for server in (tenancy.admin.compute.get_server(server.id) for server in tenancy.servers):
            if number_of(server) < 4:
                equal(f"host of {server.name}", server.compute_host, ZONE_HOST)
                equal(f"zone of {server.name}", server.availability_zone, ZONE)
    with step("Neutron: each server has one address and a port that its host's agent has brought up"):
        addresses_and_ports(tenancy)


def create(tenancy: Tenancy, number: int) -> Any:
    """Numbers 0 and 1 name the zone; 2 and 3 have the flavor that only hosts with SSDs can take."""
    flavor = tenancy.ssd_flavor if number in (2, 3) else tenancy.flavor
    more = {"availability_zone": ZONE} if number < 2 else {}
    return tenancy.user.compute.create_server(
        name=f"web-{number}" if number % 2 == 0 else f"db-{number}",
        flavor_id=flavor.id,
        image_id=tenancy.image.id,
        networks=[{"uuid": tenancy.network.id}],
        security_groups=[{"name": "web"}],
        key_name="key",
        metadata={"number": str(number), "half": "first" if number < 5 else "second"},
        tags=["even" if number % 2 == 0 else "odd", "all"],
        **more,
    )


def number_of(server: Any) -> int:
    return int(server.metadata["number"])


def address_of(server: Any) -> str:
    return str(server.addresses["inside"][0]["addr"])


def fault(tenancy: Tenancy, server: str) -> str:
    found = tenancy.admin.compute.get_server(server)
    return str((found.fault or {}).get("message", "no reason is given"))


def addresses_and_ports(tenancy: Tenancy) -> None:
    ports = tenancy.admin.network.ports
    wait_for(
        "all ports are ACTIVE",
        lambda: all(
            port.status == "ACTIVE"
            for port in ports(network_id=tenancy.network.id)
            if port.device_owner.startswith("compute:")
        ),
    )
    seen: set[str] = set()
    for server in tenancy.servers:
        found = tenancy.admin.compute.get_server(server.id)
        (address,) = (entry["addr"] for entry in found.addresses["inside"])
        (port,) = ports(device_id=server.id)
        equal("the port's address", port.fixed_ips[0]["ip_address"], address)
        equal("the port's host", port.binding_host_id, found.compute_host)
        equal("the port's binding", port.binding_vif_type, "ovs")
        equal("the port's security groups", port.security_group_ids, [tenancy.security_group.id])
        equal("the server's security groups", [g["name"] for g in found.security_groups], ["web"])
        seen.add(address)
    equal("different addresses", len(seen), COUNT)


def listing(tenancy: Tenancy) -> None:
    compute = tenancy.user.compute
    names = sorted(server.name for server in tenancy.servers)
    even = [name for name in names if name.startswith("web")]

    def listed(**filters: Any) -> list[str]:
        return sorted(server.name for server in compute.servers(**filters))

    with step("Nova: servers listed with filters (instance_get_all_by_filters)"):
        equal("all", listed(), names)
        equal("by regular expression", listed(name="^web-[0-9]$"), even)
        equal("by part of the name", listed(name="b-"), names)
        equal("by status", (listed(status="ACTIVE"), listed(status="SHUTOFF")), (names, []))
        equal("by image", listed(image=tenancy.image.id), names)
        equal("by flavor", listed(flavor=tenancy.ssd_flavor.id), ["db-3", "web-2"])
        equal("by tag", listed(tags="even,all"), even)
        equal("by absence of a tag", listed(not_tags="odd"), even)
        equal("by any tag", listed(any_tags="even,odd"), names)
        equal("by zone", set(listed(availability_zone=ZONE)) >= {"web-0", "db-1"}, True)
        address = address_of(tenancy.servers[0])
        found = tenancy.admin.compute.servers(all_projects=True, ipv4_address=address)
        with_it = [server.id for server in tenancy.servers if address in address_of(server)]
        equal("by address", sorted(server.id for server in found), sorted(with_it))
        on_zone_host = tenancy.admin.compute.servers(all_projects=True, compute_host=ZONE_HOST)
        equal("by host", {"web-0", "db-1", "web-2", "db-3"} <= {s.name for s in on_zone_host}, True)
        equal("of another project", list(tenancy.admin.compute.servers(project_id=tenancy.project.id)), [])
        equal("changed since", listed(changes_since="2000-01-01T00:00:00Z"), names)
        equal("changed since", listed(changes_since="2100-01-01T00:00:00Z"), [])
    with step("Nova: servers listed in pages of 3, by name upwards and by time downwards"):
        for keys in (
            {"sort_key": "display_name", "sort_dir": "asc"},
            {"sort_key": "created_at", "sort_dir": "desc"},
        ):
            whole = [server.id for server in compute.servers(**keys)]
            paged = [[server.id for server in page] for page in pages(tenancy.user, 3, keys)]
            equal("sizes of the pages", [len(page) for page in paged], [3, 3, 3, 1])
            equal("the pages together", [server for page in paged for server in page], whole)
        equal(
            "names upwards", [s.name for s in compute.servers(sort_key="display_name", sort_dir="asc")], names
        )


def pages(user: Connection, size: int, keys: dict[str, str]) -> Iterator[list[Any]]:
    """The pages of a listing, asked for one by one with the last one's last as the marker."""
    marker: dict[str, str] = {}
    while True:
        page = list(user.compute.servers(limit=size, paginated=False, **keys, **marker))
        if not page:
            return
        yield page
        marker = {"marker": page[-1].id}


def life(tenancy: Tenancy) -> None:
    """Stop, start, reboot, resize; then the events that were noted of it."""
    compute = tenancy.user.compute
    server = tenancy.servers[-1]
    number = str(number_of(server))

    def becomes(status: str) -> None:
        def ask() -> bool:
            found = compute.get_server(server.id)
            if found.status == "ERROR":
                fail(f"{server.name} is in ERROR: {fault(tenancy, server.id)}")
            return bool(found.status == status and found.task_state is None)

        wait_for(f"{server.name} is {status}", ask)

    with step("Nova: stop, start, reboot, new name, metadata and tags"):
        compute.stop_server(server)
        becomes("SHUTOFF")
        compute.start_server(server)
        becomes("ACTIVE")
        compute.reboot_server(server, "HARD")
        becomes("ACTIVE")
        compute.update_server(server, name="renamed")
        compute.set_server_metadata(server, half="changed", new="1")
        compute.delete_server_metadata(server, ["new"])
        compute.add_tag_to_server(server, "renamed")
        found = compute.get_server(server.id)
        equal("name", found.name, "renamed")
        equal("metadata", found.metadata, {"number": number, "half": "changed"})
        that("the tag is there", "renamed" in found.tags)
    with step("Nova: resize, which moves the server, and confirm"):
        before = tenancy.admin.compute.get_server(server.id).compute_host
        bigger = tenancy.admin.compute.create_flavor(name="small", ram=128, vcpus=2, disk=1)
        compute.resize_server(server, bigger)
        becomes("VERIFY_RESIZE")
        compute.confirm_server_resize(server)
        becomes("ACTIVE")
        found = tenancy.admin.compute.get_server(server.id)
        equal("memory", found.flavor.ram, 128)
        that("it has moved", found.compute_host != before)
    with step("Nova: action events"):
        actions = list(tenancy.admin.compute.server_actions(server))
        wanted = ["confirmResize", "create", "reboot", "resize", "start", "stop"]
        equal("actions", sorted(action.action for action in actions), wanted)
        for action in actions:
            detail = tenancy.admin.compute.get_server_action(action, server)
            that(f"{action.action} has events", detail.events)
            for event in detail.events:
                equal(f"result of {event.event}", event.result, "Success")
