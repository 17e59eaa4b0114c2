"""`RUN --device`: device nodes of this machine by path, and devices by their CDI name (Container Device Interface).

What a name means says `containers.cdi`. Of a specification's edits device nodes, variables and mounts are made; hooks,
which would be programs run as root on this machine, and groups are refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from limpet.containers.plan import cdi
from limpet.errors import Invalid, NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limpet.build.language.instructions import Device


@dataclass(slots=True)
class Edits:
    """`nodes` as `--device` of run takes them; `mounts`: (source, target, read only)."""

    nodes: list[str] = field(default_factory=list)
    mounts: list[tuple[str, str, bool]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)


def edits(devices: Sequence[Device], say: Callable[[str], None]) -> Edits:
    """All that a step is given. A device that isn't there is said, or an error if it is `required`."""
    found = Edits()
    for device in devices:
        try:
            _add(found, device.name)
        except NotFound as e:
            if device.required:
                raise
            say(f"{e.message}: the step runs without it")
    return found


def _add(found: Edits, name: str) -> None:
    if name.startswith("/dev/"):
        path = name.partition(":")[0]
        if not os.path.exists(path):
            raise NotFound(f"device {path}: no such device", "it has to be on this machine")
        found.nodes.append(name)
        return
    for _, one in cdi.edits(cdi.find([name])):
        _take(found, name, one)


def _take(found: Edits, name: str, given: dict[str, Any]) -> None:
    if given.get("hooks"):
        raise Refused(f"device {name}: its specification has hooks, programs that would run on this machine")
    if given.get("additionalGids"):
        raise Refused(f"device {name}: its specification has additional groups, which a step is not given")
    try:
        for node in given.get("deviceNodes") or []:
            outside = node.get("hostPath") or node["path"]
            found.nodes.append(f"{outside}:{node['path']}:{node.get('permissions') or 'rwm'}")
        for mount in given.get("mounts") or []:
            read_only = "ro" in (mount.get("options") or [])
            found.mounts.append((str(mount["hostPath"]), str(mount["containerPath"]), read_only))
        found.env.update(str(text).partition("=")[::2] for text in given.get("env") or [])
    except (LookupError, TypeError, AttributeError):
        raise Invalid(f"device {name}: its specification has another form than CDI's") from None
