"""Cinder: the schema, volumes that are purged, a quota that is mended."""

from __future__ import annotations

from datetime import datetime, timedelta

from steps.workspace import Failed, Step, Workspace

MIGRATIONS = "cinder/db/migrations"
SERVICE = "11111111-1111-1111-1111-111111111111"


def steps(workspace: Workspace) -> list[Step]:
    configuration = workspace.configuration(
        "cinder",
        f"[DEFAULT]\nstate_path = {workspace.folder}\n[database]\nconnection = {workspace.url('cinder')}\n",
    )

    def command(*words: str, **expected: object) -> Step:
        return workspace.step("cinder-manage", *words, configuration=configuration, **expected)

    def deleted_volumes() -> None:
        now, long_ago = datetime.now(), datetime.now() - timedelta(days=90)
        ((kind,),) = workspace.query("cinder", "SELECT id FROM volume_types LIMIT 1")
        service = {"uuid": SERVICE, "host": "h", "binary": "cinder-volume", "topic": "t", "deleted": False}
        common = {"volume_type_id": kind, "use_quota": True, "project_id": "p", "size": 1}
        common["service_uuid"] = SERVICE
        workspace.insert(
            "cinder",
            {
                "services": [service],
                "volumes": [
                    {**common, "id": "kept", "deleted": False},
                    {**common, "id": "recent", "deleted": True, "deleted_at": now},
                    {**common, "id": "old", "deleted": True, "deleted_at": long_ago},
                ],
                "volume_metadata": [
                    {"volume_id": "kept", "key": "k", "deleted": False},
                    {"volume_id": "old", "key": "k", "deleted": True, "deleted_at": long_ago},
                ],
            },
        )

    def wrong_usage() -> None:
        usage = {"project_id": "p", "resource": "volumes", "in_use": 7, "reserved": 0, "deleted": False}
        workspace.insert("cinder", {"quota_usages": [usage]})

    def usage_is_mended() -> str:
        found = workspace.query("cinder", "SELECT in_use FROM quota_usages WHERE resource = 'volumes'")
        if found != [(1,)]:
            raise Failed(f"the usage is {found}, and not that of the one volume there is")
        return "1 volume in use, and not 7"

    return [
        command("db", "sync", after=workspace.is_at_heads("cinder", MIGRATIONS)),
        command("db", "sync", after=workspace.is_at_heads("cinder", MIGRATIONS)),
        command("db", "version", says=r"[0-9a-f]{12}"),
        command("db", "online_data_migrations"),
        command(
            "db",
            "purge",
            "30",
            before=deleted_volumes,
            after=workspace.holds("cinder", volumes=2, volume_metadata=1),
        ),
        command("service", "list", says="cinder-volume"),
        command("quota", "check", before=wrong_usage, says="invalid usage saved=7 actual=1"),
        command("quota", "sync", after=usage_is_mended),
        command("quota", "check"),
        workspace.step(
            "cinder-status", "upgrade", "check", configuration=configuration, says="Upgrade Check Results"
        ),
        *workspace.database_steps("cinder", "cinder"),
    ]
