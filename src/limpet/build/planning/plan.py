"""A build as plain data: the stages that the target needs, and in each the steps that make layers, in order.

A plan says all that a result depends on but for the contents of the images, of the context and of what is fetched.
Every front end may make one (`planner` makes it of a Dockerfile), every solver may execute it (`execute` does, one step
after another); `to_json` prints it. Paths are absolute in the image and relative in the context; all variables are
expanded. `text` is how the instruction is shown, `line` and `column` where it stands.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from limpet.build.language import lines
from limpet.frozen import dataclass

if TYPE_CHECKING:
    from limpet.build.language.instructions import Device
    from limpet.build.language.mounts import Mount

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where files come from. `kind`: "scratch", "context", "stage" (its number in `stage`) or "image" (its reference).

    `id` is the image's id where it is known, so that a plan names one image and not a tag that moves. `platform`: of an
    image whose id isn't; "" for that of the plan. `context` is the name of a context with one (`--build-context`), ""
    for the build's own. `near`: the stage that an image's name is like, should there be no such image.
    """

    kind: str
    stage: int = -1
    image: str = ""
    id: str = ""
    platform: str = ""
    context: str = ""
    near: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step stands in the Dockerfile, and its text."""

    text: str
    line: int
    column: int

    def located(self, path: str, message: str) -> str:
        """`path:line:column: message >>> instruction`, on one line."""
        return lines.located(path, self.line, self.column, message, " ".join(self.text.split()))


@dataclass(frozen=True, slots=True)
class File:
    """A heredoc: a file of this name with this content."""

    name: str
    content: str


@dataclass(frozen=True, slots=True)
class Remote:
    """What ADD fetches. `kind`: "http" or "git". `keep_git` is None if not said; `unpack`: an archive is unpacked."""

    kind: str
    url: str
    checksum: str = ""
    keep_git: bool | None = None
    unpack: bool = False


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY or ADD. `target` has a trailing slash if it must be a directory; `unpack`: archives are unpacked."""

    place: Place
    origin: Origin
    sources: tuple[str, ...]
    files: tuple[File, ...]
    remotes: tuple[Remote, ...]
    target: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    unpack: bool = False
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class MountFrom:
    """One --mount of a RUN: `mount.target` is absolute; `origin` is where a bind or a cache takes its files."""

    mount: Mount
    origin: Origin


@dataclass(frozen=True, slots=True)
class Run:
    """`env` is all of the environment but for `proxies`, which count neither for the key nor for the history.

    `hosts`, `ulimits` and `shm_size` (bytes, 0 for the usual) are what `conditions` says of them.
    `scripts` are files in /dev/pipes (a heredoc that begins with `#!`). `shell` is what the shell form went through.
    """

    place: Place
    argv: tuple[str, ...]
    env: Pairs
    proxies: Pairs
    workdir: str
    user: str
    mounts: tuple[MountFrom, ...] = ()
    scripts: tuple[File, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[Device, ...] = ()
    hosts: tuple[str, ...] = ()
    ulimits: tuple[str, ...] = ()
    shm_size: int = 0
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class Directory:
    """WORKDIR: the directory is made, its owner's `user`, if it is not there."""

    place: Place
    path: str
    user: str
    created_by: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A step without a layer: it stands in the image's history."""

    place: Place
    created_by: str = ""


Step = Copy | Run | Directory | Note


@dataclass(frozen=True, slots=True)
class Stage:
    """`number` is its place in the Dockerfile. `config` is the image config's inner object as the steps leave it.

    In a plan for several platforms numbers are unique, and `shown` is what the stage is called.
    """

    number: int
    name: str
    base: Origin
    platform: str
    steps: tuple[Step, ...]
    config: dict[str, Any]
    author: str
    shown: str = ""

    @property
    def title(self) -> str:
        return self.shown or self.name or f"stage-{self.number}"


@dataclass(frozen=True, slots=True)
class Plan:
    """`stages` in an order in which each comes after what it needs; the last one is the target.

    Of a plan for several platforms `targets` are the numbers of the targets, in the platforms' order.
    """

    path: str
    platform: str
    stages: tuple[Stage, ...]
    targets: tuple[int, ...] = ()

    @property
    def target(self) -> Stage:
        return self.stages[-1]

    @property
    def results(self) -> tuple[Stage, ...]:
        """The stages that images are made of."""
        return tuple(map(self.stage, self.targets)) or (self.target,)

    def stage(self, number: int) -> Stage:
        return next(each for each in self.stages if each.number == number)


def to_json(plan: Plan) -> str:
    """What `limpet build --print=plan` prints: an object, each step with its `type`."""
    whole = dataclasses.asdict(plan)
    for stage, data in zip(plan.stages, whole["stages"], strict=True):
        data["steps"] = [
            {"type": type(step).__name__.lower(), **fields}
            for step, fields in zip(stage.steps, data["steps"], strict=True)
        ]
    return json.dumps(whole, indent=2)
