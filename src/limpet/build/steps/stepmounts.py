"""What the `--mount`s of one RUN need while it runs: bind, cache, secret, ssh.

Trees of stages and images, and secrets, are mounted in a mount namespace that the builder enters for the time of the
step (`kernel.mounts.Private`): the host never sees them, and nothing of them outlives the builder. What the step gets
are detached copies of these mounts. Of the context a step sees a layer that was made of it as COPY would: without what
.dockerignore excludes, and as it was at one moment.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import field, replace
from typing import TYPE_CHECKING

from limpet.build.steps.cachemounts import CacheMount
from limpet.errors import Invalid, NotFound
from limpet.frozen import dataclass
from limpet.kernel import fs, mounts
from limpet.layers.driver import driver
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Any

    from limpet.build.language.mounts import Mount
    from limpet.build.planning.plan import Run
    from limpet.store.store import Store


def _never(number: int) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line gives to steps. `secrets`: id → content; `agents`: id → path of an ssh agent's socket.

    `caches` is put before the id of each cache: with another one than "" a build has caches of its own.
    `debug`: the terminal is for a shell in the RUN that fails. `limits`: of `containers.limits`, for each RUN.
    `parallel`: how many steps may be done at once, 0 for what suits this machine. `in_memory`: for a step's number how
    many bytes of memory may hold what a RUN changes, 0 for the disk.
    """

    secrets: Mapping[str, bytes] = field(default_factory=dict)
    agents: Mapping[str, str] = field(default_factory=dict)
    caches: str = ""
    debug: bool = False
    limits: Mapping[str, Any] = field(default_factory=dict)
    parallel: int = 0
    in_memory: Callable[[int], int] = _never


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a bind, or a new cache, takes its files: a stack of layers. `key` stands for their content."""

    layers: Sequence[str]
    key: str


@dataclass(frozen=True, slots=True)
class Bind:
    """`tree`: the descriptor of a detached mount, closed with the step's other mounts.

    `source`: its path, which this thread and its children see.
    """

    source: str
    target: str
    tree: int
    read_only: bool


class StepMounts:
    """`with StepMounts(…) as ready:` all is in place; `ready.binds`, `tmpfs` and `env` are for the container."""

    def __init__(
        self, store: Store, step: Run, bound: Mapping[int, Bound], given: Given, say: Callable[..., None]
    ) -> None:
        """`bound`: of the mounts with an origin, by their place in `step.mounts`."""
        self._store = store
        self._step = step
        self._bound = bound
        self._given = given
        self.say = say
        self._stack = ExitStack()
        self._directory = ""
        self._number = 0
        self._agents = 0
        self.binds: list[Bind] = []
        self.tmpfs: list[str] = []
        self.env: dict[str, str] = {}
        self.targets: list[str] = []
        self.secrets: dict[str, bytes] = {}
        self.devices: list[str] = []
        self.limits = given.limits

    def __enter__(self) -> StepMounts:
        try:
            if self._step.devices:
                self._give_devices()
            for number, each in enumerate(self._step.mounts):
                self._prepare(each.mount, self._bound.get(number))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _give_devices(self) -> None:
        from limpet.build.steps import devices

        found = devices.edits(self._step.devices, self.say)
        self.devices = found.nodes
        self.env.update(found.env)
        for source, target, read_only in found.mounts:
            if not os.path.exists(source):
                raise NotFound(f"{source}: no such file, which a device of the step needs")
            self._bind(source, target, read_only=read_only)

    def _prepare(self, mount: Mount, bound: Bound | None) -> None:
        if mount.type == "tmpfs":
            size = f",size={mount.size}" if mount.size else ""
            if mount.target in self.targets:
                raise Invalid(f"duplicate mount point: {mount.target}")
            self.tmpfs.append(f"{mount.target}:exec,suid,dev,mode=1777{size}")  # what is built there may be executed
            self.targets.append(mount.target)
        elif mount.type == "bind":
            assert bound is not None
            self._bind(self._inside(self._tree(bound, writable=not mount.read_only), mount), mount.target)
        elif mount.type == "cache":
            origin = self._inside(self._tree(bound, writable=False), mount) if bound is not None else ""
            own = replace(mount, id=self._given.caches + mount.id)
            path = self._stack.enter_context(CacheMount(self._store, own, origin, self.say))
            self._bind(path, mount.target, read_only=mount.read_only)
        elif mount.type == "secret":
            self._secret(mount)
        else:
            self._ssh(mount)

    def _bind(self, source: str, target: str, *, read_only: bool = False) -> None:
        if target in self.targets:
            raise Invalid(f"duplicate mount point: {target}")
        tree = mounts.open_tree(source, recursive=True)
        self._stack.callback(os.close, tree)
        self.binds.append(Bind(source, target, tree, read_only))
        self.targets.append(target)

    def scripts(self, source: str, target: str) -> None:
        """A directory of the engine's own."""
        self._bind(source, target, read_only=True)

    def _private(self, purpose: str) -> str:
        """An empty directory in a namespace of mounts that is this step's."""
        if not self._directory:
            self._directory = self._store.temporary("mounts")
            os.mkdir(self._directory, 0o700)
            self._stack.callback(remove_tree, self._directory)
            self._stack.enter_context(mounts.Private())
        path = f"{self._directory}/{purpose}-{self._number}"
        self._number += 1
        os.mkdir(path, 0o755)
        return path

    def _tree(self, bound: Bound, *, writable: bool) -> str:
        """The place of a mounted stack; what is written there is thrown away."""
        place = self._private("tree")
        upper = work = None
        if writable:
            upper, work = f"{place}-upper", f"{place}-work"
            os.mkdir(upper, 0o755)
            os.mkdir(work, 0o700)
        fd = driver(self._store).mount(bound.layers, upper, work, volatile=writable)
        try:
            mounts.attach(fd, place)
        finally:
            os.close(fd)
        return place

    def _inside(self, place: str, mount: Mount) -> str:
        """The path of the mount's source in a tree, links followed within it. Raises NotFound."""
        root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = fs.openat2(mount.source.lstrip("/") or ".", os.O_PATH, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
        except OSError as e:
            raise NotFound(f"{mount.source}: not in {mount.origin or 'the build context'}: {e.strerror}") from e
        finally:
            os.close(root)
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    def _secret(self, mount: Mount) -> None:
        name = mount.id or mount.source or os.path.basename(mount.target)
        if name not in self._given.secrets:
            if mount.required:
                raise NotFound(
                    f"secret {name} not found", f"give it with --secret id={name},src=FILE (or env=VARIABLE)"
                )
            return
        data = self.secrets[name] = self._given.secrets[name]
        if mount.env is not None:
            self.env[mount.env or name] = data.decode("utf-8", "surrogateescape")
            if not mount.target:
                return
        place = self._private("secret")
        fd = mounts.tmpfs(mode="755")
        try:
            mounts.attach(fd, place)  # a secret never touches the disk
        finally:
            os.close(fd)
        path = f"{place}/secret"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400), "wb") as file:
            file.write(data)
        os.chown(path, mount.uid or 0, mount.gid or 0)
        os.chmod(path, 0o400 if mount.mode is None else mount.mode)
        self._bind(path, mount.target or f"/run/secrets/{name}", read_only=True)

    def _ssh(self, mount: Mount) -> None:
        name = mount.id or "default"
        socket = self._given.agents.get(name)
        if socket is None:
            if mount.required:
                raise NotFound(f"ssh agent {name}: not found", f"give it with --ssh {name}, or --ssh {name}=SOCKET")
            return
        if not stat.S_ISSOCK(os.stat(socket).st_mode):
            raise Invalid(f"{socket} is no socket", "--ssh takes the socket of an agent: run ssh-agent and ssh-add")
        target = mount.target or f"/run/buildkit/ssh_agent.{self._agents}"
        self._agents += 1
        self.env.setdefault("SSH_AUTH_SOCK", target)
        self._bind(socket, target)
