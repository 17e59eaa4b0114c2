"""The digest of what a COPY copies, put together of one for each directory: those that did not change are known.

`Grouped` is how it is put together. `scan` fills one for a whole directory of the context without making an entry of
each file: a directory whose names and stats are what they were has the digest that it had. Its subdirectories are
looked at all the same, each for itself.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import posixpath
import stat
import time
from typing import TYPE_CHECKING

from limpet.build.copying.digests import RACY

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.build.copying.context import Entry, Tree

_DEEPEST = 400


class Grouped:
    """Lines in the order of the entries; the digest does not depend on the order of the directories."""

    def __init__(self) -> None:
        self._head = hashlib.sha256()
        self._groups: dict[str, hashlib._Hash] = {}
        self._known: dict[str, str] = {}

    def add(self, entry: Entry, line: str) -> None:
        data = encoded(line)
        if entry.implied:
            self._head.update(data)
            return
        directory = posixpath.dirname(entry.target)
        group = self._groups.get(directory)
        if group is None:
            group = self._groups[directory] = hashlib.sha256()
        group.update(data)

    def known(self, directory: str, digest: str) -> None:
        """The digest of all lines of a directory."""
        self._known[directory] = digest

    def into(self, total: hashlib._Hash) -> None:
        total.update(self._head.digest())
        groups = {**{name: group.hexdigest() for name, group in self._groups.items()}, **self._known}
        for name in sorted(groups):
            total.update(encoded(f"{name}\0{groups[name]}"))


def encoded(line: str) -> bytes:
    return line.encode(errors="surrogateescape") + b"\0\0"


def scan(tree: Tree, top: str, target: str, grouped: Grouped, line: Callable[[Entry], str], conditions: str) -> bool:
    """Enters all that lies below the directory `top`. False if that can't be done this way: hard links, great depth.

    `line` is what an entry comes to; `conditions` names all else that it depends on. For a context without exceptions
    in what is ignored. Raises NotFound, Invalid.
    """
    memo = tree.memo(f"{conditions}\0{target}")
    patterns = bool(tree.ignored.patterns)
    todo = [(top, target)]
    now = time.time_ns()
    while todo:
        path, goal = todo.pop()
        if path.count("/") > _DEEPEST:
            return False
        fd = tree.open_directory(path)
        try:
            rows = []
            latest = 0
            with os.scandir(fd) as entries:
                for each in entries:
                    info = each.stat(follow_symlinks=False)
                    mode, changed = info.st_mode, info.st_ctime_ns
                    if info.st_nlink > 1 and not stat.S_ISDIR(mode):
                        return False
                    # A directory's own times say nothing of how it is copied.
                    times = (0, 0) if stat.S_ISDIR(mode) else (info.st_mtime_ns, changed)
                    rows.append((each.name, mode, *times, info.st_size if times[1] else 0, info.st_ino))
                    latest = max(latest, *times)
            rows.sort()
            stamp = hashlib.blake2b(marshal.dumps(rows), digest_size=16).digest()
            found = memo.get(path)
            if found is None or found[0] != stamp:
                digest, below = _directory(tree, fd, path, goal, rows, line, patterns)
                found = (stamp, digest, below)
                if latest < now - RACY:
                    memo[path] = found
                    tree.memo_changed()
                else:
                    memo.pop(path, None)
        finally:
            os.close(fd)
        _, digest, below = found
        if digest:
            grouped.known(goal, digest)
        before, above = f"{path}/" if path else "", f"{goal.rstrip('/')}/"
        todo += [(before + name, above + name) for name in below]
    return True


def _directory(
    tree: Tree,
    fd: int,
    path: str,
    goal: str,
    rows: list[tuple[str, int, int, int, int, int]],
    line: Callable[[Entry], str],
    patterns: bool,
) -> tuple[str, tuple[str, ...]]:
    """(the digest of its entries, "" for none; the names of the directories to enter)."""
    digest, below, count = hashlib.sha256(), [], 0
    state = tree.ignored.state(path)[1] if patterns else ()
    for name in sorted((row[0] for row in rows), key=os.fsencode):
        inner = f"{path}/{name}" if path else name
        if patterns and tree.ignored.step(inner, state)[0]:
            continue
        entry = tree.entry(fd, name, inner, f"{goal}/{name}" if goal != "/" else f"/{name}")
        if stat.S_ISDIR(entry.mode):
            below.append(name)
        digest.update(encoded(line(entry)))
        count += 1
    return digest.hexdigest() if count else "", tuple(below)
