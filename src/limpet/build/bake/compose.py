"""The `build:` sections of Compose files as targets (docker/buildx bake/compose.go; compose-spec build.md).

Of a file only services with `build`, their `image`, `environment` and the `secrets` count, and `x-bake`. A dot in a
service's name becomes `_`. Variables are interpolated by Compose's rules, from the environment and `.env`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from limpet.build.bake import fields
from limpet.build.bake.definition import Group
from limpet.build.bake.hcl import values
from limpet.errors import Invalid
from limpet.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from limpet.build.bake.definition import Definition
    from limpet.build.bake.fields import Attributes

_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{)")
_MAX_DEPTH = 20
_NOT_HERE = ("extends", "include")
_LISTS = ("tags", "cache-from", "cache-to", "secret", "ssh", "platforms", "output", "no-cache-filter")

_OF_BUILD = frozenset(
    "additional_contexts args cache_from cache_to context dockerfile dockerfile_inline entitlements extra_hosts"
    " isolation labels network no_cache no_cache_filter platforms privileged provenance pull sbom secrets shm_size ssh"
    " tags target ulimits x-bake".split()
)
"""What compose-spec's build.md has. `isolation` is for Windows; BuildKit takes no `privileged`, but entitlements."""


def is_compose(name: str, text: str) -> bool:
    lower = name.lower()
    if lower.endswith((".yml", ".yaml")):
        return True
    if lower.endswith((".json", ".hcl")):
        return False
    try:
        whole = _yaml(name, text)
    except Invalid:
        return False
    return isinstance(whole, dict) and "services" in whole


def dotenv() -> dict[str, str]:
    """`.env` of the working directory: `NAME=VALUE` lines, quotes, `#` comments."""
    found: dict[str, str] = {}
    try:
        with open(".env", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return found
    for line in lines:
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        quoted = re.fullmatch(r"""(?:'([^']*)'|"([^"]*)")\s*(?:#.*)?""", value)
        if quoted is not None:
            value = next(each for each in quoted.groups() if each is not None)
        else:
            value = re.split(r"\s#", value)[0].rstrip()
        found[name.strip()] = value
    return found


def define(texts: Sequence[tuple[str, str]], into: Definition, environment: Mapping[str, str]) -> None:
    """`texts`: (name, content) of files that complete each other. Raises Invalid."""
    services: dict[str, dict[str, Any]] = {}
    secrets: dict[str, Any] = {}
    for name, text in texts:
        whole = _yaml(name, text)
        if not isinstance(whole, dict):
            raise _wrong(name, "not a Compose file: it is no mapping")
        if "include" in whole:
            raise _wrong(name, "include is not supported in bake yet", "name the files with -f")
        whole = _interpolated(whole, environment, name)
        for service, each in _mapping(whole.get("services"), name, "services").items():
            services[service] = _merged(services.get(service, {}), _mapping(each, name, f"services.{service}"))
        secrets |= _mapping(whole.get("secrets"), name, "secrets")
    names: list[str] = []
    for service, each in services.items():
        place = f"{texts[0][0]}: services.{service}"
        if each.get("build") is None:
            continue
        if "extends" in each:
            raise _wrong(place, "extends is not supported in bake yet", "write its build section out")
        target = service.replace(".", "_")
        if not re.fullmatch(r"[a-zA-Z0-9_-]+", target):
            raise _wrong(place, f"'{target}' is no name of a target", "letters, digits, _ and - are allowed")
        try:
            into.add_target(target, _target(each, secrets, environment))
        except ValueError as e:
            raise _wrong(f"{place}.build", str(e)) from None
        names.append(target)
    if names:
        into.add_group("default", Group(tuple(names)))


def _target(service: dict[str, Any], secrets: dict[str, Any], environment: Mapping[str, str]) -> Attributes:
    build = service["build"]
    build = {"context": build} if isinstance(build, str) else values.mapping(build)
    for key in build:
        if key not in _OF_BUILD and not key.startswith("x-"):
            hint = nearest(key, _OF_BUILD)
            raise ValueError(f"unknown key '{key}'" + (f", did you mean {hint}?" if hint else ""))
    own = {**environment, **{key: each for key, each in _pairs(service.get("environment")).items() if each is not None}}
    found: Attributes = {}
    for key in ("context", "dockerfile", "target", "network"):
        if build.get(key):
            found[key] = _text(build[key])
    if build.get("dockerfile_inline"):
        found["dockerfile-inline"] = _text(build["dockerfile_inline"])
    args = _pairs(build.get("args"))
    known = {key: each if each is not None else own.get(key) for key, each in args.items()}
    if args:
        found["args"] = {key: each for key, each in known.items() if each is not None}
    if build.get("labels"):
        found["labels"] = {key: each or "" for key, each in _pairs(build["labels"]).items()}
    if build.get("additional_contexts"):
        found["contexts"] = _contexts(_pairs(build["additional_contexts"]))
    for key in ("tags", "platforms", "entitlements", "no_cache_filter"):
        if build.get(key):
            found[key.replace("_", "-")] = [_text(each) for each in _list(build[key])]
    if build.get("ulimits"):
        found["ulimits"] = [_limit(key, each) for key, each in values.mapping(build["ulimits"]).items()]
    if not found.get("tags") and service.get("image"):
        found["tags"] = [_text(service["image"])]
    for key in ("cache_from", "cache_to"):
        if build.get(key):
            name = key.replace("_", "-")
            found[name] = [one for each in _list(build[key]) for one in fields.entries(name, _text(each))]
    if build.get("secrets"):
        found["secret"] = [_secret(each, secrets) for each in _list(build["secrets"])]
    if build.get("ssh"):
        keys = build["ssh"]
        texts = [f"{key}={each}" if each else key for key, each in _pairs(keys).items()]
        found["ssh"] = sorted((fields.agent(each) for each in texts), key=lambda each: str(each["id"]))
    for key in ("no_cache", "pull"):
        if build.get(key):
            found[key.replace("_", "-")] = values.truth(
                build[key] if isinstance(build[key], bool) else _text(build[key])
            )
    if build.get("shm_size"):
        found["shm-size"] = _text(build["shm_size"])
    if build.get("extra_hosts"):
        found["extra-hosts"] = {key: each or "" for key, each in _pairs(build["extra_hosts"], ":").items()}
    asked = [key for key in ("provenance", "sbom") if build.get(key) not in (None, "")]
    attests = [fields.attestation(attestation_text(key, _text(build[key]))) for key in asked]
    if attests:
        found["attest"] = attests
    return _extended(found, build.get("x-bake"))


def attestation_text(kind: str, value: str) -> str:
    """`--provenance=mode=max`, `--sbom=true` as `type=…`."""
    if value.lower() in ("true", "1"):
        return f"type={kind}"
    if value.lower() in ("false", "0"):
        return f"type={kind},disabled=true"
    return f"type={kind},{value}"


def _extended(found: Attributes, extension: Any) -> Attributes:
    """`x-bake`: what Compose has no word for. Lists add to what is there."""
    if extension is None:
        return found
    for key, each in values.mapping(extension).items():
        if key in _LISTS:
            texts = each.split() if isinstance(each, str) else [_text(one) for one in _list(each)]
            is_entries = fields.FIELDS[key].kind == "entries"
            more: list[Any] = [one for text in texts for one in fields.entries(key, text)] if is_entries else texts
            before = found.get(key, [])
            found[key] = [*before, *(one for one in more if one not in before)]
        elif key in ("pull", "no-cache"):
            found[key] = values.truth(each)
        elif key == "contexts":
            found[key] = {**found.get(key, {}), **_contexts(_pairs(each))}
        else:
            raise ValueError(f"x-bake has no '{key}'")
    return found


def _contexts(found: Mapping[str, str | None]) -> dict[str, str]:
    """`service:NAME` is the target of that service."""
    contexts = {}
    for key, value in found.items():
        kind, colon, rest = (value or "").partition(":")
        is_target = colon and kind in ("service", "target")
        contexts[key] = f"target:{rest.replace('.', '_')}" if is_target else value or ""
    return contexts


def _secret(value: Any, secrets: Mapping[str, Any]) -> dict[str, str]:
    name = _text(value.get("source")) if isinstance(value, dict) else _text(value)
    known = secrets.get(name) or {}
    if known.get("external"):
        raise ValueError(f"the external secret {name} is not here")
    found = {"id": name}
    if known.get("file"):
        found["src"] = _text(known["file"])
    if known.get("environment"):
        found["env"] = _text(known["environment"])
    return found


def _limit(name: str, value: Any) -> str:
    """`nofile: 1024`, or a mapping of `soft` and `hard`, as `--ulimit` has it."""
    if not isinstance(value, dict):
        return f"{name}={_text(value)}"
    if set(value) != {"soft", "hard"}:
        raise ValueError(f"ulimits: {name} needs soft and hard")
    return f"{name}={_text(value['soft'])}:{_text(value['hard'])}"


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Files of Compose completing each other (compose-spec merge.md): mappings by key, `build` too."""
    merged = dict(below)
    for key, each in above.items():
        before = merged.get(key)
        if key == "build" and isinstance(each, str):
            each = {"context": each}
        if key == "build" and isinstance(before, str):
            before = {"context": before}
        if isinstance(before, dict) and isinstance(each, dict):
            merged[key] = _merged(before, each)
        elif key in ("args", "labels", "environment", "additional_contexts") and before is not None:
            merged[key] = {**_pairs(before), **_pairs(each)}
        else:
            merged[key] = each
    return merged


def _pairs(value: Any, separator: str = "=") -> dict[str, str | None]:
    """A mapping, or a list of `KEY=VALUE` and `KEY`."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return {str(key): None if each is None else _text(each) for key, each in value.items()}
    found: dict[str, str | None] = {}
    for each in _list(value):
        key, equals, rest = _text(each).partition("=")
        if not equals and separator != "=":
            key, equals, rest = key.partition(separator)
        found[key] = rest if equals else None
    return found


def _list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        return [value]
    raise ValueError("a list is needed")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("a text is needed")


def _mapping(value: Any, name: str, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(name, f"{where} is no mapping")
    return {str(key): each for key, each in value.items()}


def _yaml(name: str, text: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
        raise Invalid(f"{place}: not YAML: {getattr(e, 'problem', e)}", exit_code=1) from None
    except RecursionError:
        raise _wrong(name, "too many levels within each other") from None


def _interpolated(value: Any, environment: Mapping[str, str], name: str) -> Any:
    if isinstance(value, str):
        try:
            return interpolate(value, environment)
        except ValueError as e:
            raise _wrong(name, str(e)) from None
    if isinstance(value, list):
        return [_interpolated(each, environment, name) for each in value]
    if isinstance(value, dict):
        return {key: _interpolated(each, environment, name) for key, each in value.items()}
    return value


def interpolate(text: str, environment: Mapping[str, str], depth: int = 0) -> str:
    """`$NAME`, `${NAME:-other}`, `-`, `:?`, `?`, `:+`, `+`, `$$` (compose-spec interpolation.md). Raises ValueError."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"more than {_MAX_DEPTH} ${{…}} within each other")
    out, at = [], 0
    while found := _VARIABLE.search(text, at):
        out.append(text[at : found.start()])
        at = found.end()
        if found.group(1):
            out.append("$")
        elif found.group(2):
            out.append(environment.get(found.group(2), ""))
        else:
            end = _closing(text, at)
            out.append(_braced(text[at:end], environment, depth))
            at = end + 1
    return "".join([*out, text[at:]])


def _closing(text: str, at: int) -> int:
    depth = 1
    for place in range(at, len(text)):
        if text[place] == "}":
            depth -= 1
            if not depth:
                return place
        elif text.startswith("${", place):
            depth += 1
    raise ValueError(f"'{text[:60]}' has a ${{ without its }}")


def _braced(text: str, environment: Mapping[str, str], depth: int) -> str:
    found = re.fullmatch(r"([A-Za-z_]\w*)(?:(:?[-+?])(.*))?", text, re.DOTALL)
    if found is None:
        raise ValueError(f"'${{{text[:60]}}}' is no variable")
    name, operator, rest = found.groups()
    value = environment.get(name)
    if operator is None:
        return value or ""
    is_there = value is not None and (value != "" or not operator.startswith(":"))
    if operator.endswith("+"):
        return interpolate(rest, environment, depth + 1) if is_there else ""
    if is_there:
        return value or ""
    other = interpolate(rest, environment, depth + 1)
    if operator.endswith("?"):
        raise ValueError(f"the variable {name} is needed: {other or 'it is not set'}")
    return other


def _wrong(place: str, message: str, hint: str = "") -> Invalid:
    return Invalid(f"{place}: {message}", hint, exit_code=1)
