"""Placement: the schema, and a database that is in use while the command looks at it."""

from __future__ import annotations

from steps.workspace import Step, Workspace

MIGRATIONS = "placement/db/sqlalchemy/alembic"


def steps(workspace: Workspace) -> list[Step]:
    configuration = workspace.configuration(
        "placement", f"[placement_database]\nconnection = {workspace.url('placement')}\n"
    )
    stamped = workspace.configuration(
        "placement_stamped", f"[placement_database]\nconnection = {workspace.url('placement_stamped')}\n"
    )

    def command(*words: str, configuration: str = configuration, **expected: object) -> Step:
        return workspace.step("placement-manage", *words, configuration=configuration, **expected)

    def old_rows() -> None:
        """A provider without its root, an allocation without its consumer: what the check is about."""
        workspace.insert(
            "placement",
            {
                "resource_providers": [{"id": 1, "uuid": "a" * 36, "name": "host", "generation": 0}],
                "allocations": [
                    {"resource_provider_id": 1, "consumer_id": "b" * 36, "resource_class_id": 0, "used": 1}
                ],
            },
        )

    return [
        command("db", "sync", after=workspace.is_at_heads("placement", MIGRATIONS), sampled=True),
        command("db", "sync", after=workspace.is_at_heads("placement", MIGRATIONS)),
        command("db", "version", says=r"[0-9a-f]{12}"),
        command("db", "online_data_migrations", "--max-count", "10"),
        workspace.step(
            "placement-status", "upgrade", "check", configuration=configuration, says="Incomplete Consumers"
        ),
        workspace.step(
            "placement-status",
            "upgrade",
            "check",
            configuration=configuration,
            before=old_rows,
            sampled=True,
            status=2,
            says=r"Result: Failure|Result: Warning",
        ),
        command(
            "db",
            "online_data_migrations",
            after=workspace.holds("placement", consumers=1),
            says="create_incomplete_consumers",
            sampled=True,
        ),
        workspace.step("placement-status", "upgrade", "check", configuration=configuration, says="Success"),
        command("db", "sync", configuration=stamped),
        command(
            "db",
            "stamp",
            "head",
            configuration=stamped,
            after=workspace.is_at_heads("placement_stamped", MIGRATIONS),
        ),
        *workspace.database_steps("placement", "placement", sampled=True),
    ]
