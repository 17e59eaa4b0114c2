"""`--build-context NAME=SOURCE`: what a name of the Dockerfile means for this build (Docker's "build contexts").

A source is a directory, a URL or a repository as the build's own context may be, `docker-image://REFERENCE`, or
`oci-layout://DIRECTORY[:TAG][@DIGEST]`. Its name stands for a stage, for the image in FROM, for `--from` of COPY and
`from` of a mount. Files are fetched when a step needs them first; owners don't count, `.dockerignore` does.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from limpet.build import reading
from limpet.build.copying.context import context
from limpet.build.copying.digests import Digests
from limpet.build.planning.planner import canonical
from limpet.build.sources import contexts
from limpet.errors import Invalid, LimpetError, NotFound
from limpet.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from limpet.build.copying.context import Tree
    from limpet.build.reading import Local
    from limpet.build.steps.stepmounts import Given
    from limpet.progress import Progress
    from limpet.store.store import Store

IMAGE = "docker-image:"
LAYOUT = "oci-layout:"


def parse(texts: list[str]) -> dict[str, str]:
    """The values of the options: name → source. Raises Invalid."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not (name and equals and source):
            raise Invalid(f"--build-context {text}: a name and a source are needed", "as in --build-context lib=../lib")
        if not canonical(name):
            raise Invalid(f"--build-context {text}: {name} is no name", "small letters, as a stage or an image has")
        found[name] = source
    return found


class Named:
    """`with Named(…) as named:` what was fetched is there for the time."""

    def __init__(
        self,
        store: Store,
        sources: Mapping[str, str],
        given: Given,
        say: Callable[[str], None],
        progress: Progress,
    ) -> None:
        """Raises NotFound for a directory that isn't there."""
        self._store = store
        self._sources = {canonical(name): source for name, source in sources.items()}
        self._names = {canonical(name): name for name in sources}
        self._progress = progress
        self._stack = ExitStack()
        self._fetcher = contexts.Fetcher(store, given, say, progress, self._stack)
        self._local: dict[str, Local] = {}
        self._lock = threading.Lock()
        for name, source in sources.items():
            if self._is_files(source) and not contexts.is_remote(source) and not os.path.isdir(source):
                hint = "a directory, a URL, docker-image://IMAGE or oci-layout://DIRECTORY:TAG"
                raise NotFound(f"--build-context {name}={source}: no such directory", hint)

    def __enter__(self) -> Named:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def images(self, platform: str) -> dict[str, str]:
        """For a planner: by their canonical names, the image that each stands for, "" for files.

        `platform` "" is this machine's. The caller holds a lease: an image of a layout is in the store then. Raises
        LimpetError.
        """
        return {name: self._image(name, source, platform) for name, source in self._sources.items()}

    def tree(self, name: str) -> Tree:
        """The files of one; whoever opens it closes it. Any thread may call it. Raises LimpetError."""
        with self._lock:
            local = self._local.get(name)
            if local is None:
                source = self._sources[name]
                local = self._fetcher.files(source) if contexts.is_remote(source) else reading.Local(source)
                self._local[name] = local
        digests = None if local.foreign else Digests(self._store, local.directory)
        return context(local.directory, reading.ignored(local), digests, title=self._names[name])

    def _is_files(self, source: str) -> bool:
        return not source.startswith((IMAGE, LAYOUT))

    def _image(self, name: str, source: str, platform: str) -> str:
        if source.startswith(IMAGE):
            return source.removeprefix(IMAGE).removeprefix("//")
        if not source.startswith(LAYOUT):
            return ""
        from limpet.images import load

        path, tag, digest = _split(source.removeprefix(LAYOUT).removeprefix("//"))
        wanted = platforms.parse(platform) if platform else None
        try:
            return load.one(self._store, path, tag=tag, digest=digest, platform=wanted, progress=self._progress).id
        except LimpetError as e:
            e.message = f"--build-context {self._names[name]}: {e.message}"
            raise


def _split(text: str) -> tuple[str, str, str]:
    """`DIRECTORY[:TAG][@DIGEST]`; a directory that is called so is one."""
    path, _, digest = text.partition("@")
    tag = ""
    if not os.path.exists(path):
        ends = [at for at, letter in enumerate(path) if letter == ":"]
        # A tag may be a whole name, host:5000/app:1, as archives have it: the directory ends where one is.
        end = next((at for at in reversed(ends) if os.path.exists(path[:at])), path.find(":", path.rfind("/") + 1))
        path, tag = (path[:end], path[end + 1 :]) if end >= 0 else (path, "")
    return path, tag, digest
