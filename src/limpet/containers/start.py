"""Starting a container: take its lock, take away what a dead run left, hand it to a monitor, hear how it went."""

from __future__ import annotations

import fcntl
import os
import time

from limpet.containers import state
from limpet.containers.execution import outcome
from limpet.containers.monitor import early
from limpet.errors import Conflict, LimpetError, NotFound, Refused
from limpet.kernel import cgroup, signals
from limpet.store import faults, files
from limpet.store.files import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from limpet.containers.monitor.early import Early
    from limpet.containers.state import Container
    from limpet.store.store import Store
else:
    import _socket as socket

_LOOK = 0.005  # seconds between two looks at a lock that somebody else has


def start(
    store: Store,
    container: Container,
    *,
    checkpoint: str = "",
    attached: bool = False,
    stdin: bool = False,
    detach_keys: str = "",
    proxy_signals: bool = True,
    warn: Callable[[str], None] | None = None,
) -> int:
    """Starts it; with `attached` stays until it ends. 0, or its exit code. One that runs already is left as it is."""
    try:
        connection = launch(store, container, client=attached, checkpoint=checkpoint, warn=warn)
    except Conflict:
        if checkpoint:
            raise
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
    unwritten: Sequence[str] = (),
    checkpoint: str = "",
    warn: Callable[[str], None] | None = None,
) -> socket.socket | None:
    """Returns when the program runs. With `client` the result is the first client's connection (see `attach`).

    `size`: rows and columns of the terminal; `waiting`: the monitor, if it was forked already; `unwritten`: secrets for
    the first run's environment, `KEY=value`, that no file and no row will have (not with `waiting`). `warn` hears of
    what is not as it was asked for, though the container runs. Raises Conflict if
    the container runs already, StartFailed if the program can't be run, LimpetError for the rest.

    Signals that would end this process wait meanwhile; with a client until `attach`, which passes them on.
    """
    if container.options.pod or container.options.requires:
        from limpet.containers.pod import pods

        pods.before_start(store, container)
    lock = _lock(store, container)
    before = signals.block(signals.SIG_BLOCK, signals.DEADLY)
    connection = None
    try:
        _clear(store, container)
        if container.options.egress is not None or container.options.ingress is not None:
            from limpet.containers.network import policing

            policing.prepare(store, container)
        if checkpoint:
            files.put(f"{store.run_path(container.id)}/{state.RESTORE}", checkpoint.encode())
        connection = _hand_over(store, container, lock, size, client, waiting, unwritten, warn)
        return connection
    finally:
        os.close(lock)
        if connection is None:
            signals.block(signals.SIG_SETMASK, before)


def _lock(store: Store, container: Container) -> int:
    """The monitor's lock, taken before the fork so that two starts can't both go on."""
    run = store.run_path(container.id)
    fd = state.open_lock(store, container.id)
    try:
        while not _locked(fd):
            found = state.status(store, container).state
            if found == "paused":
                raise Refused("cannot start a paused container, try unpause instead", exit_code=1)
            if found in ("running", "restarting"):
                raise Conflict(f"container {container.name} is already running")
            # Its monitor is about to end, or somebody else has just begun to start it: which one shows soon.
            time.sleep(_LOOK)
        if not os.path.isdir(store.container_path(container.id)):
            remove_tree(run)  # made anew just now, perhaps
            raise NotFound(f"No such container: {container.name}", exit_code=1)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear(store: Store, container: Container) -> None:
    """Takes away what a dead run left (a killed monitor, a crash): processes, cgroup, marks."""
    run = store.run_path(container.id)
    for name in ("stopped", "updated", "storage-limit", "attach.sock", state.RESTORE):
        try:
            os.unlink(f"{run}/{name}")
        except FileNotFoundError:
            pass
    cgroup.clear(container.group)
    if os.path.isdir(f"{run}/runc"):
        remove_tree(f"{run}/runc")  # runc's own record of it
    if os.path.isdir(f"{store.container_path(container.id)}/work/work/incompat"):
        # A volatile mount that was not unmounted refuses to be mounted again (overlayfs.rst, "Volatile mount").
        remove_tree(f"{store.container_path(container.id)}/work/work/incompat")


def _hand_over(
    store: Store,
    container: Container,
    lock: int,
    size: tuple[int, int] | None,
    client: bool,
    waiting: Early | None,
    unwritten: Sequence[str],
    warn: Callable[[str], None] | None,
) -> socket.socket | None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM) if client else (None, None)
    read, write = os.pipe()
    descriptors = [lock, write, *([theirs.fileno()] if theirs is not None else [])]
    if waiting is None or not waiting.order(store, container, size, descriptors):
        early.hand_over(store, container, size, descriptors, unwritten)
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
    if answer[:1] == outcome.STARTED:
        if warn is not None and len(answer) > 1:
            warn(answer[1:].decode(errors="replace"))
        return ours
    if ours is not None:
        ours.close()
    if answer:
        raise outcome.unpack(answer)
    raise LimpetError(f"container {container.name}: its monitor ended before the container began")
