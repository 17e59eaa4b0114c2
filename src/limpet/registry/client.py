"""The distribution protocol, client side (OCI distribution spec v1.1): one registry, its manifests and blobs.

Every manifest is verified by its digest where one was asked for. Blobs come as pieces that the caller verifies, since
it hashes them anyway (`download.py`), and go up by `upload.py`. What needs more than one request is in modules of its
own: lists, deletion and referrers in `content.py`, a whole image from registry to registry in `copying.py`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from limpet.errors import Corrupt, NotFound, Refused
from limpet.oci import manifest as manifests
from limpet.oci import media
from limpet.registry import connection, download
from limpet.registry.connection import MAX_TRIES, Connection, TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from urllib3.response import BaseHTTPResponse

    from limpet.errors import LimpetError
    from limpet.oci.manifest import Descriptor
    from limpet.registry.rate import Rate

    T = TypeVar("T")

ACCEPT = ", ".join(
    [
        media.OCI_INDEX,
        media.DOCKER_LIST,
        media.OCI_MANIFEST,
        media.DOCKER_MANIFEST,
        f"{media.DOCKER_SCHEMA1_SIGNED};q=0.1",
    ]
)


class Registry:
    """One registry by its domain (`docker.io`, `localhost:5000`). Methods may be called by several threads at once.

    `rate` limits the bytes of blobs, both ways. `single_post` is whether it takes a blob with one POST; None: not
    known yet. Without `mirrors` only the registry itself is asked.
    """

    def __init__(self, domain: str, rate: Rate | None = None, *, mirrors: bool = True) -> None:
        self.domain = domain
        self.rate = rate
        self.connection = Connection(domain, mirrors=mirrors)
        self.single_post: bool | None = None

    def manifest(self, repository: str, reference: str) -> tuple[bytes, str, str]:
        """(bytes, media type, digest) of a manifest or index. `reference` is a tag or a digest.

        Raises NotFound, Refused (no access), Corrupt (other bytes than the digest says), TransferError.
        """
        try:
            return tries(lambda: self._manifest(repository, reference))
        except Corrupt:
            if not self.connection.distrust_mirrors():
                raise
            return tries(lambda: self._manifest(repository, reference))

    def _manifest(self, repository: str, reference: str) -> tuple[bytes, str, str]:
        response = self.connection.request(
            "GET", f"/v2/{repository}/manifests/{reference}", scope=pulling(repository), headers={"Accept": ACCEPT}
        )
        if response.status != 200:
            raise self.refusal(response, repository, reference)
        data = connection.document(response, manifests.MAX_BYTES)
        wanted = reference if ":" in reference else response.headers.get("Docker-Content-Digest", "")
        algorithm = "sha512" if wanted.startswith("sha512:") and ":" in reference else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        if wanted.startswith(f"{algorithm}:") and wanted != digest:
            raise Corrupt(f"{self.domain}/{repository}: the manifest {wanted} came with the digest {digest}")
        return data, response.headers.get("Content-Type", ""), digest

    def has_manifest(self, repository: str, digest: str) -> bool:
        """Whether the registry has this manifest in this repository; asked for as one who pushes there."""

        def ask() -> bool:
            path = f"/v2/{repository}/manifests/{digest}"
            headers = {"Accept": ACCEPT}
            response = self.connection.request("HEAD", path, scope=pushing(repository), headers=headers)
            connection.finish(response)
            return response.status == 200

        return tries(ask)

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> tuple[str, bool]:
        """Uploads a manifest or index under a tag or its digest; gives its digest and whether the registry itself
        keeps track of its subject (the OCI-Subject header, spec "Pushing Manifests with Subject").

        Raises NotFound (no access), Refused, Corrupt (the registry says another digest), TransferError.
        """
        return tries(lambda: self._put_manifest(repository, reference, data, media_type))

    def _put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> tuple[str, bool]:
        response = self.connection.request(
            "PUT",
            f"/v2/{repository}/manifests/{reference}",
            scope=pushing(repository),
            headers={"Content-Type": media_type},
            body=data,
        )
        if response.status not in (200, 201, 202):
            raise self.refusal(response, repository, reference, "push")
        connection.finish(response)
        algorithm = "sha512" if reference.startswith("sha512:") else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        said = response.headers.get("Docker-Content-Digest", "")
        if said.startswith(f"{algorithm}:") and said != digest:
            raise Corrupt(f"{self.domain}/{repository}: took the manifest {digest} for {said[:100]}")
        return digest, bool(response.headers.get("OCI-Subject"))

    def blob(self, repository: str, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a blob from `offset` on, in pieces of about 1 MiB; exactly as many as the descriptor says.

        Not verified. Raises NotFound, Corrupt (another length), TransferError after tries that brought nothing.
        """
        return download.blob(self, repository, descriptor, offset)

    def has_blob(self, repository: str, digest: str) -> int | None:
        """The size of a blob if the registry has it in this repository, else None; asked by one who pushes there."""

        def ask() -> int | None:
            path = f"/v2/{repository}/blobs/{digest}"
            response = self.connection.request("HEAD", path, scope=pushing(repository))
            connection.finish(response)
            if response.status != 200:
                return None  # also where reading is not allowed: the upload will tell
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdecimal() else 0

        return tries(ask)

    def refusal(self, response: BaseHTTPResponse, repository: str, reference: str, action: str = "pull") -> LimpetError:
        """A status above 300 as an error that says what to do. `action`: pull, push or delete."""
        separator = "@" if ":" in reference else ":"
        name = f"{self.domain}/{repository}{separator}{reference}"
        status = response.status
        said = connection.words(response)
        if status == 404 and action != "push" and "NAME_UNKNOWN" not in said:
            what = "blob" if "BLOB_UNKNOWN" in said else "manifest"
            hint = "check the digest; it is of something else, or was deleted"
            if separator == ":":
                hint = f"check the tag: limpet registry tags {self.domain}/{repository} lists what there is"
            return NotFound(f"{what} for {name} not found: {what} unknown", hint)
        if status in (401, 403, 404):
            return self._no_access(repository, action, said, unknown=status == 404)
        if status == 400 and self.connection.plain and "HTTPS" in said:
            return Refused(f"{self.domain} speaks TLS", "registries on this machine are spoken to in plain HTTP")
        return Refused(f"{name}: {said}")

    def _no_access(self, repository: str, action: str, said: str, *, unknown: bool) -> LimpetError:
        """Whether a repository is not there or not for us, most registries don't say. `unknown`: this one does."""
        where = f"{self.domain}/{repository}"
        login = self.connection.login_shown(repository)
        who = ""
        if login.source:
            who = f"{f'as {login.user}' if login.user else 'with an identity token'} (from {login.source})"
        if login.rejected:
            what = f"{where}: {action} refused: the login {who} was not accepted"
            return (NotFound if action == "pull" else Refused)(what, f"log in again: limpet login {self.domain}")
        if action == "pull":
            if unknown:
                hint = "check the name" if who else f"check the name, or log in: limpet login {self.domain}"
                return NotFound(f"{where} not found: the registry has no such repository", hint)
            if who:
                return NotFound(
                    f"{where} not found or no access: logged in {who}, without the right to pull it",
                    "check the name, or ask for the right",
                )
            return NotFound(
                f"{where} not found or no access: not logged in",
                f"check the name, or log in: limpet login {self.domain}",
            )
        if "quota" in said:
            hint = f"remove something there: limpet registry delete {where}:TAG"
        elif who:
            said = f"logged in {who}, without the right to {action} ({said})"
            hint = f"ask for the right, or log in as somebody who has it: limpet login {self.domain}"
        else:
            said = f"not logged in ({said})"
            hint = f"log in as somebody who may: limpet login {self.domain}"
        return Refused(f"{action} access denied for {where}: {said}", hint)


def tries(work: Callable[[], T]) -> T:
    """`work`, again after a pause where another try may help."""
    for attempt in range(MAX_TRIES):
        try:
            return work()
        except TransferError as e:
            if attempt == MAX_TRIES - 1:
                raise
            connection.patiently(attempt, e)
    raise AssertionError("unreachable")


def pulling(repository: str) -> str:
    return f"repository:{repository}:pull"


def pushing(repository: str) -> str:
    return f"repository:{repository}:pull,push"
