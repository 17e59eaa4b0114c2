"""What is kept of builds, so that the next one can be held against them.

    <root>/cache/builds/<identity>          of the last build of a Dockerfile: each stage's base and its steps' keys
    <root>/cache/steps/<parent>-<key>       of a step that was done: its parts (`parts`)

`<identity>` is 32 digits of the SHA-256 of the context's and the Dockerfile's path, `<parent>` 16 of the key of the
step before it, so that other steps after the same one are found. Bounded: the oldest go.
"""

from __future__ import annotations

import hashlib
import marshal
import os
from typing import TYPE_CHECKING, NamedTuple

from limpet.build.explain.parts import Parts
from limpet.store.files import remove_tree, write_file

if TYPE_CHECKING:
    from limpet.store.store import Store

MOST_STEPS = 1000
MOST_BYTES = 64 << 20
MOST_BUILDS = 200
_VERSION = 1


class Done(NamedTuple):
    """A step of an earlier build. `kind`: "RUN", "COPY", "WORKDIR"; `text`: the instruction's first line.

    `ok`: it was cached, or came to its end.
    """

    key: str
    parent: str
    kind: str
    line: int
    text: str
    ok: bool = False


class Built(NamedTuple):
    """A stage of an earlier build. `base`: the image's name and id, or "stage NAME"; `epoch` in Unix seconds."""

    base: str
    base_id: str
    epoch: int
    steps: tuple[Done, ...]


def forget(store: Store) -> None:
    """What is known of all builds. One that runs now writes its own again."""
    for name in ("builds", "steps"):
        remove_tree(f"{store.root}/cache/{name}")


class Records:
    def __init__(self, store: Store, directory: str, file: str) -> None:
        """`directory`: the context's, `file`: the Dockerfile's path."""
        identity = f"{os.path.realpath(directory)}\0{os.path.realpath(file)}"
        name = hashlib.sha256(os.fsencode(identity)).hexdigest()[:32]
        self._home = f"{store.root}/cache"
        self._path = f"{self._home}/builds/{name}"
        self._raw = b""
        self.time = 0.0
        self.stages: dict[str, Built] = self._read()

    def _read(self) -> dict[str, Built]:
        """By the stage's title; {} if there was no build, or what is there can't be read."""
        try:
            with open(self._path, "rb") as file:
                self._raw = file.read()
                self.time = os.fstat(file.fileno()).st_mtime
            version, stages = marshal.loads(self._raw)
            if version != _VERSION:
                return {}
            return {
                title: Built(base, base_id, epoch, tuple(Done(*step) for step in steps))
                for title, (base, base_id, epoch, steps) in stages.items()
            }
        except (OSError, ValueError, EOFError, TypeError, AttributeError):
            return {}

    def save(self, stages: dict[str, Built]) -> None:
        """Those of this build; stages that it did not need stay as they were. Writes only what is new."""
        merged = {**self.stages, **stages}
        plain = {
            title: (each.base, each.base_id, each.epoch, [tuple(step) for step in each.steps])
            for title, each in sorted(merged.items())
        }
        data = marshal.dumps((_VERSION, plain))
        if data != self._raw:
            self._write(self._path, data)
            _shrink(f"{self._home}/builds", MOST_BUILDS)

    def put(self, key: str, parent: str, parts: Parts) -> None:
        self._write(f"{self._home}/steps/{parent[:16]}-{key}", marshal.dumps((_VERSION, *parts)))

    def get(self, key: str, parent: str) -> Parts | None:
        return self._load(f"{parent[:16]}-{key}")

    def beside(self, parent: str, kind: str) -> list[tuple[str, Parts]]:
        """(key, parts) of steps that were done after the same one, the latest first: five at most."""
        try:
            names = [name for name in os.listdir(f"{self._home}/steps") if name.startswith(f"{parent[:16]}-")]
            names.sort(key=lambda name: -os.stat(f"{self._home}/steps/{name}").st_mtime)
        except OSError:
            return []
        found = [(name[17:], self._load(name)) for name in names[:20]]
        return [(key, parts) for key, parts in found if parts is not None and _kind(parts) == kind][:5]

    def shrink(self) -> None:
        """The oldest steps go, when there are too many."""
        _shrink(f"{self._home}/steps", MOST_STEPS)

    def _load(self, name: str) -> Parts | None:
        try:
            with open(f"{self._home}/steps/{name}", "rb") as file:
                version, named, files = marshal.loads(file.read())
            return Parts(named, files) if version == _VERSION else None
        except (OSError, ValueError, EOFError, TypeError):
            return None

    def _write(self, path: str, data: bytes) -> None:
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            write_file(path, data, durable=False)
        except OSError:
            pass  # it only explains


def _kind(parts: Parts) -> str:
    return "RUN" if "command" in parts.named else "WORKDIR" if "directory" in parts.named else "COPY"


def _shrink(directory: str, most: int) -> None:
    try:
        with os.scandir(directory) as entries:
            found = sorted((each.stat().st_mtime, each.stat().st_size, each.path) for each in entries)
    except OSError:
        return
    size = sum(each[1] for each in found)
    while found and (len(found) > most or size > MOST_BYTES):
        _, bytes_, path = found.pop(0)
        size -= bytes_
        try:
            os.unlink(path)
        except OSError:
            pass
