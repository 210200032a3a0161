"""What the services stand on: a Redis for the databases, where the store is Redis, and a RabbitMQ.

Both are instances of our own, from Debian's packages, with their own ports, directories and, for
RabbitMQ, its own name server (epmd) and node name. Redis makes each commit durable before it answers.
RabbitMQ is ended with its epmd, which otherwise would outlive it.
"""

from __future__ import annotations

import http.client
import shutil

from cloud.layout import Layout
from cloud.processes import Processes
from scripts.services import ServiceError, answers
from scripts.services import program as system_program

RABBITMQ_PROGRAMS = "/usr/lib/rabbitmq/bin"

RABBITMQ_CONF = """\
listeners.tcp.1 = 127.0.0.1:{port}
loopback_users.guest = true
log.console = true
log.console.level = info
log.file = false
# Of the machine's memory; it has other tenants.
vm_memory_high_watermark.relative = 0.2
disk_free_limit.absolute = 200MB
"""


def start_redis(layout: Layout, processes: Processes) -> None:
    port = layout.ports["redis"]
    command = [system_program("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--dir", str(layout.directory("redis")), "--save", "", "--appendonly", "yes"]
    command += ["--appendfsync", "always"]
    processes.start("redis", command)
    processes.await_ready("redis", lambda: answers(port))


def start_rabbitmq(layout: Layout, processes: Processes) -> None:
    folder = layout.directory("rabbitmq")
    (folder / "rabbitmq.conf").write_text(RABBITMQ_CONF.format(port=layout.ports["rabbitmq"]))
    (folder / "enabled_plugins").write_text("[].\n")
    erlang = {
        # Erlang's cookie is kept in HOME; the machine's own is not touched.
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(layout.ports["epmd"]),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    rabbitmq = {
        "RABBITMQ_NODENAME": "cloud@localhost",
        "RABBITMQ_DIST_PORT": str(layout.ports["erlang"]),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false"
        " -kernel inet_dist_use_interface {127,0,0,1}",
    }
    processes.start("epmd", [system_program("epmd")], erlang)
    processes.await_ready("epmd", lambda: answers(layout.ports["epmd"]))
    processes.start("rabbitmq", [rabbitmq_program()], {**erlang, **rabbitmq})
    processes.await_ready("rabbitmq", lambda: answers(layout.ports["rabbitmq"]))


def rabbitmq_program() -> str:
    """The server itself: the one in /usr/sbin changes to the user of the machine's own RabbitMQ."""
    path = shutil.which("rabbitmq-server", path=RABBITMQ_PROGRAMS)
    if path is None:
        raise ServiceError(f"rabbitmq-server is not installed: it is not in {RABBITMQ_PROGRAMS}")
    return path


def serves(port: int, path: str = "/") -> bool:
    """Does it answer HTTP, and not with an error of its own?"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
