"""What ADD fetches, as files to copy: a file by HTTP, mode 0600, or the files of a commit, with git's modes.

`key` stands for the content and costs at most a question to the other side; only a step that has to be done fetches.
"""

from __future__ import annotations

import json
import os
import posixpath
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from limpet.build.copying.context import Entry, Tree
from limpet.build.sources import reference
from limpet.build.sources.git import Repositories
from limpet.build.sources.http import Files
from limpet.errors import Invalid
from limpet.frozen import dataclass
from limpet.registry import redact
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from limpet.build.copying.copy import Source
    from limpet.build.planning.plan import Copy, Remote
    from limpet.build.sources.git import Commit
    from limpet.build.sources.http import Known
    from limpet.build.sources.reference import Repository
    from limpet.build.steps.stepmounts import Given
    from limpet.layers.rootfs_tar import TarWriter
    from limpet.progress import Progress
    from limpet.store.store import Store


@dataclass(frozen=True, slots=True)
class Fetched:
    """An open file: `fd` is whoever closes `Added`'s. `name` "" if nothing gives it one."""

    fd: int
    name: str
    digest: str
    modified: int | None

    def entry(self, target: str) -> Entry:
        mtime_ns = None if self.modified is None else self.modified * 10**9
        return Entry(self.name, target, stat.S_IFREG | 0o600, os.fstat(self.fd).st_size, mtime_ns=mtime_ns)

    def content(self, entry: Entry) -> str:
        return self.digest

    def write(self, tar: TarWriter, entry: Entry, mtime_ns: int) -> None:
        name = entry.target.strip("/")
        tar.copy(name, self.fd, stat.S_IMODE(entry.mode), entry.uid, entry.gid, mtime_ns, ())

    def xattrs(self, entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
        return ()


class Fetching:
    """Fetches for one build: both clients, made when they are needed."""

    def __init__(self, store: Store, given: Given, say: Callable[[str], None], progress: Progress) -> None:
        self.store = store
        self.files = Files(store, given.secrets, say, progress)
        self.repositories = Repositories(store, given.secrets, given.agents, say, progress)

    def added(self, step: Copy) -> list[Added]:
        """What a step fetches, looked up. Raises LimpetError."""
        return [self._added(step, remote) for remote in step.remotes]

    def _added(self, step: Copy, remote: Remote) -> Added:
        if remote.kind == "http":
            return _File(self, step, remote, self.files.known(remote.url, remote.checksum))
        wanted = reference.with_checksum(reference.repository(remote.url), remote.checksum)
        return _Repository(self, wanted, self.repositories.commit(wanted), keep_git=bool(remote.keep_git))


class Added:
    """One source of an ADD. `close` when it is done with."""

    key = ""

    def files(self, step: Copy, target: str, *, target_is_directory: bool) -> list[tuple[Entry, Source]]:
        """All that it puts where, parents first. Raises LimpetError."""
        raise NotImplementedError

    def archive(self) -> tuple[int, str] | None:
        """(a descriptor, a name) of what is to be looked at as an archive."""
        return None

    def close(self) -> None:
        pass


class _File(Added):
    def __init__(self, fetching: Fetching, step: Copy, remote: Remote, known: Known) -> None:
        self._fetching = fetching
        self._remote = remote
        self._known = known
        self._fd = -1
        self.key = json.dumps(["http", known.digest, known.name, remote.unpack])

    def files(self, step: Copy, target: str, *, target_is_directory: bool) -> list[tuple[Entry, Source]]:
        name = self._known.name
        if target_is_directory and not name:
            shown = redact.clean(self._remote.url)[:300]
            raise Invalid(f"{shown}: the address says no file name", f"name the file: ADD … {target.rstrip('/')}/NAME")
        file = Fetched(self._open(), name, self._known.digest, self._known.modified)
        return [(file.entry(posixpath.join(target, name) if target_is_directory else target), file)]

    def archive(self) -> tuple[int, str] | None:
        return (self._open(), redact.clean(self._remote.url)[:300]) if self._remote.unpack else None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        if self._fd < 0:
            self._fd = self._fetching.files.open(self._remote.url, self._known.digest)
        return self._fd


class _Repository(Added):
    def __init__(self, fetching: Fetching, wanted: Repository, commit: Commit, *, keep_git: bool) -> None:
        self._fetching = fetching
        self._wanted = wanted
        self._commit = commit
        self._keep_git = keep_git
        self._directory = ""
        self._tree: Tree | None = None
        parts = [commit.id, wanted.directory, wanted.submodules, wanted.commit_time]
        # What is in .git says where it came from, and by which name.
        self.key = json.dumps(["git", *parts, *([wanted.address, commit.ref, commit.tag] if keep_git else [])])

    def files(self, step: Copy, target: str, *, target_is_directory: bool) -> list[tuple[Entry, Source]]:
        store = self._fetching.store
        self._directory = store.temporary("checkout")
        os.mkdir(self._directory, 0o700)
        inside = f"{self._directory}/files"
        os.mkdir(inside, 0o755)
        path, when = self._fetching.repositories.checkout(self._wanted, self._commit, inside, keep_git=self._keep_git)
        tree = self._tree = Tree(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), "the repository")
        entries = tree.copies(("",), target, target_is_directory=True, excludes=step.excludes)
        if self._wanted.commit_time:
            entries = [replace(entry, mtime_ns=when * 10**9) for entry in entries]
        return [(entry, tree) for entry in entries]

    def close(self) -> None:
        if self._tree is not None:
            self._tree.close()
            self._tree = None
        if self._directory:
            remove_tree(self._directory)
            self._directory = ""
