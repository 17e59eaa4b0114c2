"""Which files are read, and what they define together (docker/buildx bake.go, `ReadLocalFiles`, `ParseFiles`)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from limpet.build.bake import compose, definition
from limpet.build.bake.definition import Definition
from limpet.build.bake.hcl.parser import MAX_BYTES
from limpet.errors import Invalid, NotFound
from limpet.nearest import nearest
from limpet.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from limpet.build.bake.hcl.syntax import Body

DEFAULTS = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
)
VARIABLE = "BUILDX_BAKE_FILE"


def chosen(named: Sequence[str]) -> list[str]:
    """The files that `-f` names, or BUILDX_BAKE_FILE, or those of the usual names that are here. Raises NotFound."""
    if named:
        return list(named)
    if os.environ.get(VARIABLE):
        return os.environ[VARIABLE].split(os.environ.get("BUILDX_BAKE_PATH_SEPARATOR", os.pathsep))
    found = [name for name in DEFAULTS if os.path.isfile(name)]
    if not found:
        raise NotFound("no docker-bake.hcl, docker-bake.json or Compose file here", "name one with -f", exit_code=1)
    return found


def read(names: Sequence[str], variables: Mapping[str, str]) -> Definition:
    """All of them as one: Compose files first, then the others in order. `variables`: `--var`. Raises Invalid."""
    texts = [(_shown(name), _text(name)) for name in names]
    environment = {**os.environ, **variables}
    composed = [each for each in texts if compose.is_compose(*each)]
    found = Definition()
    if composed:
        compose.define(composed, found, {**compose.dotenv(), **environment})
    bodies = [definition.parse(text, name) for name, text in texts if (name, text) not in composed]
    if bodies:
        if not composed:  # whose variables are declared nowhere
            _check_given(bodies, variables)
        builtins = {"BAKE_CMD_CONTEXT": "cwd://", "BAKE_LOCAL_PLATFORM": str(platforms.host())}
        definition.define(bodies, found, environment, builtins)
    return found


def _check_given(bodies: Sequence[Body], variables: Mapping[str, str]) -> None:
    """Raises NotFound for a `--var` that no file declares."""
    declared = [
        block.labels[0] for body in bodies for block in body.blocks if block.kind == "variable" and block.labels
    ]
    declared += [name for body in bodies for name in body.attributes]
    for name in variables:
        if name.removesuffix("_JSON") not in declared and name not in declared:
            hint = nearest(name, declared)
            shown = f"did you mean {hint}?" if hint else f"there is {', '.join(declared[:8]) or 'none'}"
            raise NotFound(f"--var {name}: no variable '{name}'", shown, exit_code=1)


def _shown(name: str) -> str:
    return "<standard input>" if name == "-" else name.removeprefix("cwd://")


def _text(name: str) -> str:
    if name == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        if "://" in name.removeprefix("cwd://"):
            raise Invalid(f"{name}: definitions are read from files, not from URLs", "fetch it first", exit_code=1)
        try:
            with open(name.removeprefix("cwd://"), "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as e:
            raise NotFound(f"{name}: {e.strerror}", "-f names a file to read", exit_code=1) from e
    if len(data) > MAX_BYTES:
        raise Invalid(f"{name}: larger than {MAX_BYTES >> 20} MiB", exit_code=1)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid(f"{name}: not UTF-8", exit_code=1) from None
