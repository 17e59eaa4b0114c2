"""Names from a request's path, checked before they are part of a path on disk (distribution spec, "Pulling manifests").

name = component *("/" component)     component = [a-z0-9]+ *(separator [a-z0-9]+)     separator = . | _ | __ | -+
tag  = [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
"""

from __future__ import annotations

import re

from limpet.errors import Invalid
from limpet.oci import digest as digests
from limpet.registry.server.errors import RegistryError

MAX_NAME = 255
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_UPLOAD = re.compile(r"[0-9a-f]{32}")


def repository(text: str) -> str:
    """Raises NAME_INVALID."""
    if len(text) > MAX_NAME:
        raise RegistryError(400, "NAME_INVALID", f"a repository's name has at most {MAX_NAME} characters")
    if not _NAME.fullmatch(text):
        raise RegistryError(400, "NAME_INVALID", detail={"name": text})
    return text


def digest(text: str) -> str:
    """Raises DIGEST_INVALID."""
    try:
        return digests.check(text)
    except Invalid as e:
        raise RegistryError(400, "DIGEST_INVALID", str(e)) from None


def is_digest(reference: str) -> bool:
    return ":" in reference


def tag(text: str, status: int = 400) -> str:
    """Raises MANIFEST_INVALID; with `status` 404 MANIFEST_UNKNOWN, as a tag that cannot be isn't there."""
    if not _TAG.fullmatch(text):
        code = "MANIFEST_UNKNOWN" if status == 404 else "MANIFEST_INVALID"
        raise RegistryError(status, code, f"{text[:140]!r} is not a tag", detail={"tag": text[:140]})
    return text


def upload(text: str) -> str:
    """Raises BLOB_UPLOAD_UNKNOWN."""
    if not _UPLOAD.fullmatch(text):
        raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN")
    return text
