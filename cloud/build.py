"""From an empty folder to a cloud that answers.

The order is that of any installation: servers, tables, Keystone, accounts, APIs, and last the
hosts, which need all others. Services that do not wait for each other are started together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from cloud.client import Connection, connect
from cloud.layout import REGION, Layout
from cloud.processes import Processes
from cloud.progress import step, wait_for
from cloud.servers import serves, start_rabbitmq, start_redis
from cloud.services import cinder, glance, keystone, neutron, nova, placement
from cloud.services.configuration import Endpoint

SERVICES = [keystone, glance, placement, neutron, nova, cinder]
"""In the order in which their tables are made."""


@dataclass(frozen=True)
class Cloud:
    layout: Layout
    processes: Processes

    def connect(self, user: str = "admin", project: str = "admin") -> Connection:
        return connect(self.layout, user, project)


def build(cloud: Cloud) -> None:
    layout, processes = cloud.layout, cloud.processes
    for service in SERVICES:
        service.configure(layout)
    print(f"[database] connection = {layout.database('keystone')}, and so on: {len(DATABASES)} databases")
    with step("start RabbitMQ" if layout.store != "redis" else "start Redis and RabbitMQ"):
        if layout.store == "redis":
            start_redis(layout, processes)
        start_rabbitmq(layout, processes)
    for service in SERVICES:
        with step(f"make {name_of(service)}'s tables"):
            service.migrate(layout, processes)
    with step("start Keystone"):
        keystone.bootstrap(layout, processes)
        keystone.start(layout, processes)
        await_api(cloud, "keystone")
    with step("accounts and endpoints of the services"):
        make_accounts(cloud)
    with step("start the APIs, conductor and schedulers"):
        apis = [service for service in SERVICES if service is not keystone]
        for service in apis:
            service.start(layout, processes)
        for service in apis:
            await_api(cloud, name_of(service).lower())
    with step(f"start {len(nova.HOSTS)} hosts: an agent of Neutron's and a nova-compute each"):
        start_hosts(cloud)


DATABASES = ("keystone", "glance", "placement", "neutron", *nova.DATABASES, "cinder")


def name_of(service: ModuleType) -> str:
    return service.__name__.rpartition(".")[2].capitalize()


def await_api(cloud: Cloud, service: str) -> None:
    port = cloud.layout.ports[service]
    cloud.processes.await_ready(f"{service}-api", lambda: serves(port))


def make_accounts(cloud: Cloud) -> None:
    """A user of each service, with the roles that services have; and where each is found."""
    identity = cloud.connect().identity
    project = identity.create_project(name="service", domain_id="default")
    service_role = identity.find_role("service") or identity.create_role(name="service")
    admin_role = identity.find_role("admin")
    for module in SERVICES:
        endpoint: Endpoint | None = getattr(module, "ENDPOINT", None)
        if endpoint is None:
            continue
        user = identity.create_user(
            name=endpoint.service, password=cloud.layout.password, domain_id="default"
        )
        for role in (service_role, admin_role):
            identity.assign_project_role_to_user(project, user, role)
        service = identity.create_service(name=endpoint.service, type=endpoint.kind)
        for interface in ("public", "internal", "admin"):
            identity.create_endpoint(
                service_id=service.id,
                interface=interface,
                region_id=REGION,
                url=f"{cloud.layout.url(endpoint.service)}{endpoint.path}",
            )


def start_hosts(cloud: Cloud) -> None:
    layout, processes = cloud.layout, cloud.processes
    for host in nova.HOSTS:
        neutron.start_agent(layout, processes, host)
        nova.start_compute(layout, processes, host)
    admin = cloud.connect()
    watched(cloud, "Neutron's agents are alive", lambda: count_alive(admin) == len(nova.HOSTS))
    watched(
        cloud,
        "the compute services are up",
        lambda: (
            len([s for s in admin.compute.services(binary="nova-compute") if s.state == "up"])
            == len(nova.HOSTS)
        ),
    )
    nova.discover_hosts(layout, processes)
    watched(
        cloud, "the hypervisors are known", lambda: len(list(admin.compute.hypervisors())) == len(nova.HOSTS)
    )
    watched(cloud, "the volume service is up", lambda: volume_services_up(admin))


def watched(cloud: Cloud, what: str, holds: Callable[[], bool]) -> None:
    """Wait until it holds, as long as every process lives."""

    def ask() -> bool:
        cloud.processes.check()
        return holds()

    wait_for(what, ask)


def count_alive(admin: Connection) -> int:
    return len([agent for agent in admin.network.agents() if agent.is_alive])


def volume_services_up(admin: Connection) -> bool:
    services = list(admin.block_storage.services())
    return len(services) >= 2 and all(service.state == "up" for service in services)
