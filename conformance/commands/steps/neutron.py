"""Neutron: one database in two phases, another at once. Both must end with the same schema."""

from __future__ import annotations

from steps.workspace import Failed, Step, Workspace

MIGRATIONS = "neutron/db/migration/alembic_migrations"


def steps(workspace: Workspace) -> list[Step]:
    def configuration(name: str) -> str:
        return workspace.configuration(
            name,
            f"[DEFAULT]\nstate_path = {workspace.folder}\ncore_plugin = ml2\n"
            f"[database]\nconnection = {workspace.url(name)}\n",
        )

    phases, whole = configuration("neutron_phases"), configuration("neutron")

    def command(*words: str, configuration: str = phases, **expected: object) -> Step:
        return workspace.step("neutron-db-manage", *words, configuration=configuration, **expected)

    def same_schema() -> str:
        def schema(name: str) -> dict[str, str]:
            sql = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
            return {
                object: " ".join(sorted(text.replace(",", " ").split()))
                for object, text in workspace.query(name, sql)
            }

        one, other = schema("neutron_phases"), schema("neutron")
        different = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
        if different:
            raise Failed(f"in two phases and at once, these come out differently: {different[:5]}")
        return f"the same {len(one)} tables and indexes in two phases and at once"

    return [
        command("upgrade", "--expand", after=workspace.is_at_heads("neutron_phases", MIGRATIONS, "expand")),
        command("has_offline_migrations", says="contract", status=1),
        command("upgrade", "--contract", after=workspace.is_at_heads("neutron_phases", MIGRATIONS)),
        command("has_offline_migrations", says="No offline|no"),
        command("current", says=r"\(head\)"),
        command("check_migration"),
        command(
            "upgrade",
            "heads",
            configuration=whole,
            after=workspace.is_at_heads("neutron", MIGRATIONS),
            sampled=True,
        ),
        command("upgrade", "heads", configuration=whole, after=same_schema),
        command("current", "--verbose", configuration=whole, says=r"\(head\)"),
        # The warnings are about options that this configuration does not set.
        workspace.step(
            "neutron-status",
            "upgrade",
            "check",
            configuration=whole,
            status=1,
            says=r"Check: Port MAC address sanity check +\|\n\| Result: Success",
        ),
        *workspace.database_steps("neutron_phases", "neutron"),
        *workspace.database_steps("neutron", "neutron", sampled=True),
    ]
