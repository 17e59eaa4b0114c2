"""What a step's key is made of, by name, as people call it. Of a variable that sounds secret only a digest is kept."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from limpet.build.planning import plan
from limpet.build.planning.copyplan import without_login
from limpet.build.planning.stageplan import sounds_secret

if TYPE_CHECKING:
    from limpet.build.inspector import Looked

_LONGEST = 4000
"""Characters of a value that are kept; of a longer one its beginning and its digest."""


class Parts(NamedTuple):
    """`named`: "command", "ENV X", "mount /src"… → value. `files`: as `Copying.described` has them."""

    named: dict[str, str]
    files: list[tuple[str, str]]


def of(looked: Looked) -> Parts:
    step = looked.step
    if isinstance(step, plan.Directory):
        return Parts({"directory": step.path, "user": step.user}, [])
    if isinstance(step, plan.Copy):
        return _of_copy(looked, step)
    named = {
        "command": "\0".join(step.argv),
        "working directory": step.workdir,
        "user": step.user,
        "network": step.network,
    }
    declared = {each.partition("=")[0] for each in looked.stage.config.get("Env") or []}
    for key, value in step.env:
        kept = _digest(value) if sounds_secret(key) else value
        named[f"{'ENV' if key in declared else 'ARG'} {key}"] = kept
    for file in step.scripts:
        named[f"heredoc {file.name}"] = file.content
    for number, each in enumerate(step.mounts):
        name = f"mount {each.mount.target or each.mount.id}"
        named[name] = str(each.mount)
        bound = looked.bound.get(number)
        if bound is not None and each.mount.type == "bind":
            named[f"files of {name}"] = f"{bound.key} {bound.layers[-1] if bound.layers else ''}"
    return Parts({key: _short(value) for key, value in named.items()}, [])


def _of_copy(looked: Looked, step: plan.Copy) -> Parts:
    assert looked.copying is not None
    named = {"instruction": " ".join(step.place.text.split())}
    named.update((f"heredoc {file.name}", file.content) for file in step.files)
    named.update(
        (f"content of {without_login(one.url)}", key)
        for one, key in zip(step.remotes, looked.copying.fetched, strict=True)
    )
    return Parts({key: _short(value) for key, value in named.items()}, looked.copying.described)


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}… {_digest(value)}"


def _digest(value: str) -> str:
    return "sha256:" + hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()[:16]
