"""`RUN --mount=type=…,key=value` and `--device=…` (Dockerfile reference, "RUN --mount").

Keys count in order: `type` first, as BuildKit wants it of `required` and `size`. Variables may stand in every value but
that of `from`, which is needed before any variable is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.build.language import flags
from limpet.build.language.instructions import Device
from limpet.build.language.nearest import did_you_mean
from limpet.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
_KEYS = (
    "type from source src target dst destination readonly ro readwrite rw required size id sharing mode uid gid env"
).split()
_WITH_OWNER = ("secret", "ssh", "cache")


class MountError(ValueError):
    """`message`, and `hint`: what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Mount:
    """`origin` is `from`. `size` in bytes, 0 for no limit. `env` is None if not said, "" for the secret's name."""

    type: str = "bind"
    origin: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = True
    id: str = ""
    sharing: str = ""
    size: int = 0
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str | None = None


def origin(text: str) -> str:
    """The `from` of a mount, "" for none. Raises MountError."""
    found = ""
    for field in _fields(text):
        key, _, value = field.partition("=")
        if key.lower() == "from":
            if "$" in value[:-1]:
                message = f"'{key.lower()}' doesn't support variable expansion, define alias stage instead"
                raise MountError(message, f"write FROM {value} AS NAME above, and from=NAME here")
            found = value
    return found


def parse(text: str, expand: Callable[[str], str]) -> Mount:
    """Raises MountError, and whatever `expand` raises."""
    values: dict[str, object] = {"type": "bind"}
    for field in _fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        _set(values, field, key, expand(value) if equals else None)
    kind = str(values["type"])
    for key in ("mode", "uid", "gid"):
        if key in values and kind not in _WITH_OWNER:
            raise MountError(f'{key} not allowed for "{kind}" type mounts', "leave it away")
    values.setdefault("read_only", kind not in ("cache", "tmpfs"))
    if kind == "secret":
        _check_secret(values)
    if values.get("sharing") and kind != "cache":
        raise MountError(f"invalid cache sharing set for {kind} mount", "sharing goes with type=cache")
    return Mount(**values)  # type: ignore[arg-type]


def device(text: str) -> Device:
    """`NAME[,required]`, `name=…,required=…`. Raises MountError."""
    name = ""
    required = False
    for field in _fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if key == "required":
            required = _boolean(key, value) if equals else True
        elif equals and key == "name":
            if name:
                raise MountError(f"device name already set to {name}", "one --device for each")
            name = value
        elif not name:
            name = field
        elif not equals:
            raise MountError(f"invalid field '{field}' must be a key=value pair", "as in name=NAME,required")
        else:
            raise MountError(f"unexpected key '{key}' in '{field}'", did_you_mean(key, ("name", "required")))
    return Device(name, required)


def _set(values: dict[str, object], field: str, key: str, value: str | None) -> None:
    kind = values["type"]
    if value is None:
        if key in ("readonly", "ro", "readwrite", "rw"):
            values["read_only"] = key in ("readonly", "ro")
        elif key == "required":
            _only(key, kind, ("secret", "ssh"))
            values["required"] = True
        else:
            hint = did_you_mean(key, _KEYS, "{}=VALUE")
            raise MountError(f"invalid field '{field}' must be a key=value pair", hint)
    elif key == "type":
        if value.lower() not in TYPES:
            hint = did_you_mean(value, TYPES) or f"one of {', '.join(TYPES)} is wanted"
            raise MountError(f'unsupported mount type "{value}"', hint)
        values["type"] = value.lower()
    elif key in ("from", "source", "src", "target", "dst", "destination", "id", "env"):
        values[{"from": "origin", "src": "source", "dst": "target", "destination": "target"}.get(key, key)] = value
    elif key in ("readonly", "ro", "readwrite", "rw"):
        values["read_only"] = _boolean(key, value) == (key in ("readonly", "ro"))
    elif key == "required":
        _only(key, kind, ("secret", "ssh"))
        values["required"] = _boolean(key, value)
    elif key == "size":
        _only(key, kind, ("tmpfs",))
        try:
            values["size"] = flags.size(value)
        except ValueError:
            raise MountError(f"invalid value for {key}: {value}", "as in size=64m") from None
    elif key == "sharing":
        if value.lower() not in SHARING:
            hint = did_you_mean(value, SHARING) or f"one of {', '.join(SHARING)} is wanted"
            raise MountError(f'unsupported sharing value "{value}"', hint)
        values["sharing"] = value.lower()
    elif key in ("mode", "uid", "gid"):
        try:
            values[key] = flags.number(value, 8 if key == "mode" else 10, 32)
        except ValueError:
            hint = "octal, as in mode=0400" if key == "mode" else "a number is wanted"
            raise MountError(f"invalid value {value} for {key}", hint) from None
    else:
        raise MountError(f"unexpected key '{key}' in '{field}'", did_you_mean(key, _KEYS))


def _only(key: str, kind: object, kinds: tuple[str, ...]) -> None:
    if kind not in kinds:
        raise MountError(f"unexpected key '{key}' for mount type '{kind}'", f"it goes with type={' or '.join(kinds)}")


def _check_secret(values: dict[str, object]) -> None:
    if values.get("origin"):
        raise MountError("secret mount should not have a from", "a secret comes from the command line: --secret")
    if values.get("sharing"):
        raise MountError("secret mount should not define sharing", "sharing goes with type=cache")
    if not (values.get("source") or values.get("target") or values.get("id")):
        raise MountError("invalid secret mount. one of source, target required", "as in type=secret,id=NAME")
    if values.get("source") and values.get("id"):
        raise MountError("both source and id can't be set", "keep id")


def _boolean(key: str, value: str) -> bool:
    try:
        return flags.boolean(value)
    except ValueError:
        raise MountError(f"invalid value for {key}: {value}", "true or false is wanted") from None


def _fields(text: str) -> list[str]:
    try:
        return flags.fields(text)
    except ValueError as e:
        raise MountError(f"failed to parse csv mounts: {e}", "a value with a comma is put in quotes") from None
