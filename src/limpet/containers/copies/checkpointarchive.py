"""A checkpoint with its container, as an OCI archive: it goes on where there is none of it yet.

The archive is an image: the container's layers, what it changed, and on top a layer with the checkpoint's files. Its
label `org.limpet.checkpoint` has what the user had asked for. So any registry keeps it, and no layer is lost.

Who restores one trusts it as root: CRIU makes the processes that it describes, with the rights that it says.
"""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING, Any, cast

from limpet import jsontext
from limpet.containers import create
from limpet.containers.copies import checkpoints
from limpet.containers.files import changes
from limpet.containers.mounts import mountplan
from limpet.containers.observe import listing
from limpet.containers.options import Options
from limpet.errors import Invalid, Refused
from limpet.images import importer, load, names, save
from limpet.images.catalog import Image
from limpet.layers.driver import driver
from limpet.progress import Progress

if TYPE_CHECKING:
    from typing import BinaryIO

    from limpet.containers.copies.checkpoints import Checkpoint
    from limpet.containers.mounts.mountplan import Mount
    from limpet.containers.state import Container
    from limpet.store.store import Store

LABEL = "org.limpet.checkpoint"
VERSION = 1


def check(store: Store, container: Container) -> None:
    """Raises Refused for what an export would not have."""
    kept = [mount.name for mount in mountplan.load(store, container.id) if mount.name and mount.anonymous]
    if kept:
        raise Refused(
            f"container {container.name} has anonymous volumes, which an export does not take along",
            "give them names, or checkpoint it without --export",
            exit_code=1,
        )


def write(store: Store, container: Container, checkpoint: Checkpoint, path: str) -> None:
    """Raises OSError, with the path."""
    facts = {
        "version": VERSION,
        "name": container.name,
        "image": container.image_name,
        "options": container.options.to_json(),
        "checkpoint": checkpoint.name,
    }
    base = listing.image_config(store, container)
    config = dict(base.get("config") or {})
    config["Labels"] = {**(config.get("Labels") or {}), LABEL: jsontext.dumps(facts)}
    with store.lease():
        changed = changes.write_layer(store, container, empty=True)
        assert changed is not None
        layers = [*container.layers, changed, _layer(store, checkpoint)]
        whole = {**base, "config": config, "rootfs": {"type": "layers", "diff_ids": layers}}
        whole.pop("history", None)  # it had an entry for each layer
        image = importer.add_image(store, jsontext.dumps(whole, sort_keys=True).encode(), layers, [])
        try:
            save.to_file(path, lambda file: save.save(store, [image.id], file, "oci-archive"))
        finally:
            names.remove(store, image.id, force=True)


def read(store: Store, path: str, name: str = "") -> tuple[Container, Checkpoint]:
    """A new container, not started, and the checkpoint that it has. Raises Invalid for another archive."""
    image = load.one(store, path, tag="", digest="", platform=None, progress=Progress())
    labels = (image.config.get("config") or {}).get("Labels") or {}
    facts = _facts(path, labels.get(LABEL, ""))
    options = Options.from_json(facts["options"])
    options.name = name or facts["name"]
    options.image = facts["image"]
    diff_ids: list[str] = image.config["rootfs"]["diff_ids"]
    config = {**image.config, "config": {**image.config["config"], "Labels": {**labels}}}
    del config["config"]["Labels"][LABEL]

    def fill(place: str, _: list[Mount]) -> None:
        _unpack(f"{store.layer_path(diff_ids[-1])}/data", f"{place}/checkpoints/{facts['checkpoint']}")

    bare = Image(image.id, config, [], 0)
    container = create.create(store, bare, options, layers=diff_ids[:-1], fill=fill)
    return container, checkpoints.find(store, container)


def _facts(path: str, text: str) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = jsontext.loads(text)
        known = facts["version"] <= VERSION
        names_ok = all(isinstance(facts[key], str) for key in ("name", "image", "options", "checkpoint"))
    except (ValueError, KeyError, TypeError):
        raise Invalid(
            f"{path} is no export of a checkpoint", "`limpet checkpoint create --export` writes one"
        ) from None
    if not known:
        raise Refused(f"{path} was written by a newer limpet", f"this one knows version {VERSION}")
    if not names_ok or "/" in facts["checkpoint"] or facts["checkpoint"] in ("", ".", ".."):
        raise Invalid(f"{path} is a damaged export of a checkpoint")
    return facts


def _layer(store: Store, checkpoint: Checkpoint) -> str:
    """The checkpoint's files as a layer: its diff ID."""
    with driver(store).ingest() as ingest:
        with tarfile.open(fileobj=cast("BinaryIO", ingest), mode="w|") as tar:
            for name in sorted(os.listdir(checkpoint.path)):
                tar.add(f"{checkpoint.path}/{name}", name)
        return ingest.finish(durable=False).diff_id


def _unpack(tar: str, place: str) -> None:
    """Plain files only, each by a name without a directory."""
    os.makedirs(place, 0o700)
    with tarfile.open(tar, "r:") as files:
        for member in files:
            if not member.isfile() or "/" in member.name or member.name in (".", ".."):
                raise Invalid(f"a checkpoint's layer has {member.name!r}, which is no plain file")
            source = files.extractfile(member)
            assert source is not None
            with source, open(f"{place}/{member.name}", "xb") as target:
                while data := source.read(1 << 20):
                    target.write(data)
