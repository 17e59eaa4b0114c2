"""The program `git`, alone with what it is told: no settings of the user or the machine, no hooks, no questions.

Its processes are a group of their own, which ends with the command that waits for it; whoever is silent for SILENCE
seconds is given up.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from limpet.errors import Invalid, LimpetError, Refused
from limpet.registry import redact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SILENCE = 120.0
_MOST_OUTPUT = 64 << 20
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


class Git:
    """`git(…)` runs one command and gives what it prints. Raises LimpetError with git's own last words."""

    def __init__(
        self,
        program: str,
        remote: str,
        settings: Mapping[str, str],
        environment: Mapping[str, str],
        directory: str,
        place: Sequence[str] = (),
    ) -> None:
        self._program = program
        self._settings = settings
        self._more = environment
        self._directory = directory
        self._place = place
        self.remote = remote
        self.shown = redact.clean(remote)[:300]

    def at(self, directory: str, tree: str = "") -> Git:
        """The same in a repository, with a working tree or without."""
        place = [f"--git-dir={directory}", *([f"--work-tree={tree}"] if tree else [])]
        return Git(self._program, self.remote, self._settings, self._more, tree or self._directory, place)

    def succeeds(self, *arguments: str) -> bool:
        try:
            self(*arguments)
        except LimpetError:
            return False
        return True

    def __call__(self, *arguments: str, text: str = "") -> str:
        child = subprocess.Popen(
            [*_dies_with_us(), self._program, *self._place, *arguments],
            stdin=subprocess.PIPE if text else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(),
            cwd=self._directory,
            umask=0o022,
            process_group=0,
        )
        try:
            if child.stdin is not None:
                with contextlib.suppress(BrokenPipeError), child.stdin as stream:
                    stream.write(text.encode())  # read to its end before anything is said
            out, said = _listen(child, self.shown)
            code = child.wait()
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)  # its own group: the processes that it started, too
            child.wait()
            raise
        finally:
            for each in (child.stdout, child.stderr):
                if each is not None:
                    each.close()
        if code:
            raise _explained(self.shown, said, arguments[0])
        return out

    def _environment(self) -> dict[str, str]:
        found = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": os.devnull,
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
            "GIT_CONFIG_COUNT": str(len(self._settings)),
            **self._more,
        }
        for name in (*_PROXIES, *map(str.lower, _PROXIES)):
            if name in os.environ:
                found[name] = os.environ[name]
        if "SSL_CERT_FILE" in os.environ:
            found["GIT_SSL_CAINFO"] = os.environ["SSL_CERT_FILE"]
        for number, (key, value) in enumerate(self._settings.items()):
            found[f"GIT_CONFIG_KEY_{number}"], found[f"GIT_CONFIG_VALUE_{number}"] = key, value
        return found


@functools.cache
def _dies_with_us() -> list[str]:
    """A prefix that takes the program along when this process is killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _listen(child: subprocess.Popen[bytes], shown: str) -> tuple[str, str]:
    """All that it prints to both, until it ends. Raises LimpetError when it is silent for too long."""
    assert child.stdout is not None
    assert child.stderr is not None
    found = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as waiting:
        for fd in found:
            waiting.register(fd, selectors.EVENT_READ)
        last = time.monotonic()
        while waiting.get_map():
            ready = waiting.select(max(0.0, last + SILENCE - time.monotonic()))
            if not ready and time.monotonic() >= last + SILENCE:
                raise LimpetError(f"{shown}: no answer in time", "check the address and the network")
            for key, _ in ready:
                last = time.monotonic()
                piece = os.read(key.fd, 1 << 16)
                kept = found[key.fd]
                if not piece:
                    waiting.unregister(key.fd)
                elif key.fd == child.stderr.fileno():
                    kept += piece
                    del kept[: -(1 << 16)]  # of progress only the end
                else:
                    kept += piece
                    if len(kept) > _MOST_OUTPUT:
                        raise Invalid(f"{shown}: it says more than {_MOST_OUTPUT >> 20} MiB about itself")
    out, said = (bytes(each).decode("utf-8", "surrogateescape") for each in found.values())
    return out, said


def _explained(shown: str, said: str, command: str) -> LimpetError:
    lines = [line.strip() for line in said.replace("\r", "\n").splitlines() if line.strip()]
    told = [n for n, line in enumerate(lines) if line.startswith(("fatal:", "error:", "ssh:")) or "denied" in line]
    told += [number + 1 for number in told if lines[number].endswith(":")]
    telling = [lines[number] for number in sorted(set(told)) if number < len(lines)] or lines[-1:]
    words = redact.clean("; ".join(dict.fromkeys(line.removeprefix("fatal: ") for line in telling[:4])))
    text = "".join(char if char.isprintable() else " " for char in words)[:400]
    message = f"{shown}: git {command}: {text or 'it failed'}"
    if re.search(r"could not read (Username|Password)|Authentication failed|403|401", text):
        return Refused(message, "--secret id=GIT_AUTH_TOKEN,src=FILE gives a login for http")
    if "publickey" in said or "Permission denied" in said:
        return Refused(message, "the agent of --ssh default has no key that is let in: ssh-add")
    if "Host key verification failed" in said or "HOST IDENTIFICATION HAS CHANGED" in said:
        return Refused(message, "the host has another key than before: correct ~/.ssh/known_hosts if that is right")
    if "transport" in text and "not allowed" in text:
        return Refused(message, "only http, https, ssh and git are spoken, in submodules too")
    return LimpetError(message, "check the address")
