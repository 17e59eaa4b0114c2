"""A stack of layers as a user namespace's own: root's files are the namespace's root's; the disk is not changed."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from limpet.errors import LimpetError
from limpet.kernel import mounts, userns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.kernel.userns import Mapped

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def overlay_mapped(lowers: Sequence[int], upper: str, work: str, options: Sequence[str], mapped: Mapped) -> int:
    """As `driver.overlay`. Raises LimpetError where a file system or the kernel can't map ids (overlay: Linux 6.15)."""
    layers = list(reversed(lowers))
    opened: list[int] = []
    try:
        opened.append(mounts.open_tree(os.path.dirname(upper)))
        for fd in (*lowers, opened[0]):
            mounts.set_attributes(fd, mounts.MOUNT_ATTR_IDMAP, userns=mapped.fd)
        opened += [os.open(os.path.basename(path), _DIRECTORY, dir_fd=opened[0]) for path in (upper, work)]
        if not layers:
            opened.append(mounts.tmpfs())
            layers.append(opened[3])
        with userns.Acting(mapped.base):
            return mounts.overlay(layers, opened[1], opened[2], options)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        raise LimpetError(
            f"mounting for a user namespace: {e.strerror}",
            "it needs Linux 6.15, and the store on a file system that maps ids (ext4, xfs, btrfs); or --userns host",
        ) from e
    finally:
        for fd in opened:
            os.close(fd)
