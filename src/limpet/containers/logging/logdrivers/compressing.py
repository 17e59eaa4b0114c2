"""Rotated logs as gzip, by a child of the monitor: it would stand still while 10 MB are deflated."""

from __future__ import annotations

import os

from limpet.kernel import process, signals
from limpet.store.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_PIECE = 1 << 18
_HEAD = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff"  # gzip with a name (RFC 1952, 2.3), no time, any system
_INODE = b"limpet-"


def begin(path: str) -> int:
    """Makes `path`.gz of `path`, which then goes: the process that does it. Nothing changes until that is whole."""
    pid = os.fork()
    if pid == 0:
        _compress(path)
    return pid


def abandon(pid: int, path: str) -> None:
    """Ends the process; `path` stays as it is."""
    try:
        os.kill(pid, signals.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    try:
        os.unlink(f"{path}.new")
    except FileNotFoundError:
        pass


def original_inode(path: str) -> int:
    """Of the file that was compressed, by which a follower knows what it has read; 0 if it can't be told."""
    with open(path, "rb") as file:
        head = file.read(64)
    name = head[len(_HEAD) :].partition(b"\0")[0].removeprefix(_INODE)
    return int(name) if head.startswith(_HEAD) and name.isdigit() else 0


def plain(fd: int) -> int:
    """The text of a compressed log, as a file in memory. `fd` is closed. What is damaged ends it."""
    import zlib

    memory = os.memfd_create("limpet-log", os.MFD_CLOEXEC)
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        while not inflater.eof and (data := os.read(fd, _PIECE)):
            write_all(memory, inflater.decompress(data))
    except zlib.error:
        pass
    finally:
        os.close(fd)
    os.lseek(memory, 0, os.SEEK_SET)
    return memory


def _compress(path: str) -> NoReturn:
    """In the child, which must hold nothing of the monitor's: not its lock, not its sockets."""
    try:
        process.close_range(3, 0xFFFFFFFF)
        process.set_death_signal(signals.SIGKILL)
        os.nice(10)
        import zlib

        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        target = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        write_all(target, _HEAD + _INODE + str(os.fstat(source).st_ino).encode() + b"\0")
        deflater = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        check = size = 0
        while data := os.read(source, _PIECE):
            check = zlib.crc32(data, check)
            size += len(data)
            write_all(target, deflater.compress(data))
        write_all(target, deflater.flush() + check.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"))
        os.fsync(target)  # the plain one goes now
        os.rename(f"{path}.new", f"{path}.gz")
        os.unlink(path)
    finally:
        os._exit(0)
