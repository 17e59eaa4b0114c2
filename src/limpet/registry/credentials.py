"""Who the user is to a registry: `auths` of ~/.docker/config.json, which `docker login` and `podman login` write.

Credential helpers (`credsStore`, `credHelpers`) are programs and are not run.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.errors import Invalid

if TYPE_CHECKING:
    from typing import Any

DOCKER_HUB = "docker.io"
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or an identity token that is exchanged for access tokens (OAuth2 refresh token)."""

    username: str
    password: str
    identity_token: str = ""

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find(domain: str) -> Credentials | None:
    """What the user's file says for a registry, None if nothing. Raises Invalid for a file that can't be read."""
    path = os.path.join(os.environ.get("DOCKER_CONFIG", "") or os.path.expanduser("~/.docker"), "config.json")
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise Invalid(f"{path}: {e.strerror}") from None
    try:
        auths = json.loads(data).get("auths") or {}
        entries = {key: value for key, value in auths.items() if isinstance(value, dict)}
    except (ValueError, AttributeError, RecursionError):
        raise Invalid(f"{path}: not the JSON that `docker login` writes", "mend it, or move it away") from None
    for key, entry in entries.items():
        if key in _HUB_KEYS if domain == DOCKER_HUB else _host(key) == domain:
            return _credentials(entry, path)
    return None


def _host(key: str) -> str:
    """Old files have whole addresses as keys."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _credentials(entry: dict[str, Any], path: str) -> Credentials | None:
    username, password = entry.get("username"), entry.get("password")
    if isinstance(entry.get("auth"), str) and entry["auth"]:
        try:
            username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Invalid(f"{path}: an `auth` is not base64", "log in again") from None
        password = password.strip("\0")
    token = entry.get("identitytoken")
    if not isinstance(token, str):
        token = ""
    if not token and not (isinstance(username, str) and isinstance(password, str)):
        return None
    return Credentials(str(username or ""), str(password or ""), token)
