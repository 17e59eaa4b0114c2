"""Digests of the context's files, kept between builds: a file whose stat is the same is not read again.

As git's index, what was changed within `RACY` of being hashed is not kept: its next change might have the same time.
One file a context, `<root>/cache/context-<hash of its path>`; anything may remove it at any time.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import time
from typing import TYPE_CHECKING

from limpet.store.files import remove_tree, write_file

if TYPE_CHECKING:
    from limpet.store.store import Store

    Stamp = tuple[int, ...]

RACY = 2_000_000_000  # nanoseconds
MOST = 1_000_000  # files
_VERSION = 1
_OTHERS = 20


def forget(store: Store) -> None:
    """What is known of all contexts."""
    home = f"{store.root}/cache"
    try:
        names = [name for name in os.listdir(home) if name.startswith("context-")]
    except FileNotFoundError:
        return
    for name in names:
        remove_tree(f"{home}/{name}")


Memo = dict[str, tuple[bytes, str, tuple[str, ...]]]
"""Of `grouped.scan`: a directory's path → what it looked like, its digest, the names of the directories to enter."""


class Memos:
    """Digests of whole directories of a context, kept between builds as those of its files."""

    def __init__(self, path: str) -> None:
        self._path = f"{path}-trees"
        self._memos: dict[str, Memo] | None = None
        self._used: set[str] = set()
        self.changed = False

    def get(self, conditions: str) -> Memo:
        if self._memos is None:
            self._memos = {}
            try:
                with open(self._path, "rb") as file:
                    version, memos = marshal.loads(file.read())
                if version == _VERSION and isinstance(memos, dict):
                    self._memos = memos
            except (OSError, ValueError, EOFError, TypeError):
                pass
        name = hashlib.sha256(conditions.encode(errors="surrogateescape")).hexdigest()[:32]
        self._used.add(name)
        return self._memos.setdefault(name, {})

    def save(self) -> None:
        """Of other conditions only so many stay."""
        if not self.changed or self._memos is None:
            return
        self.changed = False
        others = [name for name in self._memos if name not in self._used][-_OTHERS:]
        kept = {name: self._memos[name] for name in (*others, *self._used)}
        try:
            os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
            write_file(self._path, marshal.dumps((_VERSION, kept)), durable=False)
        except OSError:
            pass  # it only saves time


class Digests:
    def __init__(self, store: Store, directory: str) -> None:
        name = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:32]
        self._path = f"{store.root}/cache/context-{name}"
        self._known: dict[str, tuple[Stamp, bytes]] | None = None
        self._changed = False
        self.memos = Memos(self._path)

    def get(self, path: str, stamp: Stamp) -> str | None:
        """The SHA-256 (hex) of a file that looked like this when it was read."""
        found = self._load().get(path)
        return found[1].hex() if found is not None and found[0] == stamp else None

    def put(self, path: str, stamp: Stamp, latest: int, digest: str) -> None:
        """`latest`: the later of its times, in nanoseconds."""
        if latest < time.time_ns() - RACY:
            self._load()[path] = (stamp, bytes.fromhex(digest))
            self._changed = True

    def save(self) -> None:
        self.memos.save()
        if not self._changed or self._known is None or len(self._known) > MOST:
            return
        self._changed = False
        try:
            os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
            write_file(self._path, marshal.dumps((_VERSION, self._known)), durable=False)
        except OSError:
            pass  # it only saves time

    def _load(self) -> dict[str, tuple[Stamp, bytes]]:
        if self._known is None:
            self._known = {}
            try:
                with open(self._path, "rb") as file:
                    version, known = marshal.loads(file.read())
                if version == _VERSION and isinstance(known, dict):
                    self._known = known
            except (OSError, ValueError, EOFError, TypeError):
                pass
        return self._known
