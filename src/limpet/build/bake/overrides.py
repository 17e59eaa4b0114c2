"""`--set TARGET.KEY=VALUE` and its shorthands (docker/buildx docs/reference/buildx_bake.md, bake.go `newOverrides`)."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from limpet.build.bake import fields
from limpet.build.bake.fields import FIELDS
from limpet.build.bake.hcl import values
from limpet.errors import Invalid, NotFound
from limpet.frozen import dataclass
from limpet.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from limpet.build.bake.fields import Attributes

_NAMES = {"platform": "platforms", "secrets": "secret"}
"""Keys of --set that are called otherwise in files."""

_ALWAYS_ADD = ("entitlements", "annotations", "attest")
_NEVER = ("inherits", "description", "name", "matrix")


@dataclass(frozen=True, slots=True)
class Override:
    """`part`: of a map's key, `args.VERSION`. `adds`: `+=`."""

    pattern: str
    key: str
    part: str
    value: str
    adds: bool
    text: str


def parse(texts: Sequence[str], environment: Mapping[str, str]) -> list[Override]:
    """`PATTERN.KEY[.PART][+]=VALUE`; `PATTERN.args.NAME` alone takes the variable's value. Raises Invalid."""
    found = []
    for text in texts:
        left, equals, value = text.partition("=")
        adds = left.endswith("+")
        pattern, dot, rest = left.removesuffix("+").partition(".")
        key, _, part = rest.partition(".")
        key = _NAMES.get(key, key)
        if not dot or not key or not pattern:
            raise _wrong(text, "it needs a target and a key")
        if key not in ("push", "load") and (key not in FIELDS or key in _NEVER):
            hint = nearest(key, [name for name in (*FIELDS, "push", "load", "platform") if name not in _NEVER])
            raise _wrong(text, f"unknown key '{key}'" + (f", did you mean {hint}?" if hint else ""))
        is_map = key in FIELDS and FIELDS[key].kind == "map"
        if is_map and not part:
            raise _wrong(text, f"{key} needs a name", f"*.{key}.NAME=VALUE")
        if part and not is_map and key != "secret":
            raise _wrong(text, f"{key} has no parts")
        if not equals:
            if key != "args":
                raise _wrong(text, "it has no value")
            if part not in environment:
                continue
            value = environment[part]
        found.append(Override(pattern, key, part, value, adds, text))
    return found


def check(found: Iterable[Override], targets: Iterable[str]) -> None:
    """Raises NotFound for a pattern that no target fits."""
    names = list(targets)
    for each in found:
        if not any(_fits(each.pattern, name, names) for name in names):
            hint = nearest(each.pattern, names)
            shown = f"did you mean {hint}?" if hint else f"there is {', '.join(names[:8])}"
            raise NotFound(f"--set {each.text}: no target '{each.pattern}'", shown, exit_code=1)


def apply(name: str, found: Attributes, overrides: Sequence[Override], names: Sequence[str]) -> Attributes:
    """What the overrides make of a target. Raises Invalid."""
    done = dict(found)
    fresh: set[str] = set()  # lists that an override replaced: the next one of the same key adds
    for each in overrides:
        if not _fits(each.pattern, name, names):
            continue
        try:
            _apply(done, each, fresh)
        except ValueError as e:
            raise _wrong(each.text, str(e)) from None
    return done


def _apply(done: Attributes, each: Override, fresh: set[str]) -> None:
    key = each.key
    if key == "push":
        done["output"] = pushed(done.get("output") or [], values.truth(each.value))
        return
    if key == "load":
        if values.truth(each.value):
            done["output"] = loaded(done.get("output") or [])
        return
    kind = FIELDS[key].kind
    if kind == "text":
        done[key] = each.value
    elif kind == "bool":
        done[key] = values.truth(each.value)
    elif kind == "map":
        done[key] = {**(done.get(key) or {}), each.part: each.value}
    elif key == "secret" and each.part:
        # The secret of that id has another source: a file, or env=NAME.
        others = [one for one in done.get(key) or [] if one.get("id") != each.part]
        is_variable = each.value.startswith("env=")
        source = {"env": each.value[4:]} if is_variable else {"src": each.value.removeprefix("src=")}
        done[key] = [*others, {"id": each.part, **source}]
    else:
        new: list[Any] = [each.value] if kind == "texts" else (fields.entries(key, each.value) if each.value else [])
        keep = each.adds or key in _ALWAYS_ADD or key in fresh
        done[key] = [*(done.get(key) or [] if keep else []), *new]
        fresh.add(key)


def pushed(outputs: Sequence[dict[str, Any]], push: bool) -> list[dict[str, Any]]:
    """`--push`: images go to their registry too; other outputs stay as they are."""
    if not push:
        kept = [each for each in outputs if each.get("type") != "registry"]
        return [{**each, "push": "false"} if each.get("type") == "image" else each for each in kept]
    found = [{**each, "push": "true"} if each.get("type") == "image" else each for each in outputs]
    if all(each.get("type") == "docker" for each in outputs):
        found.append({"type": "image", "push": "true"})
    return found


def loaded(outputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`--load`: the store gets the image, unless files are wanted."""
    for each in outputs:
        kind = each.get("type")
        if (kind == "docker" and not each.get("dest")) or kind not in ("docker", "image", "registry", "oci"):
            return list(outputs)
    return [*outputs, {"type": "docker"}]


def _fits(pattern: str, name: str, names: Sequence[str]) -> bool:
    """A name that there is means itself alone, else it is a pattern."""
    return pattern == name if pattern in names else fnmatchcase(name, pattern)


def _wrong(text: str, message: str, hint: str = "") -> Invalid:
    return Invalid(
        f"--set {text}: {message}",
        hint or "as in --set app.args.VERSION=2 or --set '*.platform=linux/arm64'",
        exit_code=1,
    )
