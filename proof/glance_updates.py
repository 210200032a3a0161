"""Glance's own database API under contention: many clients update images, all of them one, or each its own.

    python -m proof.glance_updates URL [--images 1] [--clients 8] [--updates 50]

Makes Glance's tables and the images on an empty database, then runs `image_update` in many processes
(threads, on a memory store). Prints one JSON object:

    updates       calls of image_update
    reached       of these, how many ended with DBDeadlock: what the callers of the database API see
    retried       runs of the transaction by Glance's own retry (oslo_db's wrap_db_retry)
    commits, conflicts, extensions, replays, raised     ROME's counters
    seconds       of the slowest client
    wrong         updates that were acknowledged and are not there

`glance` must be installed where this runs. It is the program, and is not changed; the one wrapper counts.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import glance.context
import glance.db.sqlalchemy.api as api
from glance.db.sqlalchemy import models, models_metadef
from oslo_config import cfg
from oslo_db import exception
from oslo_db import options as database_options

import rome
from proof import workers

CONTEXT = glance.context.RequestContext(is_admin=True, project_id="proof")

_runs = threading.local()
_image_update = api._image_update


def _counted_update(*arguments: Any, **options: Any) -> Any:
    _runs.number = getattr(_runs, "number", 0) + 1
    return _image_update(*arguments, **options)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(prog="proof.glance_updates")
    parser.add_argument("url")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--updates", type=int, default=50)
    options = parser.parse_args(arguments)
    cfg.CONF([], project="glance", default_config_files=[])
    database_options.set_defaults(cfg.CONF)
    cfg.CONF.set_override("connection", options.url, "database")
    api._image_update = _counted_update
    engine = api.get_engine()
    models.register_models(engine)
    models_metadef.register_models(engine)
    images = [_new_image(number) for number in range(options.images)]
    before = Counter(asdict(rome.counters_of(engine)))
    engine.dispose()
    results = workers.run(options.url, options.clients, partial(_work, options.url, images, options.updates))
    counts: Counter[str] = Counter()
    for _, found in results:
        counts.update(found)
    if workers.lives_in_one_process(options.url):
        counts.update(asdict(rome.counters_of(engine)))
        counts.subtract(before)
    wrong = [
        f"client {client}: {seen}"
        for client in range(options.clients)
        if (seen := _last_of(images, client)) != str(results[client][1]["last"])
    ]
    del counts["last"]
    seconds = max(seconds for seconds, _ in results)
    json.dump({**counts, "seconds": seconds, "wrong": wrong}, sys.stdout)


def _new_image(number: int) -> str:
    values = {
        "id": str(uuid.uuid4()),
        "name": f"image {number}",
        "status": "active",
        "owner": "proof",
        "visibility": "public",
        "disk_format": "raw",
        "container_format": "bare",
        "size": 1,
    }
    identifier: str = api.image_create(CONTEXT, values)["id"]
    return identifier


def _last_of(images: list[str], client: int) -> str:
    """The number of the client's last update, by what it has left."""
    image = api.image_get(CONTEXT, images[client % len(images)])
    found = [p["value"] for p in image["properties"] if p["name"] == f"client{client}" and not p["deleted"]]
    return found[0] if found else "0"


def _work(url: str, images: list[str], updates: int, client: int, begin: float) -> tuple[float, Counter[str]]:
    counts: Counter[str] = Counter(updates=0, reached=0, retried=0, last=0)
    _runs.number = 0
    image = images[client % len(images)]
    for number in range(1, updates + 1):
        counts["updates"] += 1
        properties = {f"client{client}": str(number)}
        try:
            api.image_update(CONTEXT, image, {"name": f"{client}.{number}", "properties": properties})
            counts["last"] = number
        except exception.DBDeadlock:
            counts["reached"] += 1
    counts["retried"] = _runs.number - updates
    if not workers.lives_in_one_process(url):
        counts.update(asdict(rome.counters_of(api.get_engine())))
    return time.monotonic() - begin, counts


if __name__ == "__main__":
    main()
