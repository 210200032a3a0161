"""Placement: what each host has, and who holds how much of it."""

from __future__ import annotations

from cloud.layout import Layout, program
from cloud.processes import Processes
from cloud.services.configuration import Endpoint, database, locks, log_levels, start_wsgi, token_check, write

ENDPOINT = Endpoint("placement", "placement")


def configure(layout: Layout) -> None:
    write(
        layout.directory("placement") / "placement.conf",
        {
            "DEFAULT": {"default_log_levels": log_levels()},
            # Placement does not run a transaction again that was refused: they take turns.
            "placement_database": database(layout, "placement", "?turns=on"),
            "api": {"auth_strategy": "keystone"},
            "keystone_authtoken": token_check(layout, "placement"),
            "oslo_concurrency": locks(layout, "placement"),
        },
    )


def migrate(layout: Layout, processes: Processes) -> None:
    configuration = layout.folder / "placement" / "placement.conf"
    command = [program("placement-manage"), f"--config-file={configuration}", "db", "sync"]
    processes.run(command, "placement-manage")


def start(layout: Layout, processes: Processes) -> None:
    environment = {"OS_PLACEMENT_CONFIG_DIR": str(layout.folder / "placement")}
    start_wsgi(layout, processes, "placement", "placement.wsgi.api:application", environment)
