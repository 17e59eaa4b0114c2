"""One file of logins: Docker's `config.json` or containers' `auth.json` (containers-auth.json(5)); they share a form.

    {"auths": {KEY: {"auth": base64(user:password), "identitytoken": …}},
     "credHelpers": {KEY: NAME}, "credsStore": NAME}

A KEY is a registry, or a registry and the beginning of a repository's path; the longest that fits decides. Keys of old
times are whole addresses (`https://index.docker.io/v1/`), of which only the host counts.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from limpet.errors import Invalid
from limpet.registry.credentials import DOCKER_HUB, Credentials
from limpet.registry.keychain import Keychain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

HUB_KEY = "https://index.docker.io/v1/"
"""Docker's own name of its registry in these files and for credential programs."""

_HUB_HOSTS = ("index.docker.io", "docker.io", "registry-1.docker.io")
_MAX_BYTES = 1 << 20


class AuthFile:
    def __init__(self, path: str) -> None:
        self.path = path

    def find(self, domain: str, repository: str = "") -> Credentials | None:
        """What the file, or a program that it names, has for a repository. Raises Invalid, Refused."""
        document = self._read()
        programs = {key: name for key, name in _table(document, "credHelpers").items() if isinstance(name, str)}
        key = _longest(programs, domain, repository)
        if key is not None:
            found = Keychain(programs[key], self.path).get(_server(key))
            if found is not None:
                return found
        entries = {key: entry for key, entry in _table(document, "auths").items() if isinstance(entry, dict)}
        store = document.get("credsStore")
        if isinstance(store, str) and store:
            known = [one for one in (_longest(entries, domain, repository), domain) if one is not None]
            for one in dict.fromkeys(_server(one) for one in known):
                found = Keychain(store, self.path).get(one)
                if found is not None:
                    return found
        fitting = [key for key in entries if _fits(key, domain, repository) >= 0]
        for key in sorted(fitting, key=lambda key: (-_fits(key, domain, repository), "://" in key)):
            found = self._credentials(entries[key])
            if found is not None:
                return found
        return None

    def store(self, key: str, known: Credentials) -> str:
        """Writes a login; the program that has it now, or "" if it is in the file itself, unencrypted.

        Raises Invalid, Refused.
        """
        with self._changing() as document:
            program = self._program(document, key)
            entries = document.setdefault("auths", {})
            server = _server(key)
            for other in [other for other in entries if _split(other) == _split(server)]:
                del entries[other]  # the same registry, in another spelling
            if program is not None:
                program.store(server, known)
                entries[server] = {}  # as Docker: `logout --all` must know
                return program.program
            if known.identity_token:
                text = f"{known.username}:"
                entries[server] = {"auth": _encoded(text), "identitytoken": known.identity_token}
            else:
                entries[server] = {"auth": _encoded(f"{known.username}:{known.password}")}
            return ""

    def erase(self, key: str) -> bool:
        """Forgets a login; whether there was one."""
        if not os.path.exists(self.path):
            return False
        with self._changing() as document:
            program = self._program(document, key)
            erased = program.erase(_server(key)) if program is not None else False
            entries = document.get("auths") or {}
            host, _, path = key.partition("/")
            for other in [other for other in entries if _split(other) == (_domain(host), path)]:
                erased = True
                del entries[other]
            return erased

    def keys(self, *, ask: bool = True) -> list[str]:
        """What there are logins for, as `limpet logout` takes it. With `ask` programs are asked too."""
        document = self._read()
        found = {"/".join(filter(None, _split(key))) for key in _table(document, "auths")}
        if not ask:
            return sorted(found)
        store = document.get("credsStore")
        if isinstance(store, str) and store:
            found |= {"/".join(filter(None, _split(key))) for key in Keychain(store, self.path).list()}
        for key, name in _table(document, "credHelpers").items():
            if isinstance(name, str) and Keychain(name, self.path).get(_server(key)) is not None:
                found.add("/".join(filter(None, _split(key))))
        return sorted(found)

    def is_plain(self) -> bool:
        """Whether a secret stands in the file itself."""
        entries = _table(self._read(), "auths").values()
        return any(isinstance(entry, dict) and (entry.get("auth") or entry.get("identitytoken")) for entry in entries)

    def _program(self, document: dict[str, Any], key: str) -> Keychain | None:
        programs = _table(document, "credHelpers")
        host, _, path = key.partition("/")
        chosen = _longest(programs, _domain(host), path)
        name = programs[chosen] if chosen is not None else document.get("credsStore")
        return Keychain(name, self.path) if isinstance(name, str) and name else None

    def _read(self) -> dict[str, Any]:
        try:
            with open(self.path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as e:
            raise Invalid(f"{self.path}: {e.strerror}") from None
        try:
            document = json.loads(data) if data.strip() else {}
            if len(data) > _MAX_BYTES or not isinstance(document, dict) or not _are_tables(document):
                raise ValueError
        except (ValueError, RecursionError):
            raise Invalid(f"{self.path}: not the JSON that `limpet login` writes", "mend it, or move it away") from None
        return document

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """The document, to be changed in place; written when the block ends well. All else in it is kept."""
        path = os.path.realpath(self.path)
        directory = os.path.dirname(path)
        temporary = f"{path}.{os.getpid()}.tmp"
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise Invalid(f"{self.path}: {e.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two logins at the same time: neither is lost
            document = self._read()
            before = json.dumps(document)
            yield document
            if json.dumps(document) == before:
                return
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="utf-8") as file:
                file.write(json.dumps(document, indent="\t"))
                file.flush()
                os.fsync(fd)
            os.rename(temporary, path)
        except OSError as e:
            raise Invalid(f"{self.path}: {e.strerror}") from None
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
            os.close(lock)

    def _credentials(self, entry: dict[str, Any]) -> Credentials | None:
        username, password = entry.get("username"), entry.get("password")
        if isinstance(entry.get("auth"), str) and entry["auth"]:
            try:
                username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise Invalid(f"{self.path}: an `auth` is not base64", "log in again") from None
            password = password.strip("\0")
        token = entry.get("identitytoken")
        if not isinstance(token, str):
            token = ""
        if not token and not (isinstance(username, str) and isinstance(password, str)):
            return None
        return Credentials(str(username or ""), str(password or ""), token, self.path)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _are_tables(document: dict[str, Any]) -> bool:
    return all(isinstance(document.get(name) or {}, dict) for name in ("auths", "credHelpers"))


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document.get(name) or {}
    return found


def _server(key: str) -> str:
    """A key as credential programs and Docker's file have it."""
    return HUB_KEY if key == HUB_KEY or _domain(key) == DOCKER_HUB else key


def _domain(host: str) -> str:
    return DOCKER_HUB if host in _HUB_HOSTS else host


def _split(key: str) -> tuple[str, str]:
    """(domain, path of a namespace) of a key; of a whole address only the host counts."""
    address = "://" in key
    host, _, path = key.partition("://")[2 if address else 0].partition("/")
    path = path.strip("/")
    return _domain(host), "" if address or path in ("v1", "v2") else path


def _fits(key: str, domain: str, repository: str) -> int:
    """How much of the repository's path a key names; -1 if it is for something else."""
    host, path = _split(key)
    if host != domain or (path and not f"{repository}/".startswith(f"{path}/")):
        return -1
    return len(path)


def _longest(keys: dict[str, Any], domain: str, repository: str) -> str | None:
    best = max(keys, key=lambda key: _fits(key, domain, repository), default=None)
    return best if best is not None and _fits(best, domain, repository) >= 0 else None
