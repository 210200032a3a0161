"""Glance: images, kept as files."""

from __future__ import annotations

from cloud.layout import Layout, packaged, program
from cloud.processes import Processes
from cloud.services.configuration import Endpoint, database, locks, log_levels, start_wsgi, token_check, write

ENDPOINT = Endpoint("glance", "image")


def configure(layout: Layout) -> None:
    folder = layout.directory("glance")

    def files(name: str) -> dict[str, object]:
        return {"filesystem_store_datadir": layout.directory("glance", name)}

    write(
        folder / "glance-api.conf",
        {
            "DEFAULT": {
                "default_log_levels": log_levels(),
                "enabled_backends": "local:file",
                "worker_self_reference_url": layout.url("glance"),
            },
            "database": database(layout, "glance"),
            "keystone_authtoken": token_check(layout, "glance"),
            "paste_deploy": {"flavor": "keystone", "config_file": packaged("glance", "glance-api-paste.ini")},
            "glance_store": {"default_backend": "local"},
            "local": files("images"),
            "os_glance_staging_store": files("staging"),
            "os_glance_tasks_store": files("tasks"),
            "oslo_concurrency": locks(layout, "glance"),
        },
    )


def migrate(layout: Layout, processes: Processes) -> None:
    configuration = layout.folder / "glance" / "glance-api.conf"
    command = [program("glance-manage"), f"--config-file={configuration}", "db_sync"]
    processes.run(command, "glance-manage")


def start(layout: Layout, processes: Processes) -> None:
    environment = {"OS_GLANCE_CONFIG_DIR": str(layout.folder / "glance")}
    start_wsgi(layout, processes, "glance", "glance.wsgi.api:application", environment, workers=1)
