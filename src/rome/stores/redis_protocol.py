"""The scripts on the server: their arguments and their replies.

    read.lua     answers a `Read`, after validating the read set where it comes along
    commit.lua   validates a read set and writes
    past.lua     what was there before, for both
    leases.lua   what locks are made of (its arguments are made in `rome.stores.redis_leases`)

Arguments are one flat list of byte strings and numbers, each group preceded by its length. Versions
are 8 bytes, big-endian. A range that was read is sent as its bounds, the number of its entries and one
digest over their keys and versions, however many there are; the script makes the same digest of what
it finds. `encoded_…` and the scripts must be changed together.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from struct import Struct
from typing import Any

from rome.stores.base import Entry, Read, ReadSet, Reply, Scan, Writes
from rome.stores.redis_connection import Argument

UNMOVED, FORWARD, FORWARD_OR_PAST, IN_THE_PAST = b"0", b"1", b"2", b"3"
"""What read.lua is to do about the snapshot's version."""
MOVED, ANSWER, DIFFERENT, PAST = 0, 1, 2, 3
"""What its reply begins with."""

_NO_LIMIT = -1
_GREATEST = 2**63 - 1
_number = int.from_bytes
_version = Struct(">Q").unpack_from
_make = tuple.__new__


class Script:
    """A script of the server, by its digest; with its text where the server does not know it yet."""

    def __init__(self, *parts: str) -> None:
        folder = files("rome.stores") / "redis_scripts"
        self.text = "".join((folder / f"{part}.lua").read_bytes().decode() for part in ("common", *parts))
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


READ = Script("past", "read")
COMMIT = Script("past", "commit")
LEASES = Script("leases")


def encoded_reads(reads: ReadSet) -> list[Argument]:
    """A read set as `changed` in common.lua takes it."""
    versions = b"".join([version.to_bytes(8) for version in reads.keys.values()])
    arguments: list[Argument] = [len(reads.keys), versions, *reads.keys, len(reads.presence)]
    arguments.append("".join(["1" if there else "0" for there in reads.presence.values()]))
    arguments += reads.presence
    arguments.append(len(reads.ranges))
    for (start, end), pairs in reads.ranges:
        arguments += (start, end, len(pairs), digest(pairs))
    return arguments


def digest(pairs: tuple[tuple[bytes, int], ...]) -> str:
    """What the script must find in a range: SHA-1 over each key's length, the key, its version."""
    pieces = [b"%d:%b%b" % (len(key), key, version.to_bytes(8)) for key, version in pairs]
    return hashlib.sha1(b"".join(pieces), usedforsecurity=False).hexdigest()


def encoded_leases(leases: dict[str, int]) -> list[Argument]:
    """Leases, name → fencing number, as `lost_lease` in common.lua takes them."""
    arguments: list[Argument] = [len(leases)]
    for pair in leases.items():
        arguments += pair
    return arguments


def encoded_request(request: Read) -> list[Argument]:
    """A request as read.lua takes it."""
    arguments: list[Argument] = [len(request.keys), *request.keys, len(request.presence), *request.presence]
    arguments.append(len(request.scans))
    for (start, end), limit, reverse, follow in request.scans:
        how = ("R" if follow else "r") if reverse else ("F" if follow else "f")
        arguments += (start, end, _NO_LIMIT if limit is None else min(limit, _GREATEST), how)
    arguments += (len(request.counters), *request.counters, len(request.allocate))
    for counter, count in request.allocate.items():
        arguments += (counter, count)
    return arguments


def encoded_writes(writes: Writes) -> list[Argument]:
    """Writes as commit.lua takes them."""
    arguments: list[Argument] = [len(writes.puts)]
    for pair in writes.puts.items():
        arguments += pair
    arguments += (len(writes.deletes), *writes.deletes, len(writes.adds))
    for counter, amount in writes.adds.items():
        arguments += (counter, amount)
    arguments.append(len(writes.floors))
    for counter, least in writes.floors.items():
        arguments += (counter, least)
    return arguments


def decoded_reply(request: Read, reply: list[Any]) -> Reply:
    """The reply of read.lua."""
    _, _, values, presence, scans, counters, allocated = reply
    answer = Reply(
        values={key: entry(key, stored) for key, stored in zip(request.keys, values, strict=True)},
        presence=dict(zip(request.presence, map(bool, presence), strict=True)),
        counters={name: int(value or 0) for name, value in zip(request.counters, counters, strict=True)},
        allocated={
            name: last - count + 1
            for (name, count), last in zip(request.allocate.items(), allocated, strict=True)
        },
    )
    for scan, found in zip(request.scans, scans, strict=True):
        answer.scans.append(scanned(scan, found, answer.values))
    return answer


def scanned(scan: Scan, found: list[Any], values: dict[bytes, Entry | None]) -> list[Entry]:
    """The entries of one scan; those it followed go to `values`."""
    # tuple.__new__ makes an Entry in half the time that Entry() takes; lists of rows are hot.
    entries = [
        _make(Entry, (key, stored[8:], _version(stored)[0]))
        for key, stored in zip(found[0], found[1], strict=True)
    ]
    if scan.follow:
        for source, stored in zip(entries, found[2], strict=True):
            values[source.value] = entry(source.value, stored)
    return entries


def entry(key: bytes, stored: bytes | None) -> Entry | None:
    return None if stored is None else Entry(key, stored[8:], _number(stored[:8]))
