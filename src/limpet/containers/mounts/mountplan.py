"""The mounts of a container: one list of `Mount`, in order, of all that was said (`mountgrammar` reads the texts).

`plan` is pure but for looking at the host's paths of bind mounts and at the images that are here.
"""

from __future__ import annotations

import os

from limpet import jsontext
from limpet.errors import Invalid, LimpetError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.containers.options import Options
    from limpet.store.store import Store


class Mount:
    """`kind` is bind, volume, tmpfs or image; `options` are OCI mount options; `name` is the volume's, or "".

    `source`: a path of the host; of an image what the user called it, with its id in `image` and its `layers`, bottom
    first. `anonymous` volumes go with their container. `copy`: fill an empty volume from the image (`volumefill`).
    `driver`, `driver_options`: of a volume that has to be mounted (`volumemounts`), else "". `labels`: of a new one.
    `idmap`: "", `mountgrammar.OWNER`, or ranges. `writable_below`: `ro` is for the mount itself, not those below it.
    """

    __slots__ = (
        "anonymous", "copy", "driver", "driver_options", "idmap", "image", "kind", "labels", "layers", "name",
        "options", "source", "subpath", "target", "writable_below",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        target: str,
        source: str = "",
        name: str = "",
        options: list[str] | None = None,
        anonymous: bool = False,
        copy: bool = True,
        subpath: str = "",
        idmap: str = "",
        writable_below: bool = False,
        image: str = "",
        layers: list[str] | None = None,
        driver: str = "",
        driver_options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.target = target
        self.source = source
        self.name = name
        self.options = options or []
        self.anonymous = anonymous
        self.copy = copy
        self.subpath = subpath
        self.idmap = idmap
        self.writable_below = writable_below
        self.image = image
        self.layers = layers or []
        self.driver = driver
        self.driver_options = driver_options or {}
        self.labels = labels or {}

    @property
    def read_only(self) -> bool:
        modes = [word for word in self.options if word in ("ro", "rw")]
        return modes[-1:] == ["ro"]

    @property
    def is_made(self) -> bool:
        """Whether the monitor has to open it (`mounttrees`): a path alone does not say what it is."""
        return bool(self.kind == "image" or self.subpath or self.idmap)


def plan(store: Store, options: Options, image_volumes: list[str]) -> list[Mount]:
    """The mounts of a container to be made; later rules win over VOLUME. Raises Invalid and NotFound."""
    from limpet.containers.mounts import mountgrammar

    mounts: dict[str, Mount] = {}
    for text in options.volumes:
        _add(mounts, mountgrammar.from_volume(store, text, options.mkdir, options.volume_driver))
    for text in options.mounts:
        _add(mounts, mountgrammar.from_mount(store, text, options.mkdir))
    for text in options.tmpfs:
        _add(mounts, mountgrammar.from_tmpfs(text))
    for text in options.volumes_from:
        for mount in _from_container(store, text):
            mounts.setdefault(mount.target, mount)
    for path in image_volumes if options.image_volume != "ignore" else ():
        mount = mountgrammar.anonymous(store, path)
        if options.image_volume == "tmpfs":
            mount = Mount("tmpfs", mount.target, options=["nosuid", "nodev"])
        mounts.setdefault(mount.target, mount)
    if options.runtime != "limpet":
        for mount in mounts.values():
            if mount.is_made or mount.driver:
                what = "an image" if mount.kind == "image" else "a subpath" if mount.subpath else "idmap"
                what = f"a volume of {mount.driver}" if mount.driver else what
                raise Invalid(
                    f"mount of {what} on {mount.target}: not there with the runtime {options.runtime}",
                    "leave out --runtime",
                )
    return sorted(mounts.values(), key=lambda mount: mount.target.count("/"))


def make_volumes(store: Store, mounts: Sequence[Mount]) -> None:
    """Those that drivers have to know before they can be mounted. Raises what a driver raises."""
    for mount in mounts:
        if mount.driver:
            from limpet.containers.mounts import volumes

            options = mount.driver_options
            made = volumes.create(
                store, mount.name, mount.labels, anonymous=mount.anonymous, driver=mount.driver, options=options
            )
            mount.driver, mount.driver_options = (made.driver if made.is_mounted else ""), made.options


def hold(store: Store, container_id: str, mounts: Sequence[Mount], created: float) -> list[str]:
    """The rows, in the caller's transaction, by which nobody takes its volumes and images; volumes made by that.

    Raises NotFound for an image that was removed since the plan was made.
    """
    from limpet.containers.mounts import volumes

    db, made = store.db, []
    for mount in {mount.name: mount for mount in mounts if mount.name}.values():
        labels = mount.labels
        if mount.anonymous:
            name, image = db.row("SELECT name, image_name FROM container WHERE id = ?", container_id) or ("", "")
            labels = {volumes.ANONYMOUS: "", volumes.MADE_FOR: f"{name}:{mount.target} ({image})", **labels}
        if volumes.insert(store, volumes.Volume(mount.name, created, mount.anonymous, labels)):
            made.append(mount.name)
        db.run("INSERT OR IGNORE INTO container_volume (container_id, volume) VALUES (?, ?)", container_id, mount.name)
    for mount in {mount.image: mount for mount in mounts if mount.image}.values():
        if db.row("SELECT 1 FROM image WHERE id = ?", mount.image) is None:
            raise NotFound(f"No such image: {mount.source}")
        db.run(
            "INSERT OR IGNORE INTO container_image (container_id, image_id, layers) VALUES (?, ?, ?)",
            container_id,
            mount.image,
            jsontext.dumps(mount.layers),
        )
    return made


def let_go(store: Store, container_id: str, mounts: Sequence[Mount]) -> None:
    """Those of the rows that these mounts, which are all, don't need."""
    for table, column, used in (
        ("container_volume", "volume", {mount.name for mount in mounts}),
        ("container_image", "image_id", {mount.image for mount in mounts}),
    ):
        for (name,) in store.db.rows(f"SELECT {column} FROM {table} WHERE container_id = ?", container_id):
            if name not in used:
                store.db.run(f"DELETE FROM {table} WHERE container_id = ? AND {column} = ?", container_id, name)


def save(mounts: list[Mount]) -> str:
    """JSON for `containers/<id>/mounts.json`."""
    return jsontext.dumps([{field: getattr(mount, field) for field in Mount.__slots__} for mount in mounts])


def load(store: Store, container_id: str) -> list[Mount]:
    """What `create` planned; no file means no mounts."""
    path = f"{store.container_path(container_id)}/mounts.json"
    if not os.path.exists(path):
        return []
    from limpet.containers import state
    from limpet.containers.mounts import volumes

    try:
        found = [Mount(**entry) for entry in state.document(path)]
    except TypeError:
        raise LimpetError(f"{path} is damaged", "`limpet rm -f` takes the container away") from None
    for mount in found:
        if mount.kind == "volume" and not mount.driver:  # the store may have been moved since
            mount.source = volumes.data_path(store, mount.name) + (f"/{mount.subpath}" if mount.subpath else "")
    return found


def known(store: Store, container_id: str) -> list[Mount]:
    """As `load`, for who only shows it: nothing where the file is damaged."""
    try:
        return load(store, container_id)
    except LimpetError:
        return []


def _add(mounts: dict[str, Mount], mount: Mount) -> None:
    if mount.target in mounts:
        raise Invalid(f"duplicate mount point: {mount.target}")
    mounts[mount.target] = mount


def _from_container(store: Store, text: str) -> list[Mount]:
    """`CONTAINER[:ro|rw]`: all but its tmpfs, at the same places (moby `volume/mounts/parser.go`)."""
    from limpet.containers import state

    name, colon, mode = text.partition(":")
    if not name or (colon and mode not in ("ro", "rw", "z", "Z")):
        raise Invalid(f"invalid --volumes-from '{text}'", "write CONTAINER[:ro|rw]")
    try:
        other = state.find(store, name)
    except NotFound as e:
        raise NotFound(f"--volumes-from {name}: {e.message}", e.hint) from None
    found = [mount for mount in load(store, other.id) if mount.kind != "tmpfs"]
    for mount in found:
        if mode == "ro" or (mode == "rw" and mount.kind != "image"):
            mount.options = [word for word in mount.options if word not in ("ro", "rw")] + [mode]
        if mount.copy and mount.kind == "volume" and not mount.driver and not os.listdir(mount.source):
            _fill(store, other.layers, mount)
        mount.copy = False
    return found


def _fill(store: Store, layers: list[str], mount: Mount) -> None:
    """From its image, not that of who mounts it: a container that only has data may never have been started."""
    from limpet.containers.mounts import volumefill
    from limpet.layers.driver import driver

    root = driver(store).mount(layers)
    try:
        volumefill.fill(root, mount.target, mount.source)
    finally:
        os.close(root)
