"""Nova: API, scheduler, conductor, and two compute hosts whose machines are make-believe.

The virtualization driver is Nova's own fake one. All else is as in any cloud: cells, with a database
each, RPC, claims in Placement, ports in Neutron, images in Glance.
"""

from __future__ import annotations

from pathlib import Path

from cloud.layout import REGION, Layout, packaged, program
from cloud.processes import Processes
from cloud.services.configuration import (
    Endpoint,
    Sections,
    account,
    locks,
    log_levels,
    start_wsgi,
    token_check,
    write,
)

ENDPOINT = Endpoint("nova", "compute", "/v2.1")
HOSTS = ("host-1", "host-2")
REPORT_SECONDS = 5
DATABASES = ("nova_api", "nova_cell0", "nova_cell1")


def configure(layout: Layout) -> None:
    write(layout.directory("nova") / "nova.conf", sections(layout, "controller"))
    for host in HOSTS:
        directory = layout.directory("nova", host)
        options = sections(layout, host)
        options["DEFAULT"]["state_path"] = directory
        # A compute host has no database: it asks the conductor.
        del options["database"], options["api_database"]
        write(directory / "nova.conf", options)


def sections(layout: Layout, host: str) -> Sections:
    return {
        "DEFAULT": {
            "default_log_levels": log_levels(),
            "host": host,
            "my_ip": "127.0.0.1",
            "transport_url": layout.transport,
            "state_path": layout.folder / "nova",
            "compute_driver": "fake.FakeDriver",
            "report_interval": REPORT_SECONDS,
            "service_down_time": 60,
            "log_options": False,
        },
        "api_database": {"connection": url(layout, "nova_api")},
        "database": {"connection": url(layout, "nova_cell1")},
        "keystone_authtoken": token_check(layout, "nova"),
        "service_user": {**account(layout, "nova"), "send_service_user_token": True},
        "placement": account(layout, "placement"),
        "neutron": account(layout, "neutron"),
        "glance": {"region_name": REGION},
        "cinder": {**account(layout, "cinder"), "os_region_name": REGION},
        "api": {"auth_strategy": "keystone"},
        "wsgi": {"api_paste_config": packaged("nova", "api-paste.ini")},
        "conductor": {"workers": 2},
        "scheduler": {"workers": 2},
        "filter_scheduler": {
            "enabled_filters": "ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,"
            "ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter,AggregateInstanceExtraSpecsFilter",
        },
        "quota": {"instances": 1000, "cores": 1000, "ram": 1_000_000, "server_group_members": 1000},
        "vnc": {"enabled": False},
        "oslo_concurrency": locks(layout, f"nova-{host}"),
    }


def url(layout: Layout, name: str) -> str:
    """Of a database. Nova would not use regular expressions on one that it does not know."""
    return f"{layout.database(name)}?like_operator=regexp&turns=on"


def migrate(layout: Layout, processes: Processes) -> None:
    """The databases of the API and of two cells: cell0, for servers that found no host, and cell1."""
    manage(layout, processes, "api_db", "sync")
    cell0 = ["--database_connection", url(layout, "nova_cell0")]
    manage(layout, processes, "cell_v2", "map_cell0", *cell0)
    cell1 = ["--database_connection", url(layout, "nova_cell1"), "--transport-url", layout.transport]
    manage(layout, processes, "cell_v2", "create_cell", "--name", "cell1", *cell1)
    manage(layout, processes, "db", "sync")


def discover_hosts(layout: Layout, processes: Processes) -> None:
    manage(layout, processes, "cell_v2", "discover_hosts")


def configuration(layout: Layout, host: str = "") -> Path:
    return layout.folder / "nova" / host / "nova.conf"


def manage(layout: Layout, processes: Processes, *arguments: str) -> str:
    command = [program("nova-manage"), f"--config-file={configuration(layout)}", *arguments]
    return processes.run(command, "nova-manage")


def start(layout: Layout, processes: Processes) -> None:
    environment = {
        "OS_NOVA_CONFIG_DIR": str(layout.folder / "nova"),
        "OS_NOVA_CONFIG_FILES": f"{packaged('nova', 'api-paste.ini')};nova.conf",
    }
    start_wsgi(layout, processes, "nova", "nova.wsgi.osapi_compute:application", environment)
    for name in ("nova-conductor", "nova-scheduler"):
        processes.start(name, [program(name), f"--config-file={configuration(layout)}"])


def start_compute(layout: Layout, processes: Processes, host: str) -> None:
    command = [program("nova-compute"), f"--config-file={configuration(layout, host)}"]
    processes.start(f"nova-compute-{host}", command)
