"""`build --secret` and `--ssh`: what steps are given that is neither in the context nor in the image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from limpet.build.steps.stepmounts import Given
from limpet.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from typing import Any

    from limpet.store.store import Store

SECRET_LIMIT = 500 << 10
"""Bytes, as BuildKit's (session/secrets)."""


def given(
    secrets: list[str],
    agents: list[str],
    store: Store,
    stack: ExitStack,
    *,
    debug: bool = False,
    limits: Mapping[str, Any] | None = None,
    parallel: int = 0,
) -> Given:
    """What is started for it ends with the `stack`. Raises Invalid for what can't be read."""
    if parallel < 0:
        raise Invalid(f"--parallel {parallel}: no step could be done", "1 is one after another; leave it out for more")
    found = dict(_agent(text, store, stack) for text in agents)
    return Given(dict(map(_secret, secrets)), found, debug=debug, limits=limits or {}, parallel=parallel)


def _secret(text: str) -> tuple[str, bytes]:
    """`id=NAME[,src=FILE|,env=VARIABLE]`; with the id alone a variable of that name, or else a file."""
    fields = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        key = {"source": "src"}.get(key.strip().lower(), key.strip().lower())
        if not equals or key not in ("id", "src", "env", "type"):
            raise Invalid(f"invalid secret '{text}'", "write id=NAME,src=FILE or id=NAME,env=VARIABLE")
        fields[key] = value
    kind = fields.get("type", "")
    if kind not in ("", "file", "env"):
        raise Invalid(f"invalid secret '{text}': unsupported type '{kind}'", "file and env are known")
    name = fields.get("id") or os.path.basename(fields.get("src", ""))
    if not name:
        raise Invalid(f"invalid secret '{text}': it has no id", "write id=NAME,src=FILE or id=NAME,env=VARIABLE")
    variable = fields.get("env", fields.get("src", name) if kind == "env" else "")
    if not variable and "src" not in fields and kind != "file" and name in os.environ:
        variable = name
    if variable:
        if variable not in os.environ:
            raise Invalid(f"the environment has no variable {variable}, which --secret id={name} names")
        return name, os.environb[os.fsencode(variable)]
    path = fields.get("src", name)
    try:
        with open(path, "rb") as file:
            data = file.read(SECRET_LIMIT + 1)
    except OSError as e:
        raise Invalid(f"{path}: {(e.strerror or '').lower()}", f"it is the file of --secret id={name}") from e
    if len(data) > SECRET_LIMIT:
        raise Invalid(f"{path}, the file of --secret id={name}, is larger than {SECRET_LIMIT >> 10} KiB")
    return name, data


def _agent(text: str, store: Store, stack: ExitStack) -> tuple[str, str]:
    """`default`, `NAME=SOCKET`, `NAME=KEY[,KEY]`: files of keys get an agent until the `stack` ends."""
    name, _, path = text.partition("=")
    name = name or "default"
    paths = path.split(",") if path else [os.environ.get("SSH_AUTH_SOCK", "")]
    if not paths[0]:
        raise Invalid(
            f"ssh agent {name}: SSH_AUTH_SOCK is not set", f"start an agent, or name one: --ssh {name}=SOCKET"
        )
    for one in paths:
        if not os.path.exists(one):
            hint = "--ssh NAME=SOCKET names an agent's socket, --ssh NAME=KEY the file of a key"
            raise Invalid(f"ssh agent {name}: {one}: no such file", hint)
    if not all(os.path.isfile(one) for one in paths):
        if len(paths) > 1:
            raise Invalid(f"--ssh {text}: one socket, or files of keys", "write --ssh NAME=KEY,KEY")
        return name, paths[0]
    from limpet.build.steps.keyagent import agent

    return name, stack.enter_context(agent(store, name, [os.path.abspath(one) for one in paths]))
