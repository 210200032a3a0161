"""Nova: three databases and their cells; rows that are archived and purged."""

from __future__ import annotations

from datetime import datetime, timedelta

from steps.workspace import Failed, Step, Workspace, all_of

API = "nova/db/api/migrations"
MAIN = "nova/db/main/migrations"
INSTANCE = "11111111-1111-1111-1111-111111111111"
KEPT = "22222222-2222-2222-2222-222222222222"
HOST = "33333333-3333-3333-3333-333333333333"


def steps(workspace: Workspace) -> list[Step]:
    configuration = workspace.configuration(
        "nova",
        f"[DEFAULT]\nstate_path = {workspace.folder}\n"
        f"[api_database]\nconnection = {workspace.url('nova_api')}\n"
        f"[database]\nconnection = {workspace.url('nova')}\n",
    )

    def command(*words: str, **expected: object) -> Step:
        return workspace.step("nova-manage", *words, configuration=configuration, **expected)

    def cells(*names: str) -> str:
        found = dict(workspace.query("nova_api", "SELECT name, database_connection FROM cell_mappings"))
        if set(found) != set(names):
            raise Failed(f"the cells are {sorted(found)}, and not {sorted(names)}")
        if found["cell0"] != workspace.url("nova_cell0"):
            raise Failed(f"cell0 is said to be at {found['cell0']}")
        return f"cells {', '.join(sorted(found))}"

    def a_host() -> None:
        service = {
            "host": "h1",
            "binary": "nova-compute",
            "topic": "compute",
            "report_count": 1,
            "version": 70,
        }
        node = {
            "uuid": HOST,
            "service_id": 1,
            "host": "h1",
            "hypervisor_hostname": "h1",
            "mapped": 0,
            "deleted": 0,
        }
        workspace.insert(
            "nova", {"services": [{"id": 1, **service, "uuid": HOST, "deleted": 0}], "compute_nodes": [node]}
        )

    def instances() -> None:
        long_ago = datetime.now() - timedelta(days=90)
        dates = {"created_at": long_ago, "updated_at": long_ago}
        rows = [
            {**dates, "id": 1, "uuid": INSTANCE, "deleted": 1, "deleted_at": long_ago, "project_id": "p"},
            {**dates, "id": 2, "uuid": KEPT, "deleted": 0, "project_id": "p", "user_id": "u"},
        ]
        extra = [{"id": row["id"], "instance_uuid": row["uuid"], "deleted": row["deleted"]} for row in rows]
        metadata = [
            {"instance_uuid": INSTANCE, "key": f"k{n}", "value": "v", "deleted": 1} for n in range(50)
        ]
        workspace.insert("nova", {"instances": rows, "instance_extra": extra, "instance_metadata": metadata})

    archived = all_of(
        workspace.holds("nova", instances=1, instance_extra=1, instance_metadata=0),
        # online_data_migrations has left a deleted instance of its own, to mark where it was.
        workspace.holds("nova", shadow_instances=2, shadow_instance_extra=2, shadow_instance_metadata=50),
    )
    connection = ["--database_connection", workspace.url("nova"), "--transport-url", "rabbit://127.0.0.1"]
    return [
        command("api_db", "sync", after=workspace.is_at_heads("nova_api", API)),
        command("api_db", "version", says=r"[0-9a-f]{12}"),
        command("cell_v2", "map_cell0", after=lambda: cells("cell0")),
        command(
            "db",
            "sync",
            after=all_of(workspace.is_at_heads("nova", MAIN), workspace.is_at_heads("nova_cell0", MAIN)),
        ),
        command("db", "version", says=r"[0-9a-f]{12}"),
        command(
            "cell_v2", "create_cell", "--name", "cell1", *connection, after=lambda: cells("cell0", "cell1")
        ),
        command("cell_v2", "list_cells", says="cell1"),
        command("cell_v2", "discover_hosts", "--verbose", says="Found 2 cell mappings"),
        command(
            "cell_v2",
            "discover_hosts",
            "--verbose",
            before=a_host,
            says="Creating host mapping for compute host 'h1'",
            after=workspace.holds("nova_api", host_mappings=1),
        ),
        command("cell_v2", "list_hosts", says=r"cell1.*h1"),
        command("cell_v2", "simple_cell_setup", "--transport-url", "none:///", says="already setup"),
        command("db", "online_data_migrations", before=instances, says="Running batches"),
        command(
            "db",
            "archive_deleted_rows",
            "--verbose",
            "--until-complete",
            status=1,
            says="shadow_instances|instances",
            after=archived,
        ),
        command("db", "archive_deleted_rows", "--verbose", says="Nothing was archived"),
        command(
            "db",
            "purge",
            "--all",
            "--verbose",
            status=0,
            says="purged|Purged|Deleted",
            after=workspace.holds(
                "nova", instances=1, shadow_instances=0, shadow_instance_extra=0, shadow_instance_metadata=0
            ),
        ),
        command("db", "purge", "--all", status=3),
        # No Placement is configured here: that is the one failure.
        workspace.step(
            "nova-status",
            "upgrade",
            "check",
            configuration=configuration,
            status=2,
            says=r"Check: Cells v2 +\|\n\| Result: Success",
        ),
        *workspace.database_steps("nova_api", "nova_api"),
        *workspace.database_steps("nova", "nova"),
        *workspace.database_steps("nova_cell0", "nova"),
    ]
