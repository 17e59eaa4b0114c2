"""What both drivers share: a layer's directory, whatever else is in it, holds `data`, the exact tar."""

from __future__ import annotations

import os

from limpet.errors import NotFound
from limpet.store.files import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from limpet.store.store import Store


def open_tar(store: Store, diff_id: str) -> BinaryIO:
    try:
        return open(f"{store.layer_path(diff_id)}/data", "rb")
    except FileNotFoundError:
        raise NotFound(f"layer {diff_id} is not in the store", "`limpet system check` finds what is missing") from None


def remove(store: Store, diff_id: str) -> None:
    """The files; the row is the caller's and must be gone. Renamed first, so that half a layer is never seen."""
    aside = store.temporary("removed")
    try:
        os.rename(store.layer_path(diff_id), aside)
    except FileNotFoundError:
        return
    remove_tree(aside)


def usage(store: Store, diff_id: str) -> int:
    """Bytes on disk, as du counts them: blocks in use, directories too; a file with two names once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    stack = [store.layer_path(diff_id)]
    while stack:
        place = stack.pop()
        try:
            info = os.lstat(place)
        except FileNotFoundError:
            continue
        if (info.st_dev, info.st_ino) in seen:
            continue
        seen.add((info.st_dev, info.st_ino))
        total += info.st_blocks * 512
        if info.st_mode & 0o170000 == 0o040000:
            stack.extend(f"{place}/{name}" for name in os.listdir(place))
    return total


def check(store: Store, diff_id: str) -> str | None:
    """What is wrong with a layer's tar, or None."""
    import hashlib

    try:
        with open(f"{store.layer_path(diff_id)}/data", "rb", buffering=0) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        return f"its tar cannot be read: {e.strerror}"
    return None if f"sha256:{found}" == diff_id else f"its tar has the digest sha256:{found}"
