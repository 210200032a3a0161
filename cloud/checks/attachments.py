"""What is joined to servers: volumes, floating addresses, groups, snapshots."""

from __future__ import annotations

from typing import Any

from cloud.checks.servers import fault
from cloud.checks.tenancy import Tenancy
from cloud.progress import equal, fail, step, that, wait_for
from cloud.services.nova import HOSTS


def volumes(tenancy: Tenancy) -> None:
    compute, storage = tenancy.user.compute, tenancy.user.block_storage
    server = tenancy.servers[0]

    def becomes(volume: Any, status: str) -> None:
        def ask() -> bool:
            found = storage.get_volume(volume.id).status
            if found.startswith("error"):
                fail(f"the volume is in {found}")
            return bool(found == status)

        wait_for(f"the volume is {status}", ask)

    with step("Cinder and Nova: a volume is attached and detached (block device mappings)"):
        volume = storage.create_volume(name="data", size=1)
        becomes(volume, "available")
        attachment = compute.create_volume_attachment(server, volume_id=volume.id)
        becomes(volume, "in-use")
        found = list(compute.volume_attachments(server))
        equal("attachments", [(a.volume_id, a.device) for a in found], [(volume.id, attachment.device)])
        attached = compute.get_server(server.id).attached_volumes
        equal("the server's volumes", [a["id"] for a in attached], [volume.id])
        where = storage.get_volume(volume.id).attachments
        equal("the volume's server", [a["server_id"] for a in where], [server.id])
        compute.delete_volume_attachment(server, volume)
        becomes(volume, "available")
        equal("attachments", list(compute.volume_attachments(server)), [])
        storage.delete_volume(volume)
        wait_for("the volume is gone", lambda: not list(storage.volumes()))


def floating_address(tenancy: Tenancy) -> None:
    mine = tenancy.user.network
    server = tenancy.servers[1]
    with step("Neutron: a floating address is given to a server, and taken back"):
        (port,) = mine.ports(device_id=server.id)
        floating = mine.create_ip(floating_network_id=tenancy.external.id)
        floating = mine.update_ip(floating, port_id=port.id)
        equal("the inner address", floating.fixed_ip_address, port.fixed_ips[0]["ip_address"])

        def seen() -> bool:
            entries = tenancy.user.compute.get_server(server.id).addresses["inside"]
            return (floating.floating_ip_address, "floating") in {
                (entry["addr"], entry["OS-EXT-IPS:type"]) for entry in entries
            }

        wait_for("Nova shows the floating address", seen)
        mine.update_ip(floating, port_id=None)
        mine.delete_ip(floating)
        equal("floating addresses", list(mine.ips()), [])


def server_group(tenancy: Tenancy) -> None:
    """One server more than there are hosts, of which no two may be on the same."""
    compute = tenancy.user.compute
    with step("Nova: a server group keeps its servers apart; one too many finds no host"):
        group = compute.create_server_group(name="apart", policy="anti-affinity")
        members = [
            compute.create_server(
                name=f"apart-{number}",
                flavor_id=tenancy.flavor.id,
                image_id=tenancy.image.id,
                networks=[{"uuid": tenancy.network.id}],
                scheduler_hints={"group": group.id},
            )
            for number in range(len(HOSTS) + 1)
        ]

        def settled() -> list[Any] | None:
            found = [tenancy.admin.compute.get_server(member.id) for member in members]
            return found if all(s.status in ("ACTIVE", "ERROR") for s in found) else None

        found = wait_for("all are ACTIVE or ERROR", settled)
        placed = [server for server in found if server.status == "ACTIVE"]
        refused = [server for server in found if server.status == "ERROR"]
        equal("hosts", sorted(server.compute_host for server in placed), sorted(HOSTS))
        equal("servers without a host", len(refused), 1)
        # The scheduler sees that there is none, or, if it had not seen the others yet, the hosts do.
        reason = fault(tenancy, refused[0].id)
        that(f"the reason is given: {reason}", "No valid host" in reason or "Exhausted all hosts" in reason)
        group = compute.get_server_group(group.id)
        equal("members", sorted(group.member_ids), sorted(member.id for member in members))
        for member in members:
            compute.delete_server(member)
        ids = {member.id for member in members}
        wait_for("they are gone", lambda: not ids & {server.id for server in compute.servers()})
        equal("members", compute.get_server_group(group.id).member_ids, [])
        compute.delete_server_group(group)
        equal("groups", list(compute.server_groups()), [])


def snapshot(tenancy: Tenancy) -> None:
    """The fake driver sends Glance no data, so that this gives the image its data itself."""
    server = tenancy.servers[2]
    with step("Nova and Glance: a snapshot of a server is an image with what is known of it"):
        made = tenancy.user.compute.create_server_image(server, "snapshot", {"reason": "check"})

        def settled() -> bool:
            found = tenancy.user.compute.get_server(server.id)
            return found.task_state is None and found.status == "ACTIVE"

        wait_for("the server has no task", settled)
        image = tenancy.user.image.get_image(made.id)
        equal(
            "properties", (image.properties["image_type"], image.properties["reason"]), ("snapshot", "check")
        )
        equal("its server", image.instance_uuid, server.id)
        equal("its base", image.properties["base_image_ref"], tenancy.image.id)
        (action,) = [a for a in tenancy.admin.compute.server_actions(server) if a.action == "createImage"]
        events = tenancy.admin.compute.get_server_action(action, server).events
        equal("results", [event.result for event in events], ["Success"])
        found = [i.id for i in tenancy.user.image.images(visibility="private", instance_uuid=server.id)]
        equal("images of the server", found, [made.id])
        tenancy.user.image.delete_image(made.id)
        equal("images of the server", list(tenancy.user.image.images(instance_uuid=server.id)), [])
