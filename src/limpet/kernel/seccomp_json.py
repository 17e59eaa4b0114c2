"""Seccomp profiles as files: Docker's JSON format (and OCI's, which it extends) → OCI `linux.seccomp` for this machine.

Docker's extensions are resolved here as moby's `seccomp.LoadProfile` does: `archMap`, `includes` and `excludes` by
capability, architecture and kernel version, the old `name` beside `names`. What names, actions and conditions mean is
checked by `seccomp.compile`.
"""

from __future__ import annotations

import os

from limpet import jsontext
from limpet.errors import Invalid
from limpet.kernel.sys import MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MAX_SIZE = 1 << 20

_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_KEPT = ("defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata")
_KEPT_OF_RULES = ("names", "action", "errnoRet", "args")


def read(text: str | bytes, capabilities: Iterable[str], arch: str = "") -> dict[str, Any]:
    """`capabilities`: the container's bounding set; `arch`: the machine, as uname says it. Raises Invalid."""
    if len(text) > MAX_SIZE:
        raise Invalid(f"seccomp profile: {len(text)} bytes; {MAX_SIZE} are the limit")
    try:
        said = jsontext.loads(text)
    except ValueError as e:
        raise Invalid(f"seccomp profile: not JSON: {e}") from e
    if not isinstance(said, dict):
        raise Invalid("seccomp profile: not a JSON object")
    if not said.get("defaultAction") and not said.get("syscalls"):
        return {"defaultAction": "SCMP_ACT_ALLOW"}  # to Docker, an empty profile is none
    profile = {key: said[key] for key in _KEPT if said.get(key) is not None}
    arch_map = _list(said, "archMap", "the profile")
    if arch_map and profile.get("architectures"):
        raise Invalid("seccomp profile: both 'architectures' and 'archMap' are there", "use one of them")
    machine = arch or MACHINE
    for entry in arch_map:
        if not isinstance(entry, dict):
            raise Invalid("seccomp profile: an entry of archMap is not an object")
        if entry.get("architecture") == _NATIVE.get(machine):
            profile["architectures"] = [entry["architecture"], *_list(entry, "subArchitectures", "archMap")]
            break
    held = frozenset(capabilities)
    rules = _list(said, "syscalls", "the profile")
    profile["syscalls"] = [
        _rule(entry, at) for at, entry in enumerate(rules, 1) if _applies(entry, at, held, _GO_NAMES.get(machine, ""))
    ]
    return profile


def _rule(entry: dict[str, Any], at: int) -> dict[str, Any]:
    rule = {key: entry[key] for key in _KEPT_OF_RULES if entry.get(key)}
    if entry.get("errnoRet") is not None:
        rule["errnoRet"] = entry["errnoRet"]
    if entry.get("name"):
        if rule.get("names"):
            raise Invalid(f"seccomp profile: rule {at}: both 'name' and 'names' are there", "use 'names'")
        rule["names"] = [entry["name"]]
    return rule


def _applies(entry: Any, at: int, held: frozenset[str], arch: str) -> bool:
    if not isinstance(entry, dict):
        raise Invalid(f"seccomp profile: rule {at} is not an object")
    where = f"rule {at}"
    excludes = _filter(entry, "excludes", where)
    if arch in excludes[0] or held.intersection(excludes[1]) or (excludes[2] and _kernel() >= excludes[2]):
        return False
    arches, capabilities, kernel = _filter(entry, "includes", where)
    return (not arches or arch in arches) and held.issuperset(capabilities) and (not kernel or _kernel() >= kernel)


def _filter(entry: dict[str, Any], key: str, where: str) -> tuple[list[str], list[str], tuple[int, int] | None]:
    said = entry.get(key)
    if said is None:
        return [], [], None
    if not isinstance(said, dict):
        raise Invalid(f"seccomp profile: {where}: {key} is not an object")
    arches, capabilities = _list(said, "arches", where), _list(said, "caps", where)
    if not all(isinstance(name, str) for name in (*arches, *capabilities)):
        raise Invalid(f"seccomp profile: {where}: {key} has a name that is not text")
    kernel = said.get("minKernel")
    return arches, capabilities, _version(kernel, where) if kernel else None


def _version(text: object, where: str) -> tuple[int, int]:
    parts = text.split(".") if isinstance(text, str) else []
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and int(part[:4]) < 256 for part in parts):
        raise Invalid(f"seccomp profile: {where}: minKernel {text!r} is not like 4.8")
    if text == "0.0":
        raise Invalid(f"seccomp profile: {where}: minKernel can't be 0.0")
    return int(parts[0]), int(parts[1])


def _kernel() -> tuple[int, int]:
    """The first two numbers of the release; what follows them (4.8-rc1, 4.8.3-debian) does not count."""
    numbers = []
    for part in os.uname().release.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits or 0))
    return numbers[0], numbers[1] if len(numbers) > 1 else 0


def _list(said: dict[str, Any], key: str, where: str) -> list[Any]:
    found = said.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Invalid(f"seccomp profile: {where}: {key} is not a list")
    return found
