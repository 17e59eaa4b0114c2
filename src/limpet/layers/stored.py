"""What both drivers share: a layer's directory holds `data`, the exact tar, and *forms* of it, which the kernel mounts.

    data                          the tar, to the byte
    index, extra                  erofs: the index; contents of sparse files and of files linked from layers below
    implied                       erofs: where the index has the directories that are not in the tar (`index.py`)
    tree                          dir: the unpacked files
    depends                       an empty mark: the form depends on the layers below, or on that there are none
    depends-above                 as `depends`, but the plain form will do for a bottom layer
    opaque                        an empty mark: nothing of the layers below shows

A form that depends on the layers below has their `chain` in its name (`index-<chain>`). A form can always be made again
from `data` (`seal.py`), and is when it is missing.
"""

from __future__ import annotations

import os

from limpet.errors import Corrupt, LimpetError, NotFound
from limpet.layers import known
from limpet.store.files import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from hashlib import blake2b
    from typing import BinaryIO

    from limpet.store.store import Store
else:
    from _blake2 import blake2b

MAX_LAYERS = 500
"""overlayfs's own limit (OVL_MAX_STACK)."""

FORMS = ("index", "implied", "extra", "tree")


def below(diff_ids: Sequence[str], position: int) -> list[str]:
    """The layers that matter to the one at a position: without itself, since once more below it adds nothing."""
    return [diff_id for diff_id in diff_ids[:position] if diff_id != diff_ids[position]]


def suffix(place: str, below: Sequence[str]) -> str:
    """What the names of a layer's forms end with when these layers are below it."""
    if os.path.exists(f"{place}/depends") or (below and os.path.exists(f"{place}/depends-above")):
        return f"-{chain(below)}"
    return ""


def chain(diff_ids: Sequence[str]) -> str:
    """A short name for a stack of layers."""
    return blake2b("\n".join(diff_ids).encode(), digest_size=10).hexdigest()


def open_stack(store: Store, diff_ids: Sequence[str], open_layer: Callable[[str, str, int], int]) -> list[int]:
    """Descriptors of what shows of a stack, bottom first. `open_layer(place, suffix, position)` gives one.

    Layers that came in before the machine went down without a sync are verified first (`durable.py`).
    """
    if not _same_boot(store):
        from limpet.layers.durable import verify

        verify(store, diff_ids)
    positions: list[int] = []
    above: set[str] = set()
    for position in range(len(diff_ids) - 1, -1, -1):
        if diff_ids[position] not in above:  # the same layer twice: the lower one adds nothing
            positions.append(position)
            above.add(diff_ids[position])
        if os.path.exists(f"{store.layer_path(diff_ids[position])}/opaque"):
            break
    if len(positions) > MAX_LAYERS:
        raise LimpetError(f"an image of {len(positions)} layers", f"the kernel stacks {MAX_LAYERS} at most")
    opened: list[int] = []
    try:
        for position in reversed(positions):
            place = store.layer_path(diff_ids[position])
            opened.append(open_layer(place, suffix(place, below(diff_ids, position)), position))
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    return opened


def temporary(form: str) -> str:
    """A name for a form that is being made; its writer's id is in it, so that nobody takes it for a leftover."""
    return f"{form}-{os.urandom(4).hex()}.new-{os.getpid()}"


def missing(diff_id: str) -> Corrupt:
    return Corrupt(f"layer {diff_id} is not in the store", "`limpet system check` finds what is missing")


def _same_boot(store: Store) -> bool:
    """Whether all layers were verified, or came in, since the machine started."""
    try:
        fd = os.open(f"{store.root}/boot", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        verified = os.read(fd, 64)
    finally:
        os.close(fd)
    fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64) == verified
    finally:
        os.close(fd)


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


def check_tar(store: Store, diff_id: str) -> str | None:
    """What is wrong with a layer's tar, or None."""
    import hashlib

    try:
        with open(f"{store.layer_path(diff_id)}/data", "rb", buffering=0) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        return f"its tar cannot be read: {e.strerror}"
    return None if f"sha256:{found}" == diff_id else f"its tar has the digest sha256:{found}"


def check(store: Store, diff_id: str) -> str | None:
    """What is wrong with a layer's tar, an index of it or a tree of it, or None."""
    problem = check_tar(store, diff_id)
    if problem is not None:
        return problem
    place = store.layer_path(diff_id)
    for name in sorted(os.listdir(place)):
        if name.startswith("index") and ".new-" not in name and not known.is_whole(f"{place}/{name}"):
            return f"its {name} is damaged"
        if name.startswith("tree") and ".new-" not in name:
            from limpet.layers import compare

            try:
                differs = compare.difference(place, name)
            except OSError as e:
                differs = f"cannot be read: {e.strerror}"
            if differs:
                return f"its {name} is not what the tar says: {differs}"
    return None
