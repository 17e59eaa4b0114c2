"""What is known about an image, in the form of the Docker Engine API (`GET /images/NAME/json`)."""

from __future__ import annotations

import time

from limpet.errors import Invalid, NotFound
from limpet.images import catalog
from limpet.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.images.catalog import Image
    from limpet.store.store import Store

_CONFIG: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
"""Fields that Docker always shows, so that a template may name them."""


def describe(store: Store, image: Image) -> dict[str, Any]:
    """One object of the array that `image inspect` prints."""
    layers = catalog.layers(store, image.id)
    (driver,) = store.db.row(
        "SELECT max(driver) FROM image_layer JOIN layer USING (diff_id) WHERE image_id = ?", image.id
    )
    history = image.config.get("history") or [{}]
    arrived = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(image.created))
    size = size_of(store, image.id)
    found = {
        "Id": image.id,
        "RepoTags": [reference.parse(name).familiar for name in image.names if "@" not in name],
        "RepoDigests": digests_of(store, image.id),
        "Parent": "",
        "Comment": history[-1].get("comment") or "",
        "Created": image.config.get("created") or "",
        "DockerVersion": image.config.get("docker_version") or "",
        "Author": image.config.get("author") or "",
        "Config": {**_CONFIG, **(image.config.get("config") or {})},
        "Architecture": image.config.get("architecture") or "",
        "Os": image.config.get("os") or "",
        "Size": size,
        "VirtualSize": size,
        "GraphDriver": {
            "Name": driver or "",
            "Data": {"LowerDir": ":".join(store.layer_path(diff_id) for diff_id in reversed(layers))},
        },
        "RootFS": {"Type": "layers", "Layers": layers},
        "Metadata": {"LastTagTime": arrived},
    }
    if image.config.get("variant"):
        found["Variant"] = image.config["variant"]
    return found


def raw(store: Store, text: str) -> bytes:
    """The manifest or index that `text` stands for, to the byte as it was fetched. Raises NotFound, Corrupt.

    Of a name by digest the document with that digest; of a tag the one that the registry has under it.
    """
    from limpet.oci import manifest as manifests
    from limpet.store import blobs

    image = catalog.find(store, text)
    wanted, digest = "", ""
    try:
        named = reference.parse(text)
        wanted, digest = named.canonical, named.digest
    except Invalid:
        pass
    rows = store.db.rows(
        "SELECT coalesce(index_digest, manifest), reference = ? FROM name"
        " WHERE image_id = ? AND manifest IS NOT NULL ORDER BY 2 DESC, 1",
        wanted,
        image.id,
    )
    digest = digest or next((found for found, _ in rows), "")
    if not digest:
        raise NotFound(f"{text} has no manifest: it was made here, or loaded from an archive without one")
    return blobs.read(store, digest, manifests.MAX_BYTES)


def size_of(store: Store, image_id: str) -> int:
    """Bytes of the image's layers, uncompressed: what Docker shows as its size."""
    (size,) = store.db.row(
        "SELECT coalesce(sum(size), 0) FROM image_layer JOIN layer USING (diff_id) WHERE image_id = ?", image_id
    )
    return int(size)


def digests_of(store: Store, image_id: str) -> list[str]:
    """`debian@sha256:…`: the manifests or indexes by which it is known to registries."""
    found = set()
    for name, manifest, index in store.db.rows(
        "SELECT reference, manifest, index_digest FROM name WHERE image_id = ?", image_id
    ):
        parsed = reference.parse(name)
        digest = parsed.digest or index or manifest
        if digest:
            found.add(f"{parsed.familiar_name}@{digest}")
    return sorted(found)
