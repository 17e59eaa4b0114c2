"""The rows of `ps`: Docker's fields, and its filters."""

from __future__ import annotations

import os
import time

from limpet import jsontext
from limpet.containers import mountplan, spec, state
from limpet.errors import Invalid
from limpet.units import age, duration, seconds_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from limpet.containers.state import Container, Status
    from limpet.store.store import Store

FILTERS = ("ancestor", "before", "exited", "id", "label", "name", "since", "status", "volume", "network")


class Row:
    """A container with its state and its image's config as they are now."""

    __slots__ = ("container", "image", "status")

    def __init__(self, container: Container, status: Status, image: dict[str, Any]) -> None:
        self.container = container
        self.status = status
        self.image = image


def rows(store: Store, *, all: bool = False, last: int = 0, filters: Sequence[str] = ()) -> list[Row]:
    """The newest first. Without `all` those that run; `last`: the n newest whatever their state. Raises Invalid."""
    checks = [_filter(store, text) for text in filters]
    by_state = any(text.startswith(("status=", "exited=")) for text in filters)
    found = []
    for container in state.all_containers(store):
        row = Row(container, state.status(store, container), image_config(store, container))
        shown = all or last or by_state or row.status.state in ("running", "paused", "restarting")
        if shown and _matches(row, filters, checks):
            found.append(row)
            if last and len(found) == last:
                break
    return found


def fields(row: Row, *, full: bool) -> dict[str, Any]:
    """Docker's placeholders (docker/cli `formatter/container.go`). `full`: nothing is cut."""
    container = row.container
    image = container.image_name
    if container.image_id is not None and not image:
        image = container.image_id[7:19]
    return {
        "ID": container.id if full else container.id[:12],
        "Image": image,
        "Command": _command(row, full),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(container.created)),
        "RunningFor": age(container.created),
        "Status": words(row.status),
        "State": row.status.state,
        "Ports": ", ".join(_ports(row)) if row.status.running else "",
        "Names": container.name,
        "Labels": ",".join(f"{k}={v}" for k, v in labels(row).items()),
        "Mounts": ",".join(_mounts(container)),
        "Networks": container.options.network,
        "LocalVolumes": "",
        "Platform": None,
        "Size": "",
    }


def words(status: Status) -> str:
    """ "Up 2 minutes", "Exited (0) 3 hours ago" (moby `container/state.go`)."""
    now = time.time()
    if status.running:
        up = f"Up {duration(now - seconds_of(status.started_at))}"
        return f"{up} (Paused)" if status.state == "paused" else up
    if status.state == "restarting":
        return f"Restarting ({status.exit_code}) {duration(now - seconds_of(status.finished_at))} ago"
    if status.state == "exited":
        if status.finished_at == state.NEVER:
            return f"Exited ({status.exit_code})"  # nobody saw when
        return f"Exited ({status.exit_code}) {duration(now - seconds_of(status.finished_at))} ago"
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
    config: dict[str, Any] = jsontext.loads(data)
    return config


def _command(row: Row, full: bool) -> str:
    try:
        command = " ".join(spec.command(row.container.options, row.image))
    except Invalid:
        command = ""
    if not full and len(command) > 20:
        command = command[:19] + "…"
    return f'"{command}"'


def _ports(row: Row) -> list[str]:
    """On the host's network what the image exposes is where it answers; nothing is published."""
    return sorted((row.image.get("config") or {}).get("ExposedPorts") or {})


def _mounts(container: Container) -> list[str]:
    return [text.partition(":")[0] for text in container.options.volumes]


def _matches(row: Row, filters: Sequence[str], checks: Sequence[Callable[[Row], bool]]) -> bool:
    """Values of one key are alternatives, keys are joined; but labels must all be there (docker's documentation)."""
    by_key: dict[str, list[bool]] = {}
    for text, check in zip(filters, checks, strict=True):
        by_key.setdefault(text.partition("=")[0], []).append(check(row))
    return all(all(hits) if key == "label" else any(hits) for key, hits in by_key.items())


def _filter(store: Store, text: str) -> Callable[[Row], bool]:
    key, equals, value = text.partition("=")
    if not equals or key not in FILTERS:
        raise Invalid(f"invalid filter '{text}'", f"KEY=VALUE with one of {', '.join(FILTERS)}")
    if key == "name":
        return lambda row: value in f"/{row.container.name}"
    if key == "id":
        return lambda row: row.container.id.startswith(value)
    if key == "status":
        return lambda row: row.status.state == value
    if key == "exited":
        return lambda row: row.status.state == "exited" and str(row.status.exit_code) == value
    if key == "network":
        return lambda row: row.container.options.network == value
    if key == "label":
        name, wants, wanted = value.partition("=")
        return lambda row: name in labels(row) and (not wants or labels(row)[name] == wanted)
    if key == "volume":
        return lambda row: any(
            value in (mount.name, mount.source, mount.target) for mount in mountplan.load(store, row.container.id)
        )
    if key in ("before", "since"):
        other = state.find(store, value).created
        if key == "before":
            return lambda row: row.container.created < other
        return lambda row: row.container.created > other
    from limpet.images import catalog

    wanted_layers = catalog.layers(store, catalog.find_id(store, value))
    return lambda row: row.container.layers[: len(wanted_layers)] == wanted_layers
