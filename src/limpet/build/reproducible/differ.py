"""Two layers held against each other: which names are in one only, and what of the others differs, to the byte."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

from limpet.frozen import dataclass
from limpet.layers.contents import rescan
from limpet.layers.driver import driver
from limpet.layers.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limpet.layers.tree import Node
    from limpet.store.store import Store

_PIECE = 1 << 18
_NEAR = 16  # bytes; ranges that lie nearer to each other than this are shown as one
MOST_RANGES = 1000


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes `start` to `end` (excluded) of the first build's file; in the second's they end at `other`."""

    start: int
    end: int
    other: int


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of one regular file of a layer, in the layer's tar."""

    fd: int
    offset: int
    size: int

    def read(self, start: int, count: int) -> bytes:
        """What there is of it: never beyond the file."""
        return os.pread(self.fd, max(0, min(count, self.size - start)), self.offset + start)


@dataclass(frozen=True, slots=True)
class Difference:
    """One file. `kind`: "first only", "second only", "content", or the attribute: "mode", "owner", "time", …

    `one` and `two` are the values, for people; `ranges` and `contents` are of "content" only. `path` has no leading
    slash.
    """

    path: str
    kind: str
    one: str = ""
    two: str = ""
    ranges: tuple[Range, ...] = ()
    contents: tuple[Content, Content] | None = None

    @property
    def count(self) -> int:
        """How many bytes the ranges cover."""
        return sum(max(each.end, each.other) - each.start for each in self.ranges)


class Differ:
    """`with Differ(store, one, two) as found: found.differences()`; contents can be read as long as it is open."""

    def __init__(self, store: Store, one: str, two: str) -> None:
        """Two diff IDs."""
        self._store = store
        self._ids = (one, two)
        self._stack = ExitStack()

    def __enter__(self) -> Differ:
        home = driver(self._store)
        trees: list[Tree] = []
        self._fds: list[int] = []
        with ExitStack() as stack:
            for diff_id in self._ids:
                fd = stack.enter_context(home.open_tar(diff_id)).fileno()
                tree = Tree()
                rescan(fd, tree)
                trees.append(tree)
                self._fds.append(fd)
            self._stack = stack.pop_all()
        self._one, self._two = trees
        return self

    def __exit__(self, *ignored: object) -> None:
        self._stack.close()

    def differences(self) -> Iterator[Difference]:
        """Sorted by path."""
        yield from self._directory(self._one.root, self._two.root)

    def _directory(self, one: Node, two: Node) -> Iterator[Difference]:
        todo: list[tuple[str, Node, Node]] = [("", one, two)]
        while todo:
            path, one, two = todo.pop()
            yield from self._attributes(path, one, two)
            if one.kids is None or two.kids is None:
                continue
            below: list[tuple[str, Node, Node]] = []
            for name in sorted({*one.kids, *two.kids}):
                whole = f"{path}/{os.fsdecode(name)}" if path else os.fsdecode(name)
                first, second = one.kids.get(name), two.kids.get(name)
                if first is not None and second is not None:
                    below.append((whole, first, second))
                else:
                    there = first or second
                    assert there is not None
                    yield Difference(whole, "first only" if first is not None else "second only", _kind(there))
            todo += reversed(below)

    def _attributes(self, path: str, one: Node, two: Node) -> Iterator[Difference]:
        if _kind(one) != _kind(two):
            yield Difference(path, "kind", _kind(one), _kind(two))
            return
        pairs = [
            ("mode", f"{stat.S_IMODE(one.mode):04o}", f"{stat.S_IMODE(two.mode):04o}"),
            ("owner", f"{one.uid}:{one.gid}", f"{two.uid}:{two.gid}"),
            ("time", f"{one.mtime}.{one.nsec:09d}", f"{two.mtime}.{two.nsec:09d}"),
            ("link", os.fsdecode(one.link), os.fsdecode(two.link)),
            ("device", str(one.rdev), str(two.rdev)),
            ("attributes", _shown(one), _shown(two)),
            ("number of names", str(one.nlink), str(two.nlink)),
        ]
        for kind, first, second in pairs:
            if first != second and not (kind == "number of names" and one.kids is not None):
                yield Difference(path, kind, first, second)
        if stat.S_ISREG(one.mode):
            contents = Content(self._fds[0], one.offset, one.size), Content(self._fds[1], two.offset, two.size)
            found = tuple(ranges(*contents))
            if found:
                yield Difference(path, "content", str(one.size), str(two.size), found, contents)


def ranges(one: Content, two: Content) -> Iterator[Range]:
    """Where two files differ, `MOST_RANGES` at most. Of different sizes: one, between what they begin and end with."""
    if one.size != two.size:
        start = _common(one, two)
        end = _common_end(one, two, min(one.size, two.size) - start)
        yield Range(start, one.size - end, two.size - end)
        return
    start, end, count = -1, -1, 0
    for at in _differing(one, two):
        if start >= 0 and at - end >= _NEAR:
            yield Range(start, end, end)
            start, count = -1, count + 1
            if count == MOST_RANGES:
                return
        start, end = at if start < 0 else start, at + 1
    if start >= 0:
        yield Range(start, end, end)


def _differing(one: Content, two: Content) -> Iterator[int]:
    """The positions of the bytes that differ, of two files of one size."""
    for at in range(0, one.size, _PIECE):
        first, second = one.read(at, _PIECE), two.read(at, _PIECE)
        if first == second:
            continue
        for near in range(0, len(first), 256):
            left, right = first[near : near + 256], second[near : near + 256]
            if left != right:
                yield from (at + near + index for index, byte in enumerate(left) if byte != right[index])


def _common(one: Content, two: Content) -> int:
    """With how many bytes both begin."""
    at, size = 0, min(one.size, two.size)
    while at < size:
        first, second = one.read(at, min(_PIECE, size - at)), two.read(at, min(_PIECE, size - at))
        if first != second:
            return at + _prefix(first, second)
        at += len(first)
    return size


def _common_end(one: Content, two: Content, most: int) -> int:
    done = 0
    while done < most:
        step = min(_PIECE, most - done)
        first = one.read(one.size - done - step, step)[::-1]
        second = two.read(two.size - done - step, step)[::-1]
        if first != second:
            return done + _prefix(first, second)
        done += step
    return done


def _prefix(one: bytes, two: bytes) -> int:
    """With how many bytes both begin: halved until it is found."""
    low, high = 0, min(len(one), len(two))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _kind(node: Node) -> str:
    if node.is_whiteout:
        return "whiteout"
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFIFO: "FIFO"}
    return kinds.get(stat.S_IFMT(node.mode), "device")


def _shown(node: Node) -> str:
    opaque = ["opaque"] if node.opaque else []
    return " ".join([f"{os.fsdecode(key)}={value.hex()}" for key, value in sorted(node.xattrs)] + opaque)
