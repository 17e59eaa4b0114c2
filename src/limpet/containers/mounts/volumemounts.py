"""Volumes that have to be mounted before they can be used, and who uses them.

`<run>/volumes/<name>/<user>` is a file for each user: the id of a container, whose monitor holds its lock, or
`command-<pid>-<start>-…`. The first one has the driver mount, the last one has it unmount. A user that died without a
word is told from one that lives: who comes or goes next, `volume rm` or `system recover` puts right what it left.
"""

from __future__ import annotations

import fcntl
import os

from limpet import jsontext
from limpet.containers.mounts import volumedrivers
from limpet.errors import LimpetError
from limpet.kernel import process
from limpet.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from limpet.containers.mounts.mountplan import Mount
    from limpet.containers.mounts.volumes import Volume
    from limpet.store.store import Store


def acquire_all(store: Store, container_id: str, planned: Sequence[Mount]) -> None:
    """Each volume that a driver has to mount is, and the `source` of its mounts is where. Raises LimpetError.

    The caller holds the container's lock. What was mounted stays until `release_all`, also after an error.
    """
    for mount in planned:
        if mount.driver:
            path = _acquire(store, mount.name, mount.driver, mount.driver_options, container_id)
            mount.source = f"{path}/{mount.subpath}" if mount.subpath else path


def release_all(store: Store, container_id: str) -> None:
    """What the container used is unmounted, if nobody else uses it. Raises nothing: the next one tries again."""
    for name in _list(f"{store.run}/volumes"):
        if os.path.exists(f"{store.run}/volumes/{name}/{container_id}"):
            _release(store, name, container_id)


class Using:
    """`with Using(store, volume) as path:` for a command that looks at a volume's files."""

    def __init__(self, store: Store, volume: Volume) -> None:
        self._store = store
        self._volume = volume
        self._user = f"command-{os.getpid()}-{process.start_time(os.getpid())}-{id(self)}"

    def __enter__(self) -> str:
        volume = self._volume
        if not volume.is_mounted:
            return f"{self._store.volume_path(volume.name)}/_data"
        return _acquire(self._store, volume.name, volume.driver, volume.options, self._user)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._volume.is_mounted:
            _release(self._store, self._volume.name, self._user)


def forget(store: Store, name: str) -> None:
    """Of a volume that is no more."""
    files.remove_tree(f"{store.run}/volumes/{name}")


def recover(store: Store) -> list[str]:
    """Lets go of what dead users held; the names of volumes that nobody uses any more."""
    freed = []
    for name in _list(f"{store.run}/volumes"):
        with _Gate(store, name) as place:
            _forget_dead(store, name, place)
            if not _users(place):
                freed.append(name)
    return freed


class _Gate:
    """One at a time for a volume."""

    def __init__(self, store: Store, name: str) -> None:
        self._place = f"{store.run}/volumes/{name}"
        self._fd = -1

    def __enter__(self) -> str:
        os.makedirs(self._place, 0o700, exist_ok=True)
        self._fd = os.open(f"{self._place}/.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        return self._place

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


def _acquire(store: Store, name: str, driver: str, options: dict[str, str], user: str) -> str:
    with _Gate(store, name) as place:
        _forget_dead(store, name, place)
        files.put(f"{place}/{user}", jsontext.dumps([driver, options]).encode())
        try:
            return volumedrivers.driver(store, driver).mount(name, options, user)
        except BaseException:
            os.unlink(f"{place}/{user}")
            raise


def _release(store: Store, name: str, user: str) -> None:
    with _Gate(store, name) as place:
        _forget_dead(store, name, place)
        _let_go(store, name, place, user)


def _let_go(store: Store, name: str, place: str, user: str) -> None:
    try:
        with open(f"{place}/{user}", "rb") as file:
            text = file.read()
        try:
            driver, options = jsontext.loads(text)
        except ValueError:  # half-written, when its writer was killed: nothing was mounted for it
            os.unlink(f"{place}/{user}")
            return
        last = not any(_lives(store, other) for other in _users(place) if other != user)
        volumedrivers.driver(store, driver).unmount(name, options, user, last=last)
        os.unlink(f"{place}/{user}")
    except (OSError, LimpetError):
        pass  # a plugin that is gone, perhaps: it is tried again


def _forget_dead(store: Store, name: str, place: str) -> None:
    for user in _users(place):
        if not _lives(store, user):
            _let_go(store, name, place, user)


def _lives(store: Store, user: str) -> bool:
    if user.startswith("command-"):
        _, pid, start, _ = user.split("-")
        return process.start_time(int(pid)) == int(start)
    return files.in_use(f"{store.run_path(user)}/lock")


def _users(place: str) -> list[str]:
    return [name for name in _list(place) if not name.startswith(".")]


def _list(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
