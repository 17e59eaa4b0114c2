"""The driver `local`: a directory of the store; with options a file system that is mounted there while it is used.

`-o type=tmpfs|nfs|ext4|none…`, `device=…`, `o=…` are mount(8)'s, as in Docker (moby `volume/local/local_unix.go`): the
kernel is asked directly, with no mount helper. A device that is a file goes through a loop device.
"""

from __future__ import annotations

import errno
import os
import stat

from limpet.containers.execution import rootfs
from limpet.containers.mounts import quota
from limpet.errors import Conflict, Invalid, LimpetError, Refused
from limpet.kernel import fs, idmap, loop, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.store.store import Store

_KNOWN = ("type", "device", "o", "size")
_IMAGE = "image"
"""A file beside the volume's directory: the file system of one with a size, where there are no project quotas."""


class Local:
    name = "local"

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, volume: str, options: dict[str, str]) -> dict[str, str]:
        check(options)
        if needs_mount(options) and not _is_bind(options) and idmap.nested():
            what = f"a volume of type {options['type']} is mounted for all who use it, which only root can do"
            raise Refused(what, "--mount type=tmpfs is for one container", exit_code=1)
        if "size" not in options:
            return options
        size = quota.size_of(options, "-o")
        place = self._place(volume)
        os.makedirs(place, exist_ok=True)
        if quota.hold(self._store, [place], size):
            return options
        if idmap.nested():
            what = "a volume with a size is a file system of its own, which only root can mount"
            raise Refused(what, "leave out -o size", exit_code=1)
        image = f"{self._store.volume_path(volume)}/{_IMAGE}"
        _make_image(image, size)
        return {**options, "type": "ext4", "device": _IMAGE}

    def mount(self, volume: str, options: dict[str, str], user: str) -> str:
        place = self._place(volume)
        os.makedirs(place, exist_ok=True)
        if needs_mount(options) and place not in mounts.below(place):
            own = options.get("device") == _IMAGE
            if own:
                options = {**options, "device": f"{self._store.volume_path(volume)}/{_IMAGE}"}
            try:
                _mount(place, options)
                if own:
                    _tidy(place)
            except OSError as e:
                what = f"volume {volume}: mounting {options.get('device', '')} ({options.get('type') or 'bind'})"
                raise LimpetError(f"{what}: {_reason(e, options)}", f"`limpet volume inspect {volume}`") from e
        return place

    def unmount(self, volume: str, options: dict[str, str], user: str, *, last: bool) -> None:
        place = self._place(volume)
        if not last or not needs_mount(options):
            return
        points = mounts.below(place)
        if points and options.get("device") == _IMAGE:
            _give_back(place)
        for point in reversed(points):
            try:
                mounts.umount(point, mounts.UMOUNT_NOFOLLOW)
            except OSError:
                mounts.umount(point, mounts.UMOUNT_NOFOLLOW | mounts.MNT_DETACH)  # somebody stands in it

    def remove(self, volume: str, options: dict[str, str]) -> None:
        """What was mounted is left alone; the directory is the caller's to take."""
        self.unmount(volume, options, "", last=True)
        quota.release(self._place(volume))
        if mounts.below(self._place(volume)):
            raise Conflict(f"remove {volume}: something is mounted in it", f"umount {self._place(volume)}", exit_code=1)

    def usage(self, volume: str) -> int | None:
        from limpet.images.leftovers import tree_bytes

        return tree_bytes(self._store.volume_path(volume))

    def _place(self, volume: str) -> str:
        return f"{self._store.volume_path(volume)}/_data"


def needs_mount(options: dict[str, str]) -> bool:
    return bool(options.get("device") or options.get("type"))


def check(options: dict[str, str]) -> None:
    """Raises Invalid."""
    for key in options:
        if key not in _KNOWN:
            raise Invalid(f"invalid option '{key}' of a volume", f"the driver local knows {', '.join(_KNOWN)}")
    kind, device = options.get("type", ""), options.get("device", "")
    if "size" in options:
        quota.size_of({"size": options["size"]}, "-o")
        if len(options) > 1:
            raise Invalid("a volume has a size or is mounted from a device, not both", "for a tmpfs, -o o=size=100m")
        return
    if not needs_mount(options):
        if options.get("o"):
            raise Invalid("a volume with -o o=… needs device and type", "-o type=tmpfs -o device=tmpfs -o o=size=100m")
        return
    if not device:
        raise Invalid(f"a volume of type {kind} needs a device", f"-o device=…, for a tmpfs {kind}")
    if not kind and not _is_bind(options):
        raise Invalid(f"a volume of device {device} needs a type", "-o type=ext4, or -o type=none -o o=bind")
    if _is_bind(options) and not device.startswith("/"):
        raise Invalid(f"a volume of device {device}: a directory is named by its whole path")


def _make_image(path: str, size: int) -> None:
    """A sparse file with an empty ext4: it takes what is written."""
    import subprocess

    with open(path, "wb") as file:
        file.truncate(size)
    try:
        command = ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", path]
        made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        problem = made.stderr.strip().split("\n")[-1] if made.returncode else ""
    except FileNotFoundError:
        problem = "there is no mkfs.ext4"
    if problem:
        os.unlink(path)
        raise LimpetError(
            f"a volume with a size: {problem}",
            "it needs e2fsprogs, or the store on an ext4 or xfs that is mounted with prjquota",
        )


def _is_bind(options: dict[str, str]) -> bool:
    words = options.get("o", "").split(",")
    return options.get("type") == "none" or "bind" in words or "rbind" in words


def _mount(place: str, options: dict[str, str]) -> None:
    words = [word for word in options.get("o", "").split(",") if word and word != "loop"]
    kind, device = options.get("type", "none"), options["device"]
    if _is_bind(options):
        flags, _, data = rootfs.parse_options(words)
        if data:
            raise OSError(errno.EINVAL, f"{data} is no option of a bind mount")
        tree = mounts.open_tree(device, recursive=bool(flags & mounts.MS_REC))
        try:
            mounts.set_attributes(tree, rootfs.attributes(flags), propagation=mounts.MS_PRIVATE)
            mounts.attach(tree, place)
        finally:
            os.close(tree)
        return
    if kind.startswith("nfs") or kind == "cifs":
        words = [_address(word) for word in words]
    flags, _, data = rootfs.parse_options(words)
    held = -1
    try:
        if stat.S_ISREG(_mode(device)):
            held = loop.attach(device, read_only=bool(flags & mounts.MS_RDONLY))
            device = os.readlink(f"/proc/self/fd/{held}")
        mounts.mount(device, place, kind, flags, data or None)
        mounts.make_private(place)
    finally:
        if held >= 0:
            os.close(held)  # the mount keeps the loop device, and frees it at its end


def _tidy(place: str) -> None:
    """Programs expect a new volume to be empty; fsck makes it again when it has to."""
    try:
        os.rmdir(f"{place}/lost+found")
    except OSError:
        pass


def _give_back(place: str) -> None:
    """What was deleted is no longer in the file. (The mount option `discard` does it for a part, while others wait.)"""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fs.syncfs(fd)
        fs.trim(fd)
    except OSError:
        pass  # the disk below it can't
    finally:
        os.close(fd)


def _mode(device: str) -> int:
    try:
        return os.stat(device).st_mode if device.startswith("/") else 0
    except FileNotFoundError:
        return 0


def _address(word: str) -> str:
    """The kernel knows no names of hosts."""
    key, _, value = word.partition("=")
    if key != "addr":
        return word
    import socket

    try:
        return f"addr={socket.getaddrinfo(value, None, type=socket.SOCK_STREAM)[0][4][0]}"
    except OSError as e:
        raise OSError(e.errno, f"addr={value}: no such host") from e


def _reason(error: OSError, options: dict[str, str]) -> str:
    if error.errno == errno.ENODEV:
        return f"this kernel knows no file system {options.get('type')}"
    said = error.strerror or str(error)
    return said.rpartition(": ")[2].lower() if said.startswith(("mount ", "open_tree ", "move_mount ")) else said
