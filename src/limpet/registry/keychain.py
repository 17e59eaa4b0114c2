"""Credential programs: `docker-credential-NAME get|store|erase` (docker/docker-credential-helpers, "Development").

What they are given and what they answer goes over standard input and output, never by arguments. A program that was
not found or that fails is an error that names it and the file that asks for it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING

from limpet.errors import Invalid, Refused
from limpet.registry import redact
from limpet.registry.credentials import Credentials

if TYPE_CHECKING:
    from limpet.errors import LimpetError

TIME_LIMIT = 60.0
"""Seconds; a program may ask the user to unlock something."""

_MAX_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NOT_FOUND = "credentials not found"
_IDENTITY = "<token>"  # in place of a user name: the secret is an identity token


class Keychain:
    """One credential program. `asked_by` is the file that names it."""

    def __init__(self, name: str, asked_by: str) -> None:
        if _NAME.fullmatch(name) is None:
            raise Invalid(f"{asked_by}: {name[:60]!r} is not the name of a credential program")
        self.program = f"docker-credential-{name}"
        self._asked_by = asked_by

    def get(self, server: str) -> Credentials | None:
        """None if the program knows none. Raises LimpetError."""
        code, out = self._run("get", server.encode())
        if code:
            if _NOT_FOUND in out.lower():
                return None
            raise self._failure("get", code, out)
        try:
            answer = json.loads(out)
            username, secret = answer["Username"], answer["Secret"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise Invalid(f"{self.program} get: its answer is not the JSON it should be") from None
        if not isinstance(username, str) or not isinstance(secret, str):
            raise Invalid(f"{self.program} get: its answer is not the JSON it should be")
        where = f"{self.program} ({self._asked_by})"
        if username == _IDENTITY:
            return Credentials("", "", secret, where)
        return Credentials(username, secret, "", where) if username or secret else None

    def store(self, server: str, known: Credentials) -> None:
        username, secret = known.username, known.password
        if known.identity_token:
            username, secret = _IDENTITY, known.identity_token
        document = json.dumps({"ServerURL": server, "Username": username, "Secret": secret})
        code, out = self._run("store", document.encode())
        if code:
            raise self._failure("store", code, out)

    def erase(self, server: str) -> bool:
        """Whether there was something to erase."""
        code, out = self._run("erase", server.encode())
        # docker-credential-pass has other words here for what it does not know.
        if code and _NOT_FOUND not in out.lower() and self.get(server) is not None:
            raise self._failure("erase", code, out)
        return not code

    def list(self) -> list[str]:
        """The servers that it has something for."""
        code, out = self._run("list", b"")
        try:
            found = json.loads(out or "{}")
        except (ValueError, RecursionError):
            found = None
        if code or not isinstance(found, dict):
            raise self._failure("list", code, out)
        return sorted(found)

    def _run(self, action: str, given: bytes) -> tuple[int, str]:
        try:
            process = subprocess.Popen(
                [self.program, action],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=False,  # it may ask on the terminal
            )
        except FileNotFoundError:
            raise Invalid(
                f"{self.program}: no such program in $PATH",
                f"{self._asked_by} asks for it: install it, or take its name out there",
            ) from None
        except OSError as e:
            raise Invalid(f"{self.program}: {e.strerror}", f"{self._asked_by} asks for it") from None
        try:
            out, err = process.communicate(given, TIME_LIMIT)
        except subprocess.TimeoutExpired:
            raise Refused(f"{self.program} {action}: no answer in {TIME_LIMIT:.0f} s") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        if len(out) > _MAX_BYTES:
            raise Invalid(f"{self.program} {action}: its answer is larger than {_MAX_BYTES} bytes")
        text = os.fsdecode(out)
        return process.returncode, text if text.strip() or not process.returncode else os.fsdecode(err[:4096])

    def _failure(self, action: str, code: int, out: str) -> LimpetError:
        said = " ".join(redact.clean(out[:4000]).split())[:200]
        ended = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        return Refused(f"{self.program} {action}: {said or ended}", f"{self._asked_by} asks for it")
