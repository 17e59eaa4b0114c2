"""A tar stream into a directory of a container or of the host, with all that `cp -a` keeps, by number.

Both may be hostile: the tar (from standard input, or made of a container's files) and the tree, in which a container
may put links while we write. No member climbs; each is put in place through a descriptor of its directory, which the
kernel resolved within the root (`copyroot`); what a regular file gets, it gets through the descriptor that made it.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tarfile
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO

from limpet.errors import Invalid, LimpetError, NotFound, Refused, quoted
from limpet.kernel import idmap
from limpet.kernel.userns import Acting
from limpet.layers import owners

if TYPE_CHECKING:
    from limpet.containers.files.copyroot import Root

LONGEST_NAME = 1 << 14
"""Characters of a member's name: four times what a system call takes."""

_PIECE = 1 << 20


def unpack(stream: BinaryIO, root: Root, place: str) -> int:
    """Unpacks into the directory `place`: the bytes of its files. Raises NotFound, Invalid for a bad tar, Refused."""
    info = root.look(place, follow=True)
    if info is None or not stat.S_ISDIR(info.st_mode):
        raise NotFound(f"{root.where or 'the host'} has no directory {place}", exit_code=1)
    size = 0
    name = ""
    directories: list[tuple[str, tarfile.TarInfo]] = []
    try:
        with (
            root.beneath(place) as inner,
            tarfile.open(fileobj=stream, mode="r|*", errorlevel=2) as tar,
            Acting(root.first_id) if root.first_id else nullcontext(),
        ):
            for member in tar:
                if root.is_host and idmap.nested():  # a user's files shall be his own
                    member.uid = member.gid = 0
                member.uid += root.first_id
                member.gid += root.first_id
                name = _clean(member.name)
                if name:
                    _place(inner, tar, member, name)
                    size += member.size if member.isreg() else 0
                    if member.isdir():
                        directories.append((name, member))
            for name, member in reversed(directories):  # what was put into one changed its time
                with_parent = _Parent(inner, name)
                try:
                    _set_time(with_parent.fd, with_parent.base, member)
                except FileNotFoundError:
                    pass  # the container took it away
                finally:
                    with_parent.close()
    except tarfile.TarError as e:
        raise Invalid(f"not a tar, or a damaged one: {e}", exit_code=1) from e
    except OSError as e:
        where = root.where or "the host"
        if e.errno == errno.EROFS:
            raise Refused(f"{where}: {place} is on a read-only file system", exit_code=1) from e
        path = posixpath.join(place, name)
        shown = path if len(path) <= 300 else f"{path[:100]}…{path[-100:]}"
        raise LimpetError(f"{where}: writing {shown}: {e.strerror or e}", exit_code=1) from e
    return size


class _Parent:
    """The directory that a member is in, and its name there. Directories that the tar does not list are made."""

    def __init__(self, root: Root, name: str) -> None:
        above, self.base = posixpath.split(name)
        self.fd = _open_directory(root, above)

    def close(self) -> None:
        os.close(self.fd)


def _open_directory(root: Root, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY
    missing: list[str] = []
    while True:
        try:
            fd = root.open(name, flags)
            break
        except FileNotFoundError:
            if not name:
                raise
            name, base = posixpath.split(name)
            missing.append(base)
        except NotADirectoryError:
            raise _no_directory(name) from None
    for base in reversed(missing):
        name = f"{name}/{base}"
        try:
            os.mkdir(base, 0o755, dir_fd=fd)
            below = os.open(base, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        except (FileExistsError, NotADirectoryError):
            raise _no_directory(name.lstrip("/")) from None  # a link that may not be followed
        finally:
            os.close(fd)
        fd = below
    return fd


def _no_directory(name: str) -> Invalid:
    return Invalid(f"cannot put files below {name[-200:]}: it is no directory", exit_code=1)


def _clean(name: str) -> str:
    """A member's name without "." and doubled slashes, "" for the directory itself. Raises Invalid if it climbs."""
    if len(name) > LONGEST_NAME:
        raise Invalid(f"a name of more than {LONGEST_NAME} characters in the tar: {name[:200]}…", exit_code=1)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Invalid(f"'..' in the tar's member {name[:200]}", exit_code=1)
    return "/".join(parts)


def _place(root: Root, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
    parent = _Parent(root, name)
    try:
        old = _look(parent.fd, parent.base)
        if old is not None and stat.S_ISDIR(old.st_mode) != member.isdir():
            kinds = ("directory", "non-directory") if stat.S_ISDIR(old.st_mode) else ("non-directory", "directory")
            raise Invalid(f"cannot overwrite {kinds[0]} {name} with {kinds[1]}", exit_code=1)
        if member.isreg():
            _write(tar, member, parent.fd, parent.base)
            return
        if member.isdir():
            if old is None:
                os.mkdir(parent.base, 0o700, dir_fd=parent.fd)
        else:
            if old is not None:
                os.unlink(parent.base, dir_fd=parent.fd)
            if member.islnk():
                _link(root, _clean(member.linkname), parent)
                return
            _make(member, parent)
            if root.is_host and (member.ischr() or member.isblk()):
                # Of a container's making: on the host it would open a disk to everybody whom the container names.
                _set_time(parent.fd, parent.base, member)
                return
        _attributes(parent, member)
    finally:
        parent.close()


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: int, base: str) -> None:
    source = tar.extractfile(member)
    assert source is not None
    fd = _create(directory, base)
    with os.fdopen(fd, "wb", buffering=0) as file:
        while piece := source.read(_PIECE):
            if piece.count(0) == len(piece):  # a sparse file stays one
                file.seek(len(piece), os.SEEK_CUR)
                continue
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
        file.truncate(member.size)
        # Before the mode: chown(2) takes setuid bits away.
        owners.give(fd, member.uid, member.gid, stat.S_IFREG | member.mode & 0o7777)
        os.fchmod(fd, member.mode & 0o7777)
        _set_xattrs(fd, member)
        os.utime(fd, ns=_times(member))


def _create(directory: int, base: str) -> int:
    """A new file in place of what is there; a mount point (/etc/hosts) can only be written anew."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.unlink(base, dir_fd=directory)
    except FileNotFoundError:
        pass
    except OSError as e:
        if e.errno != errno.EBUSY:
            raise
        fd = os.open(base, flags | os.O_NONBLOCK, dir_fd=directory)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise
        os.ftruncate(fd, 0)
        return fd
    return os.open(base, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)


def _make(member: tarfile.TarInfo, parent: _Parent) -> None:
    if member.issym():
        os.symlink(member.linkname, parent.base, dir_fd=parent.fd)
    elif member.isfifo() or member.isdev():
        kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(parent.base, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent.fd)
    else:
        raise Invalid(f"the type {quoted(member.type)} of {member.name[:200]} in the tar is not known", exit_code=1)


def _link(root: Root, source: str, parent: _Parent) -> None:
    found = _Parent(root, source)
    try:
        os.link(found.base, parent.base, src_dir_fd=found.fd, dst_dir_fd=parent.fd, follow_symlinks=False)
    finally:
        found.close()


def _attributes(parent: _Parent, member: tarfile.TarInfo) -> None:
    """Of all but regular files. What was swapped for something of another kind meanwhile is left as it is."""
    fd = os.open(parent.base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent.fd)
    try:
        mode = os.fstat(fd).st_mode
        if (stat.S_ISDIR(mode), stat.S_ISLNK(mode)) != (member.isdir(), member.issym()) or stat.S_ISREG(mode):
            return
        if member.issym():
            owners.give(
                f"/proc/self/fd/{parent.fd}/{parent.base}", member.uid, member.gid, stat.S_IFLNK | 0o777, link=True
            )
        else:
            place = f"/proc/self/fd/{fd}"
            owners.give(place, member.uid, member.gid, mode)
            os.chmod(place, member.mode & 0o7777)
            _set_xattrs(place, member)
    finally:
        os.close(fd)
    _set_time(parent.fd, parent.base, member)


def _set_xattrs(place: int | str, member: tarfile.TarInfo) -> None:
    for key, value in member.pax_headers.items():
        if key.startswith("SCHILY.xattr."):
            try:
                os.setxattr(place, key[13:], value.encode("utf-8", "surrogateescape"))
            except OSError as e:
                if e.errno != errno.EOPNOTSUPP:  # the file system there has none of this kind
                    raise


def _set_time(directory: int, base: str, member: tarfile.TarInfo) -> None:
    os.utime(base, ns=_times(member), dir_fd=directory, follow_symlinks=False)


def _times(member: tarfile.TarInfo) -> tuple[int, int]:
    """Nanoseconds, from the pax header's digits: `member.mtime` went through a float."""
    whole, _, fraction = member.pax_headers.get("mtime", "").partition(".")
    if whole.lstrip("-").isdigit():
        below = int(f"{fraction:0<9.9s}") if fraction.isdigit() else 0
        moment = int(whole) * 10**9 + (-below if whole.startswith("-") else below)
    else:
        moment = int(member.mtime * 10**9)
    return moment, moment


def _look(directory: int, base: str) -> os.stat_result | None:
    try:
        return os.stat(base, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
