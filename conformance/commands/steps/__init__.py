"""The commands of each service, in the order in which an operator runs them."""

from collections.abc import Callable

from steps import cinder, glance, keystone, neutron, nova, placement
from steps.workspace import Step, Workspace

SERVICES: dict[str, Callable[[Workspace], list[Step]]] = {
    "keystone": keystone.steps,
    "glance": glance.steps,
    "placement": placement.steps,
    "nova": nova.steps,
    "neutron": neutron.steps,
    "cinder": cinder.steps,
}
