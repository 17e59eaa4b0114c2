"""The Dockerfile and the .dockerignore of a build, from wherever they are, as what they say."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING

from limpet.build.language import dockerfile, ignore, notes
from limpet.errors import Invalid, NotFound
from limpet.frozen import dataclass
from limpet.kernel import fs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limpet.build.language.dockerfile import Dockerfile
    from limpet.build.language.ignore import Ignore


@dataclass(frozen=True, slots=True)
class Text:
    """A Dockerfile that is no file of the context. `shown`: its name in messages."""

    data: bytes
    shown: str


@dataclass(frozen=True, slots=True)
class Local:
    """A context as a directory of this machine.

    `title`: what people call it. `foreign`: it was made by somebody else, and no link in it leads out of it; `file` is
    a path in it then, "" for its Dockerfile. `text`: a Dockerfile that came by itself.
    """

    directory: str
    title: str = ""
    file: str = ""
    foreign: bool = False
    text: Text | None = None


@dataclass(frozen=True, slots=True)
class Read:
    text: str
    file: Dockerfile
    ignored: Ignore
    checks: notes.Options


def read(local: Local, arguments: Mapping[str, str]) -> Read:
    """`arguments`: the --build-arg. Raises NotFound and Invalid."""
    if local.text is not None:
        data, shown = local.text.data, local.text.shown
        found_ignored = ignored(local)
    elif local.foreign:
        top = local.directory
        shown = posixpath.normpath(local.file) if local.file else _default(top, os.listdir(top), local.title)
        found = _beneath(top, shown, dockerfile.MAX_SIZE)
        if found is None:
            raise NotFound(f"{shown}: no such Dockerfile in {local.title}", "-f names a file of the context")
        data, found_ignored = found, _foreign_ignore(top, shown)
    else:
        path = local.file or os.path.join(local.directory, _default(local.directory, os.listdir(local.directory)))
        data, shown = _read_file(path), os.path.relpath(path)
        found_ignored = ignore.read(local.directory, path)
    text = data.decode("utf-8", "surrogateescape")
    file = dockerfile.parse(text, shown)
    return Read(text, file, found_ignored, _options(file, arguments))


def ignored(local: Local) -> Ignore:
    """What the context's own .dockerignore leaves out. Raises Invalid."""
    return _foreign_ignore(local.directory, "") if local.foreign else ignore.read(local.directory)


def _options(file: Dockerfile, arguments: Mapping[str, str]) -> notes.Options:
    """`# check=…`; the build argument of BuildKit's replaces it."""
    directive = file.directive("check")
    text, place = arguments.get("BUILDKIT_DOCKERFILE_CHECK"), "--build-arg BUILDKIT_DOCKERFILE_CHECK"
    if text is None and directive is not None:
        text, place = directive.value.split(" ")[0], f"{file.path}:{directive.line}:1"
    try:
        return notes.options(text or "")
    except ValueError as e:
        raise Invalid(f"{place}: {e}", "as in check=skip=JSONArgsRecommended;error=true") from None


def _default(directory: str, names: list[str], title: str = "") -> str:
    """`Dockerfile`, or `dockerfile`, as Docker takes too. Raises NotFound with what else is there."""
    for name in ("Dockerfile", "dockerfile"):
        if name in names:
            return name
    like = sorted(name for name in names if "dockerfile" in name.lower() and not name.endswith(".dockerignore"))
    if not like:  # an archive often has all in one directory
        like = sorted(f"{n}/Dockerfile" for n in names[:1000] if os.path.lexists(f"{directory}/{n}/Dockerfile"))
    hint = f"there is {', '.join(like[:5])}: name it with -f" if like else "name another one with -f"
    shown = f"Dockerfile: no such Dockerfile in {title}" if title else f"{directory}/Dockerfile: no such Dockerfile"
    raise NotFound(shown, hint)


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(dockerfile.MAX_SIZE + 1)
    except FileNotFoundError as e:
        raise NotFound(f"{path}: no such Dockerfile", "name another one with -f") from e
    except OSError as e:
        raise NotFound(f"{path}: {(e.strerror or '').lower()}") from e


def _foreign_ignore(directory: str, file: str) -> Ignore:
    for path in (f"{file}.dockerignore" if file else "", ".dockerignore"):
        data = _beneath(directory, path, ignore.MAX_SIZE) if path else None
        if data is None:
            continue
        if len(data) > ignore.MAX_SIZE:
            raise Invalid(f"{path}: larger than {ignore.MAX_SIZE >> 20} MiB")
        return ignore.parse(data.decode("utf-8", "surrogateescape"), posixpath.basename(path))
    return ignore.Ignore()


def _beneath(directory: str, path: str, limit: int) -> bytes | None:
    """The first `limit` + 1 bytes of a file, links followed within the directory; None if there is none."""
    top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = fs.openat2(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dirfd=top, resolve=fs.RESOLVE_BENEATH)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        what = "leads out of the context" if e.errno == errno.EXDEV else (e.strerror or "").lower()
        raise Invalid(f"{path}: {what}", "it is a file of the context that is wanted") from e
    finally:
        os.close(top)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Invalid(f"{path}: it is no file")
        return file.read(limit + 1)
