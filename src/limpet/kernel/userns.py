"""User namespaces that begin with the ids of a range of the host's, and file systems seen through them.

A mount with MOUNT_ATTR_IDMAP (mount_setattr(2), "ID-mapped mounts") stores id 0 where the namespace's 0 writes, so that
nothing on disk has to be owned anew. Of overlayfs only the layers can be mapped, not the whole: whoever makes it must
then himself be somebody whom the upper layer can store (`Acting`).
"""

from __future__ import annotations

import os

from limpet.kernel import capabilities, process
from limpet.kernel.sys import by_machine, fail, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_SETFSUID, _SETFSGID = by_machine(122, 151), by_machine(123, 152)


class Mapped:
    """The ids 0 to `size` - 1 of a user namespace are `base` and on of the host. `fd`: such a namespace."""

    __slots__ = ("base", "fd", "size")

    def __init__(self, base: int, size: int) -> None:
        """Needs a kernel with user namespaces. Raises OSError."""
        self.base = base
        self.size = size
        self.fd = namespace(self._line, self._line)

    @property
    def _line(self) -> str:
        return f"0 {self.base} {self.size}"

    def write(self, pid: int) -> None:
        """Gives the new namespace of a process the same ids (user_namespaces(7), "… user and group ID mappings").

        Raises OSError.
        """
        _write(pid, self._line, self._line)

    def close(self) -> None:
        os.close(self.fd)


def namespace(uids: str, gids: str) -> int:
    """A descriptor of a new user namespace with these maps: lines of "inside outside count" (user_namespaces(7)).

    For a mount, inside is on disk, and outside what is seen through it. Raises OSError, EINVAL for ranges that overlap.
    """
    read, write = os.pipe()
    pid = process.clone3(process.CLONE_NEWUSER)
    if pid == 0:  # the namespace needs somebody in it until it has a descriptor
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    try:
        _write(pid, uids, gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(read)
        os.close(write)
        os.waitpid(pid, 0)


def _write(pid: int, uids: str, gids: str) -> None:
    for name, text in (("uid_map", uids), ("gid_map", gids)):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        except OSError as e:
            fail(e, f"{name}: {text.strip()}")
        finally:
            os.close(fd)


class Acting:
    """`with Acting(id):` what this thread makes in file systems is that user's and group's; its capabilities stay."""

    def __init__(self, id: int) -> None:
        self._id = id
        self._old = (0, 0)

    def __enter__(self) -> None:
        held = capabilities.effective()
        self._old = (syscall(_SETFSUID, self._id), syscall(_SETFSGID, self._id))
        capabilities.set_thread(held, held, ())  # the change took those for file systems away (capabilities(7))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        syscall(_SETFSGID, self._old[1])
        syscall(_SETFSUID, self._old[0])  # and gives them back
