"""Who may do what: users of an htpasswd file (bcrypt), and rules of an access file.

    [groups]
    team = ["anna", "bert"]

    [[rule]]
    repositories = ["team/*", "base"]      # * is any text without a slash, ** any text
    users = ["@team"]                      # names, @groups; "*": every user; "anonymous": without a login too
    allow = ["pull", "push", "delete"]

Without an access file every user may do everything, and nobody else anything. Rules only add. Both files are read again
when they change; one that got wrong keeps what it said before.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sys
import time
import tomllib
from dataclasses import dataclass
from typing import Any

import bcrypt

from limpet.errors import Invalid

ACTIONS = ("pull", "push", "delete")
_REMEMBER = 600.0
_MAX_BYTES = 1 << 20
_NOBODY = b"$2b$10$abcdefghijklmnopqrstuuxGDBwTyUOjFZRNcmiYFmHRBMGiKEGWe"
"""Checked for users that are not there, so that they take as long to refuse."""


@dataclass(frozen=True)
class Rule:
    repositories: tuple[re.Pattern[str], ...]
    users: frozenset[str]
    allow: frozenset[str]


class Users:
    """Raises Invalid for files that can't be read or understood."""

    def __init__(self, passwords: str, access: str = "") -> None:
        self._paths = (passwords, access)
        self._stamps: tuple[Any, ...] = ()
        self._hashes: dict[str, bytes] = {}
        self._groups: dict[str, frozenset[str]] = {}
        self._rules: tuple[Rule, ...] | None = None
        self._good: dict[bytes, float] = {}  # of a name and password that were right lately: until when
        self._secret = os.urandom(32)
        self._busy = asyncio.Semaphore(2)  # a check of a password takes a core for 50 ms
        self._read()

    async def check(self, name: str, password: str) -> bool:
        """Whether the password is the user's."""
        self._refresh()
        stored = self._hashes.get(name, _NOBODY)
        key = hashlib.blake2b(f"{name}\0{password}".encode(), key=self._secret, salt=stored[-16:]).digest()
        now = time.monotonic()
        if self._good.get(key, 0) > now:
            return True
        async with self._busy:
            right = await asyncio.to_thread(_matches, password, stored)
        if not right or name not in self._hashes:
            return False
        if len(self._good) > 10000:
            self._good.clear()
        self._good[key] = now + _REMEMBER
        return True

    def allowed(self, name: str, repository: str) -> frozenset[str]:
        """What a user ("": nobody in particular) may do with a repository."""
        self._refresh()
        if self._rules is None:
            return frozenset(ACTIONS if name else ())
        found: set[str] = set()
        for rule in self._rules:
            if self._is_one_of(name, rule.users) and any(one.fullmatch(repository) for one in rule.repositories):
                found |= rule.allow
        return frozenset(found)

    def _is_one_of(self, name: str, users: frozenset[str]) -> bool:
        if "anonymous" in users:
            return True
        if not name:
            return False
        if "*" in users or name in users:
            return True
        return any(one.startswith("@") and name in self._groups.get(one[1:], ()) for one in users)

    def _refresh(self) -> None:
        if self._stamps == tuple(_stamp(path) for path in self._paths):
            return
        try:
            self._read()
        except Invalid as e:
            self._stamps = tuple(_stamp(path) for path in self._paths)
            print(f"limpet: {e}: what it said before goes on", file=sys.stderr, flush=True)

    def _read(self) -> None:
        stamps = tuple(_stamp(path) for path in self._paths)
        passwords, access = self._paths
        hashes = _passwords(passwords)
        groups, rules = _access(access) if access else ({}, None)
        self._hashes, self._groups, self._rules, self._stamps = hashes, groups, rules, stamps


def _stamp(path: str) -> Any:
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size


def _matches(password: str, stored: bytes) -> bool:
    data = password.encode()
    if len(data) > 72:  # bcrypt knows no longer one; `htpasswd` cuts it, which would accept its beginning
        return False
    try:
        return bcrypt.checkpw(data, stored)
    except ValueError:
        return False


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as e:
        raise Invalid(f"{path}: {e.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise Invalid(f"{path}: more than {_MAX_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Invalid(f"{path}: not UTF-8") from None


def _passwords(path: str) -> dict[str, bytes]:
    found = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, stored = line.strip().partition(":")
        if not colon or not name or not re.fullmatch(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}", stored):
            raise Invalid(f"{path}: line {number} is not NAME:BCRYPT", "make it with: htpasswd -B FILE NAME")
        found[name] = stored.replace("$2y$", "$2b$", 1).encode()
    return found


def _access(path: str) -> tuple[dict[str, frozenset[str]], tuple[Rule, ...]]:
    try:
        value = tomllib.loads(_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise Invalid(f"{path}: {e}") from None
    unknown = set(value) - {"groups", "rule"}
    if unknown:
        raise Invalid(f"{path}: {sorted(unknown)[0]}: only [groups] and [[rule]] are known")
    groups = value.get("groups", {})
    if not isinstance(groups, dict):
        raise Invalid(f"{path}: groups is not a table")
    members = {name: frozenset(_list(path, f"groups.{name}", one)) for name, one in groups.items()}
    rules = []
    entries = value.get("rule", [])
    if not isinstance(entries, list):
        raise Invalid(f"{path}: rules are written as [[rule]]")
    for number, one in enumerate(entries, 1):
        where = f"rule {number}"
        if not isinstance(one, dict) or set(one) != {"repositories", "users", "allow"}:
            raise Invalid(f"{path}: {where} needs repositories, users and allow, and nothing else")
        allow = frozenset(_list(path, f"{where}: allow", one["allow"]))
        if not allow <= set(ACTIONS):
            raise Invalid(f"{path}: {where}: allow has only {', '.join(ACTIONS)}")
        users = frozenset(_list(path, f"{where}: users", one["users"]))
        missing = [name for name in users if name.startswith("@") and name[1:] not in members]
        if missing:
            raise Invalid(f"{path}: {where}: there is no group {missing[0][1:]}")
        patterns = tuple(_pattern(text) for text in _list(path, f"{where}: repositories", one["repositories"]))
        rules.append(Rule(patterns, users, allow))
    return members, tuple(rules)


def _list(path: str, where: str, value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Invalid(f"{path}: {where} is not a list of texts")
    return value


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", text)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts))
