"""What a log says of its container: the tag, and the labels and variables that `--log-opt` picks."""

from __future__ import annotations

import os
import re

from limpet import jsontext
from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.containers.state import Container

FIELDS = (
    "ID",
    "FullID",
    "Name",
    "FullName",
    "ImageID",
    "ImageFullID",
    "ImageName",
    "Command",
    "Hostname",
    "DaemonName",
)
DEFAULT_TAG = "{{.ID}}"

_FIELD = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")


def check(options: dict[str, str]) -> None:
    """The tag's template and the patterns. Raises Invalid."""
    tag(options.get("tag", ""), dict.fromkeys(FIELDS, ""))
    for key in ("labels-regex", "env-regex"):
        try:
            re.compile(options.get(key, ""))
        except re.error as e:
            raise Invalid(f"log opt {key} '{options[key]}' is no regular expression: {e}") from e


def tag(template: str, values: dict[str, str]) -> str:
    """Docker's markup: fields of the container between double braces. Raises Invalid."""

    def field(match: re.Match[str]) -> str:
        name = match[1].removeprefix(".").removesuffix(" .")
        if not match[1].startswith(".") or name not in values:
            known = ", ".join(f".{name}" for name in FIELDS)
            raise Invalid(f"log opt tag '{template}': {match[0]} is not there", f"there are {known}")
        return values[name]

    found = _FIELD.sub(field, template or DEFAULT_TAG)
    if "{{" in found:
        raise Invalid(f"log opt tag '{template}': a field does not end", "write {{.Name}}")
    return found


def values(container: Container, image: dict[str, Any]) -> dict[str, str]:
    """Of each field (moby `logger/loginfo.go`)."""
    from limpet.containers.plan import spec

    image_id = (container.image_id or "").removeprefix("sha256:")
    try:
        command = " ".join(spec.command(container.options, image))
    except Invalid:
        command = ""
    return {
        "ID": container.id[:12],
        "FullID": container.id,
        "Name": container.name,
        "FullName": f"/{container.name}",
        "ImageID": image_id[:12],
        "ImageFullID": container.image_id or "",
        "ImageName": container.image_name,
        "Command": command,
        "Hostname": os.uname().nodename,
        "DaemonName": "limpet",
    }


def image_config(directory: str) -> dict[str, Any]:
    with open(f"{directory}/image.json", "rb") as file:
        found: dict[str, Any] = jsontext.loads(file.read())
    return found


def picked(container: Container, image: dict[str, Any]) -> dict[str, str]:
    """Labels and variables that the options name, those of the image under the container's own; sorted."""
    options = container.options
    config = image.get("config") or {}
    labels = {**(config.get("Labels") or {}), **options.labels}
    variables = dict(text.partition("=")[::2] for text in [*(config.get("Env") or []), *options.env])
    found: dict[str, str] = {}
    for key, source in (("labels", labels), ("env", variables)):
        given = options.log_opts
        names = set(given.get(key, "").split(","))
        pattern = re.compile(given[f"{key}-regex"]) if given.get(f"{key}-regex") else None
        wanted = {name for name in source if name in names or (pattern is not None and pattern.search(name))}
        found.update((name, value) for name, value in source.items() if name in wanted)
    return dict(sorted(found.items()))
