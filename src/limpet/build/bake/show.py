"""`--print` and `--list`, in the words of `docker buildx bake`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from limpet.build.bake.fields import FIELDS

if TYPE_CHECKING:
    from limpet.build.bake.definition import Definition
    from limpet.build.bake.fields import Attributes
    from limpet.build.bake.selection import Selected


def to_json(selected: Selected) -> str:
    """Groups and targets, sorted; what is not set is left out (Go's `omitempty` and its order of fields)."""
    groups = {
        name: {
            **({"description": group.description} if group.description else {}),
            "targets": list(group.targets),
        }
        for name, group in sorted(selected.groups.items())
    }
    targets = {name: target(found) for name, found in sorted(selected.targets.items())}
    text = json.dumps({"group": groups, "target": targets}, indent=2, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")  # as Go's encoder


def target(found: Attributes) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name in FIELDS:
        value = found.get(name)
        if value is None or (not value and not isinstance(value, bool | str)):
            continue
        shown[name] = _sorted(name, value)
    return shown


def _sorted(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: value[key] for key in sorted(value)}
    if FIELDS[name].kind != "entries":
        return value
    order = ("id", "src", "env", "paths") if name in ("secret", "ssh") else None
    return [{key: each[key] for key in (order or sorted(each)) if key in each} for each in value]


def targets(defined: Definition) -> list[dict[str, str]]:
    """Name and description of each group and target that was defined."""
    found: dict[str, str] = {}
    for name, group in defined.groups.items():
        found[name] = group.description or ", ".join(group.targets)
    for name, each in defined.targets.items():
        found.setdefault(name, each.get("description") or "")
    return [{"name": name, "description": found[name]} for name in sorted(found)]


def variables(defined: Definition) -> list[dict[str, str | None]]:
    return [
        {"name": each.name, "type": each.type, "value": each.value, "description": each.description}
        for each in sorted(defined.variables, key=lambda each: each.name)
    ]
