"""Clients of the cloud: openstacksdk, signed in with a user's name and password."""

from __future__ import annotations

from typing import Any

from cloud.layout import REGION, Layout

COMPUTE_VERSION = "2.90"
PLACEMENT_VERSION = "1.36"

# openstacksdk's objects have types, but hardly any of their attributes does.
Connection = Any


def connect(layout: Layout, user: str = "admin", project: str = "admin") -> Connection:
    """A connection of its own for each thread; nothing is read from files or from the environment."""
    import openstack  # Here, since it takes a second, and with it go modules that warn of their age.

    return openstack.connect(
        auth={
            "auth_url": layout.keystone,
            "username": user,
            "password": layout.password,
            "project_name": project,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        },
        region_name=REGION,
        compute_default_microversion=COMPUTE_VERSION,
        placement_default_microversion=PLACEMENT_VERSION,
        load_yaml_config=False,
        load_envvars=False,
    )
