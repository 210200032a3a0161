"""Keystone: one database in two phases, another at once, and the first user."""

from __future__ import annotations

import getpass
import grp
import os

from steps.workspace import Failed, Step, Workspace, all_of

MIGRATIONS = "keystone/common/sql/migrations"


def steps(workspace: Workspace) -> list[Step]:
    def configuration(name: str) -> str:
        keys = workspace.folder / f"{name}-keys"
        return workspace.configuration(
            name,
            f"[database]\nconnection = {workspace.url(name)}\n"
            f"[fernet_tokens]\nkey_repository = {keys}\n[credential]\nkey_repository = {keys}-credential\n",
        )

    phases, whole = configuration("keystone_phases"), configuration("keystone")

    def ids(table: str, name: str) -> list[str]:
        return [
            id
            for (id,) in workspace.query(
                "keystone", f"SELECT id FROM {table} WHERE name = :called", called=name
            )
        ]

    def admin_is_admin() -> str:
        (user,) = workspace.query("keystone", "SELECT user_id FROM local_user WHERE name = 'admin'")
        found = workspace.query(
            "keystone",
            "SELECT count(*) FROM assignment WHERE type = 'UserProject' AND actor_id = :user"
            " AND target_id = :project AND role_id = :role",
            user=user[0],
            project=ids("project", "admin")[0],
            role=ids("role", "admin")[0],
        )
        if found != [(1,)]:
            raise Failed(f"admin has {found[0][0]} assignments on the project admin")
        return "admin has the role admin on the project admin"

    first_user = ["bootstrap", "--bootstrap-password", "secret", "--bootstrap-service-name", "keystone"]
    first_user += ["--bootstrap-region-id", "one"]
    for interface in ("public", "internal", "admin"):
        first_user += [f"--bootstrap-{interface}-url", "http://127.0.0.1:5000/v3"]
    setup = ("fernet_setup", "credential_setup")
    owner = ["--keystone-user", getpass.getuser(), "--keystone-group", grp.getgrgid(os.getgid()).gr_name]
    rows = {"local_user": 1, "role": 5, "service": 1, "endpoint": 3, "region": 1}
    return [
        workspace.step("keystone-manage", "db_sync", "--check", configuration=phases, status=2),
        workspace.step(
            "keystone-manage",
            "db_sync",
            "--expand",
            configuration=phases,
            after=workspace.is_at_heads("keystone_phases", MIGRATIONS, "expand"),
        ),
        workspace.step("keystone-manage", "db_sync", "--check", configuration=phases, status=4),
        workspace.step(
            "keystone-manage",
            "db_sync",
            "--contract",
            configuration=phases,
            after=workspace.is_at_heads("keystone_phases", MIGRATIONS),
        ),
        workspace.step("keystone-manage", "db_sync", "--check", configuration=phases),
        workspace.step(
            "keystone-manage",
            "db_sync",
            configuration=whole,
            after=workspace.is_at_heads("keystone", MIGRATIONS),
        ),
        workspace.step("keystone-manage", "db_version", configuration=whole, says=r"[0-9a-f]{8,}"),
        *(workspace.step("keystone-manage", keys, *owner, configuration=whole) for keys in setup),
        workspace.step(
            "keystone-manage",
            *first_user,
            configuration=whole,
            after=all_of(workspace.holds("keystone", **rows), admin_is_admin),
        ),
        workspace.step(
            "keystone-manage",
            *first_user,
            configuration=whole,
            after=all_of(workspace.holds("keystone", **rows), admin_is_admin),
        ),
        workspace.step("keystone-manage", "trust_flush", configuration=whole),
        workspace.step("keystone-manage", "mapping_purge", "--all", configuration=whole),
        workspace.step(
            "keystone-status", "upgrade", "check", configuration=whole, says="Upgrade Check Results"
        ),
        *workspace.database_steps("keystone_phases", "keystone"),
        *workspace.database_steps("keystone", "keystone"),
    ]
