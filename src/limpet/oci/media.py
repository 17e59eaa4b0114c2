"""Media types: what a descriptor says that its blob is (OCI image spec media-types.md, Docker's schema 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.errors import Invalid

if TYPE_CHECKING:
    from typing import Literal

    Compression = Literal["tar", "gzip", "zstd"]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
SCHEMA1 = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})

_COMPRESSIONS: dict[str, Compression] = {
    OCI_LAYER: "tar",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    DOCKER_LAYER: "tar",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER_ZSTD: "zstd",
}


def compression(media_type: str) -> Compression:
    """How a layer of this type is compressed. Raises Invalid, naming the type, for what is no layer that can be used.

    Foreign ("non-distributable") layers lie on servers of their owners, named by `urls`: a registry doesn't have them,
    and no current base image uses them.
    """
    found = _COMPRESSIONS.get(media_type)
    if found is not None:
        return found
    if "foreign" in media_type or "nondistributable" in media_type:
        raise Invalid(
            f"foreign layer ({media_type}): its bytes are not in the registry",
            "choose an image without such layers (they are Windows base layers)",
        )
    if media_type.endswith("+encrypted"):
        raise Invalid(f"encrypted layer ({media_type})", "decrypt it first: skopeo copy --decryption-key KEY ...")
    raise Invalid(f"unknown layer media type {media_type!r}", f"known are {', '.join(sorted(_COMPRESSIONS))}")
