"""What a project keeps from one container to the next: a volume for each path that its Dockerfile declares with VOLUME.

They are named after the project and the path (`shop_var-lib-data`), so that the next container has them again, after a
`down`, too. Only `down --volumes` takes them.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import TYPE_CHECKING

from limpet.containers.mounts import volumes
from limpet.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limpet.containers.mounts.volumes import Volume
    from limpet.store.store import Store

_LABEL = "com.docker.compose.volume"
_LONGEST = 80


def make(store: Store, project: str, labels: Mapping[str, str], paths: list[str]) -> tuple[list[str], list[str]]:
    """(`--volume` options for the paths, the names of volumes that were not here before). Raises Conflict."""
    options, fresh = [], []
    for path in sorted(set(map(_clean, paths))):
        name = name_of(project, path)
        known = volumes.lookup(store, name)
        if known is None:
            volumes.create(store, name, {**labels, _LABEL: path})
            fresh.append(name)
        elif not _belongs(known, labels):
            raise Conflict(f"the volume {name} is not this project's", "choose another name with -p", exit_code=1)
        options.append(f"{name}:{path}")
    return options, fresh


def of(store: Store, labels: Mapping[str, str]) -> list[Volume]:
    """The volumes of a project."""
    return [volume for volume in volumes.all_volumes(store) if _belongs(volume, labels)]


def name_of(project: str, path: str) -> str:
    """Different paths have different names."""
    plain = re.sub(r"[^A-Za-z0-9_.]", "-", path.strip("/")) or "root"
    if plain.replace("-", "/") != path.strip("/") or len(plain) > _LONGEST:
        plain = f"{plain[:_LONGEST]}-{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return f"{project}_{plain}"


def _clean(path: str) -> str:
    return posixpath.normpath(f"/{path.strip('/')}")


def _belongs(volume: Volume, labels: Mapping[str, str]) -> bool:
    return all(volume.labels.get(key) == value for key, value in labels.items())
