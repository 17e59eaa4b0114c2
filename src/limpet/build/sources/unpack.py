"""An archive from outside as a directory of this machine: a context that came as a tar.

What `archive` understands of it is written below one directory: no path leads out of that, no link is followed, and
nothing but files, directories and links is made. All is root's; times are those of now, as they don't count.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from limpet.build.copying.archive import Archive
from limpet.errors import Invalid
from limpet.store.files import write_all

if TYPE_CHECKING:
    from limpet.build.copying.context import Entry
    from limpet.store.store import Store


def unpack(store: Store, fd: int, name: str, directory: str) -> None:
    """`directory` is there and empty. Raises Invalid and Corrupt, naming the archive."""
    archive = Archive(store, fd, name)
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for entry in archive.entries("/"):
            try:
                _make(archive, entry, top)
            except OSError as e:
                raise Invalid(f"{name}: {entry.path[:200]}: {(e.strerror or '').lower()}") from e
    finally:
        os.close(top)
        archive.close()


def _make(archive: Archive, entry: Entry, top: int) -> None:
    path = entry.target.strip("/")
    if stat.S_ISDIR(entry.mode):
        os.mkdir(path, 0o700, dir_fd=top)
        os.chmod(path, stat.S_IMODE(entry.mode), dir_fd=top)
    elif entry.same_as:
        os.link(entry.same_as.strip("/"), path, src_dir_fd=top, dst_dir_fd=top, follow_symlinks=False)
    elif stat.S_ISLNK(entry.mode):
        os.symlink(entry.link, path, dir_fd=top)
    elif stat.S_ISREG(entry.mode):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600, dir_fd=top)
        try:
            for piece in archive.pieces(entry):
                write_all(fd, piece)
            os.fchmod(fd, stat.S_IMODE(entry.mode))
        finally:
            os.close(fd)
    else:
        hint = "leave it out of the archive"
        raise Invalid(f"{archive.name}: {path[:200]}: neither a file, a directory nor a link", hint)
