"""An initrd of our own: a static busybox, the few modules for the root file system, and a script that changes to it.

Debian's has 37 MB, and systemd-udevd looks for hardware in it: half a minute of a boot in an emulation.
"""

from __future__ import annotations

import gzip
import lzma
import stat
from collections.abc import Iterator
from pathlib import Path

_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
while read module; do
    /bin/busybox insmod "/modules/$module" || echo "initrd: $module can't be loaded"
done </modules/order
if ! /bin/busybox mount -t ext4 -o noatime /dev/vda /root; then
    echo "initrd: no root file system"
    exec /bin/busybox poweroff -f
fi
/bin/busybox mount --move /dev /root/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /lib/systemd/systemd
"""


def build(root: Path, kernel: str, modules: list[str]) -> bytes:
    """A gzipped cpio archive for the system at `root`. Raises KeyError for a module that this kernel has not."""
    directory = root / "usr/lib/modules" / kernel
    order = []
    found: dict[str, tuple[int, bytes]] = dict.fromkeys(
        ("bin", "dev", "modules", "proc", "root"), (stat.S_IFDIR | 0o755, b"")
    )
    for path in _needed(directory, modules):
        data = (directory / path).read_bytes()
        name = Path(path).name.removesuffix(".xz")
        found[f"modules/{name}"] = stat.S_IFREG | 0o644, lzma.decompress(data) if path.endswith(".xz") else data
        order.append(f"{name}\n")
    found["modules/order"] = stat.S_IFREG | 0o644, "".join(order).encode()
    found["bin/busybox"] = stat.S_IFREG | 0o755, (root / "usr/bin/busybox").resolve().read_bytes()
    found["init"] = stat.S_IFREG | 0o755, _INIT.encode()
    return gzip.compress(b"".join(_archive(found)), 1)


def _needed(directory: Path, modules: list[str]) -> Iterator[str]:
    """Paths of modules, each after those that it needs (modules.dep(5): all of them, the deepest last)."""
    needs, paths = {}, {}
    for line in (directory / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
        paths[_name(path)] = path
    builtin = {_name(line) for line in (directory / "modules.builtin").read_text().split()}
    done = set()
    for module in modules:
        if module in builtin:
            continue
        path = paths[module]
        for each in (*reversed(needs[path]), path):
            if each not in done:
                done.add(each)
                yield each


def _name(path: str) -> str:
    return Path(path).name.partition(".")[0].replace("-", "_")


def _archive(files: dict[str, tuple[int, bytes]]) -> Iterator[bytes]:
    """The format newc (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        yield head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
