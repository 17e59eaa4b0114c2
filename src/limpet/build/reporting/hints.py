"""Why a RUN's command may have failed: what its exit code, its last output and the step's files together tell.

A hint is given where it is sure, or nearly; a wrong one costs more than none. Each is one line.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, NamedTuple

from limpet.build.language.lines import printable
from limpet.containers.execution import process

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.build.planning.plan import Run

    Look = Callable[[str], "File | None"]

TAIL = 8 << 10
"""Bytes of output that are looked at: the last ones."""

HEAD = 4096
"""Bytes of a file that `look` gives."""

# dash, busybox, bash, zsh; env(1) of coreutils and busybox.
_NOT_FOUND = re.compile(
    r"(?:^|: )(?P<name>[^\s:]+): (?:command )?not found$|command not found: (?P<zsh>\S+)$"
    r"|env: (?:can't execute )?[\u2018'\"]?(?P<env>[^\s\u2019'\"]+)[\u2019'\"]?: No such file or directory$",
    re.MULTILINE,
)
_NO_INTERPRETER = re.compile(
    r"(?:^|: )(?P<name>[^\s:]+): (?:cannot execute: required file not found|No such file or directory)$", re.MULTILINE
)
_DENIED = re.compile(r"(?:^|: )(?P<name>[^\s:]+): [Pp]ermission denied$", re.MULTILINE)
_FORMAT = re.compile(r"(?:^|: )(?P<name>[^\s:]+): (?:cannot execute binary file: )?[Ee]xec format error$", re.MULTILINE)
_CARRIAGE = re.compile(
    r"\^M: bad interpreter|\r: bad interpreter|\$'\\r': command not found|\\r['\u2019]: No such file"
)
_STALE = re.compile(r"404 +Not Found")
_UNKNOWN = re.compile(r"E: Unable to locate package (\S+)|E: Package '(\S+)' has no installation candidate")
_NO_NETWORK = re.compile(
    r"Temporary failure resolving|Temporary failure in name resolution|Could not resolve host|bad address '"
    r"|Name or service not known|Network is unreachable"
)


class File(NamedTuple):
    """`head`: its first bytes, `mode`: its permissions."""

    head: bytes
    mode: int


def hint(code: int, step: Run, tail: bytes, look: Look, *, oom: bool, forks: bool, limited: bool) -> str:
    """ "" if nothing is known. `look`: a file of the step, by its absolute path, None if there is none.

    `oom`, `forks`: what the kernel refused (`runner.Outcome`); `limited`: this build was given limits.
    """
    text = tail[-TAIL:].decode(errors="replace").replace("\r\n", "\n").rstrip()
    return printable(
        _resources(code, text, oom=oom, forks=forks, limited=limited)
        or _lines(text)
        or _program(code, step, text, look)
        or _packages(step, text)
        or _network(step, text)
    )


def _resources(code: int, text: str, *, oom: bool, forks: bool, limited: bool) -> str:
    if oom:
        more = "--memory gives it more" if limited else "this machine has no more"
        return f"the kernel killed a program of it for want of memory: {more}; fewer jobs at a time (make -j) need less"
    if forks:
        return "it reached the limit of processes: --pids-limit allows more"
    if code == 137:
        return "a program of it was killed by SIGKILL, and not for want of memory"
    if "No space left on device" in text:
        return "`limpet system df` shows what takes the space, `limpet system prune` frees what nothing uses"
    return ""


def _lines(text: str) -> str:
    if not _CARRIAGE.search(text):
        return ""
    return "a script has Windows line ends (CRLF): save it with LF; `*.sh text eol=lf` in .gitattributes keeps them"


def _program(code: int, step: Run, text: str, look: Look) -> str:
    if code == 127:
        return _missing(step, text, look)
    if code != 126:
        return ""
    found = _FORMAT.search(text)
    if found:
        file = look(_path(step, found["name"]))
        why = process.format_hint(file.head) if file is not None else ""
        return f"{found['name']}: {why}" if why else ""
    found = _last(_DENIED, text)
    if found:
        file = look(_path(step, found["name"]))
        if file is not None and not file.mode & 0o111:
            return f"{found['name']} is not executable: COPY --chmod=755 makes it so, or RUN chmod +x"
    return ""


def _missing(step: Run, text: str, look: Look) -> str:
    found = _last(_NOT_FOUND, text) or _last(_NO_INTERPRETER, text)
    if found is None:
        return ""
    name = next(each for each in found.groups() if each)
    env = dict(step.env)
    if "/" in name:
        if _hidden(step, _path(step, name)):
            return ""
        file = look(_path(step, name))
        return _interpreter(name, file) if file is not None else f"there is no {name} in the step's file system"
    path = env.get("PATH", "")
    for directory in path.split(":"):
        if _hidden(step, _path(step, directory)):
            return ""
        file = look(posixpath.join("/", step.workdir, directory, name))
        if file is not None and file.mode & 0o111:
            return _interpreter(posixpath.join(directory, name), file)
    if look(_path(step, name)) is not None:
        return f"{name} is in the working directory, which is not in PATH: write ./{name}"
    return f"{name} is in no directory of PATH ({path}): a step before has to install it"


def _interpreter(name: str, file: File) -> str:
    """Of a program that is there, and that the kernel did not find all the same."""
    why = process.loader_hint(file.head)
    if file.head.split(b"\n", 1)[0].endswith(b"\r"):
        why += ": save it with LF; `*.sh text eol=lf` in .gitattributes keeps that"
    return f"{name} is there, but {why}" if why else ""


def _packages(step: Run, text: str) -> str:
    command = " ".join([*step.argv, *(file.content for file in step.scripts)])
    if not re.search(r"\bapt(?:-get)?\b", command) or re.search(r"\bapt(?:-get)?\b[^;&|\n]*\bupdate\b", command):
        return ""
    if _STALE.search(text):
        return (
            "the package lists are those of an earlier `apt-get update`, and the mirror has newer packages by now: "
            "update and install in one RUN"
        )
    if _UNKNOWN.search(text):
        return "a package is not in the lists, which this step did not fetch: `apt-get update` and install in one RUN"
    return ""


def _network(step: Run, text: str) -> str:
    if step.network == "none" and _NO_NETWORK.search(text):
        return "the step has no network (--network=none)"
    return ""


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """What is said last made the command fail, more often than not."""
    found = None
    for found in pattern.finditer(text):  # noqa: B007
        pass
    return found


def _hidden(step: Run, path: str) -> bool:
    """Whether it lies in a mount of the step, which is gone by now."""
    targets = (each.mount.target.rstrip("/") for each in step.mounts)
    return any(f"{path}/".startswith(f"{target}/") for target in targets)


def _path(step: Run, name: str) -> str:
    return posixpath.normpath(posixpath.join("/", step.workdir, name))
