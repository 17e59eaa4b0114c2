"""What a container does, for `limpet events`: Docker's actions and attributes (moby `daemon/events.go`)."""

from __future__ import annotations

import os

from limpet import jsontext
from limpet.store import eventlog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.state import Container
    from limpet.store.store import Store


def tell(store: Store, container: Container, action: str, **attributes: object) -> None:
    """Writes the event, with image, name and labels, which Docker adds to all of a container's."""
    said = {key: str(value) for key, value in attributes.items()}
    common = {"image": container.image_name or container.image_id or "", "name": container.name}
    labels = {**_image_labels(store, container.id), **container.options.labels}
    eventlog.write(store, "container", action, container.id, {**labels, **common, **said})


def _image_labels(store: Store, container_id: str) -> dict[str, str]:
    try:
        fd = os.open(f"{store.container_path(container_id)}/image.json", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        data = os.read(fd, 1 << 20)
    finally:
        os.close(fd)
    if b'"Labels"' not in data:  # most have none, and this is on the path of `run`
        return {}
    try:
        labels = (jsontext.loads(data).get("config") or {}).get("Labels") or {}
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in labels.items()}
