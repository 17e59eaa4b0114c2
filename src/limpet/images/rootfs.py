"""`limpet import`: an image of one layer from a root file system, a directory or a tar (plain, gzip, zstd, xz, bzip2).

A tar is kept as it is, to the byte. A directory is written in a fixed order, with its owners, modes, times and
extended attributes.
"""

from __future__ import annotations

import os
import sys
import time

from limpet import jsontext
from limpet.errors import Corrupt, Invalid, LimpetError, NotFound
from limpet.images import importer, instructions
from limpet.layers import compression, limits
from limpet.layers.driver import driver
from limpet.layers.rootfs_tar import write_tree
from limpet.oci import platform, reference
from limpet.progress import Progress
from limpet.store import eventlog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, BinaryIO

    from limpet.images.catalog import Image
    from limpet.layers.ingest import Ingest
    from limpet.store.store import Store


def import_rootfs(
    store: Store,
    source: str | BinaryIO,
    name: str = "",
    *,
    changes: Sequence[str] = (),
    message: str = "",
    wanted_platform: str = "",
    progress: Progress | None = None,
) -> Image:
    """Makes the image; without a name it has none. `source` is a path, "-" for standard input, or an open file.

    Raises NotFound for a missing file; Invalid for what isn't a tar, a bad name, change or platform.
    """
    names = []
    if name:
        wanted = reference.parse(name)
        if wanted.digest:
            raise Invalid(f"'{name}' has a digest", "a name to give has a tag at most")
        names = [wanted.canonical]
    target = platform.parse(wanted_platform) if wanted_platform else platform.host()
    config: dict[str, Any] = {}
    instructions.apply(config, changes)
    progress = progress or Progress()
    shown = "standard input" if source == "-" or not isinstance(source, str) else source
    home = driver(store)
    with store.lease(), home.ingest(limits.from_environment()) as ingest:
        progress.begin("layer", f"Importing {shown}", _size(source))
        try:
            _write(source, ingest, progress)
            layer = ingest.finish(durable=True)
        except Corrupt as e:
            raise Corrupt(f"{shown}: {e.message}", e.hint) from e
        home.seal([layer.diff_id])
        progress.finish("layer", "done")
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(epoch) if epoch.isdecimal() else None))
        whole = {
            "created": created,
            "architecture": target.architecture,
            **({"variant": target.variant} if target.variant else {}),
            "os": target.os,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            "history": [{"created": created, "comment": message or f"Imported from {_comment(source)}"}],
        }
        image = importer.add_image(store, jsontext.dumps(whole, sort_keys=True).encode(), [layer.diff_id], names)
    eventlog.write(store, "image", "import", image.id, {"name": image.names[0] if image.names else image.id})
    return image


def _write(source: str | BinaryIO, ingest: Ingest, progress: Progress) -> None:
    if isinstance(source, str) and source != "-":
        if source.startswith(("http://", "https://")):
            raise Invalid(f"{source}: a URL is not fetched", "download it, or pipe it: curl ... | limpet import - NAME")
        if os.path.isdir(source):
            write_tree(source, ingest.write)
            return
        try:
            file: BinaryIO = open(source, "rb")
        except FileNotFoundError:
            raise NotFound(f"{source}: no such file or directory", exit_code=1) from None
        except OSError as e:
            raise LimpetError(f"{source}: {e.strerror}", exit_code=1) from e
        with file:
            _stream(file, source, ingest, progress)
    elif isinstance(source, str):
        _stream(sys.stdin.buffer, "standard input", ingest, progress)
    else:
        _stream(source, "standard input", ingest, progress)


def _stream(file: BinaryIO, shown: str, ingest: Ingest, progress: Progress) -> None:
    head = b""
    while len(head) < 512 and (more := file.read(512 - len(head))):
        head += more
    if not head:
        raise Invalid(f"{shown} is empty", "a tar of a root file system is wanted", exit_code=1)
    pending = [head]

    def read(n: int) -> bytes:
        chunk = pending.pop() if pending else file.read(n)
        progress.advance("layer", len(chunk))
        return chunk

    for chunk in compression.decompress(read, compression.detect(head)):
        ingest.write(chunk)


def _size(source: str | BinaryIO) -> int | None:
    return os.path.getsize(source) if isinstance(source, str) and os.path.isfile(source) else None


def _comment(source: str | BinaryIO) -> str:
    return os.path.basename(source.rstrip("/")) if isinstance(source, str) and source != "-" else "-"
