"""Glance's real database API on one back end: fills it, and runs the operations it is asked for.

    operations.py URL [--images N]

A child of run.py, and of the test that counts round trips. It makes the tables, then N images with
3 properties, 2 tags and a location each, and says `ready`. Then each line of standard input is an
operation and how often to run it; the answer is one line of JSON with two lists, one number for
each time it ran:

    image_get 5     →    {"seconds": [...], "round_trips": [...]}

Round trips are the store's own count of them (0 on back ends that are not ROME's). What an operation
needs (an image to destroy, say) is made before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import glance.context
import glance.db.sqlalchemy.api as api
from glance.db.sqlalchemy import models, models_metadef
from oslo_config import cfg
from oslo_db import options as database_options

OWNER = "0f4a2c5e6d7b48f39a1e2d3c4b5a6978"
CONTEXT = glance.context.RequestContext(is_admin=True, project_id=OWNER)


class Back:
    """A back end that holds Glance's tables and some images."""

    def __init__(self, url: str, images: int) -> None:
        cfg.CONF([], project="glance", default_config_files=[])
        database_options.set_defaults(cfg.CONF)
        cfg.CONF.set_override("connection", url, "database")
        self.engine = api.get_engine()
        models.register_models(self.engine)
        models_metadef.register_models(self.engine)
        self.images = [self.create_image() for _ in range(images)]
        self.namespace = self.create_namespace()
        self.turn = 0

    def create_image(self) -> str:
        image = api.image_create(CONTEXT, image_values())
        api.image_tag_set_all(CONTEXT, image["id"], ["first", "second"])
        identifier: str = image["id"]
        return identifier

    def create_namespace(self) -> str:
        values = namespace_values()
        api.metadef_namespace_create(CONTEXT, values)
        name: str = values["namespace"]
        return name

    def next_image(self) -> str:
        """Another image each time, so that nothing is read twice in a row."""
        self.turn += 7
        return self.images[self.turn % len(self.images)]

    def round_trips(self) -> int:
        if self.engine.url.get_backend_name() != "rome":
            return 0
        import rome

        count: int = rome.store_of(self.engine).round_trips
        return count


def image_values() -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "name": "an image",
        "status": "active",
        "owner": OWNER,
        "visibility": "public",
        "disk_format": "raw",
        "container_format": "bare",
        "size": 4096,
        "min_disk": 0,
        "min_ram": 0,
        "protected": False,
        "properties": {"os_distro": "debian", "os_version": "12", "architecture": "x86_64"},
        "locations": [{"url": "file:///images/1", "metadata": {}, "status": "active"}],
    }


def namespace_values() -> dict[str, Any]:
    name = f"OS::{uuid.uuid4()}"
    return {"namespace": name, "display_name": "a namespace", "visibility": "public", "owner": OWNER}


Prepared = Callable[[], Any]


def image_get(back: Back) -> Prepared:
    image = back.next_image()
    return lambda: api.image_get(CONTEXT, image)


def tags_read(back: Back) -> Prepared:
    image = back.next_image()
    return lambda: api.image_tag_get_all(CONTEXT, image)


def list_25(back: Back) -> Prepared:
    marker = back.images[-1 - back.turn % (len(back.images) // 2)]
    back.turn += 7
    return lambda: list_after(marker)


def list_after(marker: str) -> None:
    found = api.image_get_all(
        CONTEXT,
        filters={"visibility": "public"},
        marker=marker,
        limit=25,
        sort_key=["created_at", "id"],
        sort_dir=["desc", "desc"],
    )
    if len(found) != 25:
        raise AssertionError(f"{len(found)} images instead of 25")


def image_create(back: Back) -> Prepared:
    values = image_values()
    return lambda: api.image_create(CONTEXT, values)


def image_update(back: Back) -> Prepared:
    image = back.create_image()
    changes = {"name": "renamed", "properties": {"os_version": "13", "hw_disk_bus": "virtio"}}
    return lambda: api.image_update(CONTEXT, image, changes, purge_props=False)


def member_create(back: Back) -> Prepared:
    image = back.create_image()
    return lambda: api.image_member_create(CONTEXT, {"image_id": image, "member": "another"})


def tags_set(back: Back) -> Prepared:
    image = api.image_create(CONTEXT, image_values())["id"]
    return lambda: api.image_tag_set_all(CONTEXT, image, ["first", "second"])


def tags_replace(back: Back) -> Prepared:
    image = back.create_image()
    return lambda: api.image_tag_set_all(CONTEXT, image, ["third", "fourth"])


def image_destroy(back: Back) -> Prepared:
    image = back.create_image()
    return lambda: api.image_destroy(CONTEXT, image)


def namespace_create(back: Back) -> Prepared:
    values = namespace_values()
    return lambda: api.metadef_namespace_create(CONTEXT, values)


def namespace_get(back: Back) -> Prepared:
    return lambda: api.metadef_namespace_get(CONTEXT, back.namespace)


def namespace_list(back: Back) -> Prepared:
    return lambda: api.metadef_namespace_get_all(CONTEXT)


OPERATIONS: dict[str, Callable[[Back], Prepared]] = {
    operation.__name__: operation
    for operation in (
        image_get,
        tags_read,
        list_25,
        image_create,
        image_update,
        member_create,
        tags_set,
        tags_replace,
        image_destroy,
        namespace_create,
        namespace_get,
        namespace_list,
    )
}


def perform(back: Back, name: str, times: int) -> dict[str, list[float]]:
    seconds: list[float] = []
    round_trips: list[float] = []
    for _ in range(times):
        run = OPERATIONS[name](back)
        trips, begun = back.round_trips(), time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
        round_trips.append(back.round_trips() - trips)
    return {"seconds": seconds, "round_trips": round_trips}


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("url")
    arguments.add_argument("--images", type=int, default=300)
    options = arguments.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    back = Back(options.url, options.images)
    print("ready", file=answers)
    for line in sys.stdin:
        name, times = line.split()
        print(json.dumps(perform(back, name, int(times))), file=answers)


if __name__ == "__main__":
    main()
