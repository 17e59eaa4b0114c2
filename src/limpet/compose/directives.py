"""`# limpet: sync SRC DST` at the top of a Dockerfile: files that `up --watch` copies into the running container.

    # limpet: sync SRC DST            what changes below SRC, a path of the context, is copied to DST in the container
    # limpet: sync+restart SRC DST    and the container is started again

They stand among the comments before the first instruction; other builders take them for comments. Compose has the same
under `develop.watch` (Compose specification, develop.md).
"""

from __future__ import annotations

import posixpath
import re

from limpet.errors import Invalid
from limpet.frozen import dataclass

_LINE = re.compile(r"#\s*limpet:\s*(.*)")
_FORM = "# limpet: sync SRC DST, or sync+restart"


@dataclass(frozen=True, slots=True)
class Sync:
    """`source` is relative to the context, "" for all of it; `target` absolute. `into`: the target is a directory."""

    source: str
    target: str
    into: bool = False
    restart: bool = False

    def covers(self, path: str) -> bool:
        return self.source in ("", path) or path.startswith(f"{self.source}/")

    def place(self, path: str) -> str:
        """Where a file goes that is covered."""
        if path == self.source:
            return posixpath.join(self.target, posixpath.basename(path)) if self.into else self.target
        return posixpath.join(self.target, posixpath.relpath(path, self.source or "."))


def parse(text: str, shown: str) -> tuple[Sync, ...]:
    """Those of a Dockerfile, in order: the first that covers a file counts. Raises Invalid, naming the line."""
    found = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            break
        match = _LINE.fullmatch(line)
        if match is not None:
            found.append(_sync(match[1].split(), f"{shown}:{number}"))
    return tuple(found)


def _sync(words: list[str], where: str) -> Sync:
    if len(words) != 3 or words[0] not in ("sync", "sync+restart"):
        raise Invalid(f"{where}: '{' '.join(words)[:200]}' is not understood", _FORM, exit_code=1)
    action, source, target = words
    clean = posixpath.normpath(source).lstrip("/")
    if clean == ".." or clean.startswith("../"):
        raise Invalid(f"{where}: {source} is not in the context", _FORM, exit_code=1)
    if not target.startswith("/"):
        raise Invalid(f"{where}: {target} is no absolute path", "the container's path begins with /", exit_code=1)
    into = target.endswith("/")
    return Sync("" if clean == "." else clean, posixpath.normpath(target), into, action == "sync+restart")
