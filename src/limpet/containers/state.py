"""Which containers there are, which one a text means, and in which state each is: derived, not remembered.

The row says that a container exists. `containers/<id>/status` is what its monitor wrote last; it holds a lock on
`<run>/<id>/lock` for its whole life. So "running" is true only as long as somebody holds the lock: a monitor that was
killed took its container along (PDEATHSIG), and whoever looks next sees it exited with 137, without anybody's clean-up.

    no file                         created
    "running" and locked            running; paused, if its group is frozen
    "restarting" and locked         restarting: the policy waits for the next try
    "running" and not locked        exited (137), lost: the monitor died
    "restarting" and not locked     exited with the code of its last run, lost
    "exited", "created"             as it says

Nobody saw when a lost one ended. Its finished_at is the last sign of life: when its status, its log or the top of its
file system changed last. `recovery` is for what is to happen to lost containers.
"""

from __future__ import annotations

import errno
import fcntl
import os

from limpet import jsontext
from limpet.containers.options import Options
from limpet.errors import Conflict, LimpetError, NotFound
from limpet.kernel import cgroup
from limpet.store.files import in_use, overwrite, remove_tree, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.store.store import Store

NEVER = "0001-01-01T00:00:00Z"
KILLED = 137
_UNKNOWN = 255
RESTORE = "restore"
"""A file of the run directory: the checkpoint from which the monitor starts the container, once."""

_MONITOR_GONE = "its monitor was killed, or the machine was stopped"
_COLUMNS = "id, name, image_id, image_name, layers, created, options"
_HEX = frozenset("0123456789abcdef")


class Container:
    """A row. `layers`: diff IDs, bottom first. `created`: Unix seconds. `image_name`: as the user wrote it."""

    __slots__ = ("created", "id", "image_id", "image_name", "layers", "name", "options")

    def __init__(
        self,
        id: str,
        name: str,
        image_id: str | None,
        image_name: str,
        layers: list[str],
        created: float,
        options: Options,
    ) -> None:
        self.id = id
        self.name = name
        self.image_id = image_id
        self.image_name = image_name
        self.layers = layers
        self.created = created
        self.options = options

    @property
    def group(self) -> str:
        """The name of its control group, for `kernel.cgroup` and `kernel.controllers`."""
        parent = self.options.cgroup_parent.strip("/")
        return f"{parent}/{self.id}" if parent else self.id

    def to_list(self) -> list[Any]:
        """As JSON can hold it, for another process."""
        row = [self.id, self.name, self.image_id, self.image_name, self.layers]
        return [*row, self.created, self.options.to_json()]

    @classmethod
    def from_list(cls, row: list[Any]) -> Container:
        id, name, image_id, image_name, layers, created, options = row
        return cls(id, name, image_id, image_name, layers, created, Options.from_json(options))


class Status:
    """`state`: created, running, paused, restarting, exited. Times: RFC 3339, NEVER if it did not happen.

    `lost`: its last run ended with its monitor, so that nobody removed or restarted it.
    """

    __slots__ = (
        "error",
        "exit_code",
        "finished_at",
        "log_dropped",
        "lost",
        "monitor",
        "oom_killed",
        "pid",
        "pid_start",
        "pipes",
        "ports",
        "protocol",
        "restarts",
        "started_at",
        "state",
        "waiting",
    )

    def __init__(self, values: dict[str, Any]) -> None:
        self.state: str = values.get("state") or "created"
        self.pid: int = values.get("pid") or 0
        self.pid_start: int = values.get("pid_start") or 0  # see kernel.process.start_time
        self.pipes: list[int] = values.get("pipes") or [0, 0, 0]  # see `Streams.pipes`
        self.protocol: int = values.get("protocol") or 1  # see `frames.VERSION`
        self.monitor: int = values.get("monitor") or 0
        self.started_at: str = values.get("started_at") or NEVER
        self.finished_at: str = values.get("finished_at") or NEVER
        self.exit_code: int = values.get("exit_code") or 0
        self.error: str = values.get("error") or ""
        self.restarts: int = values.get("restarts") or 0
        self.oom_killed: bool = bool(values.get("oom_killed"))
        self.log_dropped: int = values.get("log_dropped") or 0  # lines, since it was made
        self.waiting: str = values.get("waiting") or ""  # what its monitor listens on, with --on-demand
        self.ports: list[Any] = values.get("ports") or []  # published in its last run, see `publishing.from_status`
        self.lost: bool = bool(values.get("lost"))

    @property
    def running(self) -> bool:
        """Docker counts a paused container as running."""
        return self.state in ("running", "paused")


def find(store: Store, text: str) -> Container:
    """By whole id, by name (a leading slash is Docker's own), by the beginning of an id. Raises NotFound, Conflict."""
    name = text.removeprefix("/")
    row = store.db.row(f"SELECT {_COLUMNS} FROM container WHERE id = ?1 OR name = ?1 ORDER BY id != ?1 LIMIT 1", name)
    if row is None and name and _HEX.issuperset(name):
        rows = store.db.rows(f"SELECT {_COLUMNS} FROM container WHERE id >= ? AND id < ? LIMIT 2", name, f"{name}g")
        if len(rows) > 1:
            raise Conflict(f"'{text}' is the beginning of several container ids", "give more digits")
        row = rows[0] if rows else None
    if row is None:
        from limpet.nearest import near

        others = near(name, [other for (other,) in store.db.rows("SELECT name FROM container ORDER BY name")])
        hint = f"did you mean {' or '.join(others[:3])}?" if others else ""
        raise NotFound(f"No such container: {text}", hint, exit_code=1)
    return _container(row)


def lookup(store: Store, container_id: str) -> Container | None:
    """By its whole id."""
    row = store.db.row(f"SELECT {_COLUMNS} FROM container WHERE id = ?", container_id)
    return None if row is None else _container(row)


def all_containers(store: Store) -> list[Container]:
    """Every container, the newest first."""
    return [_container(row) for row in store.db.rows(f"SELECT {_COLUMNS} FROM container ORDER BY created DESC, id")]


def of_pod(store: Store, pod_id: str) -> list[Container]:
    """The containers of a pod."""
    rows = store.db.rows(f"SELECT {_COLUMNS} FROM container WHERE instr(options, ?)", f'"pod":"{pod_id}"')
    return [container for container in map(_container, rows) if container.options.pod == pod_id]


def status(store: Store, container: Container) -> Status:
    """The state as it is now."""
    directory = store.container_path(container.id)
    found = Status(_read(f"{directory}/status"))
    if found.state in ("running", "restarting") and not monitored(store, container.id):
        # The monitor may have ended properly in between: what it wrote last counts then.
        values = _read(f"{directory}/status")
        if values.get("state") in ("running", "restarting"):
            values.update(_lost(directory, container.id, values))
        found = Status(values)
    if found.state == "running" and is_paused(container.group):
        found.state = "paused"
    return found


def is_paused(group: str) -> bool:
    """Whether its group is frozen, whoever did it: nobody has to remember."""
    place = cgroup.path(group)
    return place is not None and cgroup.frozen(place)


def record(directory: str, status: dict[str, Any], *, durable: bool) -> None:
    """Writes a container's status; on a full disk over the old one, which has the place for it. Raises OSError."""
    path, data = f"{directory}/status", jsontext.dumps(status).encode()
    try:
        write_file(path, data, 0o644, durable=durable)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        try:
            overwrite(path, data)
        except OSError:
            raise e from None


def monitored(store: Store, container_id: str) -> bool:
    """Whether a monitor holds the container's lock."""
    try:
        return in_use(f"{store.run_path(container_id)}/lock")
    except OSError:
        return False


def running_pid(store: Store, container_id: str) -> int:
    """PID 1 of a container, by its id alone; 0 if it does not run."""
    found = Status(_read(f"{store.container_path(container_id)}/status"))
    return found.pid if found.state == "running" and monitored(store, container_id) else 0


def ruled(store: Store) -> list[str]:
    """The ids of containers with `--egress` or `--ingress`."""
    where = "instr(options, '\"egress\":') OR instr(options, '\"ingress\":')"
    return [container_id for (container_id,) in store.db.rows(f"SELECT id FROM container WHERE {where}")]


def open_lock(store: Store, container_id: str) -> int:
    """The file of the monitor's lock, made with its directory if need be, and not locked."""
    run = store.run_path(container_id)
    while True:
        os.makedirs(run, 0o700, exist_ok=True)
        try:
            return os.open(f"{run}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            pass  # somebody who removes the container took the directory in between


def try_lock(store: Store, container: Container) -> int:
    """The container's lock, held until the caller closes the descriptor: nobody starts it meanwhile. -1 if it is taken.

    What a killed monitor left as its last word is put right first, so that the lock is not taken for a monitor's.
    Raises NotFound when the container was removed meanwhile.
    """
    run = store.run_path(container.id)
    lock = open_lock(store, container.id)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return -1
    if not os.path.isdir(store.container_path(container.id)):
        remove_tree(run)  # made anew just now, perhaps
        os.close(lock)
        raise NotFound(f"No such container: {container.name}", exit_code=1)
    path = f"{store.container_path(container.id)}/status"
    values = _read(path)
    if values.get("state") in ("running", "restarting"):
        ran = values["state"] == "running"
        values.update(_lost(store.container_path(container.id), container.id, values))
        write_file(path, jsontext.dumps(values).encode(), 0o644, durable=False)
        if ran:
            from limpet.containers.observe import events

            events.tell(store, container, "die", exitCode=KILLED)
    return lock


def lose(store: Store, container: Container) -> None:
    """Of one that was just stopped: as if its end had not been wanted, so that `recovery` starts it. Raises OSError."""
    directory = store.container_path(container.id)
    record(directory, {**_read(f"{directory}/status"), "lost": True}, durable=True)
    try:
        os.unlink(f"{store.run_path(container.id)}/stopped")
    except FileNotFoundError:
        pass


def _lost(directory: str, container_id: str, values: dict[str, Any]) -> dict[str, Any]:
    """What is to be said of a container whose monitor died, in place of the monitor's last word."""
    found = {"state": "exited", "pid": 0, "pid_start": 0, "error": _MONITOR_GONE, "lost": True}
    if values["state"] == "running":
        from limpet.containers.logging import logfile

        last = 0
        for name in ("status", f"{container_id}-json.log", "ctr.log", "log", "upper"):
            try:
                last = max(last, os.stat(f"{directory}/{name}").st_mtime_ns)
            except OSError:
                pass
        found.update(exit_code=KILLED, finished_at=logfile.timestamp(last) if last else NEVER)
    return found


def _container(row: Any) -> Container:
    id, name, image_id, image_name, layers, created, options = row
    return Container.from_list([id, name, image_id, image_name, jsontext.loads(layers), created, options])


def _read(path: str) -> dict[str, Any]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        values: dict[str, Any] = jsontext.loads(os.read(fd, 1 << 16))
        if isinstance(values, dict) and isinstance(values.get("state"), str):
            return values
    except ValueError:
        pass
    finally:
        os.close(fd)
    return {"state": "exited", "exit_code": _UNKNOWN, "error": f"{path} is damaged: nobody knows how it ended"}


def document(path: str) -> Any:
    """A JSON file of a container's directory. Raises LimpetError where it is damaged or gone."""
    try:
        with open(path, "rb") as file:
            return jsontext.loads(file.read())
    except ValueError:
        what = "is damaged"
    except FileNotFoundError:
        what = "is missing"
    raise LimpetError(f"{path} {what}", "`limpet cp` may still take files out; `limpet rm -f` takes the container away")
