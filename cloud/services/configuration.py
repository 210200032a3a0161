"""Configuration files: sections of options, and those sections that are the same for many services."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloud.layout import REGION, Layout, program
from cloud.processes import Processes

Options = dict[str, object]
Sections = dict[str, Options]

WORKERS = 2
THREADS = 4


@dataclass(frozen=True)
class Endpoint:
    """What Keystone's catalog says of a service."""

    service: str
    kind: str
    path: str = ""


def write(path: Path, sections: Sections) -> None:
    lines = []
    for section, options in sections.items():
        lines += [f"[{section}]", *(f"{name} = {text(value)}" for name, value in options.items()), ""]
    path.write_text("\n".join(lines))


def text(value: object) -> str:
    """An option's value. A `$` would be taken for a reference."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).replace("$", "$$")


QUIET = "amqp amqplib sqlalchemy urllib3 requests keystonemiddleware stevedore taskflow routes.middleware"
LOUD = "oslo_db.api neutron_lib.db.api"
"""What tells of each transaction that a service runs again."""


def log_levels() -> str:
    """For `default_log_levels`."""
    levels = [f"{name}=WARN" for name in QUIET.split()] + [f"{name}=DEBUG" for name in LOUD.split()]
    return ",".join([*levels, "oslo_messaging=INFO"])


def database(layout: Layout, name: str, parameters: str = "") -> Options:
    return {"connection": layout.database(name) + parameters}


def account(layout: Layout, user: str) -> Options:
    """How a service signs in at Keystone."""
    return {
        "auth_type": "password",
        "auth_url": layout.keystone,
        "username": user,
        "password": layout.password,
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
        "region_name": REGION,
    }


def token_check(layout: Layout, user: str) -> Options:
    """How a service has the tokens of its callers checked: keystonemiddleware's options."""
    return {
        **account(layout, user),
        "www_authenticate_uri": layout.keystone,
        "interface": "internal",
        "service_token_roles": "service",
        "service_token_roles_required": True,
    }


def locks(layout: Layout, name: str) -> Options:
    return {"lock_path": layout.directory("locks", name)}


def start_wsgi(
    layout: Layout,
    processes: Processes,
    service: str,
    application: str,
    environment: dict[str, str],
    workers: int = WORKERS,
    first: str = "",
) -> None:
    """Serve an API by gunicorn. Its settings are in a file: some services read the command line as theirs.

    `first` is a Python statement that a worker runs before it serves.
    """
    settings = layout.directory(service) / "gunicorn.py"
    settings.write_text(
        f"bind = '127.0.0.1:{layout.ports[service]}'\n"
        f"wsgi_app = '{application}'\n"
        f"workers = {workers}\n"
        f"worker_class = 'gthread'\n"
        f"threads = {THREADS}\n"
        "timeout = 300\n"
        "graceful_timeout = 5\n"
        # A client that sends something on a connection just as the server gives it up gets an error; and
        # nova-scheduler's processes share the connections that were open when they were forked.
        "keepalive = 0\n"
        # Nova asks Neutron for the ports of a hundred servers in one URL.
        "limit_request_line = 0\n"
        f"accesslog = '{processes.log(f'{service}-access')}'\n"
        """access_log_format = '%(t)s %(s)s %(M)s ms "%(r)s"'\n"""
        + (f"def post_worker_init(worker):\n    {first}\n" if first else "")
    )
    processes.start(
        f"{service}-api",
        [program("gunicorn")],
        {**environment, "GUNICORN_CMD_ARGS": f"--config {settings}"},
    )
