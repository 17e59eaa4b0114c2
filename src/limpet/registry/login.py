"""Logging in and out: a login is shown to the registry before it is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from limpet.errors import Invalid, LimpetError, Refused
from limpet.oci import reference
from limpet.registry import credentials
from limpet.registry.answers import finish, words
from limpet.registry.authfile import AuthFile
from limpet.registry.connection import Connection
from limpet.registry.credentials import DOCKER_HUB

if TYPE_CHECKING:
    from limpet.registry.credentials import Credentials


@dataclass(frozen=True)
class Stored:
    """Where a login went: `program` is "" if the secret stands in the file, unencrypted; `first` if none did before."""

    path: str
    program: str
    first: bool


def server(text: str) -> tuple[str, str]:
    """(domain, path) of what people give to `login`: nothing for Docker Hub, `host:port`, an old address,
    `host/team` for a part of a registry. Raises Invalid."""
    name = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    if name.endswith(("/v1", "/v2")):
        name = name[:-3]
    if not name:
        if text:
            raise Invalid(f"{text[:200]!r} is not a registry")
        return DOCKER_HUB, ""
    try:
        parsed = reference.parse(f"{name}/x")
    except Invalid:
        raise Invalid(f"{text[:200]!r} is not a registry", "write HOST, HOST:PORT or HOST/PATH") from None
    if not name.startswith((parsed.domain, "index.docker.io")):
        raise Invalid(f"{text[:200]!r} is not a registry", "a registry's name has a dot or a port")
    path = parsed.path[:-2] if parsed.path != "library/x" else ""
    return parsed.domain, path


def verify(domain: str, path: str, known: Credentials) -> tuple[Credentials, bool]:
    """What to keep: the login, or an identity token that the registry gave for it; and whether it asked for a login.

    Raises Refused if the registry does not accept it.
    """
    if ":" in known.username:
        raise Invalid(f"{known.username[:100]!r} is not a user name", "there is no colon in one")
    connection = Connection(domain, login=known)
    response = connection.request("GET", "/v2/", scope="")
    asked = bool(connection.login_source(""))
    if response.status in (401, 403):
        finish(response)
        raise Refused(f"{domain} does not accept this login", "check user name and password", exit_code=1)
    if response.status != 200:
        raise LimpetError(f"{domain}: not a registry, as it seems: {words(response)}")
    finish(response)
    token = connection.refresh_token
    if token and not known.identity_token:
        return replace(known, password="", identity_token=token), asked
    return known, asked


def store(domain: str, path: str, known: Credentials) -> Stored:
    """Keeps a login in the user's file, or in the program that it names."""
    file = AuthFile(credentials.target())
    first = not file.is_plain()
    program = file.store(key_of(domain, path), known)
    return Stored(file.path, program, first)


def forget(domain: str, path: str) -> tuple[bool, str]:
    """(whether there was a login in the user's file, another file or program that still has one, or "")."""
    erased = AuthFile(credentials.target()).erase(key_of(domain, path))
    left = credentials.find(domain, path)
    return erased, left.source if left is not None else ""


def all_logins(*, ask: bool = True) -> list[str]:
    """The keys of all logins in the user's file, and with `ask` of the programs that it names."""
    return AuthFile(credentials.target()).keys(ask=ask)


def key_of(domain: str, path: str) -> str:
    return f"{domain}/{path}" if path else domain
