"""What Nova knows of its own parts: services that report, hosts and what they have, aggregates, zones."""

from __future__ import annotations

import time
from typing import Any, Final

from cloud.checks.tenancy import Tenancy
from cloud.progress import equal, step, that, wait_for
from cloud.services.nova import HOSTS

HEARING: Final = 1.5
"""Seconds until a message has surely come."""
ZONE = "zone-1"
ZONE_HOST = HOSTS[0]


def services(tenancy: Tenancy) -> None:
    compute = tenancy.admin.compute

    def reported() -> dict[tuple[str, str], str]:
        return {(s.binary, s.host): s.updated_at for s in compute.services()}

    with step("Nova: services are registered once each, and report (service_create, service_update)"):
        known = [(s.binary, s.host) for s in compute.services()]
        wanted = [("nova-compute", host) for host in HOSTS]
        wanted += [("nova-conductor", "controller"), ("nova-scheduler", "controller")]
        equal("services", sorted(known), sorted(wanted))
        equal("states", {s.state for s in compute.services()}, {"up"})
        before = reported()

        def all_later() -> bool:
            now = reported()
            return all(now[service] > before[service] for service in before)

        wait_for("each service reports again", all_later)
    with step("Nova: a service is disabled, with a reason, and enabled again"):
        first = next(iter(compute.services(binary="nova-compute", host=HOSTS[0])))
        compute.disable_service(first, disabled_reason="maintenance")
        found = next(iter(compute.services(binary="nova-compute", host=HOSTS[0])))
        equal("status and reason", (found.status, found.disabled_reason), ("disabled", "maintenance"))
        compute.enable_service(first)
        found = next(iter(compute.services(binary="nova-compute", host=HOSTS[0])))
        equal("status", found.status, "enabled")


def compute_nodes(tenancy: Tenancy) -> None:
    with step("Nova and Placement: compute nodes, each with its inventory"):
        nodes = list(tenancy.admin.compute.hypervisors(details=True))
        equal("hosts", sorted(node.name for node in nodes), sorted(HOSTS))
        for node in nodes:
            inventory = inventory_of(tenancy, node.id)
            equal("resource classes", sorted(inventory), ["DISK_GB", "MEMORY_MB", "VCPU"])
            that("the inventory is not empty", all(kind["total"] > 0 for kind in inventory.values()))


def inventory_of(tenancy: Tenancy, provider: str) -> dict[str, Any]:
    response = tenancy.admin.placement.get(f"/resource_providers/{provider}/inventories")
    equal("HTTP status", response.status_code, 200)
    found: dict[str, Any] = response.json()["inventories"]
    return found


def aggregates(tenancy: Tenancy) -> None:
    compute = tenancy.admin.compute
    with step("Nova: a host aggregate with metadata is an availability zone"):
        aggregate = compute.create_aggregate(name="fast", availability_zone=ZONE)
        other = compute.create_aggregate(name="slow")
        schedulers_hear_of_it()
        compute.set_aggregate_metadata(aggregate, {"disk": "ssd", "colour": "red"})
        compute.set_aggregate_metadata(other, {"disk": "spinning"})
        schedulers_hear_of_it()
        compute.add_host_to_aggregate(aggregate, ZONE_HOST)
        compute.add_host_to_aggregate(other, HOSTS[1])
        schedulers_hear_of_it()
        compute.set_aggregate_metadata(aggregate, {"colour": None})
        schedulers_hear_of_it()
        found = compute.get_aggregate(aggregate.id)
        equal("hosts", found.hosts, [ZONE_HOST])
        equal("metadata", found.metadata, {"availability_zone": ZONE, "disk": "ssd"})
        equal("aggregates", sorted(a.name for a in compute.aggregates()), ["fast", "slow"])
        zones = {z.name: sorted(z.hosts or []) for z in compute.availability_zones(details=True)}
        equal(f"hosts of {ZONE}", zones.get(ZONE), [ZONE_HOST])
        equal("hosts of the default zone", zones.get("nova"), [HOSTS[1]])


def schedulers_hear_of_it() -> None:
    """Nova sends each change of an aggregate to its schedulers, which keep the one that comes last.

    Of two that are sent at once that may be the older one; a server then finds no host.
    """
    time.sleep(HEARING)
