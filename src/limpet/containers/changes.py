"""What a container changed: `diff` lists it, `commit` makes an image of it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from limpet import jsontext
from limpet.containers import listing, mountplan, state
from limpet.images import importer, instructions
from limpet.kernel import cgroup
from limpet.layers import diff as layer_diff
from limpet.layers.driver import driver
from limpet.oci import reference
from limpet.store import faults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.containers.state import Container
    from limpet.images.catalog import Image
    from limpet.store.store import Store

ENGINE_FILES = (
    ".dockerenv",
    "dev/console",
    "dev/pts",
    "dev/shm",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
)
"""Mount points and files that the engine makes in a container's root: no change of the container's own."""


def changes(store: Store, container: Container) -> list[tuple[str, str]]:
    """(A, C or D; path), in order of names."""
    lower = driver(store).mount(container.layers)
    try:
        upper = f"{store.container_path(container.id)}/upper"
        return list(layer_diff.changes(upper, lower, leave_out=_leave_out(store, container)))
    finally:
        os.close(lower)


def commit(
    store: Store,
    container: Container,
    name: str = "",
    *,
    author: str = "",
    message: str = "",
    change: Sequence[str] = (),
    pause: bool = True,
) -> Image:
    """An image of the container's layers and its changes; frozen meanwhile with `pause`. On disk when it returns."""
    names = [reference.parse(name).canonical] if name else []
    base = listing.image_config(store, container)
    config = dict(base.get("config") or {})
    _merge_options(config, container)
    instructions.apply(config, change)
    layers = list(container.layers)
    frozen = _freeze(store, container) if pause else None
    try:
        with store.lease():
            layer = write_layer(store, container, durable=True)
            if layer is not None:
                layers.append(layer)
                driver(store).seal(layers)
            faults.reach("commit-layer")
            created = time.strftime(
                "%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
            )
            entry: dict[str, Any] = {
                "created": created,
                "created_by": " ".join(container.options.command) or "limpet commit",
                **({"author": author} if author else {}),
                **({"comment": message} if message else {}),
                **({"empty_layer": True} if layer is None else {}),
            }
            whole = {
                **{k: v for k, v in base.items() if k in ("architecture", "os", "variant", "os.version")},
                "created": created,
                **({"author": author} if author else {}),
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": layers},
                "history": [*(base.get("history") or []), entry],
            }
            return importer.add_image(store, jsontext.dumps(whole, sort_keys=True).encode(), layers, names)
    finally:
        if frozen is not None:
            cgroup.thaw(frozen)


def write_layer(
    store: Store, container: Container, *, max_mtime: int | None = None, durable: bool = False, empty: bool = False
) -> str | None:
    """The container's changes as a layer of the store: its diff ID. None if nothing changed, unless `empty` is wanted.

    The caller holds a lease.
    """
    upper = f"{store.container_path(container.id)}/upper"
    with driver(store).ingest() as ingest:
        count = layer_diff.write_tar(upper, ingest.write, leave_out=_leave_out(store, container), max_mtime=max_mtime)
        return ingest.finish(durable=durable).diff_id if count or empty else None


def _leave_out(store: Store, container: Container) -> list[str]:
    """What lies under a mount is no change: the mount point was made by the engine if the image had none."""
    return [*ENGINE_FILES, *(mount.target.strip("/") for mount in mountplan.load(store, container.id))]


def _merge_options(config: dict[str, Any], container: Container) -> None:
    """What the user said when the container was made becomes part of the image, as Docker's commit does."""
    options = container.options
    if options.env:
        values = dict(text.partition("=")[::2] for text in [*(config.get("Env") or []), *options.env])
        config["Env"] = [f"{key}={value}" for key, value in values.items()]
    if options.entrypoint is not None:
        config["Entrypoint"] = options.entrypoint
    if options.command:
        config["Cmd"] = options.command
    if options.workdir:
        config["WorkingDir"] = options.workdir
    if options.user:
        config["User"] = options.user
    if options.labels:
        config["Labels"] = {**(config.get("Labels") or {}), **options.labels}


def _freeze(store: Store, container: Container) -> str | None:
    """The cgroup that was frozen, or None when nothing runs or there is no cgroup2."""
    place = cgroup.path(container.id)
    if place is None or not state.status(store, container).running or not os.path.isdir(place):
        return None
    cgroup.freeze(place)
    for _ in range(1000):
        with open(f"{place}/cgroup.events") as file:
            if "frozen 1" in file.read():
                return place
        time.sleep(0.001)
    return place
