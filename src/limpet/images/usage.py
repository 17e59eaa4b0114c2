"""What holds each byte of the store (`system df`). The parts add up to what `du -s` says of the root, by blocks.

Bytes are those on disk (`st_blocks`), directories included. A layer or a blob that several images share is counted
once in the total, and shown as shared with each of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from limpet import jsontext
from limpet.images import catalog, collect, leftovers
from limpet.images.collect import blocks
from limpet.oci import digest as digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from limpet.images.catalog import Image
    from limpet.store.store import Store


@dataclass(frozen=True)
class ImageUsage:
    image: Image
    shared: int  # of layers and blobs that other images have too
    unique: int
    containers: int

    @property
    def size(self) -> int:
        return self.shared + self.unique


@dataclass(frozen=True)
class ContainerUsage:
    id: str
    size: int  # all of it
    log: int  # of which the log
    written: int  # of which its writable layer, and those of images that it mounts
    snapshots: int


@dataclass(frozen=True)
class VolumeUsage:
    name: str
    size: int  # all of it
    links: int  # containers that mount it
    snapshots: int  # of its size


@dataclass(frozen=True)
class Part:
    """`freed`: what gives it back, a command or a rule; "" for what is needed."""

    what: str
    size: int
    freed: str


@dataclass(frozen=True)
class Usage:
    """`parts` are all of it once more, each byte in just one of them."""

    images: tuple[ImageUsage, ...]
    containers: tuple[ContainerUsage, ...]
    volumes: tuple[VolumeUsage, ...]
    layers: int  # bytes of all layers
    blobs: int  # bytes of all blobs: manifests, configs, layers as they came
    reclaimable: int  # of layers and blobs: what no container needs
    state: int  # the database, locks, and the directories themselves
    leftover: int  # no row names it: being added right now, or garbage for `prune`
    parts: tuple[Part, ...]

    @property
    def total(self) -> int:
        containers = sum(one.size for one in self.containers)
        volumes = sum(one.size for one in self.volumes)
        return self.layers + self.blobs + containers + volumes + self.state + self.leftover


def usage(store: Store) -> Usage:
    db = store.db
    seen: set[int] = set()  # inodes with several names: the `dir` driver links files between layers
    layers = {d: leftovers.tree_bytes(store.layer_path(d), seen) for (d,) in db.rows("SELECT diff_id FROM layer")}
    blobs = {digest: blocks(store.blob_path(digest)) for (digest,) in db.rows("SELECT digest FROM blob")}
    containers = tuple(
        ContainerUsage(
            id,
            leftovers.tree_bytes(store.container_path(id), seen),
            _log_bytes(store, id),
            sum(leftovers.tree_bytes(f"{store.container_path(id)}/{tree}") for tree in ("upper", "image-mounts")),
            leftovers.tree_bytes(f"{store.container_path(id)}/snapshots"),
        )
        for (id,) in db.rows("SELECT id FROM container ORDER BY created DESC")
    )
    links = dict(db.rows("SELECT volume, count(*) FROM container_volume GROUP BY volume"))
    volumes = tuple(
        VolumeUsage(
            name,
            leftovers.tree_bytes(store.volume_path(name), seen),
            links.get(name, 0),
            leftovers.tree_bytes(f"{store.volume_path(name)}/snapshots"),
        )
        for (name,) in db.rows("SELECT name FROM volume ORDER BY name")
    )
    rubbish = leftovers.find(store)
    inside = [one for one in rubbish if one.path.startswith(f"{store.root}/")]
    # Half-written files beneath a container or a layer are part of it already.
    leftover = sum(one.bytes for one in inside if not _within_counted(store, one.path, layers, containers))
    in_use = {
        image_id for (image_id,) in db.rows("SELECT DISTINCT image_id FROM container_use WHERE image_id NOT NULL")
    }
    images = catalog.all_images(store)
    parts = {image.id: _parts(store, image.id) for image in images}
    needed = {f"layers/{diff_id}" for diff_id in _of_containers(store)}
    needed |= {key for image_id in in_use & parts.keys() for key in parts[image_id]}
    sizes = {**{f"layers/{diff_id}": size for diff_id, size in layers.items()}, **blobs}
    rooms = _state_bytes(store, seen, {one.path for one in inside})
    cached = {f"layers/{diff_id}" for diff_id in collect.cached_layers(store)}
    owners: dict[str, int] = {}
    for keys in parts.values():
        for key in keys:
            owners[key] = owners.get(key, 0) + 1
    return Usage(
        images=tuple(_image(store, image, parts, sizes) for image in images),
        containers=containers,
        volumes=volumes,
        layers=sum(layers.values()),
        blobs=sum(blobs.values()),
        reclaimable=sum(size for key, size in sizes.items() if key not in needed),
        state=sum(rooms.values()),
        leftover=leftover,
        parts=(
            *_parts_of_images(sizes, owners, needed, cached),
            *_parts_of_trees(containers, volumes),
            *_parts_of_state(rooms),
            Part("leftovers that no row names", leftover, "system prune"),
        ),
    )


def _parts_of_images(
    sizes: dict[str, int], owners: dict[str, int], needed: set[str], cached: set[str]
) -> tuple[Part, ...]:
    def total(count: Callable[[str], bool]) -> int:
        return sum(size for key, size in sizes.items() if count(key))

    return (
        Part("images, layers and manifests of one each", total(lambda key: owners.get(key) == 1), "rmi"),
        Part("images, what several share", total(lambda key: owners.get(key, 0) > 1), "rmi of all that have it"),
        Part("layers that only containers need", total(lambda key: key not in owners and key in needed), "rm"),
        Part(
            "build cache, layers of steps",
            total(lambda key: key not in owners and key not in needed and key in cached),
            "cache prune",
        ),
        Part(
            "layers and blobs that nothing needs",
            total(lambda key: key not in owners and key not in needed and key not in cached),
            "system prune",
        ),
    )


def _parts_of_trees(containers: tuple[ContainerUsage, ...], volumes: tuple[VolumeUsage, ...]) -> tuple[Part, ...]:
    written, logs, kept = (sum(getattr(one, name) for one in containers) for name in ("written", "log", "snapshots"))
    whole, snapshots = sum(one.size for one in volumes), sum(one.snapshots for one in volumes)
    return (
        Part("containers, what they wrote", written, "rm"),
        Part("containers, logs", logs, "rm, or --log-opt"),
        Part("containers, snapshots", kept, "snapshot --rm"),
        Part("containers, plans and status", sum(one.size for one in containers) - written - logs - kept, "rm"),
        Part("volumes", whole - snapshots, "volume rm"),
        Part("volumes, snapshots", snapshots, "volume snapshot --rm"),
    )


def _parts_of_state(rooms: dict[str, int]) -> tuple[Part, ...]:
    left = dict(rooms)
    return (
        Part("build cache, mounts and what was fetched", left.pop("caches", 0), "cache prune"),
        Part("downloads that were cut off", left.pop("partial", 0), "the pull of them, or any a day later"),
        Part("logs of builds", left.pop("builds", 0), "newer ones: 10 are kept"),
        Part("log of events", left.pop("events", 0), "its bound"),
        Part("work of commands that run now", left.pop("tmp", 0), "their end"),
        Part("database", sum(left.pop(name) for name in list(left) if name.startswith("state.db")), ""),
        Part("directories, locks, records", sum(left.values()), ""),
    )


def _image(store: Store, image: Image, parts: dict[str, set[str]], sizes: dict[str, int]) -> ImageUsage:
    others: set[str] = set()
    for image_id, keys in parts.items():
        if image_id != image.id:
            others |= keys & parts[image.id]
    mine = parts[image.id]
    (count,) = store.db.row("SELECT count(DISTINCT container_id) FROM container_use WHERE image_id = ?", image.id)
    return ImageUsage(
        image,
        shared=sum(sizes.get(key, 0) for key in mine & others),
        unique=sum(sizes.get(key, 0) for key in mine - others),
        containers=count,
    )


def _parts(store: Store, image_id: str) -> set[str]:
    """What an image has in the store: `layers/<diff ID>`, and digests of blobs (the same for a plain tar)."""
    blobs = store.db.rows(
        "SELECT digest FROM manifest WHERE image_id = ?1"
        " UNION SELECT m.digest FROM manifest_blob m JOIN manifest ON manifest.digest = m.manifest WHERE image_id = ?1"
        " UNION SELECT index_digest FROM name WHERE image_id = ?1 AND index_digest IS NOT NULL",
        image_id,
    )
    return {image_id, *(d for (d,) in blobs), *(f"layers/{diff_id}" for diff_id in catalog.layers(store, image_id))}


def bytes_of(store: Store, images: Collection[str], containers: Collection[str] = ()) -> int:
    """What comes back if just these images (and these containers' claims on layers) go: an answer before the deed."""
    gone: set[str] = set()
    kept = {
        f"layers/{diff_id}"
        for id, text in store.db.rows("SELECT container_id, layers FROM container_use")
        if id not in containers
        for diff_id in jsontext.loads(text)
    }
    for id, text in store.db.rows("SELECT container_id, layers FROM container_use"):
        if id in containers:
            gone |= {f"layers/{diff_id}" for diff_id in jsontext.loads(text)}
    for (image_id,) in store.db.rows("SELECT id FROM image"):
        if image_id in images:
            gone |= _parts(store, image_id)
        else:
            kept |= _parts(store, image_id)
    seen: set[int] = set()
    return sum(
        leftovers.tree_bytes(f"{store.root}/layers/{digests.hex_of(key)}", seen)
        if key.startswith("layers/")
        else blocks(store.blob_path(key))
        for key in gone - kept
    )


def _of_containers(store: Store) -> set[str]:
    stacks = store.db.rows("SELECT DISTINCT layers FROM container_use")
    return {diff_id for (text,) in stacks for diff_id in jsontext.loads(text)}


def _log_bytes(store: Store, container_id: str) -> int:
    directory = store.container_path(container_id)
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return 0
    total = sum(blocks(f"{directory}/{name}") for name in names if "-json.log" in name or name.startswith("ctr.log"))
    return total + leftovers.tree_bytes(f"{directory}/log", set()) if "log" in names else total


def _within_counted(store: Store, path: str, layers: dict[str, int], containers: tuple[ContainerUsage, ...]) -> bool:
    homes = {store.container_path(one.id) for one in containers} | {store.layer_path(diff_id) for diff_id in layers}
    return os.path.dirname(path) in homes


def _state_bytes(store: Store, seen: set[int], rubbish: set[str]) -> dict[str, int]:
    """The root directory, the rooms in it (not what they hold), and every other file, by their names."""
    found: dict[str, int] = {}
    if store.absent:
        return found
    rooms = ("blobs", "layers", "containers", "volumes", "tmp")
    found[""] = blocks(store.root) + sum(blocks(f"{store.root}/{room}") for room in rooms)
    found["blobs"] = sum(blocks(f"{store.root}/blobs/{name}") for name in os.listdir(f"{store.root}/blobs"))
    for name in os.listdir(store.root):
        path = f"{store.root}/{name}"
        if name not in rooms and path not in rubbish:
            found[name] = leftovers.tree_bytes(path, seen)
            found[name] -= sum(leftovers.tree_bytes(one) for one in rubbish if one.startswith(f"{path}/"))
    # Temporary files of living processes are neither rubbish nor anybody's.
    for name in os.listdir(f"{store.root}/tmp"):
        if f"{store.root}/tmp/{name}" not in rubbish:
            found["tmp"] = found.get("tmp", 0) + leftovers.tree_bytes(f"{store.root}/tmp/{name}", seen)
    return found
