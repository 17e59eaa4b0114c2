"""The driver `local`: a directory of the store; with options a file system that is mounted there while it is used.

`-o type=tmpfs|nfs|ext4|none…`, `device=…`, `o=…` are mount(8)'s, as in Docker (moby `volume/local/local_unix.go`): the
kernel is asked directly, with no mount helper. A device that is a file goes through a loop device.
"""

from __future__ import annotations

import errno
import os
import stat

from limpet.containers import rootfs
from limpet.errors import Conflict, Invalid, LimpetError
from limpet.kernel import loop, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.store.store import Store

_KNOWN = ("type", "device", "o")


class Local:
    name = "local"

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, volume: str, options: dict[str, str]) -> None:
        check(options)

    def mount(self, volume: str, options: dict[str, str], user: str) -> str:
        place = self._place(volume)
        os.makedirs(place, exist_ok=True)
        if needs_mount(options) and place not in mounts.below(place):
            try:
                _mount(place, options)
            except OSError as e:
                what = f"volume {volume}: mounting {options.get('device', '')} ({options.get('type') or 'bind'})"
                raise LimpetError(f"{what}: {_reason(e, options)}", f"`limpet volume inspect {volume}`") from e
        return place

    def unmount(self, volume: str, options: dict[str, str], user: str, *, last: bool) -> None:
        place = self._place(volume)
        if not last or not needs_mount(options):
            return
        for point in reversed(mounts.below(place)):
            try:
                mounts.umount(point, mounts.UMOUNT_NOFOLLOW)
            except OSError:
                mounts.umount(point, mounts.UMOUNT_NOFOLLOW | mounts.MNT_DETACH)  # somebody stands in it

    def remove(self, volume: str, options: dict[str, str]) -> None:
        """What was mounted is left alone; the directory is the caller's to take."""
        self.unmount(volume, options, "", last=True)
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
