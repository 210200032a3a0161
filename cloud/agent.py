"""An L2 agent that wires nothing: Neutron binds ports to a host only where an agent says that it is alive.

    python -m cloud.agent --host host-1 --config-file neutron.conf --config-file ml2_conf.ini

It does over RPC what Neutron's Open vSwitch agent does, with Neutron's own client classes, and leaves
out the switch: it reports its state, listens for ports that were bound to its host, asks for their
details, and says that they are up. So Neutron's side sees all the traffic that an agent causes.
"""

from __future__ import annotations

import logging
import queue
import sys
import time
from typing import Any

from oslo_service import backend as service_backend

service_backend.init_backend(service_backend.BackendType.THREADING)

import oslo_messaging  # noqa: E402
from neutron.agent import rpc as agent_rpc  # noqa: E402
from neutron.common import config as neutron_config  # noqa: E402
from neutron.conf import service as service_options  # noqa: E402
from neutron.conf.agent import common as agent_options  # noqa: E402
from neutron_lib import context as neutron_context  # noqa: E402
from neutron_lib.agent import topics  # noqa: E402
from oslo_config import cfg  # noqa: E402

LOG = logging.getLogger(__name__)
REPORT_SECONDS = 10.0


class Endpoint:
    """What Neutron tells all agents. Ports are only noted here, since this runs in RPC's own threads."""

    target = oslo_messaging.Target(version="1.6")

    def __init__(self, host: str) -> None:
        self._host = host
        self.bound: queue.SimpleQueue[str] = queue.SimpleQueue()

    def port_update(self, context: Any, port: dict[str, Any], **more: Any) -> None:
        if port.get("binding:host_id") == self._host and port.get("status") != "ACTIVE":
            self.bound.put(port["id"])

    def port_delete(self, context: Any, **more: Any) -> None:
        """There is nothing to unplug."""

    def network_update(self, context: Any, **more: Any) -> None:
        """There is nothing to change."""


class Agent:
    def __init__(self, host: str) -> None:
        self._host = host
        self._id = f"ovs-agent-{host}"
        self._context = neutron_context.get_admin_context_without_session()
        self._reports = agent_rpc.PluginReportStateAPI(topics.REPORTS)
        self._plugin = agent_rpc.PluginApi(topics.PLUGIN)
        self._endpoint = Endpoint(host)
        self._state = {
            "binary": "neutron-openvswitch-agent",
            "host": host,
            "topic": "N/A",
            "agent_type": "Open vSwitch agent",
            "configurations": {
                "bridge_mappings": {"outside": "br-outside"},
                "tunnel_types": ["vxlan"],
                "tunneling_ip": "127.0.0.1",
                "devices": 0,
            },
            "start_flag": True,
        }
        self._devices = 0

    def run(self) -> None:
        consumers = [
            [topics.PORT, topics.UPDATE],
            [topics.PORT, topics.DELETE],
            [topics.NETWORK, topics.UPDATE],
        ]
        agent_rpc.create_consumers([self._endpoint], topics.AGENT, consumers)
        next_report = 0.0
        while True:
            now = time.monotonic()
            if now >= next_report:
                self._report()
                next_report = now + REPORT_SECONDS
            bound = self._take(next_report - time.monotonic())
            if bound:
                self._wire(bound)

    def _report(self) -> None:
        self._state["configurations"]["devices"] = self._devices  # type: ignore[index]
        try:
            self._reports.report_state(self._context, self._state, use_call=True)
            self._state.pop("start_flag", None)
        except oslo_messaging.MessagingTimeout:
            # Neutron may still be starting; the next report is soon.
            LOG.warning("Neutron did not take the report")

    def _take(self, patience: float) -> set[str]:
        """Ports that wait to be wired, all that there are; waits for the first, but not for ever."""
        ports: set[str] = set()
        try:
            ports.add(self._endpoint.bound.get(timeout=max(patience, 0.01)))
            while True:
                ports.add(self._endpoint.bound.get_nowait())
        except queue.Empty:
            return ports

    def _wire(self, ports: set[str]) -> None:
        """Ask how, do nothing, and say that it is done."""
        try:
            details = self._plugin.get_devices_details_list(
                self._context, sorted(ports), self._id, self._host
            )
            known = [found["device"] for found in details if "port_id" in found]
            if known:
                self._plugin.update_device_list(self._context, known, [], self._id, self._host)
            self._devices += len(known)
        except oslo_messaging.MessagingException as error:
            LOG.warning("Neutron did not answer about %d ports, which are tried again: %s", len(ports), error)
            for port in ports:
                self._endpoint.bound.put(port)


def main() -> int:
    arguments = sys.argv[1:]
    position = arguments.index("--host")
    host = arguments[position + 1]
    del arguments[position : position + 2]
    neutron_config.register_common_config_options()
    agent_options.register_agent_state_opts_helper(cfg.CONF)
    service_options.register_service_opts(service_options.RPC_EXTRA_OPTS)
    neutron_config.init(arguments)
    neutron_config.setup_logging()
    LOG.info("An agent for %s", host)
    Agent(host).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
