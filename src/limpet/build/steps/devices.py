"""`RUN --device`: device nodes of this machine by path, and devices by their CDI name (Container Device Interface).

A CDI name is `vendor.com/class=name`; what it means is in the JSON files of /etc/cdi and /var/run/cdi, of which the
later one counts. Of their edits device nodes, variables and mounts are made; hooks, which would be programs run as
root on this machine, are refused.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from limpet.errors import Invalid, NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limpet.build.language.instructions import Device

PLACES = ("/etc/cdi", "/var/run/cdi")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9._:-]*\Z")
_MOST = 1 << 20


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
    if not _NAME.match(name):
        raise Invalid(f"device {name}: no name of a device", "as in /dev/fuse, or vendor.com/class=name (CDI)")
    document, device = _device(name)
    for one in (document.get("containerEdits"), device.get("containerEdits")):
        if one:
            _take(found, name, one)


def _device(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    kind, _, wanted = name.partition("=")
    result = None
    others = False
    for place in PLACES:
        for file in sorted(os.listdir(place)) if os.path.isdir(place) else []:
            others |= file.endswith((".yaml", ".yml"))
            document = _read(f"{place}/{file}") if file.endswith(".json") else {}
            if document.get("kind") == kind:
                for device in document.get("devices") or []:
                    if device.get("name") == wanted:
                        result = document, device
    if result is None:
        more = "; YAML files are not read" if others else ""
        raise NotFound(
            f"device {name}: no file of {' and '.join(PLACES)} has it{more}", "a JSON file describes it there"
        )
    return result


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_MOST))
    except (OSError, ValueError, RecursionError) as e:
        raise Invalid(f"{path}: not a CDI specification: {e}") from None
    return found if isinstance(found, dict) else {}


def _take(found: Edits, name: str, given: dict[str, Any]) -> None:
    if given.get("hooks"):
        raise Refused(f"device {name}: its specification has hooks, programs that would run on this machine")
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
