"""Glance: one database in its phases, another at once; definitions of metadata; images that are purged."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path

from steps.workspace import Failed, Step, Workspace

MIGRATIONS = "glance/db/sqlalchemy/alembic_migrations"
DEFINITIONS = Path(sys.prefix) / "etc" / "glance" / "metadefs"


def steps(workspace: Workspace) -> list[Step]:
    def configuration(name: str) -> str:
        return workspace.configuration(name, f"[database]\nconnection = {workspace.url(name)}\n")

    phases, whole = configuration("glance_phases"), configuration("glance")

    def command(*words: str, configuration: str = phases, **expected: object) -> Step:
        return workspace.step("glance-manage", "db", *words, configuration=configuration, **expected)

    def deleted_images() -> None:
        now, long_ago = datetime.now(), datetime.now() - timedelta(days=90)
        dates = {"created_at": long_ago, "updated_at": long_ago}
        image = {
            **dates,
            "visibility": "private",
            "os_hidden": False,
            "min_disk": 0,
            "min_ram": 0,
            "protected": False,
        }
        workspace.insert(
            "glance",
            {
                "images": [
                    {**image, "id": "kept", "status": "active", "deleted": False},
                    {**image, "id": "recent", "status": "deleted", "deleted": True, "deleted_at": now},
                    {**image, "id": "old", "status": "deleted", "deleted": True, "deleted_at": long_ago},
                ],
                "image_properties": [
                    {
                        **dates,
                        "image_id": id,
                        "name": "n",
                        "value": "v",
                        "deleted": id != "kept",
                        "deleted_at": at,
                    }
                    for id, at in (("kept", None), ("old", long_ago))
                ],
            },
        )

    def definitions_are_loaded() -> str:
        ((loaded,),) = workspace.query("glance", "SELECT count(*) FROM metadef_namespaces")
        files = len(list(DEFINITIONS.glob("*.json")))
        if loaded != files or not files:
            raise Failed(f"{loaded} namespaces of {files} files")
        ((properties,),) = workspace.query("glance", "SELECT count(*) FROM metadef_properties")
        return f"{loaded} namespaces, {properties} properties"

    purge = ["purge", "--age_in_days", "30", "--max_rows", "100"]
    return [
        command("check", status=3, says="expand"),
        command("expand", says=r"Upgraded database to: \w*expand\w*"),
        # An empty database has no data to migrate, so that the next step would be the last one.
        command("check", status=5, says="contract"),
        command("migrate", says="[Mm]igrat"),
        command("contract", after=workspace.is_at_heads("glance_phases", MIGRATIONS, "contract")),
        command("check", says="[Uu]p to date|up-to-date|is not required|no need"),
        command(
            "sync",
            configuration=whole,
            after=workspace.is_at_heads("glance", MIGRATIONS, "contract"),
            says="synced",
        ),
        command("version", configuration=whole, says=r"\w*contract\w*"),
        command("load_metadefs", str(DEFINITIONS), configuration=whole, after=definitions_are_loaded),
        # These two stumble over Glance 33 itself, whatever the database is.
        command(
            "export_metadefs",
            str(workspace.folder),
            configuration=whole,
            status=1,
            says=r"TypeError: get_metadef_namespaces_table\(\) missing 1 required positional argument",
        ),
        command(
            "unload_metadefs", configuration=whole, after=workspace.holds("glance", metadef_namespaces=0)
        ),
        command(
            *purge,
            configuration=whole,
            before=deleted_images,
            after=workspace.holds("glance", images=3, image_properties=1),
        ),
        command(
            "purge_images_table",
            *purge[1:],
            configuration=whole,
            after=workspace.holds("glance", images=2),
        ),
        workspace.step(
            "glance-status",
            "upgrade",
            "check",
            configuration=whole,
            status=255,
            says="NoSuchOptError: no such option enabled_backends",
        ),
        *workspace.database_steps("glance_phases", "glance"),
        *workspace.database_steps("glance", "glance"),
    ]
