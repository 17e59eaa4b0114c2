"""The distribution protocol, client side (OCI distribution spec v1.1): manifests and blobs.

Every manifest is verified by its digest where one was asked for. Blobs come as pieces that the caller verifies, since
it hashes them anyway; a broken transfer goes on where it stopped, as long as each try brings something.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from limpet.errors import Corrupt, LimpetError, NotFound, Refused
from limpet.oci import manifest as manifests
from limpet.oci import media
from limpet.registry import connection
from limpet.registry.connection import MAX_TRIES, Connection, TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from urllib3.response import BaseHTTPResponse

    from limpet.oci.manifest import Descriptor

    T = TypeVar("T")

PIECE = 1 << 20
_ACCEPT = ", ".join(
    [
        media.OCI_INDEX,
        media.DOCKER_LIST,
        media.OCI_MANIFEST,
        media.DOCKER_MANIFEST,
        f"{media.DOCKER_SCHEMA1_SIGNED};q=0.1",
    ]
)


class Registry:
    """One registry by its domain (`docker.io`, `localhost:5000`). Methods may be called by several threads at once."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self._connection = Connection(domain)

    def manifest(self, repository: str, reference: str) -> tuple[bytes, str, str]:
        """(bytes, media type, digest) of a manifest or index. `reference` is a tag or a digest.

        Raises NotFound, Refused (no access), Corrupt (other bytes than the digest says), TransferError.
        """
        return _tries(lambda: self._manifest(repository, reference))

    def _manifest(self, repository: str, reference: str) -> tuple[bytes, str, str]:
        response = self._connection.request(
            "GET", f"/v2/{repository}/manifests/{reference}", scope=_pull(repository), headers={"Accept": _ACCEPT}
        )
        if response.status != 200:
            raise self._refusal(response, repository, reference)
        data = connection.document(response, manifests.MAX_BYTES)
        wanted = reference if ":" in reference else response.headers.get("Docker-Content-Digest", "")
        algorithm = "sha512" if wanted.startswith("sha512:") and ":" in reference else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        if wanted.startswith(f"{algorithm}:") and wanted != digest:
            raise Corrupt(f"{self.domain}/{repository}: the manifest {wanted} came with the digest {digest}")
        return data, response.headers.get("Content-Type", ""), digest

    def blob(self, repository: str, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a blob from `offset` on, in pieces of about 1 MiB; exactly as many as the descriptor says.

        Not verified. Raises NotFound, Corrupt (too long), TransferError after tries that brought nothing.
        """
        position, failures = offset, 0
        while position < descriptor.size:
            try:
                for piece in self._blob(repository, descriptor, position):
                    position += len(piece)
                    failures = 0
                    if position > descriptor.size:
                        raise Corrupt(
                            f"{descriptor.digest}: longer than the {descriptor.size} bytes that were announced"
                        )
                    yield piece
                if position < descriptor.size:
                    raise TransferError(f"{self.domain}: {descriptor.digest} ends after {position} bytes")
            except TransferError as e:
                failures += 1
                if failures == MAX_TRIES:
                    raise
                connection.patiently(failures - 1, e)

    def _blob(self, repository: str, descriptor: Descriptor, position: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={position}-"} if position else None
        path = f"/v2/{repository}/blobs/{descriptor.digest}"
        response = self._connection.request("GET", path, scope=_pull(repository), headers=headers)
        if response.status not in (200, 206):
            raise self._refusal(response, repository, descriptor.digest)
        skip = 0
        if position and response.status == 200:
            skip = position  # a server without ranges begins again
        elif response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {position}-"):
            response.close()
            raise LimpetError(f"{self.domain}: answered with another range than was asked for")
        try:
            for piece in response.stream(PIECE, decode_content=False):
                if skip >= len(piece):
                    skip -= len(piece)
                    continue
                yield piece[skip:] if skip else piece
                skip = 0
        except HTTPError as e:
            raise connection.explain(e, self._connection.base) from e
        finally:
            if not response.closed:
                response.close()  # the reader gave up half-way: this connection is of no more use
            response.release_conn()

    def _refusal(self, response: BaseHTTPResponse, repository: str, reference: str) -> LimpetError:
        """A status above 300 as an error that says what to do."""
        separator = "@" if ":" in reference else ":"
        name = f"{self.domain}/{repository}{separator}{reference}"
        status = response.status
        said = connection.words(response)
        if status == 404 and "NAME_UNKNOWN" not in said:
            what = "blob" if "BLOB_UNKNOWN" in said else "manifest"
            return NotFound(
                f"{what} for {name} not found: {what} unknown", "check the tag; the registry has no such image"
            )
        if status in (401, 403, 404):
            source = self._connection.login_source(repository)
            return NotFound(
                f"pull access denied for {self.domain}/{repository}, repository does not exist or may require a login",
                f"check the name, or log in: limpet login {self.domain}" + (f" (used: {source})" if source else ""),
            )
        if status == 400 and self._connection.plain and "HTTPS" in said:
            return Refused(f"{self.domain} speaks TLS", "registries on this machine are spoken to in plain HTTP")
        return Refused(f"{name}: {said}")


def _tries(work: Callable[[], T]) -> T:
    for attempt in range(MAX_TRIES):
        try:
            return work()
        except TransferError as e:
            if attempt == MAX_TRIES - 1:
                raise
            connection.patiently(attempt, e)
    raise AssertionError("unreachable")


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"
