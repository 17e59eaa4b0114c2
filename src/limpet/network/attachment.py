"""The programs of `programs` on the parent of all containers' groups, and the entry that each container has there.

They are loaded and attached when the first container comes, by whoever starts it, and found again by all who follow:
an attached program lives as long as the group, and its maps with it. Nothing is pinned. When the last container has
gone the group goes, and the programs with it. Another release's programs stay beside ours, with maps of their own.

`owners` says for the whole machine whose an address is: stores know nothing of each other.
"""

from __future__ import annotations

import fcntl
import os
import struct

from limpet.errors import Conflict
from limpet.kernel import bpf, bpfmaps, cgroup
from limpet.network import addresses, loading, local
from limpet.network.loading import FINDER, FINDER_HOOK, LISTENER, LISTENER_HOOK, Maps, name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
else:
    import _socket as socket

_NETNS_COOKIE = 71  # SO_NETNS_COOKIE
_ENTRY = struct.Struct("<4sI16sQ")  # see `assembly.ENTRY`
_HAS6, _LOOPBACK, _PUBLISHED = 1, 2, 4


def give(group: str, run: str, own4: str, own6: str, *, published: bool = False) -> None:
    """Makes an address that of the container whose group's path that is.

    `own6` "": there is none. `run`: a directory for what is remembered until the next boot. `published`: its listeners
    are kept for `publication`. Raises Conflict if the address is that of another container that runs, OSError where the
    kernel can't do it.
    """
    group = cgroup.outer(group)
    parent = os.path.dirname(group)
    directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    maps = None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        maps = find(directory) or loading.attach(directory, run, cgroup.level(group))
        number = os.stat(group).st_ino
        _own(maps, parent, own4, number)
        if own6 and addresses.is_loopback(own4):
            # Elsewhere `collect` would not see whose it is.
            own6 = local.add(own6) if parent in cgroup.parents() else ""
        if own6:
            bpfmaps.put(maps.owners, _keys("", addresses.packed6(own6))[0], struct.pack("<Q", number))
        flags = (_HAS6 if own6 else 0) | (_LOOPBACK if addresses.is_loopback(own4) else 0)
        flags |= _PUBLISHED if published else 0
        packed6 = (addresses.packed6(own6) if own6 else None) or bytes(16)
        value = _ENTRY.pack(socket.inet_aton(own4), flags, packed6, netns_cookie())
        bpfmaps.put(maps.containers, struct.pack("<Q", number), value)
    finally:
        if maps is not None:
            maps.close()
        os.close(directory)


def share(group: str, other: str) -> None:
    """Gives a container that is in another's network the other's address too; nothing if the other has none."""
    group, other = cgroup.outer(group), cgroup.outer(other)
    maps = attached(os.path.dirname(group))
    if maps is None:
        return
    try:
        value = bpfmaps.get(maps.containers, struct.pack("<Q", os.stat(other).st_ino), _ENTRY.size)
        if value is not None:
            bpfmaps.put(maps.containers, struct.pack("<Q", os.stat(group).st_ino), value)
    except FileNotFoundError:
        pass  # it ended just now
    finally:
        maps.close()


def take(group: str) -> None:
    """Takes the entry of a container away, of which the group is still there. What is not there is fine."""
    group = cgroup.outer(group)
    try:
        number = os.stat(group).st_ino
    except FileNotFoundError:
        return
    maps = attached(os.path.dirname(group))
    if maps is None:
        return
    try:
        key = struct.pack("<Q", number)
        value = bpfmaps.get(maps.containers, key, _ENTRY.size)
        if value is not None:
            _drop(maps.owners, maps.containers, key, value)
    finally:
        maps.close()


def collect() -> tuple[list[str], list[str]]:
    """Takes away what dead containers of any store and any release left: entries of maps, IPv6 addresses of `lo`.

    (IPv4 addresses that are somebody's now, IPv6 addresses that were taken away).
    """
    there = local.ours()  # first: whose address is on `lo` has its entry, or is about to go
    living: list[str] = []
    for parent in cgroup.parents():
        try:
            directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            living += _living(directory, groups(parent))
        except OSError:
            return living, []  # a kernel without these hooks
        finally:
            os.close(directory)
    kept = {addresses.ipv6_of(own4) for own4 in living}
    return living, local.remove_all([own6 for own6 in there if own6 not in kept])


def _living(directory: int, there: dict[int, str]) -> list[str]:
    """The IPv4 addresses of `there`; the entries of all others are dropped."""
    living = []
    for maps in _all(directory):
        try:
            for key, value in bpfmaps.items(maps["containers"], 8, _ENTRY.size):
                if int.from_bytes(key, "little") in there:
                    living.append(socket.inet_ntoa(value[:4]))
                else:
                    _drop(maps["owners"], maps["containers"], key, value)
        finally:
            for descriptor in maps.values():
                os.close(descriptor)
    return living


def attached(parent: str) -> Maps | None:
    """The maps of the programs on that group; None if there are none."""
    try:
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return find(directory)
    except OSError:
        return None  # a kernel without these hooks
    finally:
        os.close(directory)


def find(directory: int) -> Maps | None:
    """The same by a descriptor of the group. Raises OSError where the kernel doesn't know the hooks."""
    for found in _all(directory, name(FINDER)):
        return Maps(**found)
    return None


def listens(directory: int) -> bool:
    """Whether listeners are put where `publication` finds them."""
    return any(called == name(LISTENER) for _, called, _ in bpf.programs(directory, LISTENER_HOOK))


def _all(directory: int, only: str = "") -> Iterator[dict[str, int]]:
    """Descriptors of the maps of each release's programs on the group, by name; of the program `only`, if given."""
    for _, called, ids in bpf.programs(directory, FINDER_HOOK):
        if called == only or (not only and called[:1] == "l" and called.endswith(f"_{FINDER}")):
            yield bpfmaps.opened(ids)


def _own(maps: Maps, parent: str, own4: str, number: int) -> None:
    (key,) = _keys(own4, None)
    value = struct.pack("<Q", number)
    try:
        bpfmaps.put(maps.owners, key, value, bpfmaps.ONLY_NEW)
    except FileExistsError:
        other = int.from_bytes(bpfmaps.get(maps.owners, key, 8) or b"", "little")
        if other != number and other in (others := groups(parent)):
            name = cgroup.name_of(others[other])[:12]
            raise Conflict(
                f"the address {own4} is that of container {name}, which runs", "give another with --address"
            ) from None
        bpfmaps.put(maps.owners, key, value)


def _drop(owners: int, containers: int, key: bytes, value: bytes) -> None:
    packed4, flags, packed6, _ = _ENTRY.unpack(value)
    for owned in _keys(socket.inet_ntoa(packed4), packed6 if flags & _HAS6 else None):
        if bpfmaps.get(owners, owned, 8) == key:
            bpfmaps.drop(owners, owned)
    bpfmaps.drop(containers, key)


def _keys(own4: str, packed6: bytes | None) -> list[bytes]:
    """Of `owners`: both families have 16 bytes."""
    four = [bytes(10) + b"\xff\xff" + socket.inet_aton(own4)] if own4 else []
    return [*four, *([packed6] if packed6 else [])]


def groups(parent: str) -> dict[int, str]:
    """The groups below it that there are: id → name."""
    with os.scandir(parent) as entries:
        return {entry.inode(): entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}


def netns_cookie() -> int:
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        return int.from_bytes(channel.getsockopt(socket.SOL_SOCKET, _NETNS_COOKIE, 8), "little")
    finally:
        channel.close()
