"""The token service (distribution's token protocol: "Docker Registry v2 authentication via central service").

A token is what the user may do, signed with a key that lies in the storage and that all workers share. It holds for a
few minutes; nobody but this registry reads it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.registry.server.users import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from limpet.registry.server.users import Users

LIFETIME = 300
SERVICE = "limpet-registry"
_MOST_SCOPES = 50


@dataclass(frozen=True)
class Identity:
    """Who asks: `name` "" for anybody. `access`: what a token grants by repository; None: ask the rules.

    `lists`: a token for the catalogue, which shows what the rules let its user pull.
    """

    name: str
    access: Mapping[str, frozenset[str]] | None = None
    lists: bool = False


class Tokens:
    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, name: str, scopes: Iterable[str], users: Users) -> str:
        """A token for what of `scopes` (`repository:NAME:ACTION,ACTION`, `registry:catalog:*`) the user may do, which
        may be nothing."""
        access: dict[str, list[str]] = {}
        lists = False
        for scope in [part for one in scopes for part in one.split(" ")][:_MOST_SCOPES]:
            lists = lists or scope == "registry:catalog:*"
            kind, _, rest = scope.partition(":")
            repository, _, wanted = rest.rpartition(":")
            if kind != "repository" or not repository or len(repository) > 300:
                continue
            asked = set(ACTIONS) if "*" in wanted.split(",") else set(wanted.split(","))
            granted = asked & users.allowed(name, repository)
            access[repository] = sorted(granted | set(access.get(repository, ())))
        claims = {"sub": name, "exp": int(time.time()) + LIFETIME, "access": access, "lists": lists}
        payload = base64.urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode()).rstrip(b"=")
        return f"{payload.decode()}.{self._sign(payload)}"

    def read(self, token: str) -> Identity | None:
        """None for a token that is not ours, or too old."""
        payload, _, signature = token.partition(".")
        if not payload.isascii() or not hmac.compare_digest(self._sign(payload.encode()), signature):
            return None
        try:
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (ValueError, binascii.Error):
            return None
        if claims["exp"] < time.time():
            return None
        access = {name: frozenset(actions) for name, actions in claims["access"].items()}
        return Identity(claims["sub"], access, claims.get("lists", False))

    def _sign(self, payload: bytes) -> str:
        digest = hmac.new(self._key, payload, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def key_of(root: str) -> bytes:
    """The key of a storage, made by whoever comes first."""
    path = f"{root}/token.key"
    temporary = f"{root}/new/{os.urandom(16).hex()}"
    if not os.path.exists(path):
        os.makedirs(f"{root}/new", 0o755, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, os.urandom(32))
            os.fsync(fd)
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            os.close(fd)
            os.unlink(temporary)
    with open(path, "rb") as file:
        return file.read()
