"""The instructions of a Dockerfile as what they mean: one frozen dataclass each, variables not yet expanded.

`typed` makes them of what `dockerfile` read. `source` is where each comes from, for messages, history and notes. Words
are kept with quotes and variables as written, for the planner to expand; flags have lost their quotes already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.frozen import dataclass

if TYPE_CHECKING:
    from limpet.build.language.dockerfile import Dockerfile, Heredoc, Instruction, Pair
    from limpet.build.language.lines import Word


@dataclass(frozen=True, slots=True)
class Argument:
    """One name of ARG. `value` is None if only declared; `description` is from a comment `# NAME text` above."""

    key: Word
    value: Word | None
    description: str


@dataclass(frozen=True, slots=True)
class Arg:
    source: Instruction
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Env:
    source: Instruction
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Label:
    source: Instruction
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY and ADD. `files` are heredocs, each a file of its name; `unpack`, `keep_git` are None if not said."""

    source: Instruction
    sources: tuple[Word, ...]
    files: tuple[Heredoc, ...]
    target: Word
    is_add: bool
    origin: str
    """`--from`: a stage's name or number, an image; "" for the context."""
    chown: str
    chmod: str
    link: bool
    parents: bool
    excludes: tuple[str, ...]
    checksum: str
    keep_git: bool | None
    unpack: bool | None


@dataclass(frozen=True, slots=True)
class Command:
    """What RUN, CMD, ENTRYPOINT, HEALTHCHECK run: the words of the exec form, or one text for the shell."""

    words: tuple[str, ...]
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """`mounts` and `devices` are the flags' texts (`mounts.parse` reads them, once variables are known)."""

    source: Instruction
    command: Command
    mounts: tuple[Word, ...]
    network: str
    security: str
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Device:
    name: str
    required: bool


@dataclass(frozen=True, slots=True)
class Cmd:
    source: Instruction
    command: Command


@dataclass(frozen=True, slots=True)
class Entrypoint:
    source: Instruction
    command: Command


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """Times in nanoseconds, 0 if not said. `test` as in the image config: NONE, CMD …, CMD-SHELL text."""

    source: Instruction
    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Expose:
    source: Instruction
    ports: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class User:
    source: Instruction
    user: Word


@dataclass(frozen=True, slots=True)
class Volume:
    source: Instruction
    paths: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Workdir:
    source: Instruction
    path: Word


@dataclass(frozen=True, slots=True)
class Stopsignal:
    source: Instruction
    signal: Word


@dataclass(frozen=True, slots=True)
class Shell:
    source: Instruction
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Maintainer:
    source: Instruction
    name: str


@dataclass(frozen=True, slots=True)
class Onbuild:
    """`text` is the trigger as the image config keeps it, heredocs behind it."""

    source: Instruction
    text: str


@dataclass(frozen=True, slots=True)
class From:
    """`name` is in small letters, "" if there is none; `platform` as written."""

    source: Instruction
    image: Word
    name: str
    platform: str


Typed = (
    Arg
    | Env
    | Label
    | Copy
    | Run
    | Cmd
    | Entrypoint
    | Healthcheck
    | Expose
    | User
    | Volume
    | Workdir
    | Stopsignal
    | Shell
    | Maintainer
    | Onbuild
)


@dataclass(frozen=True, slots=True)
class Stage:
    begin: From
    instructions: tuple[Typed, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """A whole Dockerfile. `arguments` are the ARGs before the first FROM."""

    file: Dockerfile
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
