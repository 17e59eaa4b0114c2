"""Where COPY and ADD take files from: the build context, or the root of a stage or an image; and a digest of them.

Paths are resolved beneath the directory (`openat2`): in the context a symbolic link that leads out of it is an error,
never a file of the host; in a root it stays within, as for a process there. What `.dockerignore` leaves out is not
there, and its directories are not entered unless an exception may lie below. Of the context, owner and times do not
count; of a stage they do.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from limpet.build.language.ignore import Ignore, PatternError, glob, pattern
from limpet.errors import Invalid, NotFound
from limpet.frozen import dataclass
from limpet.kernel import fs
from limpet.layers import owners
from limpet.layers.rootfs_tar import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from limpet.build.copying.digests import Digests, Memo
    from limpet.build.language.ignore import State
    from limpet.layers.rootfs_tar import TarWriter

_MAX_DEPTH = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """One file to copy. `path` is where it lies, "" for what lies nowhere; `target` where it goes, absolute.

    `implied`: a directory that is made if it isn't there, and left alone if it is. `same_as`: the target of the first
    name of a file with several (a hard link). `mtime_ns` is None where times don't count; `seen` is the time that the
    file had when it was listed, so that a change meanwhile is noticed; `stamp` is all by which a change can be told.
    """

    path: str
    target: str
    mode: int
    size: int = 0
    link: str = ""
    uid: int = 0
    gid: int = 0
    mtime_ns: int | None = None
    device: int = 0
    same_as: str = ""
    implied: bool = False
    seen: int = 0
    stamp: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _States:
    ignore: State
    exclude: State
    include: State


class Tree:
    """An open directory. `owners`: whether owners, times and device files count (a root) or not (the context)."""

    def __init__(
        self,
        fd: int,
        name: str,
        *,
        ignored: Ignore | None = None,
        owners: bool = False,
        digests: Digests | None = None,
    ) -> None:
        self.name = name
        self._digests = digests
        self.ignored = ignored or Ignore()
        self._fd = fd
        self._owners = owners
        self._resolve = fs.RESOLVE_IN_ROOT if owners else fs.RESOLVE_BENEATH

    def close(self) -> None:
        os.close(self._fd)
        if self._digests is not None:
            self._digests.save()

    def open(self, path: str) -> int:
        """A descriptor for reading a regular file; a link that COPY names itself is followed within the tree."""
        return self._openat(path, os.O_RDONLY | os.O_CLOEXEC)

    def is_file(self, path: str) -> bool:
        try:
            return stat.S_ISREG(self._stat(path).st_mode)
        except NotFound:
            return False

    def matches(self, source: str) -> list[str]:
        """The paths that a source means. Raises NotFound for a name without wildcards that isn't there."""
        if has_wildcard(source):
            return [match for match in self._glob(source) if self._counts(match)]
        source = unescaped(source)
        if not self._exists(source):
            raise NotFound(f"{source}: not in {self.name}", self._near(source))
        if not self._counts(source):
            hint = f"take it out of {self.ignored.source}, or make an exception with !"
            raise NotFound(f"{source}: excluded by {self.ignored.source}", hint)
        return [source]

    def copies(
        self,
        sources: tuple[str, ...],
        target: str,
        *,
        target_is_directory: bool,
        excludes: tuple[str, ...] = (),
        parents: bool = False,
    ) -> list[Entry]:
        """What a COPY puts where, parents before children, in one order on every machine. Raises NotFound, Invalid.

        A directory stands for its contents (Dockerfile reference, COPY). `target_is_directory` is true when the
        target ends with a slash or is a directory already. `parents` keeps the path from the root, or from `/./` on.
        """
        found: list[Entry] = []
        exclude = _filter(excludes, "--exclude")
        top = target.rstrip("/") or "/"
        for source in sources:
            if parents:
                found.append(_implied(top))
                found.extend(_hard_links(self._with_parents(source, top, exclude)))
                continue
            matches = self.matches(source)
            several = len(matches) > 1
            for match in matches:
                info = self._stat(match)
                if stat.S_ISDIR(info.st_mode):
                    found.append(_implied(top))
                    if self.ignored.patterns:  # they mean files by the names that they have, not by a link to them
                        match = self._real(match)
                    states = _States(self.ignored.state(match)[1], exclude.state("")[1], ())
                    found.extend(_hard_links(self._walk(match, "", top, states, exclude, None, 0)))
                elif not exclude.ignores(posixpath.basename(match)):
                    name = posixpath.basename(match)
                    goal = posixpath.join(target, name) if target_is_directory or several else target
                    entry = self._entry(-1, "", match, goal, info)  # never a link: those are followed
                    found.append(
                        replace(entry, same_as="")
                    )  # what is named on its own is a file of its own, as in BuildKit
        return found

    @property
    def keeps_digests(self) -> bool:
        return self._digests is not None

    def everything(self) -> Iterator[Entry]:
        """All that is not ignored, as if it were copied to the root. Raises Invalid, NotFound."""
        return self._walk("", "", "/", _States(self.ignored.state("")[1], (), ()), Ignore(), None, 0)

    def whole_directory(self, source: str) -> str | None:
        """The path that a source means if that is one directory of which `grouped.scan` can tell the digest."""
        if self._owners or self._digests is None or self.ignored.has_exceptions or has_wildcard(source):
            return None
        (match,) = self.matches(source)
        if not stat.S_ISDIR(self._stat(match).st_mode):
            return None
        return self._real(match) if self.ignored.patterns else match

    def memo(self, conditions: str) -> Memo:
        """Where the digests of directories are kept; what is ignored counts as a condition."""
        assert self._digests is not None
        patterns = "\0".join(str(pattern) for pattern in self.ignored.patterns)
        return self._digests.memos.get(f"{conditions}\0\0{patterns}")

    def memo_changed(self) -> None:
        assert self._digests is not None
        self._digests.memos.changed = True

    def open_directory(self, path: str) -> int:
        return self._openat(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def entry(self, directory: int, name: str, path: str, target: str) -> Entry:
        """What is there now. Raises Invalid for what can't be copied, or was removed."""
        try:
            info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            raise _changed(path, "removed") from None
        return self._entry(directory, name, path, target, info)

    def content(self, entry: Entry) -> str:
        """SHA-256 (hex) of a file. Raises Invalid if it was changed since it was listed."""
        if not entry.path:
            return hashlib.sha256().hexdigest()
        if self._digests is not None and (known := self._digests.get(entry.path, entry.stamp)):
            return known
        with os.fdopen(self._reopen(entry), "rb", buffering=0) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            _unchanged(entry, os.fstat(file.fileno()))
        if self._digests is not None and entry.stamp:
            self._digests.put(entry.path, entry.stamp, max(entry.stamp[:2]), found)
        return found

    def write(self, tar: TarWriter, entry: Entry, mtime_ns: int) -> None:
        """A regular file. Raises Invalid if it is not what was listed, and what the digest is of, any more."""
        if not entry.path:
            tar.file(entry.target.strip("/"), b"", stat.S_IMODE(entry.mode), entry.uid, entry.gid, mtime_ns)
            return
        fd = self._reopen(entry)
        try:
            xattrs = self.xattrs(entry)
            tar.copy(entry.target.strip("/"), fd, stat.S_IMODE(entry.mode), entry.uid, entry.gid, mtime_ns, xattrs)
            _unchanged(entry, os.fstat(fd))
        finally:
            os.close(fd)

    def xattrs(self, entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
        """Those of a stage's file; of the context none count."""
        if not self._owners or entry.implied:
            return ()
        fd = self._openat(entry.path, os.O_PATH | (os.O_NOFOLLOW if entry.link else 0))
        try:
            # The link of the descriptor leads to the file itself, even if that is a link.
            return tuple(read_xattrs(f"/proc/self/fd/{fd}", follow=True))
        finally:
            os.close(fd)

    def _reopen(self, entry: Entry) -> int:
        try:
            return self.open(entry.path)
        except NotFound:
            raise _changed(entry.path, "removed") from None

    def _counts(self, path: str) -> bool:
        """Whether a path is not ignored, or is a directory with something in it that is not."""
        if not self.ignored.patterns:
            return True
        real = self._real(path)
        ignored, state = self.ignored.state(real)
        if not ignored:
            return True
        if not self.ignored.reaches(real) or not stat.S_ISDIR(self._stat(real).st_mode):
            return False
        return next(self._walk(real, "", "/", _States(state, (), ()), Ignore(), None, 0), None) is not None

    def _real(self, path: str) -> str:
        """The path without links: an ignored file doesn't come in by another name."""
        fd = self._openat(path, os.O_PATH | os.O_CLOEXEC)
        try:
            real, top = (os.readlink(f"/proc/self/fd/{each}") for each in (fd, self._fd))
        finally:
            os.close(fd)
        return os.path.relpath(real, top) if real != top else ""

    def _stat(self, path: str) -> os.stat_result:
        fd = self._openat(path, os.O_PATH | os.O_CLOEXEC)
        try:
            return owners.seen(fd, os.fstat(fd)) if self._owners else os.fstat(fd)
        finally:
            os.close(fd)

    def _openat(self, path: str, flags: int) -> int:
        try:
            return fs.openat2(path or ".", flags, dirfd=self._fd, resolve=self._resolve)
        except OSError as e:
            if isinstance(e, FileNotFoundError | NotADirectoryError):
                raise NotFound(f"{path}: not in {self.name}", self._near(path)) from e
            raise Invalid(f"{path}: leads out of {self.name}, or cannot be read") from e

    def _with_parents(self, source: str, top: str, exclude: Ignore) -> Iterator[Entry]:
        before, pivot, after = source.partition("/./")
        if not pivot:
            before, after = "", source
        after = posixpath.normpath(after)
        if not has_wildcard(source):
            self.matches(posixpath.normpath(posixpath.join(before, after)))
        include = _filter((after,), "a source")
        for base in self._glob(before) if has_wildcard(before) else [before]:
            if not self._exists(base) or not stat.S_ISDIR(self._stat(base).st_mode):
                continue
            states = _States(self.ignored.state(base)[1], exclude.state("")[1], include.state("")[1])
            yield from self._walk(base, "", top, states, exclude, None if after == "." else include, 0)

    def _walk(
        self,
        top: str,
        relative: str,
        target: str,
        states: _States,
        exclude: Ignore,
        include: Ignore | None,
        depth: int,
    ) -> Iterator[Entry]:
        """The files below a directory. One that only leads to others is there if they are."""
        if depth > _MAX_DEPTH:
            raise Invalid(f"{top[:100]}…: directories more than {_MAX_DEPTH} deep")
        try:
            fd = self._openat(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotFound:
            raise _changed(top, "removed") from None
        try:
            for name in sorted(os.listdir(fd), key=os.fsencode):
                path, within = f"{top}/{name}" if top else name, f"{relative}/{name}" if relative else name
                ignored, ignore_state = self.ignored.step(path, states.ignore)
                excluded, exclude_state = exclude.step(within, states.exclude)
                included, include_state = include.step(within, states.include) if include else (True, ())
                keep = included and not ignored and not excluded
                if not keep and not (
                    (not ignored or self.ignored.reaches(path))
                    and (not excluded or exclude.reaches(within))
                    and (included or (include is not None and include.patterns[0].reaches(within)))
                ):
                    continue
                try:
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    raise _changed(path, "removed") from None
                is_directory = stat.S_ISDIR(info.st_mode)
                if not keep and not is_directory:
                    continue
                goal = f"{target}/{name}" if target != "/" else f"/{name}"
                entry = self._entry(fd, name, path, goal, info)
                if keep:
                    yield entry
                if is_directory:
                    inner_states = _States(ignore_state, exclude_state, include_state)
                    inner = self._walk(path, within, goal, inner_states, exclude, include, depth + 1)
                    for each in inner:
                        if not keep:
                            keep = True
                            yield entry
                        yield each
        finally:
            os.close(fd)

    def _entry(self, directory: int, name: str, path: str, target: str, info: os.stat_result) -> Entry:
        if self._owners:
            info = owners.seen(f"/proc/self/fd/{directory}/{name}", info)
        kind = stat.S_IFMT(info.st_mode)
        size, device, link, same = 0, 0, "", ""
        if kind == stat.S_IFREG:
            size = info.st_size
            # For now `same_as` says which file it is; `_hard_links` makes the first target of it.
            same = f"{info.st_dev}:{info.st_ino}" if info.st_nlink > 1 else ""
        elif kind == stat.S_IFLNK:
            try:
                link = os.readlink(name, dir_fd=directory)
            except OSError:
                raise _changed(path, "changed") from None
        elif kind == stat.S_IFSOCK:
            return Entry("", target, stat.S_IFREG | stat.S_IMODE(info.st_mode))  # as Docker: an empty file
        elif kind != stat.S_IFDIR:
            if not self._owners:
                hint = f"take it out of {self.name}, or ignore it"
                raise Invalid(f"{path}: neither a file, a directory nor a link", hint)
            device = info.st_rdev
        if not self._owners:
            seen = info.st_mtime_ns
            return Entry(path, target, info.st_mode, size, link, same_as=same, seen=seen, stamp=_stamp(info))
        uid, gid, mtime_ns = info.st_uid, info.st_gid, info.st_mtime_ns
        return Entry(path, target, info.st_mode, size, link, uid, gid, mtime_ns, device, same, seen=mtime_ns)

    def _glob(self, source: str) -> list[str]:
        """Go's filepath.Match, one path component at a time; hidden files match, as there."""
        matches = [""]
        for part in source.split("/"):
            if not has_wildcard(part):
                name = unescaped(part)
                matches = [posixpath.join(base, name) for base in matches]
                continue
            try:
                wanted = glob(part.replace("**", "*"))
            except PatternError as e:
                raise Invalid(f"{source}: {e}", "a backslash makes a character stand for itself") from None
            matches = [
                posixpath.join(base, name)
                for base in matches
                for name in sorted(self._list(base), key=os.fsencode)
                if wanted.match(name)
            ]
        return [match for match in matches if self._exists(match)]

    def _list(self, path: str) -> list[str]:
        try:
            fd = self._openat(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (NotFound, Invalid):
            return []
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def _exists(self, path: str) -> bool:
        try:
            os.close(fs.openat2(path or ".", os.O_PATH | os.O_CLOEXEC, dirfd=self._fd, resolve=self._resolve))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as e:
            raise Invalid(f"{path}: leads out of {self.name}, or cannot be read") from e
        return True

    def _near(self, path: str) -> str:
        """A file of the same name elsewhere in the tree, or one with a similar name beside it."""
        import difflib

        name = posixpath.basename(path)
        if self._owners:
            return "what a RUN writes to a mount is no part of its stage: copy it elsewhere in that RUN"
        for place, _, files, _ in os.fwalk(".", dir_fd=self._fd):
            if name in files and not self.ignored.ignores(os.path.normpath(os.path.join(place, name))):
                return f"did you mean {os.path.normpath(os.path.join(place, name))}?"
        near = difflib.get_close_matches(name, self._list(posixpath.dirname(path)), 1)
        if near:
            return f"did you mean {posixpath.join(posixpath.dirname(path), near[0])}?"
        return "" if self._list("") else "it is empty: a Dockerfile alone has no files beside it; -f - DIRECTORY has"


def context(directory: str, ignored: Ignore | None = None, digests: Digests | None = None, *, title: str = "") -> Tree:
    """A build context. `digests`: what earlier builds found; `title`: what people call it. Raises NotFound."""
    path = os.path.abspath(directory)
    try:
        fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise NotFound(f"{directory}: {(e.strerror or '').lower()}", "the build context is a directory") from e
    return Tree(fd, f"the context {title or path}", ignored=ignored, digests=digests)


def _stamp(info: os.stat_result) -> tuple[int, ...]:
    """The time of change is among it, which no program can set."""
    return (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, info.st_dev)


def _unchanged(entry: Entry, info: os.stat_result) -> None:
    """Raises Invalid if what was read is not what was listed."""
    if _stamp(info) != entry.stamp if entry.stamp else info.st_mtime_ns != entry.seen:
        raise _changed(entry.path, "changed")


def _changed(path: str, what: str) -> Invalid:
    hint = "build again when nobody writes there, or leave it out with .dockerignore"
    return Invalid(f"{path} was {what} while it was read", hint)


def has_wildcard(path: str) -> bool:
    """`*`, `?` or `[`, not behind a backslash."""
    at = 0
    while at < len(path):
        if path[at] in "*?[":
            return True
        at += 2 if path[at] == "\\" else 1
    return False


def unescaped(pattern: str) -> str:
    """The path that a pattern without wildcards means."""
    return re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)


def escaped(path: str) -> str:
    """A pattern that means this path only."""
    return "".join("\\" + char if char in "*?[\\" else char for char in path)


def _filter(patterns: tuple[str, ...], what: str) -> Ignore:
    try:
        return Ignore(tuple(pattern(text.lstrip("/") or ".") for text in patterns), what)
    except PatternError as e:
        raise Invalid(f"{what}: {e}", "a backslash makes a character stand for itself") from None


def _implied(target: str) -> Entry:
    return Entry("", target, stat.S_IFDIR | 0o755, implied=True)


def _hard_links(entries: Iterable[Entry]) -> list[Entry]:
    """The names of one file among the entries of one source."""
    first: dict[str, str] = {}
    result = []
    for entry in entries:
        if entry.same_as:
            target = first.setdefault(entry.same_as, entry.target)
            entry = replace(entry, same_as="" if target == entry.target else target)
        result.append(entry)
    return result
