"""The checks in their order."""

from __future__ import annotations

from cloud.build import Cloud
from cloud.checks import addresses, attachments, endings, hosts, servers, tenancy
from cloud.checks.tenancy import Tenancy

ORDER = [
    tenancy.project_and_user,
    tenancy.image,
    tenancy.flavors,
    tenancy.network,
    tenancy.router,
    hosts.services,
    hosts.compute_nodes,
    hosts.aggregates,
    servers.boot,
    servers.listing,
    servers.life,
    attachments.volumes,
    attachments.floating_address,
    attachments.server_group,
    attachments.snapshot,
    addresses.contention,
    endings.books,
    endings.delete_servers,
    endings.books,
    endings.delete_the_rest,
]


def run_checks(cloud: Cloud) -> None:
    tenancy = Tenancy(cloud, cloud.connect())
    for check in ORDER:
        check(tenancy)
        cloud.processes.check()
