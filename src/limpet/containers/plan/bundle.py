"""What a container is started from: its root, mounted, and its bundle, written (OCI runtime-spec `bundle.md`).

Done by the monitor before the container: what can go wrong with the image or the options goes wrong here.
"""

from __future__ import annotations

import os

from limpet import jsontext
from limpet.containers import state
from limpet.containers.plan import confinement, hostfiles, spec, users
from limpet.errors import LimpetError
from limpet.layers import driver
from limpet.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.containers.mounts.mountplan import Mount
    from limpet.containers.state import Container
    from limpet.kernel.userns import Mapped
    from limpet.store.store import Store

    Config = dict[str, Any]


def mount(store: Store, container: Container, mapped: Mapped | None = None) -> int:
    """The container's layers under its own upper directory: a detached mount.

    Without `mapped` one with a user namespace is mounted for its preparation only, and then again.
    """
    options = container.options
    last = mapped is not None or options.userns != "auto"
    directory = store.container_path(container.id)
    try:
        return driver.driver(store).mount(
            container.layers,
            f"{directory}/upper",
            f"{directory}/work",
            volatile=options.auto_remove and last,
            mapped=mapped,
        )
    except OSError as e:
        raise LimpetError(
            f"container {container.name}: mounting its layers: {e.strerror}", "`limpet system check` looks at them"
        ) from e


def prepare(store: Store, container: Container, root: int, size: tuple[int, int] | None) -> tuple[Config, bytes | None]:
    """Writes the bundle (config.json and the files that it names); the plan and seccomp's program."""
    directory = store.container_path(container.id)
    image = state.document(f"{directory}/image.json")
    user = users.resolve(root, spec.user_text(container.options, image), container.options.group_add)
    mounts: list[Mount] = []
    if os.path.exists(f"{directory}/mounts.json"):
        from limpet.containers.mounts import mountplan, volumefill

        mounts = mountplan.load(store, container.id)
        if any(mount.driver for mount in mounts):
            from limpet.containers.mounts import volumemounts

            volumemounts.acquire_all(store, container.id, mounts)
        for mount in mounts:
            if mount.kind == "volume" and mount.copy:
                volumefill.fill(root, mount.target, mount.source)
    hostfiles.write(directory, container.options, container.id, store.run)
    hostfiles.link_mtab(root)
    config = spec.make(store, container, image, user, mounts, size)
    text = jsontext.dumps(config)
    section, program = confinement.seccomp(store, container.options, config)
    if section:  # kept as text, since encoding 400 names costs more than all the rest: "linux" is the last key
        text = f'{text[:-2]},"seccomp":{section}}}}}'
    files.put(f"{directory}/config.json", text.encode())
    return config, program


def open_mounts(store: Store, container: Container, config: Config, mapped: Mapped | None) -> dict[str, int]:
    """The mounts that are no paths (`mounttrees`): destination → descriptor, for this start."""
    from limpet.containers.mounts import mountplan, mounttrees

    user = config["process"]["user"]
    planned = mountplan.load(store, container.id)
    sources = {each["destination"]: each.get("source", "") for each in config["mounts"]}
    for mount in planned:
        if mount.driver:  # where its driver mounted it
            mount.source = sources[mount.target]
    return mounttrees.open_all(store, container.id, planned, (user["uid"], user["gid"]), mapped)
