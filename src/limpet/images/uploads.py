"""Where an upload that was begun goes on, kept from one command to the next: a push that was killed is resumed.

    <root>/partial/upload-<hash>    the address of the upload, as the registry gave it; whoever sends holds its flock

The registry knows how much it has; the file only says where to ask. What nobody asks for again goes after a day.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from limpet.store.store import Store

WORTH = 4 << 20
"""Bytes of a blob from which on its upload is remembered."""

_MAX_LOCATION = 16 << 10


class Remembered:
    """`with Remembered(…) as kept:` gives the address where the upload of a blob to a repository goes on, "" for none.

    Two pushes of one blob at once have two uploads: the second remembers nothing.
    """

    def __init__(self, store: Store, domain: str, repository: str, digest: str, size: int) -> None:
        name = hashlib.sha256(f"{domain} {repository} {digest}".encode()).hexdigest()
        self._path = f"{store.root}/partial/upload-{name}"
        self._worth = size >= WORTH
        self._fd = -1
        self.location = ""

    def __enter__(self) -> Remembered:
        if not self._worth:
            return self
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.location = os.read(fd, _MAX_LOCATION).decode()
        except (BlockingIOError, UnicodeDecodeError):
            os.close(fd)
            return self
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            if not self.location:
                os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1

    def keep(self, location: str) -> None:
        """The address is another now; "": the upload is over."""
        self.location = location if len(location) <= _MAX_LOCATION else ""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, self.location.encode(), 0)
