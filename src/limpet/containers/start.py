"""Starting a container: mount its root, write its plan, fork its monitor.

What can go wrong with the image or the options goes wrong here, in the caller's process, before anything runs. The
monitor is forked from what is loaded: it costs a megabyte, where a new Python costs five (DESIGN.md).
"""

from __future__ import annotations

import fcntl
import os

from limpet import jsontext
from limpet.containers import confinement, early, hostfiles, outcome, spec, state, users
from limpet.errors import Conflict, LimpetError
from limpet.kernel import cgroup
from limpet.layers import driver
from limpet.store import faults
from limpet.store.files import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from limpet.containers.early import Early
    from limpet.containers.mountplan import Mount
    from limpet.containers.state import Container
    from limpet.store.store import Store

    Config = dict[str, Any]
else:
    import _socket as socket


def start(
    store: Store,
    container: Container,
    *,
    attached: bool = False,
    stdin: bool = False,
    detach_keys: str = "",
    proxy_signals: bool = True,
) -> int:
    """Starts it; with `attached` stays until it ends. 0, or its exit code. One that runs already is left as it is."""
    try:
        connection = launch(store, container, client=attached)
    except Conflict:
        if not attached:
            return 0
        connection = None  # it runs: attach to what there is
    if not attached:
        return 0
    from limpet.containers import attach

    return attach.attach(
        store, container, connection=connection, stdin=stdin, detach_keys=detach_keys, proxy_signals=proxy_signals
    )


def launch(
    store: Store,
    container: Container,
    *,
    client: bool = False,
    size: tuple[int, int] | None = None,
    waiting: Early | None = None,
) -> socket.socket | None:
    """Returns when the program runs. With `client` the result is the first client's connection (see `attach`).

    `size`: rows and columns of the terminal; `waiting`: the monitor, if it was forked already. Raises Conflict if the
    container runs already, StartFailed if the program can't be run, LimpetError for the rest.
    """
    lock = _lock(store, container)
    try:
        _clear(store, container)
        root = _mount(store, container)
        try:
            config, program = prepare(store, container, root, size)
            return _hand_over(store, container, config, program, root, lock, client, waiting)
        finally:
            os.close(root)
    finally:
        os.close(lock)


def prepare(store: Store, container: Container, root: int, size: tuple[int, int] | None) -> tuple[Config, bytes | None]:
    """Writes the bundle (config.json and the files that it names); the plan and seccomp's program."""
    directory = store.container_path(container.id)
    with open(f"{directory}/image.json", "rb") as file:
        image = jsontext.loads(file.read())
    user = users.resolve(root, spec.user_text(container.options, image), container.options.group_add)
    mounts: list[Mount] = []
    if os.path.exists(f"{directory}/mounts.json"):
        from limpet.containers import mountplan, volumefill

        mounts = mountplan.load(store, container.id)
        for mount in mounts:
            if mount.kind == "volume" and mount.copy:
                volumefill.fill(root, mount.target, mount.source)
    hostfiles.write(directory, container.options, container.id)
    config = spec.make(store, container, image, user, mounts, size)
    text = jsontext.dumps(config)
    section, program = confinement.seccomp(store, container.options, config)
    if section:  # kept as text, since encoding 400 names costs more than all the rest: "linux" is the last key
        text = f'{text[:-2]},"seccomp":{section}}}}}'
    fd = os.open(f"{directory}/config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    return config, program


def _lock(store: Store, container: Container) -> int:
    """The monitor's lock, taken before the fork so that two starts can't both go on."""
    run = store.run_path(container.id)
    os.makedirs(run, 0o700, exist_ok=True)
    fd = os.open(f"{run}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if state.status(store, container).state in ("running", "restarting", "paused"):
                raise Conflict(f"container {container.name} is already running") from None
            fcntl.flock(fd, fcntl.LOCK_EX)  # its monitor is just about to end
    except BaseException:
        os.close(fd)
        raise
    return fd


def _clear(store: Store, container: Container) -> None:
    """Takes away what a dead run left (a killed monitor, a crash): processes, cgroup, marks."""
    run = store.run_path(container.id)
    for name in ("stopped", "attach.sock"):
        try:
            os.unlink(f"{run}/{name}")
        except FileNotFoundError:
            pass
    left = cgroup.path(container.id)
    if left is not None and os.path.isdir(left):
        cgroup.kill(left)
        cgroup.remove(left)
    if os.path.isdir(f"{store.container_path(container.id)}/work/work/incompat"):
        # A volatile mount that was not unmounted refuses to be mounted again (overlayfs.rst, "Volatile mount").
        remove_tree(f"{store.container_path(container.id)}/work/work/incompat")


def _mount(store: Store, container: Container) -> int:
    directory = store.container_path(container.id)
    try:
        return driver.driver(store).mount(
            container.layers, f"{directory}/upper", f"{directory}/work", volatile=container.options.auto_remove
        )
    except OSError as e:
        raise LimpetError(
            f"container {container.name}: mounting its layers: {e.strerror}", "`limpet system check` looks at them"
        ) from e


def _hand_over(
    store: Store,
    container: Container,
    config: Config,
    program: bytes | None,
    root: int,
    lock: int,
    client: bool,
    waiting: Early | None,
) -> socket.socket | None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM) if client else (None, None)
    read, write = os.pipe()
    descriptors = [root, lock, write, *([theirs.fileno()] if theirs is not None else [])]
    if waiting is None or not waiting.order(store, container, config, program, descriptors):
        early.hand_over(store, container, config, program, descriptors)
    os.close(write)
    if theirs is not None:
        theirs.close()
    if client:
        # What the client needs next, loaded while the monitor makes the container on another processor.
        from limpet.containers import attach, removal  # noqa: F401
    answer = b""
    while chunk := os.read(read, 65536):
        answer += chunk
    os.close(read)
    faults.reach("container-started")
    if answer == outcome.STARTED:
        return ours
    if ours is not None:
        ours.close()
    if answer:
        raise outcome.unpack(answer)
    raise LimpetError(f"container {container.name}: its monitor ended before the container began")
