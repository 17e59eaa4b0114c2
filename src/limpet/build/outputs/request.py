"""What outputs are asked for (BuildKit `exporter/`, docker/buildx `util/buildflags/export.go`), as plain data."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from limpet.build.attest.request import Attests
from limpet.frozen import dataclass

if TYPE_CHECKING:
    from limpet.images.package import Form
    from limpet.oci.platform import Platform
    from limpet.oci.reference import Reference

IMAGE, DOCKER, OCI, LOCAL, TAR, CACHE_ONLY = "image", "docker", "oci", "local", "tar", "cacheonly"
STANDARD_OUTPUT = "-"


@dataclass(frozen=True, slots=True)
class Annotation:
    """`place`: manifest, index, manifest-descriptor or index-descriptor; of one platform, or of all (None)."""

    place: str
    key: str
    value: str
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """One output. `text` is how it was written.

    `keep`: the image is in the store afterwards. `names` "()" means the names of the build. `dest` is a path, "-" for
    standard output, "" for none. `split`: a directory for each platform; None where several are built. `layout`: a
    directory instead of an archive.
    """

    kind: str
    text: str = ""
    dest: str = ""
    names: tuple[Reference, ...] = ()
    keep: bool = False
    push: bool = False
    by_digest: bool = False
    layout: bool = False
    split: bool | None = None
    form: Form | None = None
    annotations: tuple[Annotation, ...] = ()

    @property
    def is_files(self) -> bool:
        """Whether it is the file system, without what makes it an image."""
        return self.kind in (LOCAL, TAR)


STORE = Output(IMAGE, keep=True)
"""What a build does if nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """`names` are what `--tag` says. Annotations are of all outputs that can have them."""

    names: tuple[Reference, ...] = ()
    outputs: tuple[Output, ...] = (STORE,)
    annotations: tuple[Annotation, ...] = field(default=())
    attests: Attests = field(default_factory=Attests)

    @property
    def takes_standard_output(self) -> bool:
        return any(each.dest == STANDARD_OUTPUT for each in self.outputs)

    @property
    def is_image(self) -> bool:
        """Whether there is an output that has an id: not if only files are wanted."""
        return any(not each.is_files and each.kind != CACHE_ONLY for each in self.outputs)
