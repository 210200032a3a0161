"""Cinder: volumes, with Cinder's own driver that only writes to its log what it is asked."""

from __future__ import annotations

from cloud.layout import REGION, Layout, packaged, program
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

ENDPOINT = Endpoint("cinder", "block-storage", "/v3")


def configure(layout: Layout) -> None:
    # The API looks for its file below the home directory, and takes no other hint.
    folder = layout.directory("cinder", ".cinder")
    write(
        folder / "cinder.conf",
        {
            "DEFAULT": {
                "default_log_levels": log_levels(),
                "transport_url": layout.transport,
                "auth_strategy": "keystone",
                "api_paste_config": packaged("cinder", "api-paste.ini"),
                "resource_query_filters_file": packaged("cinder", "resource_filters.json"),
                "state_path": layout.folder / "cinder",
                "enabled_backends": "fake",
                "host": "volumes",
                "my_ip": "127.0.0.1",
                "glance_api_servers": layout.url("glance"),
                "report_interval": 5,
            },
            "fake": {
                "volume_driver": "cinder.tests.fake_driver.FakeLoggingVolumeDriver",
                "volume_backend_name": "fake",
            },
            "database": database(layout, "cinder"),
            "keystone_authtoken": token_check(layout, "cinder"),
            "service_user": {**account(layout, "cinder"), "send_service_user_token": True},
            "nova": {**account(layout, "nova"), "region_name": REGION},
            "oslo_concurrency": locks(layout, "cinder"),
        },
    )


def configuration(layout: Layout) -> str:
    return f"--config-file={layout.folder / 'cinder' / '.cinder' / 'cinder.conf'}"


def migrate(layout: Layout, processes: Processes) -> None:
    processes.run([program("cinder-manage"), configuration(layout), "db", "sync"], "cinder-manage")


def start(layout: Layout, processes: Processes) -> None:
    environment = {"HOME": str(layout.folder / "cinder")}
    start_wsgi(layout, processes, "cinder", "cinder.wsgi.api:application", environment, workers=1)
    for name in ("cinder-scheduler", "cinder-volume"):
        processes.start(name, [program(name), configuration(layout)])
