"""What was fetched before: one directory for each address, beside the cache mounts and laid out as they are, so that
`limpet cache` lists and removes both.

    caches/<id>/lock      flock, exclusive for whoever fetches: equal fetches of several builds are one
    caches/<id>/name      the address, without a password
    caches/<id>/fetched   says that it is no mount
    caches/<id>/…         `http` and `git` say what
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from typing import TYPE_CHECKING

from limpet.build.steps import cachemounts
from limpet.registry import redact
from limpet.store.files import write_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from limpet.store.store import Store


class Kept:
    """`with Kept(…) as path:` the address' directory is this process' alone for the time."""

    def __init__(self, store: Store, kind: str, address: str, say: Callable[[str], None] | None = None) -> None:
        key = hashlib.sha256(f"{kind}\0{address}".encode(errors="surrogateescape")).hexdigest()[:32]
        self._place = f"{cachemounts.directory(store)}/{key}"
        self._name = redact.clean(address)
        self._say = say
        self._lock = -1

    def __enter__(self) -> str:
        while True:
            os.makedirs(self._place, 0o700, exist_ok=True)
            try:
                self._lock = os.open(f"{self._place}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # removed meanwhile
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if self._say is not None:
                    self._say(f"waiting for {self._name}, which another build fetches")
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(self._lock), os.stat(f"{self._place}/lock"))
            except FileNotFoundError:
                same = False
            if same:
                break
            os.close(self._lock)  # removed while we waited
        os.utime(self._lock)
        if not os.path.exists(f"{self._place}/name"):
            write_file(f"{self._place}/{cachemounts.FETCHED}", b"", durable=False)
            write_file(f"{self._place}/name", self._name.encode(errors="surrogateescape"), durable=False)
        return self._place

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)
