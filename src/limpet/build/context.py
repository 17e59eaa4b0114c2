"""The build context: which files a COPY means, and a digest of what is in them.

Paths are resolved beneath the context directory (`openat2`, RESOLVE_BENEATH): a symbolic link that leads out of it
is an error, never a file of the host. Owner and times of the context's files do not count and are not copied.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import posixpath
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.errors import Invalid, NotFound
from limpet.kernel import fs

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the context. `path` is where it lies, relative to the context; `target` where it goes, absolute."""

    path: str
    target: str
    mode: int
    size: int
    link: str = ""


class Context:
    """An open context directory."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        try:
            self._fd = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise NotFound(f"{directory}: {(e.strerror or '').lower()}", "the build context is a directory") from e

    def close(self) -> None:
        os.close(self._fd)

    def open(self, path: str) -> int:
        """A descriptor for reading a regular file; a link that COPY names itself is followed within the context."""
        return self._openat(path, os.O_RDONLY | os.O_CLOEXEC)

    def copies(self, sources: tuple[str, ...], target: str, *, target_is_directory: bool) -> list[Entry]:
        """What a COPY puts where, parents before children, in one order on every machine. Raises NotFound, Invalid.

        A directory stands for its contents (Dockerfile reference, COPY). `target_is_directory` is true when the
        target ends with a slash or is a directory already.
        """
        found: list[Entry] = []
        for source in sources:
            matches = self._glob(source)
            if not matches:
                raise NotFound(f"COPY {source}: not in the context {self.directory}", self._near(source))
            for match in matches:
                info = self._stat(match)
                if stat.S_ISDIR(info.st_mode):
                    found.extend(self._walk(match, target.rstrip("/") or "/"))
                else:
                    name = posixpath.join(target, posixpath.basename(match)) if target_is_directory else target
                    found.append(self._entry(match, name, info))
        return found

    def digest(self, entries: list[Entry]) -> str:
        """SHA-256 (hex) over names, modes and contents."""
        total = hashlib.sha256()
        for entry in entries:
            content = self._content(entry) if stat.S_ISREG(entry.mode) else entry.link
            total.update(f"{entry.target}\0{entry.mode:o}\0{content}\0".encode(errors="surrogateescape"))
        return total.hexdigest()

    def _content(self, entry: Entry) -> str:
        with os.fdopen(self.open(entry.path), "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _stat(self, path: str) -> os.stat_result:
        fd = self._openat(path, os.O_PATH | os.O_CLOEXEC)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _openat(self, path: str, flags: int) -> int:
        try:
            return fs.openat2(path or ".", flags, dirfd=self._fd, resolve=fs.RESOLVE_BENEATH)
        except OSError as e:
            if isinstance(e, FileNotFoundError):
                raise NotFound(f"{path}: not in the context {self.directory}", self._near(path)) from e
            raise Invalid(f"{path}: leads out of the context {self.directory}, or cannot be read") from e

    def _walk(self, top: str, target: str) -> Iterator[Entry]:
        fd = self._openat(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = sorted(os.listdir(fd), key=os.fsencode)
            for name in names:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                path, goal = posixpath.join(top, name), posixpath.join(target, name)
                yield self._entry(path, goal, info)
                if stat.S_ISDIR(info.st_mode):
                    yield from self._walk(path, goal)
        finally:
            os.close(fd)

    def _entry(self, path: str, target: str, info: os.stat_result) -> Entry:
        if stat.S_ISLNK(info.st_mode):
            return Entry(path, target, info.st_mode, 0, os.readlink(path, dir_fd=self._fd))
        if not stat.S_ISREG(info.st_mode) and not stat.S_ISDIR(info.st_mode):
            raise Invalid(f"{path}: neither a file, a directory nor a link", "take it out of the build context")
        return Entry(path, target, info.st_mode, info.st_size if stat.S_ISREG(info.st_mode) else 0)

    def _glob(self, pattern: str) -> list[str]:
        """Go's filepath.Match, one path component at a time; hidden files match, as there."""
        matches = [""]
        for part in pattern.split("/"):
            if not any(char in part for char in "*?["):
                matches = [posixpath.join(base, part) for base in matches]
                continue
            matches = [
                posixpath.join(base, name)
                for base in matches
                for name in sorted(self._list(base), key=os.fsencode)
                if fnmatch.fnmatchcase(name, part)
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
            os.close(self._openat(path, os.O_PATH | os.O_CLOEXEC))
        except NotFound:
            return False
        return True

    def _near(self, path: str) -> str:
        """A file of the same name elsewhere in the context, or one with a similar name beside it."""
        import difflib

        name = posixpath.basename(path)
        for place, _, files in os.walk(self.directory):
            if name in files:
                return f"did you mean {os.path.relpath(os.path.join(place, name), self.directory)}?"
        near = difflib.get_close_matches(name, self._list(posixpath.dirname(path)), 1)
        return f"did you mean {posixpath.join(posixpath.dirname(path), near[0])}?" if near else ""
