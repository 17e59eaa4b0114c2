"""What `limpet build` is given, as a directory: one as it is; a tar or a Dockerfile on standard input; a git repository
or a file by HTTP. What is fetched or unpacked lies in the store for the time of the build.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from limpet.build.copying.archive import is_archive
from limpet.build.language.dockerfile import MAX_SIZE
from limpet.build.reading import Local, Text
from limpet.build.sources import reference
from limpet.errors import Invalid, NotFound
from limpet.layers.limits import from_environment
from limpet.store.files import remove_tree, write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from limpet.build.build import Asked
    from limpet.build.steps.stepmounts import Given
    from limpet.progress import Progress
    from limpet.store.store import Store

_PIECE = 1 << 20
_WANTED = "a tar archive or a Dockerfile is wanted"


def is_remote(text: str) -> bool:
    """Whether it is fetched: a URL or a repository, `github.com/…` too where no directory is called that."""
    return bool(reference.remote_kind(text)) or (text.startswith("github.com/") and not os.path.isdir(text))


@contextmanager
def opened(store: Store, asked: Asked, given: Given, say: Callable[[str], None], progress: Progress) -> Iterator[Local]:
    """The context, and where its Dockerfile is. Raises LimpetError."""
    with ExitStack() as stack:
        files = Fetcher(store, given, say, progress, stack)
        if asked.directory == "-":
            if asked.file == "-":
                raise Invalid("both the context and the Dockerfile are to be standard input", "give one of them")
            local = files.standard_input()
        elif is_remote(asked.directory):
            local = files.remote(asked.directory, keep_git=_keeps_git(asked))
        elif os.path.isdir(asked.directory):
            local = Local(asked.directory)
        else:
            raise NotFound(f"{asked.directory}: no such directory", "the build context is a directory, a URL or -")
        yield _with_file(files, local, asked.file)


def _with_file(files: Fetcher, local: Local, file: str) -> Local:
    if file == "-":
        return replace(local, text=Text(_standard_input().read(MAX_SIZE + 1), "<standard input>"))
    if reference.remote_kind(file) == "http":
        return replace(local, text=files.text(file))
    if file and local.text is not None:
        raise Invalid(f"-f {file}: {local.title} is a Dockerfile itself", "leave -f away")
    return replace(local, file=file)


def _keeps_git(asked: Asked) -> bool:
    return asked.arguments.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "").lower() in ("1", "t", "true")


class Fetcher:
    """Makes directories of what is fetched, and takes them away when the `stack` ends."""

    def __init__(
        self, store: Store, given: Given, say: Callable[[str], None], progress: Progress, stack: ExitStack
    ) -> None:
        self._store = store
        self._given = given
        self._say = say
        self._progress = progress
        self._stack = stack

    def standard_input(self) -> Local:
        """A tar, or a Dockerfile alone with an empty context."""
        stdin = _standard_input()
        path = self._store.temporary("stdin")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.unlink(path)
            limit, size = from_environment().max_size, 0
            while piece := stdin.read(_PIECE):
                size += len(piece)
                if size > limit:
                    raise Invalid(f"standard input: more than {limit} bytes", "LIMPET_MAX_LAYER_SIZE allows more")
                write_all(fd, piece)
            return self._of_file(fd, "standard input")
        finally:
            os.close(fd)

    def remote(self, address: str, *, keep_git: bool = False) -> Local:
        """A repository, a tar by HTTP, or a Dockerfile by HTTP alone."""
        from limpet.build.sources.http import Files
        from limpet.registry import redact

        if address.startswith("github.com/"):
            return self._repository(f"https://{address}", keep_git)
        if reference.remote_kind(address) == "git":
            return self._repository(address, keep_git)
        files = Files(self._store, self._given.secrets, self._say, self._progress)
        fd = files.open(address, files.known(address).digest)
        try:
            return self._of_file(fd, redact.clean(address)[:300])
        finally:
            os.close(fd)

    def files(self, address: str) -> Local:
        """The same, for a context of which only the files count: what is no archive is a file called `context`."""
        local = self.remote(address)
        if local.text is None:
            return local
        with open(f"{local.directory}/context", "wb") as file:
            file.write(local.text.data)
        return replace(local, text=None)

    def text(self, address: str) -> Text:
        """A Dockerfile by HTTP."""
        from limpet.build.sources.http import Files
        from limpet.registry import redact

        files = Files(self._store, self._given.secrets, self._say, self._progress)
        fd = files.open(address, files.known(address).digest)
        with os.fdopen(fd, "rb") as file:
            return Text(file.read(MAX_SIZE + 1), redact.clean(address)[:300])

    def _repository(self, address: str, keep_git: bool) -> Local:
        from limpet.build.sources.git import Repositories
        from limpet.registry import redact

        wanted = reference.repository(address)
        agents = dict(self._given.agents)
        if "default" not in agents and "SSH_AUTH_SOCK" in os.environ:  # it is the caller who names the repository
            agents["default"] = os.environ["SSH_AUTH_SOCK"]
        repositories = Repositories(self._store, self._given.secrets, agents, self._say, self._progress)
        keep_git = keep_git or bool(wanted.keep_git)
        path, _ = repositories.checkout(wanted, repositories.commit(wanted), self._directory(), keep_git=keep_git)
        return Local(path, redact.clean(address)[:300], foreign=True)

    def _of_file(self, fd: int, title: str) -> Local:
        from limpet.build.sources.unpack import unpack

        directory = self._directory()
        if is_archive(fd):
            unpack(self._store, fd, title, directory)
            return Local(directory, title, foreign=True)
        data = os.pread(fd, MAX_SIZE + 1, 0)
        if not data.strip():
            raise Invalid(f"{title}: it is empty", _WANTED)
        if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16 is said where text is read
            raise Invalid(f"{title}: neither an archive nor text", _WANTED)
        shown = f"<{title}>" if title == "standard input" else title
        return Local(directory, title, foreign=True, text=Text(data, shown))

    def _directory(self) -> str:
        directory = self._store.temporary("context")
        os.mkdir(directory, 0o700)
        self._stack.callback(remove_tree, directory)
        inside = f"{directory}/files"
        os.mkdir(inside, 0o755)
        return inside


def _standard_input() -> BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        raise Invalid("standard input is a terminal", "give it a file: limpet build - < FILE")
    return sys.stdin.buffer
