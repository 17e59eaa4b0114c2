"""Errors as the distribution specification has them (spec.md, "Error Codes").

UNAVAILABLE and UNKNOWN are distribution's own (its `registry/api/errcode`): the specification has no code for a server
that fails, where the client did nothing wrong.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_MESSAGES = {
    "BLOB_UNKNOWN": "blob unknown to registry",
    "BLOB_UPLOAD_INVALID": "blob upload invalid",
    "BLOB_UPLOAD_UNKNOWN": "blob upload unknown to registry",
    "DIGEST_INVALID": "provided digest did not match uploaded content",
    "MANIFEST_BLOB_UNKNOWN": "manifest references a manifest or blob unknown to registry",
    "MANIFEST_INVALID": "manifest invalid",
    "MANIFEST_UNKNOWN": "manifest unknown to registry",
    "NAME_INVALID": "invalid repository name",
    "NAME_UNKNOWN": "repository name not known to registry",
    "SIZE_INVALID": "provided length did not match content length",
    "UNAUTHORIZED": "authentication required",
    "DENIED": "requested access to the resource is denied",
    "UNSUPPORTED": "the operation is unsupported",
    "TOOMANYREQUESTS": "too many requests",
    "UNAVAILABLE": "service unavailable",
    "UNKNOWN": "unknown error",
}


class RegistryError(Exception):
    """Answered with `status` and the specification's JSON. `message` says more than the code's own words."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str = "",
        *,
        detail: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message or _MESSAGES[code])
        self.status = status
        self.code = code
        self.message = message or _MESSAGES[code]
        self.detail = detail
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.detail is not None:
            error["detail"] = self.detail
        return json.dumps({"errors": [error]}).encode() + b"\n"
