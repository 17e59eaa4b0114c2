"""What was asked for: names, patterns and groups to targets, with all that they inherit and link to.

Source: docker/buildx bake/bake.go (`ReadTargets`, `ResolveTarget`, `loadLinks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from limpet.build.bake import fields, overrides
from limpet.errors import Invalid, NotFound
from limpet.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limpet.build.bake.definition import Definition, Group
    from limpet.build.bake.fields import Attributes
    from limpet.build.bake.overrides import Override

LINK = "target:"


@dataclass(frozen=True)
class Selected:
    """`targets` by name, those that others need among them; `linked` are only needed. `groups` that led there."""

    targets: dict[str, Attributes]
    groups: dict[str, Group]
    linked: frozenset[str]

    def ordered(self) -> list[str]:
        """Each after those that it needs."""
        done: list[str] = []

        def visit(name: str) -> None:
            if name not in done:
                for other in links(self.targets[name]):
                    visit(other)
                done.append(name)

        for name in self.targets:
            visit(name)
        return done


def select(defined: Definition, wanted: Sequence[str], changes: Sequence[Override]) -> Selected:
    """`wanted`: names and patterns, "default" if there are none. Raises NotFound, Invalid."""
    from limpet.build.bake.definition import Group

    overrides.check(changes, defined.targets)
    names: list[str] = []
    for name in wanted or ["default"]:
        names += _matching(defined, name.replace(".", "_") if name not in defined.groups else name)
    names = list(dict.fromkeys(names))
    targets: dict[str, Attributes] = {}
    groups: dict[str, Group] = {}
    for name in names:
        found, through = _expanded(defined, name, ())
        for each in found:
            if each not in targets:
                targets[each] = _resolved(defined, each, changes)
        groups |= {group: defined.groups[group] for group in through}
    asked = [name for name in names if not (name == "default" and "default" in groups)]
    if asked:
        before = groups.get("default", Group(()))
        groups["default"] = Group(tuple(dict.fromkeys([*before.targets, *asked])), before.description)
    if "default" in groups:
        default = groups["default"]
        groups["default"] = Group(tuple(sorted(set(default.targets))), default.description)
    linked: set[str] = set()
    for name in list(targets):
        _link(defined, name, targets, linked, changes, (name,))
    return Selected(targets, groups, frozenset(linked))


def links(found: Attributes) -> list[str]:
    """The targets that are contexts of a target."""
    contexts = (found.get("contexts") or {}).values()
    return [value.removeprefix(LINK) for value in contexts if value.startswith(LINK)]


def _matching(defined: Definition, name: str) -> list[str]:
    if not any(letter in name for letter in "*?[]"):
        return [name]
    found = [each for each in (*defined.groups, *defined.targets) if fnmatchcase(each, name)]
    if not found:
        raise NotFound(f"no target fits '{name}'", _there(defined), exit_code=1)
    return found


def _expanded(defined: Definition, name: str, above: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(targets, groups) that a name stands for."""
    if name not in defined.groups:
        return [name], []
    if name in above:
        # A matrix may have a target of its group's name.
        return ([name], []) if name in defined.targets else ([], [])
    targets, groups = [], [name]
    for each in defined.groups[name].targets:
        found, through = _expanded(defined, each, (*above, name))
        targets += found
        groups += through
    return list(dict.fromkeys(targets)), list(dict.fromkeys(groups))


def _resolved(defined: Definition, name: str, changes: Sequence[Override]) -> Attributes:
    found = _inherited(defined, name, changes, ())
    found.pop("inherits", None)
    found["context"] = found.get("context") or "."
    found["dockerfile"] = found.get("dockerfile") or "Dockerfile"
    return found


def _inherited(defined: Definition, name: str, changes: Sequence[Override], above: tuple[str, ...]) -> Attributes:
    if name not in defined.targets:
        hint = nearest(name, [*defined.targets, *defined.groups])
        by = f", which '{above[-1]}' inherits" if above else ""
        shown = f"did you mean {hint}?" if hint else _there(defined)
        raise NotFound(f"no target '{name}'{by}", shown, exit_code=1)
    own = defined.targets[name]
    below: Attributes = {}
    for parent in own.get("inherits") or []:
        if parent in above or parent == name:
            raise Invalid(f"target '{name}' inherits itself, by way of '{parent}'", exit_code=1)
        below = fields.merge(below, _inherited(defined, parent, changes, (*above, name)))
    whole = fields.merge(below, own)
    return fields.normalized(overrides.apply(name, whole, changes, list(defined.targets)))


def _link(
    defined: Definition,
    name: str,
    targets: dict[str, Attributes],
    linked: set[str],
    changes: Sequence[Override],
    above: tuple[str, ...],
) -> None:
    for other in links(targets[name]):
        if other in above:
            raise Invalid(f"target '{name}' needs itself, by way of the context target:{other}", exit_code=1)
        if other not in targets:
            found = _resolved(defined, other, changes)
            targets[other] = {**found, "output": [{"type": "cacheonly"}]}
            linked.add(other)
        _link(defined, other, targets, linked, changes, (*above, other))
        more = targets[other].get("entitlements") or []
        if more:
            own = targets[name].get("entitlements") or []
            targets[name]["entitlements"] = list(dict.fromkeys([*own, *more]))
        mine, theirs = targets[name].get("platforms") or [], targets[other].get("platforms") or []
        if len(mine) > 1 and len(theirs) > 1 and not set(mine) <= set(theirs):
            raise Invalid(f"target '{name}' has platforms that '{other}', its context, has not", exit_code=1)


def _there(defined: Definition) -> str:
    names = list(dict.fromkeys([*defined.groups, *defined.targets]))
    return f"there is {', '.join(names[:12])}" if names else "the files define none"
