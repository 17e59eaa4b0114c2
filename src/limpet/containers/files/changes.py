"""What a container changed: `diff` lists it, `commit` makes an image of it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NoReturn

from limpet import jsontext
from limpet.containers import state
from limpet.containers.mounts import mountplan
from limpet.containers.network import ports
from limpet.containers.observe import events, listing
from limpet.containers.observe.inspect import merged_environment
from limpet.containers.plan import hostfiles
from limpet.images import importer, instructions
from limpet.kernel import cgroup
from limpet.layers import diff as layer_diff
from limpet.layers.driver import driver
from limpet.oci import reference
from limpet.store import faults

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from limpet.containers.state import Container
    from limpet.images.catalog import Image
    from limpet.store.store import Store


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
    with store.lease(), Frozen(store, container, wanted=pause):
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
        image = importer.add_image(store, jsontext.dumps(whole, sort_keys=True).encode(), layers, names)
        events.tell(store, container, "commit", comment=message, imageID=image.id)
        return image


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
    return [*hostfiles.ENGINE_FILES, *(mount.target.strip("/") for mount in mountplan.load(store, container.id))]


def _merge_options(config: dict[str, Any], container: Container) -> None:
    """What the user said when the container was made becomes part of the image, as Docker's commit does."""
    options = container.options
    if options.env:
        config["Env"] = merged_environment(config.get("Env") or [], options.env)
    if options.entrypoint is not None:
        config.pop("Cmd", None)  # the image's arguments were for the image's entry point
        config.pop("Entrypoint", None)
        if options.entrypoint:
            config["Entrypoint"] = options.entrypoint
    if options.command:
        config["Cmd"] = options.command
    if options.expose:
        config["ExposedPorts"] = {
            **(config.get("ExposedPorts") or {}),
            **{port: {} for port in ports.parse_all(options.expose)},
        }
    if options.workdir:
        config["WorkingDir"] = options.workdir
    if options.user:
        config["User"] = options.user
    if options.labels:
        config["Labels"] = {**(config.get("Labels") or {}), **options.labels}


class Frozen:
    """`with Frozen(…):` a running container stands still, so that its files belong together.

    A watcher thaws it when this process dies: a container that hangs for ever is worse than a commit that failed.
    """

    def __init__(self, store: Store, container: Container, *, wanted: bool) -> None:
        place = cgroup.path(container.group)
        # One that the user paused stands still already, and stays so.
        running = wanted and place is not None and state.status(store, container).state == "running"
        self._place = place if running else None
        self._alive = self._watcher = -1

    def __enter__(self) -> None:
        if self._place is None:
            return
        ended, self._alive = os.pipe2(os.O_CLOEXEC)
        self._watcher = os.fork()
        if self._watcher == 0:
            _watch(ended, self._alive, self._place)
        os.close(ended)
        try:
            cgroup.freeze(self._place)
            cgroup.settled(self._place, True, 1.0)
        except FileNotFoundError:
            pass  # it ended just now

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher > 0:
            os.close(self._alive)  # and the watcher thaws it
            os.waitpid(self._watcher, 0)


def _watch(ended: int, alive: int, place: str) -> NoReturn:
    try:
        os.close(alive)
        os.setsid()  # ^C is for the command, not for us
        os.read(ended, 1)
        cgroup.thaw(place)
    finally:
        os._exit(0)
