"""Devices by their name, `vendor.com/class=name`: the Container Device Interface (cncf-tags, SPEC.md 0.8).

What a name means is in the JSON and YAML files of /etc/cdi and /var/run/cdi, of which the later directory counts: edits
to a container's config.json. Those of a file are made once, when any of its devices is wanted, then the device's own.
A file that can't be read hides no device of another file; it is named when a device is not found.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from limpet import jsontext
from limpet.errors import Conflict, Invalid, NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    Config = dict[str, Any]

PLACES = ("/etc/cdi", "/var/run/cdi")
GPUS = ("nvidia.com/gpu", "amd.com/gpu")
"""What `--gpus` means: the first of these kinds that this machine describes."""

HOOKS = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
"""Those that are run. A startContainer hook would be a program of the image with the rights of limpet."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9._:-]*\Z")
_MOST = 4 << 20  # bytes of a file


class Device(NamedTuple):
    """`name`: all of it. `path`: of its file. `common`: the edits of the file, `own`: those of the device."""

    name: str
    path: str
    common: Config
    own: Config


def is_name(text: str) -> bool:
    return _NAME.match(text) is not None


def described() -> tuple[dict[str, Device], list[str]]:
    """All devices of this machine by their names, and what is wrong with files."""
    found: dict[str, Device] = {}
    problems: list[str] = []
    for place in PLACES:
        here: dict[str, Device] = {}
        twice: set[str] = set()
        for file in sorted(os.listdir(place)) if os.path.isdir(place) else []:
            if not file.endswith((".json", ".yaml", ".yml")):
                continue
            try:
                devices = _devices(f"{place}/{file}")
            except Invalid as e:
                problems.append(str(e))
                continue
            for device in devices:
                if device.name in here:
                    twice.add(device.name)
                    problems.append(f"device {device.name}: {here[device.name].path} and {device.path} both have it")
                here[device.name] = device
        found.update(here)
        for name in twice:  # as the reference code: nobody can say which of the two is meant
            del found[name]
    return found, problems


def find(names: Sequence[str]) -> list[Device]:
    """Raises Invalid for what is no name, NotFound for what is not described, Conflict where two files describe it."""
    found, problems = described()
    for name in names:
        if not is_name(name):
            raise Invalid(f"device {name}: no name of a device", "as in /dev/fuse, or vendor.com/class=name (CDI)")
        if name not in found:
            _missing(name, found, problems)
    return [found[name] for name in names]


def edits(devices: Sequence[Device]) -> list[tuple[str, Config]]:
    """(whose, containerEdits) in the order in which they are made."""
    made: list[tuple[str, Config]] = []
    files: set[str] = set()
    for device in devices:
        if device.path not in files:
            files.add(device.path)
            made.append((device.name, device.common))
        made.append((device.name, device.own))
    for name, edit in made:
        for key, what in (("intelRdt", "settings of resctrl"), ("netDevices", "network devices")):
            if edit.get(key):
                raise Refused(f"device {name}: its specification has {what} ({key}), which limpet does not make")
    return made


def apply(config: Config, names: Sequence[str]) -> None:
    """Edits a container's plan. Raises as `find`, and Refused for edits that limpet does not make."""
    for name, edit in edits(find(names)):
        try:
            _edit(config, name, edit)
        except (LookupError, TypeError, AttributeError, ValueError):
            raise Invalid(f"device {name}: its specification has another form than CDI's") from None


def gpus(texts: Sequence[str]) -> list[str]:
    """The devices of `--gpus` (docker/cli `opts/gpus.go`): all, a number, or fields device=, count=, driver=."""
    names: list[str] = []
    for text in texts:
        names += _gpus(text)
    return list(dict.fromkeys(names))


def _gpus(text: str) -> list[str]:
    import csv

    kind, wanted, count = "", [], 0
    try:
        fields = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration):
        raise Invalid(f"invalid --gpus '{text}'", "as in all, 2, device=0 or '\"device=0,1\"'") from None
    for number, field in enumerate(fields):
        key, equals, value = field.partition("=")
        if not equals and number == 0:
            key, value = "count", field
        if key == "count" and (value == "all" or value.lstrip("-").isdecimal()):
            count = -1 if value == "all" else int(value)
        elif key == "device" and value:
            wanted = value.split(",")
        elif key == "driver" and value in ("cdi", "nvidia", "amd"):
            kind = value
        elif key != "capabilities":  # a specification gives all that the device can do
            raise Invalid(f"invalid --gpus '{text}': '{field}'", "as in all, 2, device=0 or '\"device=0,1\"'")
    if wanted and count:
        raise Invalid(f"invalid --gpus '{text}': cannot set both a count and devices")
    if count < -1 or not (wanted or count):
        raise Invalid(f"invalid --gpus '{text}'", "as in all, 2, device=0 or '\"device=0,1\"'")
    if kind == "cdi":
        return wanted
    prefix = _gpu_kind(f"{kind}.com/gpu" if kind else "")
    if wanted:
        return [f"{prefix}={name}" for name in wanted]
    return [f"{prefix}=all"] if count < 0 else [f"{prefix}={number}" for number in range(count)]


def _gpu_kind(wanted: str) -> str:
    found, problems = described()
    kinds = {name.partition("=")[0] for name in found}
    for kind in [wanted] if wanted else GPUS:
        if kind in kinds:
            return kind
    said = f"; {'; '.join(problems)}" if problems else ""
    raise NotFound(
        f"--gpus: no file of {' and '.join(PLACES)} describes a GPU{said}",
        "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` writes one for NVIDIA's,"
        " `amd-ctk cdi generate --output=/etc/cdi/amd.json` for AMD's; without one: --device /dev/dri",
    )


def _missing(name: str, found: dict[str, Device], problems: list[str]) -> None:
    kind = name.partition("=")[0]
    twice = next((text for text in problems if text.startswith(f"device {name}: ")), "")
    if twice:
        raise Conflict(twice, "remove it from one of the two")
    said = f" ({'; '.join(problems)})" if problems else ""
    others = sorted(other for other in found if other.startswith(f"{kind}=")) or sorted(found)
    hint = f"there are {', '.join(others[:8])}{', …' if len(others) > 8 else ''}" if others else ""
    if kind == GPUS[0] and not any(other.startswith(kind) for other in found):
        hint = "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` writes one"
    raise NotFound(
        f"device {name}: no file of {' and '.join(PLACES)} has it{said}",
        hint or "a JSON or YAML file describes it there",
    )


def _devices(path: str) -> list[Device]:
    """Raises Invalid for a file that is no specification."""
    document = _read(path)
    try:
        kind, common = document["kind"], document.get("containerEdits") or {}
        found = []
        for each in document.get("devices") or []:
            name = f"{kind}={each['name']}"
            if not is_name(name):
                raise Invalid(f"{path}: '{name}' is no name of a device")
            found.append(Device(name, path, dict(common), dict(each.get("containerEdits") or {})))
    except (LookupError, TypeError, AttributeError, ValueError):
        raise Invalid(f"{path}: another form than CDI's") from None
    return found


def _read(path: str) -> Config:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST + 1)
        if len(data) > _MOST:
            raise Invalid(f"{path}: not a CDI specification: more than {_MOST >> 20} MiB")
        found = jsontext.loads(data) if path.endswith(".json") else _yaml(data)
    except (OSError, ValueError, RecursionError) as e:
        raise Invalid(f"{path}: not a CDI specification: {' '.join(str(e).split())}") from None
    if not isinstance(found, dict):
        raise Invalid(f"{path}: not a CDI specification: no object")
    return found


def _yaml(data: bytes) -> Any:
    """Raises ValueError."""
    import yaml

    try:
        return yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as e:
        raise ValueError(str(e)) from None


def _edit(config: Config, name: str, edit: Config) -> None:
    process, linux = config["process"], config["linux"]
    user = process["user"]
    if edit.get("env"):
        values = dict(text.split("=", 1) for text in process["env"])
        values.update(text.split("=", 1) for text in edit["env"])
        process["env"] = [f"{key}={value}" for key, value in values.items()]
    for node in edit.get("deviceNodes") or []:
        device, access = _node(name, node, user)
        linux["devices"] = [other for other in linux["devices"] if other["path"] != device["path"]] + [device]
        if access and device["type"] in "bc":
            rule = {key: device[key] for key in ("type", "major", "minor")}
            linux["resources"]["devices"].append({"allow": True, **rule, "access": access})
    for mount in edit.get("mounts") or []:
        source, target = str(mount["hostPath"]), str(mount["containerPath"])
        if not source.startswith("/") or not target.startswith("/"):
            raise ValueError
        options = [str(word) for word in mount.get("options") or []]
        kind = str(mount.get("type") or "bind")
        if kind == "bind":
            if not os.path.exists(source):
                raise NotFound(f"device {name}: {source}, which it needs, does not exist")
            options += [] if {"bind", "rbind"} & set(options) else ["rbind"]
        config["mounts"] = [other for other in config["mounts"] if other["destination"] != target]
        config["mounts"].append({"destination": target, "type": kind, "source": source, "options": options})
    for hook in edit.get("hooks") or []:
        _hook(config, name, hook)
    for gid in edit.get("additionalGids") or []:
        if not isinstance(gid, int) or not 0 <= gid < 2**32 - 1:
            raise ValueError
        if gid and gid not in user["additionalGids"]:
            user["additionalGids"].append(gid)


def _node(name: str, node: Config, user: Config) -> tuple[Config, str]:
    """A device of config.json, what is not said taken from the host's node, and how it may be used ("": not at all)."""
    path = str(node["path"])
    if not path.startswith("/"):
        raise ValueError
    kind, major, minor = node.get("type") or "", node.get("major") or 0, node.get("minor") or 0
    access = node.get("permissions") or "rwm"
    mode = node.get("fileMode")
    if kind not in ("", "b", "c", "u", "p") or (access != "none" and not set(access) <= set("rwm")):
        raise ValueError
    if not kind or (not major and kind != "p"):
        from limpet.containers.plan import spec

        host = str(node.get("hostPath") or path)
        found = spec.device(host, path)
        if found is None:
            raise Invalid(f"device {name}: {host} is not a device node")
        kind, major, minor = kind or found["type"], found["major"], found["minor"]
        mode = found["fileMode"] if mode is None else mode
    device: Config = {"path": path, "type": "c" if kind == "u" else kind, "major": int(major), "minor": int(minor)}
    device["fileMode"] = 0o666 if mode is None else int(mode)
    device["uid"] = int(user["uid"] if node.get("uid") is None else node["uid"])
    device["gid"] = int(user["gid"] if node.get("gid") is None else node["gid"])
    return device, "" if access == "none" else access


def _hook(config: Config, name: str, hook: Config) -> None:
    kind, path = str(hook["hookName"]), str(hook["path"])
    if kind not in HOOKS:
        raise Refused(f"device {name}: its specification has a hook '{kind}', which limpet does not run")
    if not path.startswith("/"):
        raise ValueError
    made: Config = {"path": path}
    for key in ("args", "env"):
        if hook.get(key):
            made[key] = [str(text) for text in hook[key]]
    if hook.get("timeout"):
        made["timeout"] = int(hook["timeout"])
    config.setdefault("hooks", {}).setdefault(kind, []).append(made)
