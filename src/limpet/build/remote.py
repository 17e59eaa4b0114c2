"""Which sources of ADD are fetched: URLs and git repositories."""

from __future__ import annotations

import re

_GIT_SCHEME = re.compile(r"(?:git|ssh)://", re.IGNORECASE)
_HTTP = re.compile(r"https?://", re.IGNORECASE)
_GIT_OVER_HTTP = re.compile(r"https?://[^?#]*\.git(?:[?#].*)?\Z", re.IGNORECASE | re.DOTALL)
_SCP = re.compile(r"[a-zA-Z0-9_.-]+@[a-zA-Z0-9.-]+:(?!//)[^\s]+\Z")


def remote_kind(source: str) -> str:
    """ "git", "http", or "" for a path (Dockerfile reference, "ADD", "Source"; BuildKit's git references)."""
    if _GIT_SCHEME.match(source) or _GIT_OVER_HTTP.match(source) or _SCP.match(source):
        return "git"
    return "http" if _HTTP.match(source) else ""
