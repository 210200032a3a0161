"""Neutron: networks, addresses, security groups. ML2 with Open vSwitch's mechanism, which needs no switch.

A port is bound to a host only if an agent there reports that it is alive; see `cloud.agent`. There is
no DHCP and no L3 agent: subnets are without DHCP, and routers and floating addresses live in the
database.
"""

from __future__ import annotations

import sys

from cloud.layout import ROOT, Layout, packaged, program
from cloud.processes import Processes
from cloud.services.configuration import (
    Endpoint,
    account,
    database,
    locks,
    log_levels,
    start_wsgi,
    token_check,
    write,
)

ENDPOINT = Endpoint("neutron", "network")

EXTERNAL = "outside"
"""The physical network of floating addresses."""


def configure(layout: Layout) -> None:
    folder = layout.directory("neutron")
    write(
        folder / "neutron.conf",
        {
            "DEFAULT": {
                "default_log_levels": log_levels(),
                "core_plugin": "ml2",
                "service_plugins": "router",
                "auth_strategy": "keystone",
                "transport_url": layout.transport,
                "state_path": folder,
                "api_paste_config": packaged("neutron", "api-paste.ini"),
                "dhcp_agent_notification": False,
                "notify_nova_on_port_status_changes": True,
                "notify_nova_on_port_data_changes": True,
                "rpc_workers": 1,
                "rpc_state_report_workers": 1,
            },
            # It reads all addresses of a subnet to find a free one, so that any two allocations conflict. It
            # runs them again, but taking turns is quicker.
            "database": database(layout, "neutron", "?turns=on"),
            "keystone_authtoken": token_check(layout, "neutron"),
            "nova": account(layout, "nova"),
            "placement": account(layout, "placement"),
            "quotas": {"quota_port": 1000, "quota_security_group_rule": 1000},
            "oslo_concurrency": locks(layout, "neutron"),
        },
    )
    write(
        folder / "ml2_conf.ini",
        {
            "ml2": {
                "type_drivers": "flat,vxlan",
                "tenant_network_types": "vxlan",
                "mechanism_drivers": "openvswitch",
                "extension_drivers": "port_security",
            },
            "ml2_type_flat": {"flat_networks": EXTERNAL},
            "ml2_type_vxlan": {"vni_ranges": "1:1000"},
            "securitygroup": {"enable_security_group": True},
        },
    )


def files(layout: Layout) -> list[str]:
    folder = layout.folder / "neutron"
    return [f"--config-file={folder / name}" for name in ("neutron.conf", "ml2_conf.ini")]


def migrate(layout: Layout, processes: Processes) -> None:
    command = [program("neutron-db-manage"), *files(layout), "upgrade", "heads"]
    processes.run(command, "neutron-db-manage")


def start(layout: Layout, processes: Processes) -> None:
    environment = {
        "OS_NEUTRON_CONFIG_DIR": str(layout.folder / "neutron"),
        "OS_NEUTRON_CONFIG_FILES": "neutron.conf;ml2_conf.ini",
    }
    # Neutron makes its policy at a worker's first request, and another thread that asks while it is being
    # made is told that nothing is allowed: lists come out empty.
    policy = "from neutron import policy; policy.init()"
    start_wsgi(layout, processes, "neutron", "neutron.wsgi.api:application", environment, first=policy)
    processes.start("neutron-rpc-server", [program("neutron-rpc-server"), *files(layout)])


def start_agent(layout: Layout, processes: Processes, host: str) -> None:
    """An L2 agent that reports for a compute host."""
    command = [sys.executable, "-m", "cloud.agent", "--host", host, *files(layout)]
    processes.start(f"neutron-agent-{host}", command, {"PYTHONPATH": str(ROOT)})
