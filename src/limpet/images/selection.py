"""Which files of the host belong into a capture: what is asked for, the links that lead to it, and all that it needs.

A selection is a dict of absolute paths to entries. It is closed: every symbolic link on the way to a file is an entry
of its own (`/bin -> usr/bin` too), programs bring their loader and libraries, scripts their interpreter. What is in it
follows from the files alone, so the same files give the same selection.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from limpet.errors import Invalid, NotFound
from limpet.images.loader import CACHE, Loader, default_directories, write_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SEARCH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_MAX_LINKS = 40  # as the kernel
_BY_NAME = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")  # what glibc opens by dlopen


@dataclass(frozen=True)
class Entry:
    """A directory, a symbolic link (`target`), a file of the host (`source`), or a file made here (`data`)."""

    kind: str  # "dir", "link", "file", "data"
    mode: int
    source: str = ""
    target: str = ""
    data: bytes = b""


class Selection:
    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.missing: dict[str, str] = {}  # libraries not found, with what wants them
        self._loader = Loader()
        self._done: set[str] = set()

    def program(self, name: str) -> str:
        """Adds a program by path, or by name from the usual places. Returns its real path, "" if not found."""
        paths = [name] if "/" in name else [f"{directory}/{name}" for directory in SEARCH]
        for path in paths:
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return self.add(path)
        return ""

    def add(self, path: str, *, leave: Callable[[str], bool] | None = None, plugin_of: str = "") -> str:
        """Adds a file, or a directory with all in it except where `leave(path)`. Returns its path without links.

        `plugin_of` is the program that loads the libraries in it at run time. Raises NotFound, Invalid for a device.
        """
        real, status = self._walk(path)
        if stat.S_ISDIR(status.st_mode):
            self._directory(real, leave, plugin_of)
        elif not stat.S_ISREG(status.st_mode):
            raise Invalid(f"{path}: neither a file, a directory nor a link")
        elif real not in self._done:
            self._done.add(real)
            self.entries[real] = Entry("file", stat.S_IMODE(status.st_mode), source=real)
            self._follow(real, status, plugin_of)
        return real

    def link(self, path: str, target: str) -> None:
        self._parents(path)
        self.entries.setdefault(path, Entry("link", 0o777, target=target))

    def directory(self, path: str, mode: int) -> None:
        self._parents(path)
        self.entries[path] = Entry("dir", mode)

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self._parents(path)
        self.entries[path] = Entry("data", mode, data=data)

    def finish(self) -> list[tuple[str, Entry]]:
        """All entries, parents before children. Adds what glibc loads by name, and a loader cache if one is needed."""
        anchor = next((path for path in sorted(self.entries) if os.path.basename(path) == "libc.so.6"), "")
        info = self._loader.read(anchor) if anchor else None
        for name in _BY_NAME if info else ():
            for directory in default_directories(info) if info else ():
                found = self._loader.read(f"{directory}/{name}")
                if found is not None and info is not None and found.kind == info.kind:
                    self.add(f"{directory}/{name}")
                    break
        if self._loader.through_cache:
            self.file(CACHE, write_cache(self._loader.through_cache))
        return sorted(self.entries.items(), key=lambda item: item[0].split("/"))

    def _walk(self, path: str) -> tuple[str, os.stat_result]:
        """Resolves `path` as the kernel would, adding each link and directory that it goes through."""
        if not path.startswith("/"):
            path = os.path.abspath(path)
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        current = ""
        links = 0
        status = os.lstat("/")
        while pending:
            part = pending.pop()
            if part == "..":
                current = os.path.dirname(current).rstrip("/")
                continue
            here = f"{current}/{part}"
            try:
                status = os.lstat(here)
            except (FileNotFoundError, NotADirectoryError):
                hint = "" if here == path else f"{here} does not exist"
                raise NotFound(f"{path}: no such file or directory", hint) from None
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise Invalid(f"{path}: too many levels of symbolic links")
                target = os.readlink(here)
                self.entries.setdefault(here, Entry("link", 0o777, target=target))
                if target.startswith("/"):
                    current = ""
                pending += [p for p in reversed(target.split("/")) if p not in ("", ".")]
                continue
            current = here
            if pending:
                self.entries.setdefault(here, Entry("dir", 0o755))
        return current or "/", os.lstat(current or "/")

    def _parents(self, path: str) -> None:
        while (path := os.path.dirname(path)) != "/":
            self.entries.setdefault(path, Entry("dir", 0o755))

    def _directory(self, top: str, leave: Callable[[str], bool] | None, plugin_of: str) -> None:
        self.entries[top] = Entry("dir", stat.S_IMODE(os.lstat(top).st_mode))
        for name in sorted(os.listdir(top)):
            path = f"{top.rstrip('/')}/{name}"
            if leave is not None and leave(path):
                continue
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                self.entries[path] = Entry("link", 0o777, target=os.readlink(path))
                if os.path.isfile(path):
                    self.add(path, plugin_of=plugin_of)
            elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                self.add(path, leave=leave, plugin_of=plugin_of)

    def _follow(self, path: str, status: os.stat_result, plugin_of: str) -> None:
        """Adds what a program, a library or a script needs to run."""
        if not status.st_mode & 0o111 and ".so" not in os.path.basename(path):
            return
        with open(path, "rb") as file:
            head = file.read(256)
        if head.startswith(b"#!"):
            words = head[2:].split(b"\n")[0].decode(errors="surrogateescape").split()
            if words and os.path.isfile(words[0]):
                self.add(words[0])
                if os.path.basename(words[0]) == "env" and len(words) > 1 and "=" not in words[1]:
                    self.program(words[1])
        elif head.startswith(b"\x7fELF"):
            found, missing = self._loader.needs(path, plugin_of)
            for library in found:
                if os.path.isfile(library):
                    self.add(library)
            for name in missing:
                self.missing.setdefault(name, path)
