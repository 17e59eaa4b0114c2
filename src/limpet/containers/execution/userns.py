"""A container in a user namespace of its own (`--userns auto`): root in it is nobody on the host.

What the host alone may do is done before or for the child: bind mounts are opened and mapped by the monitor, device
nodes (mknod(2) is refused in a user namespace) are bind mounts of the host's, limits are set from outside. /proc and
/sys are made while the host's are still to be seen: without that the kernel refuses them (`mount_too_revealing`).
"""

from __future__ import annotations

import errno
import os

from limpet.containers.execution import rootfs
from limpet.containers.execution.outcome import StartFailed
from limpet.errors import reason
from limpet.kernel import mounts, process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from typing import Any

    from limpet.kernel.userns import Mapped

    Config = dict[str, Any]

_ENGINE = ("proc", "sysfs")
_DEVICE = "device"
"""The type of what `open_sources` adds to the config's mounts; no runtime but this one sees it."""


def open_sources(config: Config, mapped: Mapped | None, given: Mapping[str, int]) -> dict[int, int]:
    """As `rootfs.open_sources`, the files mapped; device nodes become mounts of `config`. In the monitor.

    Without `mapped` the namespace is the one that we are in ourselves: nothing has to be mapped, nor can nodes be made.
    Raises StartFailed for a bind mount of a file system that can't be mapped.
    """
    config["mounts"] = [each for each in config["mounts"] if each["type"] != _DEVICE]
    trees = rootfs.open_sources(config, given)
    devices = [*rootfs.DEVICES, *config["linux"].get("devices", ())]
    if mapped is None:
        for device in devices:
            trees[len(config["mounts"])] = mounts.open_tree(_on_host(device))
            config["mounts"].append({"destination": device["path"], "type": _DEVICE})
        return trees
    for position, fd in trees.items():
        mount = config["mounts"][position]
        if mount["type"] == "cgroup" or f"{mount['source']}/".startswith(("/dev/", "/sys/")):
            continue
        if mount["destination"] in given:  # it is mapped already
            continue
        try:
            _map(fd, mapped)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            what = f"bind mount of {mount['source']}: its file system can't map ids for a user namespace"
            raise StartFailed(what, "copy it elsewhere, or --userns host", 125) from e
    home = mounts.tmpfs()
    for number, device in enumerate(devices):
        name = str(number)
        rootfs.make_node(name, device, home)
        trees[len(config["mounts"])] = fd = mounts.open_tree(name, dirfd=home)
        _map(fd, mapped)
        config["mounts"].append({"destination": device["path"], "type": _DEVICE})
    os.close(home)
    return trees


def _on_host(device: Config) -> str:
    """The host's own node of a device."""
    number = os.makedev(device["major"], device["minor"])
    try:
        if os.stat(device["path"]).st_rdev == number:
            return str(device["path"])
    except OSError:
        pass
    kind = "block" if device["type"] == "b" else "char"
    with open(f"/sys/dev/{kind}/{device['major']}:{device['minor']}/uevent", encoding="utf-8") as file:
        return next((f"/dev/{line[8:].strip()}" for line in file if line.startswith("DEVNAME=")), device["path"])


def _map(fd: int, mapped: Mapped) -> None:
    mounts.set_attributes(fd, mounts.MOUNT_ATTR_IDMAP, recursive=True, userns=mapped.fd)


def give(stdio: tuple[int, int, int], user: Config, mapped: Mapped) -> None:
    """Pipes are the program's own, so that it can open /dev/stdout again (runc `fixStdioPermissions`)."""
    for fd in set(stdio):
        if os.fstat(fd).st_mode & 0o170000 == 0o010000:
            os.fchown(fd, mapped.base + user["uid"], mapped.base + user["gid"])


def admit(pid: int, section: Config, mapped: Mapped, channel: socket.socket) -> None:
    """Gives the child its ids, and what it may not give itself; then it goes on."""
    try:
        mapped.write(pid)
        for limit in section.get("rlimits", ()):
            process.set_limit(limit["type"], limit["soft"], limit["hard"], pid=pid)
        if section.get("oomScoreAdj"):
            with open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
                file.write(str(section["oomScoreAdj"]))
        channel.send(b"M")
    except OSError as e:
        os.kill(pid, signals.SIGKILL)
        raise StartFailed(f"a user namespace: {reason(e)}", "--userns host", 125) from e


def admit_alone(pid: int, linux: Config, channel: socket.socket) -> None:
    """As `admit`, where the one id that we have gets another number."""
    try:
        for name, mapping in (("uid_map", linux["uidMappings"][0]), ("gid_map", linux["gidMappings"][0])):
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write(f"{mapping['containerID']} {mapping['hostID']} {mapping['size']}")
        channel.send(b"M")
    except OSError as e:
        os.kill(pid, signals.SIGKILL)
        raise StartFailed(f"a user namespace: {reason(e)}", "--user root", 125) from e


def enter(section: Config, channel: socket.socket) -> None:
    """In the child: becomes root of the namespace, once the monitor has given it its ids."""
    channel.recv(1)
    section.pop("rlimits", None)
    section.pop("oomScoreAdj", None)
    process.become_root()


def open_own(config: Config, trees: dict[int, int]) -> None:
    """Mounts of our own namespaces that are only allowed while the host's are visible."""
    for position, mount in enumerate(config["mounts"]):
        if mount["type"] in _ENGINE:
            flags, _, _ = rootfs.parse_options(mount["options"])
            with mounts.FsContext(mount["type"]) as context:
                trees[position] = context.mount(rootfs.attributes(flags))
