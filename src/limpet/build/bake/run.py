"""A target as a build: which options of `limpet build` its attributes are (docker/buildx bake.go, `toBuildOpt`)."""

from __future__ import annotations

import csv
import io
import os
import posixpath
from typing import TYPE_CHECKING, Any

from limpet.build.attest import request as attesting
from limpet.build.bake.hcl import values
from limpet.build.bake.selection import LINK
from limpet.build.sources import contexts
from limpet.errors import Invalid, Refused
from limpet.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from limpet.build.attest.request import Attests
    from limpet.build.bake.fields import Attributes

CWD = "cwd://"


@dataclass(frozen=True, slots=True)
class Request:
    """One build, in the words of the command line: `outputs`, `secrets` and the like are lines of CSV.

    `contexts`: name → source; one that is a target is `target:NAME` still. `inline` is the Dockerfile's own text.
    `cache_only`: nothing is to be left but the cache.
    """

    name: str
    directory: str
    file: str
    inline: str
    target: str
    arguments: Mapping[str, str]
    contexts: Mapping[str, str]
    platform: str
    labels: Mapping[str, str]
    tags: tuple[str, ...]
    outputs: tuple[str, ...]
    annotations: tuple[str, ...]
    cache_from: tuple[str, ...]
    cache_to: tuple[str, ...]
    no_cache: bool
    skip: tuple[str, ...]
    secrets: tuple[str, ...]
    agents: tuple[str, ...]
    check: bool
    cache_only: bool
    pull: bool
    network: str
    shm_size: str
    ulimits: tuple[str, ...]
    hosts: tuple[str, ...]
    resources: Mapping[str, str]
    rights: tuple[str, ...]
    attests: Attests


def request(name: str, found: Attributes) -> Request:
    """Raises Invalid for what a build of ours has not, by name."""
    directory, file = _place(name, found)
    if found.get("call") not in (None, "", "build", "check"):
        raise _wrong(name, f"call={found['call']} is not supported yet", "build and check are")
    contexts_of = {key: _source(value) for key, value in (found.get("contexts") or {}).items()}
    return Request(
        name=name,
        directory=directory,
        file=file,
        inline=found.get("dockerfile-inline") or "",
        target=found.get("target") or "",
        arguments=found.get("args") or {},
        contexts=contexts_of,
        platform=",".join(found.get("platforms") or []),
        labels=found.get("labels") or {},
        tags=tuple(found.get("tags") or ()),
        outputs=tuple(line(each) for each in found.get("output") or () if each.get("type") != "cacheonly"),
        annotations=tuple(found.get("annotations") or ()),
        cache_from=tuple(map(line, found.get("cache-from") or ())),
        cache_to=tuple(map(line, found.get("cache-to") or ())),
        no_cache=bool(found.get("no-cache")),
        skip=tuple(found.get("no-cache-filter") or ()),
        secrets=tuple(map(line, found.get("secret") or ())),
        agents=tuple(map(_agent, found.get("ssh") or ())),
        check=found.get("call") == "check",
        cache_only=any(each.get("type") == "cacheonly" for each in found.get("output") or ()),
        pull=bool(found.get("pull")),
        network=found.get("network") or "",
        shm_size=found.get("shm-size") or "",
        ulimits=tuple(found.get("ulimits") or ()),
        hosts=tuple(f"{host}:{address}" for host, address in sorted((found.get("extra-hosts") or {}).items())),
        resources=found.get("resources") or {},
        rights=tuple(found.get("entitlements") or ()),
        attests=attesting.attests([line(each) for each in found.get("attest") or ()], None, None),
    )


def rights(wanted: Request, allowed: Sequence[str]) -> list[str]:
    """What the steps of a target may: what it asks for, if the command line allows it. Raises Refused.

    The host's network is every step's. `fs` and `fs.read` are not asked for: a build reads what its user may.
    """
    for right in wanted.rights:
        if right not in (*allowed, "network.host"):
            raise Refused(f"target {wanted.name}: it wants {right}", f"allow it: --allow {right}", exit_code=1)
    return [right for right in wanted.rights if right != "network.host"]


def line(entry: Mapping[str, Any]) -> str:
    """An entry as the command line has it: `type=local,dest=out`."""
    out = io.StringIO()
    order = sorted(entry, key=lambda key: (key != "type", key))
    texts = [f"{key}={values.text(entry[key])}" for key in order]
    csv.writer(out, lineterminator="").writerow(texts)
    return out.getvalue()


def _agent(entry: Mapping[str, Any]) -> str:
    paths: Sequence[str] = entry.get("paths") or ()
    return f"{entry.get('id') or 'default'}={paths[0]}" if paths else str(entry.get("id") or "default")


def _place(name: str, found: Attributes) -> tuple[str, str]:
    """(context, Dockerfile): a relative Dockerfile is in its context, `cwd://` in the working directory."""
    directory, file = str(found["context"]), str(found["dockerfile"])
    if "-" in (directory, file):
        raise _wrong(name, "standard input is no context and no Dockerfile of a target")
    directory = _source(directory)
    if file.startswith(CWD):
        return directory, os.path.abspath(file.removeprefix(CWD) or ".")
    if contexts.is_remote(directory) or os.path.isabs(file):
        return directory, file
    return directory, posixpath.join(directory, file)


def _source(text: str) -> str:
    if text.startswith(CWD):
        return posixpath.normpath(text.removeprefix(CWD) or ".")
    return text if text.startswith(LINK) or "://" in text or contexts.is_remote(text) else posixpath.normpath(text)


def _wrong(name: str, message: str, hint: str = "") -> Invalid:
    return Invalid(f"target {name}: {message}", hint, exit_code=1)
