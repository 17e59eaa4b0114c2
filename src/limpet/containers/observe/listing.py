"""The rows of `ps`: Docker's fields, and its filters."""

from __future__ import annotations

import os
import time

from limpet import jsontext
from limpet.containers import state
from limpet.containers.network import ports
from limpet.containers.plan import sharing, spec
from limpet.errors import Conflict, Invalid, NotFound
from limpet.units import age, duration, seconds_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from limpet.containers.mounts.mountplan import Mount
    from limpet.containers.options import Options
    from limpet.containers.state import Container, Status
    from limpet.store.store import Store

STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
FILTERS = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network", "pod", "publish",
    "since", "status", "volume",
)  # fmt: skip
_HEALTH = ("starting", "healthy", "unhealthy", "none")


class Row:
    """A container with its state as it is now; its image's config is read when it is asked for."""

    __slots__ = ("_image", "_store", "container", "status")

    def __init__(self, store: Store, container: Container, status: Status) -> None:
        self._store = store
        self.container = container
        self.status = status
        self._image: dict[str, Any] | None = None

    @property
    def health(self) -> str:
        """starting, healthy or unhealthy; "" for a container without a check, or that never ran."""
        directory = self._store.container_path(self.container.id)
        if not os.path.exists(f"{directory}/health"):
            return ""
        from limpet.containers.monitor import healthcheck

        return str((healthcheck.read(directory) or {}).get("Status", ""))

    @property
    def image(self) -> dict[str, Any]:
        if self._image is None:
            self._image = image_config(self._store, self.container)
        return self._image


def rows(store: Store, *, all: bool = False, last: int = 0, filters: Sequence[str] = ()) -> list[Row]:
    """The newest first. Without `all` those that run; `last`: the n newest whatever their state. Raises Invalid."""
    checks = [_filter(store, text) for text in filters]
    everything = all or last > 0 or any(text.startswith("status=") for text in filters)
    found = []
    for container in state.all_containers(store):
        row = Row(store, container, state.status(store, container))
        if row.status.lost and container.options.auto_remove:
            from limpet.containers import removal

            removal.collect(store, container.id)
            continue
        shown = everything or row.status.state in ("running", "paused", "restarting")
        if shown and _matches(row, filters, checks):
            found.append(row)
            if last and len(found) == last:
                break
    return found


def fields(row: Row, *, full: bool, only: Collection[str] | None = None) -> dict[str, Any]:
    """Docker's placeholders (docker/cli `formatter/container.go`). `full`: nothing is cut; `only`: not all of them."""
    return {name: field(row, full) for name, field in _FIELDS.items() if only is None or name in only}


class _Platform(dict[str, str]):
    """As JSON an object, as text `linux/amd64` (docker/cli `formatter/container.go`)."""

    def __str__(self) -> str:
        return "/".join(self[key] for key in ("os", "architecture", "variant") if key in self)


def _platform(row: Row) -> _Platform:
    found = {key: row.image.get(key) for key in ("architecture", "os", "variant")}
    return _Platform((key, str(value)) for key, value in found.items() if value)


def words(status: Status, health: str = "") -> str:
    """ "Up 2 minutes (healthy)", "Exited (0) 3 hours ago" (moby `container/state.go`)."""
    now = time.time()
    if status.running:
        up = f"Up {duration(now - seconds_of(status.started_at))}"
        if status.state == "paused":
            return f"{up} (Paused)"
        return f"{up} ({'health: starting' if health == 'starting' else health})" if health else up
    if status.waiting:
        return f"Waiting for {status.waiting}"
    if status.state == "restarting":
        return f"Restarting ({status.exit_code}) {duration(now - seconds_of(status.finished_at))} ago"
    if status.state == "exited":
        if status.finished_at == state.NEVER:
            return f"Exited ({status.exit_code})"  # nobody saw when
        memory = " (out of memory)" if status.oom_killed else ""
        return f"Exited ({status.exit_code}) {duration(now - seconds_of(status.finished_at))} ago{memory}"
    return "Created"


def labels(row: Row) -> dict[str, str]:
    """The image's, with the user's on top."""
    return {**((row.image.get("config") or {}).get("Labels") or {}), **row.container.options.labels}


def image_config(store: Store, container: Container) -> dict[str, Any]:
    """The image's config as it was when the container was made; {} if it is gone."""
    try:
        fd = os.open(f"{store.container_path(container.id)}/image.json", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        data = b""
        while piece := os.read(fd, 1 << 20):
            data += piece
    finally:
        os.close(fd)
    try:
        config = jsontext.loads(data)
    except ValueError:
        return {}  # damaged: `system check` is for that
    return config if isinstance(config, dict) else {}


def _command(row: Row, full: bool) -> str:
    try:
        command = " ".join(spec.command(row.container.options, row.image))
    except Invalid:
        command = ""
    if not full and len(command) > 20:
        command = command[:19] + "…"
    return f'"{command}"'


def exposed(row: Row) -> list[str]:
    """What the image and the user say. On the host's network nothing is published."""
    return all_exposed(row.image, row.container.options)


def _ports(row: Row) -> list[str]:
    """What is published; else what is exposed, at the container's own address if it has one: where it answers."""
    if row.status.ports:
        from limpet.containers.network import publishing

        return publishing.shown(publishing.from_status(row.status.ports))
    own = row.container.options.own_address[:1]
    return [f"{address}:{port}" for address in own for port in exposed(row)] or own or exposed(row)


def all_exposed(image: dict[str, Any], options: Options) -> list[str]:
    """The image's ports and those of `--expose`."""
    said = (image.get("config") or {}).get("ExposedPorts") or {}
    return ports.ordered({*said, *ports.parse_all(options.expose)})


def _planned(row: Row) -> list[Mount]:
    from limpet.containers.mounts import mountplan

    return mountplan.known(row._store, row.container.id)


def _mounts(row: Row, full: bool) -> list[str]:
    """Names of volumes and paths of the host, cut at 15 (docker/cli `formatter/container.go`)."""
    found = [mount.name or mount.source for mount in _planned(row) if mount.kind != "tmpfs"]
    return found if full else [name if len(name) <= 15 else f"{name[:14]}…" for name in found]


def _matches(row: Row, filters: Sequence[str], checks: Sequence[Callable[[Row], bool]]) -> bool:
    """Values of one key are alternatives, keys are joined; but labels must all be there (docker's documentation)."""
    by_key: dict[str, list[bool]] = {}
    for text, check in zip(filters, checks, strict=True):
        by_key.setdefault(text.partition("=")[0], []).append(check(row))
    return all(all(hits) if key == "label" else any(hits) for key, hits in by_key.items())


def _filter(store: Store, text: str) -> Callable[[Row], bool]:
    key, equals, value = text.partition("=")
    if not equals or key not in FILTERS:
        raise Invalid(f"invalid filter '{text}'", f"KEY=VALUE with one of {', '.join(FILTERS)}", exit_code=1)
    if key == "name":
        return lambda row: _hit(value, row.container.name) or _hit(value, f"/{row.container.name}")
    if key == "id":
        return lambda row: _hit(value, row.container.id)
    if key == "status":
        if value not in STATES:
            raise Invalid(f"invalid filter 'status={value}'", f"it is one of {', '.join(STATES)}", exit_code=1)
        return lambda row: row.status.state == value
    if key == "exited":
        if not value.lstrip("-").isdecimal():
            raise Invalid(f"invalid filter 'exited={value}'", "write an exit code", exit_code=1)
        return lambda row: row.status.state == "exited" and row.status.exit_code == int(value)
    if key in ("expose", "publish"):
        wanted_ports = set(ports.parse(value))
        if key == "publish":
            return lambda row: any(f"{port}/{kind}" in wanted_ports for _, port, _, kind in row.status.ports)
        return lambda row: not wanted_ports.isdisjoint(exposed(row))
    if key == "health":
        if value not in _HEALTH:
            raise Invalid(f"invalid filter 'health={value}'", f"it is one of {', '.join(_HEALTH)}", exit_code=1)
        return lambda row: row.health == (value.removeprefix("none"))
    if key == "is-task":
        if value.lower() not in ("true", "false", "1", "0"):
            raise Invalid(f"invalid filter 'is-task={value}'", "it is true or false", exit_code=1)
        return lambda row: value.lower() in ("false", "0")  # there is no cluster whose task it could be
    if key == "network":
        return lambda row: value in sharing.network_names(row.container.options)
    if key == "pod":
        found = store.db.row("SELECT id FROM pod WHERE name = ?", value)
        return lambda row: (
            bool(row.container.options.pod)
            and row.container.options.pod.startswith(found[0] if found else value or "-")
        )
    if key == "label":
        return lambda row: has_label(row, value)
    if key == "volume":
        return lambda row: any(value in (mount.name, mount.source, mount.target) for mount in _planned(row))
    if key in ("before", "since"):
        other = state.find(store, value).created
        if key == "before":
            return lambda row: row.container.created < other
        return lambda row: row.container.created > other
    from limpet.images import catalog

    try:
        wanted = catalog.layers(store, catalog.find_id(store, value))
    except (NotFound, Invalid, Conflict):
        return lambda row: row.container.image_name == value  # its image is gone
    return lambda row: row.container.layers[: len(wanted)] == wanted


def has_label(row: Row, text: str) -> bool:
    """`key` or `key=value`."""
    name, wants, wanted = text.partition("=")
    present = labels(row)
    return name in present and (not wants or present[name] == wanted)


def _hit(pattern: str, text: str) -> bool:
    """Docker takes a regular expression that matches anywhere (moby `api/types/filters`)."""
    if all(c.isalnum() or c in "_-/" for c in pattern):
        return pattern in text
    import re

    try:
        return re.search(pattern, text) is not None
    except re.error:
        return pattern == text


def written(store: Store, container: Container) -> int:
    """Bytes of the files that the container wrote or changed, a hard-linked one once: Docker's SIZE."""
    total = 0
    seen: set[int] = set()
    pending = [f"{store.container_path(container.id)}/upper"]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                        continue
                    info = entry.stat(follow_symlinks=False)
                    if info.st_ino not in seen:
                        total += info.st_size
                    if info.st_nlink > 1:
                        seen.add(info.st_ino)
        except FileNotFoundError:
            continue  # it works on
    return total


def image_size(store: Store, container: Container) -> int:
    """Bytes of the layers below."""
    found = (store.db.row("SELECT size FROM layer WHERE diff_id = ?", diff_id) for diff_id in container.layers)
    return sum(row[0] for row in found if row is not None)


def _image(row: Row) -> str:
    container = row.container
    return container.image_name or (container.image_id[7:19] if container.image_id is not None else "")


_FIELDS: dict[str, Callable[[Row, bool], Any]] = {
    "ID": lambda row, full: row.container.id if full else row.container.id[:12],
    "Image": lambda row, _: _image(row),
    "Command": lambda row, full: _command(row, full),
    "CreatedAt": lambda row, _: time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(row.container.created)),
    "RunningFor": lambda row, _: age(row.container.created),
    "Status": lambda row, _: words(row.status, row.health),
    "State": lambda row, _: row.status.state,
    "Address": lambda row, _: (row.container.options.own_address or [""])[0],
    "Ports": lambda row, _: ", ".join(_ports(row)) if row.status.running else "",
    "Names": lambda row, _: row.container.name,
    "Labels": lambda row, _: ",".join(f"{k}={v}" for k, v in labels(row).items()),
    "Mounts": lambda row, full: ",".join(_mounts(row, full)),
    "Networks": lambda row, _: ",".join(sharing.network_names(row.container.options)),
    "LocalVolumes": lambda row, _: str(sum(mount.kind == "volume" for mount in _planned(row))),
    "Platform": lambda row, _: _platform(row),
    "Size": lambda _row, _full: "0B",
}
