"""Keystone: users, projects, roles, and the catalog of the other services."""

from __future__ import annotations

import grp
import os
import pwd

from cloud.layout import REGION, Layout, program
from cloud.processes import Processes
from cloud.services.configuration import database, log_levels, start_wsgi, write


def configure(layout: Layout) -> None:
    folder = layout.directory("keystone")
    write(
        folder / "keystone.conf",
        {
            "DEFAULT": {"default_log_levels": log_levels()},
            "database": database(layout, "keystone"),
            "token": {"provider": "fernet"},
            "fernet_tokens": {"key_repository": folder / "fernet-keys"},
            "credential": {"key_repository": folder / "credential-keys"},
            # The least that is allowed: passwords are new for each cloud, and cores are few.
            "identity": {"password_hash_rounds": 4},
        },
    )


def migrate(layout: Layout, processes: Processes) -> None:
    manage(layout, processes, "db_sync")


def bootstrap(layout: Layout, processes: Processes) -> None:
    """The keys of tokens, and the first account with its endpoint."""
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    for keys in ("fernet_setup", "credential_setup"):
        manage(layout, processes, keys, f"--keystone-user={user}", f"--keystone-group={group}")
    urls = [f"--bootstrap-{kind}-url={layout.keystone}" for kind in ("admin", "internal", "public")]
    manage(
        layout,
        processes,
        "bootstrap",
        f"--bootstrap-password={layout.password}",
        f"--bootstrap-region-id={REGION}",
        *urls,
    )


def manage(layout: Layout, processes: Processes, *arguments: str) -> str:
    configuration = layout.folder / "keystone" / "keystone.conf"
    command = [program("keystone-manage"), f"--config-file={configuration}", *arguments]
    return processes.run(command, "keystone-manage")


def start(layout: Layout, processes: Processes) -> None:
    environment = {"OS_KEYSTONE_CONFIG_DIR": str(layout.folder / "keystone")}
    start_wsgi(layout, processes, "keystone", "keystone.wsgi.api:application", environment)
