"""The attributes of a target (docker/buildx docs/bake-reference.md#target), in the order in which `--print` has them.

Several lists are of things that are written as a line of CSV or as an object (`cache-from`, `output`, …): they are kept
as dicts of texts.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from limpet.build.bake.hcl import values
from limpet.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from limpet.build.bake.hcl.syntax import Value

    Entry = dict[str, Any]
    Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """`kind`: text, bool, texts, map, entries. `adds`: what is inherited stays beside what is set."""

    kind: str
    adds: bool = False
    read: Callable[[str], Entry] | None = None


def cache(text: str) -> Entry:
    """`type=registry,ref=…` or a name."""
    if "=" not in text:
        return {"type": "registry", "ref": text}
    found = csv_fields(text)
    return {**found, "type": found.get("type", "registry")}


def output(text: str) -> Entry:
    """`type=local,dest=…`; a path alone is a directory, `-` a tar on standard output (buildx reference, --output)."""
    if text == "-":
        return {"type": "tar", "dest": "-"}
    if "=" not in text:
        return {"type": "local", "dest": text}
    found = csv_fields(text)
    return {**found, "type": found.get("type", "local")}


def secret(text: str) -> Entry:
    found = csv_fields(text)
    if "source" in found:
        found["src"] = found.pop("source")
    kind = found.pop("type", "")
    if kind == "env" and "src" in found:
        found["env"] = found.pop("src")
    if unknown := found.keys() - {"id", "src", "env"}:
        raise ValueError(f"a secret has no '{min(unknown)}'")
    return found


def agent(text: str) -> Entry:
    """`default`, `NAME=PATH,PATH`."""
    name, equals, paths = text.partition("=")
    return {"id": name or "default", **({"paths": paths.split(",")} if equals else {})}


def attestation(text: str) -> Entry:
    found: Entry = dict(csv_fields(text))
    if "disabled" in found:
        found["disabled"] = values.truth(found["disabled"])
        if not found["disabled"]:
            del found["disabled"]
    return found


def csv_fields(text: str) -> dict[str, str]:
    try:
        row = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration):
        raise ValueError(f"'{text[:80]}' is no line of CSV") from None
    found = {}
    for each in row:
        key, equals, value = each.partition("=")
        if not equals:
            raise ValueError(f"'{each[:80]}' has no value")
        found[key.strip()] = value
    return found


FIELDS: Mapping[str, Field] = {
    "description": Field("text"),
    "inherits": Field("texts", adds=True),
    "annotations": Field("texts", adds=True),
    "attest": Field("entries", True, attestation),
    "context": Field("text"),
    "contexts": Field("map"),
    "dockerfile": Field("text"),
    "dockerfile-inline": Field("text"),
    "args": Field("map"),
    "labels": Field("map"),
    "tags": Field("texts"),
    "cache-from": Field("entries", True, cache),
    "cache-to": Field("entries", False, cache),
    "target": Field("text"),
    "secret": Field("entries", True, secret),
    "ssh": Field("entries", True, agent),
    "platforms": Field("texts"),
    "output": Field("entries", False, output),
    "pull": Field("bool"),
    "no-cache": Field("bool"),
    "network": Field("text"),
    "no-cache-filter": Field("texts", adds=True),
    "shm-size": Field("text"),
    "ulimits": Field("texts", adds=True),
    "resources": Field("map"),
    "call": Field("text"),
    "entitlements": Field("texts", adds=True),
    "extra-hosts": Field("map"),
}


def decode(name: str, value: Value) -> Any:
    """The value of an attribute; None for what counts as not set. Raises ValueError."""
    field = FIELDS[name]
    if value is None:
        return None
    if field.kind == "text":
        return values.text(value)
    if field.kind == "bool":
        return values.truth(value)
    if field.kind == "texts":
        return [values.text(each) for each in _list(value)]
    if field.kind == "map":
        known = values.mapping(value)
        return {key: values.text(each) for key, each in known.items() if each is not None}
    found: list[Entry] = []
    for each in _list(value):
        if isinstance(each, dict):
            found.append({key: _leaf(key, inner) for key, inner in each.items() if inner is not None})
        elif each:
            found += entries(name, values.text(each))
    return found


def entries(name: str, text: str) -> list[Entry]:
    """What one text of a list of entries says. Raises ValueError."""
    read = FIELDS[name].read
    assert read is not None
    if read is cache and "=" not in text:
        return [cache(each) for each in text.split(",") if each]
    return [read(text)]


def _leaf(key: str, value: Value) -> Any:
    if key == "paths":
        return [values.text(each) for each in _list(value)]
    return value if isinstance(value, bool) else values.text(value)


def _list(value: Value) -> list[Any]:
    """A list; a text alone is the only one of its list."""
    return [value] if isinstance(value, str) else [each for each in values.items(value) if each is not None]


def merge(below: Attributes, above: Attributes) -> Attributes:
    """What `above` sets on top of `below`; neither is changed."""
    merged = dict(below)
    for name, value in above.items():
        if value is None:
            continue
        field, before = FIELDS[name], merged.get(name)
        if isinstance(before, dict):
            merged[name] = {**before, **value}
        elif before is not None and field.adds:
            merged[name] = [*before, *value]
        else:
            merged[name] = value
    return merged


def normalized(found: Attributes) -> Attributes:
    """As the last word of a target: everything once, no empty contexts, what the network needs."""
    done: Attributes = {name: _once(value) if isinstance(value, list) else value for name, value in found.items()}
    if done.get("attest"):  # the last one of a type counts
        done["attest"] = list({each.get("type"): each for each in done["attest"]}.values())
    if done.get("network") == "host":
        done["entitlements"] = _once([*(done.get("entitlements") or []), "network.host"])
    if done.get("contexts"):
        done["contexts"] = {key: value for key, value in found["contexts"].items() if value}
    return done


def _once(found: list[Any]) -> list[Any]:
    kept: list[Any] = []
    for each in found:
        if each not in kept:
            kept.append(each)
    return kept
