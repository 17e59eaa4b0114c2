"""Who the user is to a registry: the files that `limpet login`, `docker login` and `podman login` write.

Asked in this order; the first that has something for the repository decides:

1. `$REGISTRY_AUTH_FILE`; if that is set, no other file is read;
2. `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`;
3. `$XDG_RUNTIME_DIR/containers/auth.json`, else `/run/containers/UID/auth.json`;
4. `$XDG_CONFIG_HOME/containers/auth.json`, else `~/.config/containers/auth.json`.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field

from limpet.kernel import idmap
from limpet.registry import redact

DOCKER_HUB = "docker.io"


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or an identity token that is exchanged for access tokens (OAuth2 refresh token).

    `source` says where it comes from, for messages. What is secret is hidden from all error messages from now on.
    """

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)
    source: str = ""

    def __post_init__(self) -> None:
        redact.conceal(self.password)
        redact.conceal(self.identity_token)
        if self.password:
            redact.conceal(f"{self.username}:{self.password}")

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find(domain: str, repository: str = "") -> Credentials | None:
    """What the user's files say for a repository, None if nothing. Raises Invalid for a file that can't be read."""
    from limpet.registry.authfile import AuthFile

    for path in paths():
        found = AuthFile(path).find(domain, repository)
        if found is not None:
            return found
    return None


def paths() -> list[str]:
    """The files that are asked, in order; not all of them exist."""
    chosen = os.environ.get("REGISTRY_AUTH_FILE")
    if chosen:
        return [chosen]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    containers = f"{runtime}/containers" if runtime else f"/run/containers/{idmap.outside()}"
    found = [docker_config(), f"{containers}/auth.json", f"{config}/containers/auth.json"]
    if not runtime and os.path.isdir("/run/containers") and not os.access("/run/containers", os.X_OK):
        del found[1]  # root's Podman made the directory for itself
    return found


def docker_config() -> str:
    """Where `docker login` writes, and `limpet login` unless told otherwise."""
    return os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")


def target() -> str:
    """The file that a login is written to."""
    return os.environ.get("REGISTRY_AUTH_FILE") or docker_config()
