"""What is in a layer, for people who look: names, sizes and modes, read from its tar with limits on what that costs."""

from __future__ import annotations

import os
import stat
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.errors import Invalid, LimpetError
from limpet.layers import compression
from limpet.layers.limits import Limits
from limpet.layers.tar import Scanner
from limpet.layers.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.layers.tree import Node

_LIMITS = Limits(max_size=16 << 30, max_entries=200_000, max_ratio=1_000)
_SECONDS = 60.0
_SHOWN = 20_000
_KEPT = 32


@dataclass(frozen=True)
class Entry:
    """`note`: where a link leads, or that a name of the layers below is hidden."""

    path: str
    mode: str
    owner: str
    size: int
    note: str = ""


@dataclass(frozen=True)
class Listing:
    """The first entries by path; `entries` and `size` (bytes of files) are of all. `problem`: why there are none."""

    shown: tuple[Entry, ...] = ()
    entries: int = 0
    size: int = 0
    problem: str = ""


class Listings:
    """Remembers the last few; a digest's listing never changes."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Listing] = OrderedDict()

    def of(self, digest: str, fd: int) -> Listing:
        """Blocks for as long as reading the layer takes, at most a minute. Closes `fd`."""
        with open(fd, "rb", buffering=0) as file:
            found = self._known.get(digest)
            if found is None:
                try:
                    found = _read(file.fileno())
                except LimpetError as e:
                    found = Listing(problem=e.message)
                self._known[digest] = found
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
            return found


def _read(fd: int) -> Listing:
    tree = Tree()
    scanner = Scanner(tree, _LIMITS)
    kind = compression.detect(os.pread(fd, 6, 0))
    deadline = time.monotonic() + _SECONDS
    if kind == "tar":
        _seek_through(fd, scanner, deadline)
    else:
        for piece in compression.decompress(lambda size: os.read(fd, size), kind, max_ratio=_LIMITS.max_ratio):
            scanner.feed(piece)
            _in_time(deadline)
    tree.finish()
    shown: list[Entry] = []
    count = total = 0
    for path, node in _walk(tree.root):
        count += 1
        if stat.S_ISREG(node.mode):
            total += node.size
        if len(shown) < _SHOWN:
            shown.append(_entry(path, node))
    return Listing(tuple(shown), count, total)


def _seek_through(fd: int, scanner: Scanner, deadline: float) -> None:
    """A plain tar: what lies between the headers is not read."""
    position = 0
    while piece := os.pread(fd, 64 << 10, position):
        scanner.feed(piece)
        position = max(scanner.skip(), position + len(piece))
        _in_time(deadline)


def _in_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Invalid("the layer is too large to be listed here", "limpet can: pull it")


def _walk(root: Node) -> Iterator[tuple[bytes, Node]]:
    """Depth first, by name; without recursion, for trees as deep as a tar may make them."""
    waiting = [(b"", root)]
    while waiting:
        path, node = waiting.pop()
        if path:
            yield path, node
        if node.kids:
            waiting += [(path + b"/" + name, kid) for name, kid in sorted(node.kids.items(), reverse=True)]


def _entry(path: bytes, node: Node) -> Entry:
    text = path.decode("utf-8", "replace")
    owner = f"{node.uid}:{node.gid}"
    if node.is_whiteout:
        return Entry(text, "", "", 0, "deleted from the layers below")
    note = f"→ {node.link.decode('utf-8', 'replace')}" if node.link else ""
    if node.opaque:
        note = "replaces the directory of the layers below"
    return Entry(text, stat.filemode(node.mode), owner, node.size if stat.S_ISREG(node.mode) else 0, note)
