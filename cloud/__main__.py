"""The commands: up, races, down. See the package's own essay."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException

from cloud.build import Cloud, build
from cloud.checks.all import run_checks
from cloud.layout import FOLDER, REGION, Layout, new_layout, program, saved_layout
from cloud.processes import Processes
from cloud.progress import Wrong, took
from cloud.races import SERVERS, run_races
from scripts.services import ServiceError

FAILURES = (Wrong, ServiceError, SDKException, ClientException, OSError, subprocess.TimeoutExpired)


def main() -> int:
    parser = argparse.ArgumentParser(prog="cloud")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "races"):
        command = commands.add_parser(name)
        command.add_argument("--store", default="lmdb", choices=("lmdb", "redis"))
        command.add_argument("--keep", action="store_true", help="leave the cloud running")
        command.add_argument("--servers", type=int, default=SERVERS, help="how many the races boot")
    commands.choices["up"].add_argument("--races", action="store_true", help="then the races")
    commands.add_parser("down")
    options = parser.parse_args()
    if options.command == "down":
        return down()
    return races(options) if options.command == "races" else up(options)


def up(options: argparse.Namespace) -> int:
    """A new cloud, and all that is asked of it. A cloud that is left from before is ended first."""
    Processes(FOLDER).stop()
    layout = new_layout(options.store)
    cloud = Cloud(layout, Processes(layout.folder))

    def work() -> None:
        build(cloud)
        if options.command == "up":
            run_checks(cloud)
        if options.command == "races" or options.races:
            run_races(cloud, options.servers)

    try:
        return run(cloud, work)
    finally:
        if options.keep:
            explain(cloud)
        else:
            cloud.processes.stop()


def races(options: argparse.Namespace) -> int:
    """On the cloud that runs, or else on a new one."""
    layout = saved_layout()
    if layout is None or not (processes := Processes(layout.folder)).living():
        return up(options)
    cloud = Cloud(layout, processes)
    return run(cloud, lambda: run_races(cloud, options.servers))


def run(cloud: Cloud, work: Callable[[], None]) -> int:
    """Returns the exit status; where it is not 0, it has been said why."""
    begun = time.monotonic()
    try:
        work()
    except FAILURES as error:
        print(f"\n{type(error).__name__}: {error}")
        print(f"\nThe last error in each log of {FOLDER / 'logs'}:\n{cloud.processes.last_errors()}")
        return 1
    print(f"Every step was right. {took(time.monotonic() - begun)} in all.")
    return 0


def explain(cloud: Cloud) -> None:
    """How to talk to the cloud that is left running."""
    path = write_credentials(cloud.layout)
    openstack = program("openstack")
    print(
        f"""
The cloud is left running. To talk to it:

    source {path}
    {openstack} server list        (pip install python-openstackclient into that environment)
    make cloud-races               the races, on this cloud
    make cloud-down                ends it

Configuration, data and logs: {cloud.layout.folder}"""
    )


def write_credentials(layout: Layout) -> Path:
    path = layout.folder / "admin.sh"
    lines = {
        "OS_AUTH_URL": layout.keystone,
        "OS_USERNAME": "admin",
        "OS_PASSWORD": layout.password,
        "OS_PROJECT_NAME": "admin",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": REGION,
        "OS_IDENTITY_API_VERSION": "3",
    }
    path.write_text("".join(f"export {name}={value}\n" for name, value in lines.items()))
    path.chmod(0o600)
    return path


def down() -> int:
    ended = Processes(FOLDER).stop()
    print(f"{ended} processes ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
