"""Overlays for a kernel before 6.15: 6.7 has `lowerdir+`, 6.15 takes layers that are detached mounts, empty ones too.

What `mounts.overlay` gives it gives, by mount(2): fsconfig(2) takes 255 bytes of a string, which is no 15 layers.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from limpet.kernel import mounts

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLACE = "/sys"
"""A directory that is there wherever containers can run, and in which no store is."""

_PAGE = 4095  # bytes of options (fs/namespace.c, copy_mount_options)


def overlay(lowers: Sequence[int], upper: str | None, work: str | None, options: Sequence[str], empty: int) -> int:
    """A detached overlay; `lowers`: descriptors of directories, the topmost first; below them so many empty layers.

    Raises OSError.
    """
    with mounts.Private():
        # The kernel wants layers of mounts of this very mount namespace, so they go by their names. Those are too long
        # for a page with 500 of them, and may have colons: links in a directory of its own stand for them.
        names = [_name(fd) for fd in lowers]
        mounts.mount("limpet", _PLACE, "tmpfs")
        os.chdir(_PLACE)
        for number in range(empty):
            os.mkdir(f"e{number}")
        for number, name in enumerate(names):
            os.symlink(name, f"{number}")
        layers = [*map(str, range(len(names))), *(f"e{number}" for number in range(empty))]
        words = [f"lowerdir={':'.join(layers)}"]
        for key, place in (("upperdir", upper), ("workdir", work)):
            if place is not None:
                os.symlink(place, key)
                words.append(f"{key}={key}")
        data = ",".join([*words, *options])
        if len(data) > _PAGE:
            raise OSError(errno.E2BIG, f"overlay: {len(lowers)} layers are more than this kernel takes")
        mounts.mount("limpet", _PLACE, "overlay", 0, data)
        return mounts.open_tree(_PLACE)


def _name(fd: int) -> str:
    place = os.readlink(f"/proc/self/fd/{fd}")
    if not os.path.samestat(os.stat(place), os.fstat(fd)):
        raise OSError(errno.ESTALE, f"{place}: another directory has its name now")
    return place
