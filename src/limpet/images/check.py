"""`system check`: reads every row and every byte of the store, and says what differs from what it should be.

A finding is *garbage* (no row names it: `prune` takes it, nothing is wrong) or *damage*. `repair` puts right what can
be: a config blob is written again from its row, a layer is made again from the blob that it came from, and what a
registry still has (manifests, compressed layers, images) is dropped, to be pulled again. A layer's index or unpacked
tree is made again from its tar. What only exists
here (a container, a volume, a built layer without its blob) is never dropped: the finding stays.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from limpet import jsontext
from limpet.errors import LimpetError
from limpet.images import catalog, leftovers, names
from limpet.layers import compression, durable, stored
from limpet.layers.driver import driver
from limpet.oci import digest as digests
from limpet.oci import media, reference
from limpet.progress import Progress
from limpet.store import blobs
from limpet.store.files import remove_tree, sync_directory
from limpet.store.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Finding:
    what: str  # "layer sha256:12ab..."
    problem: str
    garbage: bool = False
    repaired: str = ""  # what was done about it; "" if nothing could be, or nothing was to be
    advice: str = ""  # who is concerned, and what to do next; of layers


def check(store: Store, repair: bool = False, progress: Progress | None = None) -> list[Finding]:
    """All findings, in the order database, blobs, layers, images, containers, volumes, garbage."""
    found: list[Finding] = []
    progress = progress or Progress()
    for step in (_database, _blobs, _layers, _images, _containers, _garbage):
        found += step(store, repair, progress)
    return found


def _database(store: Store, repair: bool, progress: Progress) -> Iterator[Finding]:
    for (text,) in store.db.rows("PRAGMA integrity_check"):
        if text != "ok":
            yield Finding("database state.db", str(text))
    for table, _, parent, _ in store.db.rows("PRAGMA foreign_key_check"):
        yield Finding("database state.db", f"a row of {table} names a row of {parent} that isn't there")


def _blobs(store: Store, repair: bool, progress: Progress) -> Iterator[Finding]:
    rows = store.db.rows("SELECT digest, size FROM blob ORDER BY digest")
    progress.begin("blobs", "Reading blobs", sum(size for _, size in rows))
    for digest, size in rows:
        problem = _blob_problem(store, digest, size)
        progress.advance("blobs", size)
        if problem and store.db.row("SELECT 1 FROM blob WHERE digest = ?", digest):  # not removed meanwhile
            yield Finding(f"blob {digest}", problem, repaired=_repair_blob(store, digest) if repair else "")
    progress.finish("blobs", f"{len(rows)} read")


def _blob_problem(store: Store, digest: str, size: int) -> str:
    try:
        algorithm = digests.check(digest).partition(":")[0]
        with open(store.blob_path(digest), "rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                return f"has {found} bytes instead of {size}"
            total = hashlib.new(algorithm)
            while chunk := file.read(_CHUNK):
                total.update(chunk)
    except FileNotFoundError:
        return "the file is missing"
    except (OSError, LimpetError) as e:
        return str(e)
    return (
        "" if total.hexdigest() == digests.hex_of(digest) else f"the content is that of {algorithm}:{total.hexdigest()}"
    )


def _repair_blob(store: Store, digest: str) -> str:
    row = store.db.row("SELECT config FROM image WHERE id = ?", digest)
    if row is not None:
        data = row[0].encode()
        if digests.of(data) != digest:
            return ""
        _drop_blob(store, digest)
        blobs.put(store, data)
        return "written again from the image's row"
    with store.db.transaction():
        store.db.run("DELETE FROM manifest WHERE digest = ?", digest)  # its names stay, without a manifest
        store.db.run("UPDATE name SET index_digest = NULL WHERE index_digest = ?", digest)
    _drop_blob(store, digest)
    return "dropped; a pull fetches it again"


def _drop_blob(store: Store, digest: str) -> None:
    with store.db.transaction():
        store.db.run("DELETE FROM blob WHERE digest = ?", digest)
    try:
        os.unlink(store.blob_path(digest))
    except FileNotFoundError:
        pass


def _layers(store: Store, repair: bool, progress: Progress) -> Iterator[Finding]:
    rows = store.db.rows("SELECT diff_id, driver, size FROM layer ORDER BY diff_id")
    progress.begin("layers", "Reading layers", sum(size for _, _, size in rows))
    for diff_id, kind, size in rows:
        try:
            problem = driver(store, kind).check(diff_id) or ""
        except (OSError, LimpetError) as e:
            problem = str(e)
        progress.advance("layers", size)
        if problem and store.db.row("SELECT 1 FROM layer WHERE diff_id = ?", diff_id):
            done = _repair_layer(store, diff_id, kind) if repair else ""
            advice = "" if done else _advice(store, diff_id, kind, tried=repair)
            yield Finding(f"layer {diff_id}", problem, repaired=done, advice=advice)
    progress.finish("layers", f"{len(rows)} read")


def _advice(store: Store, diff_id: str, kind: str, *, tried: bool) -> str:
    """Whose layer it is, and the next step: after a repair that had nothing to make it from, or before one."""
    images, containers = _users(store, diff_id)
    shown = [
        *(f"image {_shown(store, image_id)}" for image_id in images),
        *(f"container {name}" for name, _ in containers),
    ]
    used = f"used by {', '.join(shown)}" if shown else "used by nothing"
    running = [name for name, busy in containers if busy]
    if not tried:
        return f"{used}; `limpet system check --repair` makes it again if it can"
    if running and kind == "dir":
        return f"{used}; `limpet stop {' '.join(running)}`, then try again"
    removals = []
    if containers:
        removals.append(f"`limpet rm {'-f ' if running else ''}{' '.join(name for name, _ in containers)}`")
    fetched = images and all(_is_fetched(store, image_id) for image_id in images)
    if fetched:
        removals.append("`limpet system check --repair` (which drops the image)")
    elif images:
        removals.append(f"`limpet rmi -f {' '.join(_shown(store, image_id) for image_id in images)}`")
    again = "pull it again" if fetched else "load, import or build it again"
    copies = ", copy what you need out of it (`limpet cp`)" if containers else ""
    return f"{used}; nothing here can make it again{copies}: {', then '.join(removals)}, and {again}"


def _users(store: Store, diff_id: str) -> tuple[list[str], list[tuple[str, bool]]]:
    """Ids of the images, and the containers' names with whether they run."""
    images = [row[0] for row in store.db.rows("SELECT image_id FROM image_layer WHERE diff_id = ?", diff_id)]
    containers = [
        (name, names.runs(store, container_id))
        for container_id, name, layers in store.db.rows(
            "SELECT container_id, name, layers FROM container_use ORDER BY name"
        )
        if diff_id in jsontext.loads(layers)
    ]
    return list(dict.fromkeys(images)), containers


def _is_fetched(store: Store, image_id: str) -> bool:
    """Whether a registry has it."""
    return store.db.row("SELECT 1 FROM name WHERE image_id = ? AND manifest IS NOT NULL", image_id) is not None


def _repair_layer(store: Store, diff_id: str, kind: str) -> str:
    images, containers = _users(store, diff_id)
    if kind == "dir" and any(busy for _, busy in containers):
        return ""  # its files are what the container reads
    if _make_forms_again(store, diff_id, kind):
        return "made again from its tar"
    for digest, media_type, size in store.db.rows(
        "SELECT digest, media_type, size FROM layer_blob JOIN blob USING (digest) WHERE diff_id = ?", diff_id
    ):
        if not _blob_problem(store, digest, size) and _make_again(store, diff_id, kind, digest, media_type):
            return f"made again from blob {digest}"
    # Only what a registry still has may go: every image on this layer came from one.
    if containers or not all(_is_fetched(store, image_id) for image_id in images):
        return ""
    dropped = [_shown(store, image_id) for image_id in images]
    with store.db.transaction():
        for image_id in images:
            store.db.run("DELETE FROM image WHERE id = ?", image_id)
        store.db.run("DELETE FROM layer WHERE diff_id = ?", diff_id)
    driver(store, kind).remove(diff_id)
    return f"dropped with {', '.join(dropped) or 'no image'}; a pull fetches it again"


def _make_forms_again(store: Store, diff_id: str, kind: str) -> bool:
    """From the layer's tar, if that is intact: what is damaged is only what the kernel mounts."""
    if stored.check_tar(store, diff_id) is not None:
        return False
    home = driver(store, kind)
    durable.drop_forms(store.layer_path(diff_id))
    try:
        for stack in _stacks(store, diff_id):
            os.close(home.mount(stack))  # makes what is missing
    except (OSError, LimpetError):
        return False
    return home.check(diff_id) is None


def _stacks(store: Store, diff_id: str) -> list[list[str]]:
    """All stacks of layers that have this one: of images and of containers."""
    stacks = [catalog.layers(store, image.id) for image in catalog.all_images(store)]
    stacks += [jsontext.loads(text) for (text,) in store.db.rows("SELECT layers FROM container_use")]
    return [stack for stack in stacks if diff_id in stack]


def _make_again(store: Store, diff_id: str, kind: str, digest: str, media_type: str) -> bool:
    """A layer from its intact blob. The row stays (images refer to it): only the files are replaced.

    It is made in a store of its own in tmp/, so that a kill leaves garbage and nothing else.
    """
    scratch = Store(store.temporary("repair"))
    try:
        with open(store.blob_path(digest), "rb") as file, driver(scratch, kind).ingest() as ingest:
            for chunk in compression.decompress(file.read, media.compression(media_type)):
                ingest.write(chunk)
            ingest.finish(diff_id, durable=True)
        scratch.db.close()
        home = driver(store, kind)
        home.remove(diff_id)
        os.rename(scratch.layer_path(diff_id), store.layer_path(diff_id))
        sync_directory(f"{store.root}/layers")
        for stack in _stacks(store, diff_id):
            home.seal(stack)
        return home.check(diff_id) is None
    except (OSError, LimpetError):
        return False
    finally:
        remove_tree(scratch.root)


def _shown(store: Store, image_id: str) -> str:
    row = store.db.row("SELECT reference FROM name WHERE image_id = ? ORDER BY reference", image_id)
    return reference.parse(row[0]).familiar if row else digests.short(image_id)


def _images(store: Store, repair: bool, progress: Progress) -> Iterator[Finding]:
    for image_id, text in store.db.rows("SELECT id, config FROM image ORDER BY id"):
        what = f"image {image_id}"
        if digests.of(text.encode()) != image_id:
            yield Finding(
                what, "its row has another config", repaired=_repair_config(store, image_id) if repair else ""
            )
            continue
        if store.db.row("SELECT 1 FROM blob WHERE digest = ?", image_id) is None:
            yield Finding(what, "its config blob is missing", repaired=_repair_blob(store, image_id) if repair else "")
        wanted = (jsontext.loads(text).get("rootfs") or {}).get("diff_ids") or []
        if wanted != catalog.layers(store, image_id):
            yield Finding(what, "its layers are not those of its config")
    for digest, image_id in store.db.rows("SELECT digest, image_id FROM manifest"):
        if store.db.row("SELECT 1 FROM blob WHERE digest = ?", digest) is None:
            done = ""
            if repair:
                with store.db.transaction():
                    store.db.run("DELETE FROM manifest WHERE digest = ?", digest)
                done = "dropped; a pull fetches it again"
            yield Finding(f"image {image_id}", f"its manifest {digest} is missing", repaired=done)
    for name, _ in store.db.rows("SELECT reference, image_id FROM name"):
        try:
            if reference.parse(name).canonical != name:
                yield Finding(f"name {name}", "it is not in its normal form")
        except LimpetError as e:
            yield Finding(f"name {name}", e.message)


def _repair_config(store: Store, image_id: str) -> str:
    try:
        text = blobs.read(store, image_id, 64 << 20).decode()
    except (OSError, LimpetError, ValueError):
        return ""
    with store.db.transaction():
        store.db.run("UPDATE image SET config = ? WHERE id = ?", text, image_id)
    return "written again from its blob"


def _containers(store: Store, repair: bool, progress: Progress) -> Iterator[Finding]:
    known = {diff_id for (diff_id,) in store.db.rows("SELECT diff_id FROM layer")}
    for container_id, name, layers in store.db.rows(
        "SELECT container_id, name, layers FROM container_use ORDER BY created"
    ):
        what = f"container {name}"
        for diff_id in jsontext.loads(layers):
            if diff_id not in known:
                yield Finding(what, f"its layer {diff_id} is missing")
        for part in ("upper", "image.json"):
            if not os.path.exists(f"{store.container_path(container_id)}/{part}"):
                row = store.db.row("SELECT 1 FROM container WHERE id = ?", container_id)
                if row is not None:  # not removed meanwhile
                    yield Finding(what, f"its {part} is missing in {store.container_path(container_id)}")
    for (name,) in store.db.rows("SELECT name FROM volume ORDER BY name"):
        if not os.path.isdir(f"{store.volume_path(name)}/_data"):
            yield Finding(f"volume {name}", "its directory is missing")


def _garbage(store: Store, repair: bool, progress: Progress) -> Iterator[Finding]:
    with store.exclusive() as held:
        if not held:
            progress.note("something is being added right now: garbage is not listed")
            return
        for leftover in leftovers.find(store):
            yield Finding(leftover.path, f"{leftover.what}: `limpet system prune` takes it", garbage=True)
