"""How an image was built: a SLSA provenance predicate, v1 or v0.2, with BuildKit's fields
(BuildKit docs/attestations/slsa-definitions.md).

`mode=min` says from what and when; `max` also the Dockerfile, the arguments, the steps, and by name which secrets were
asked for. A secret's content is never known here; the value of an argument or a variable whose name sounds like one is
left out, and so is the password of an address.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from limpet.build.attest.statement import SLSA_02, SLSA_1, Attestation, purl
from limpet.build.planning import plan as plans
from limpet.build.planning.copyplan import without_login
from limpet.build.planning.stageplan import sounds_secret
from limpet.errors import LimpetError
from limpet.oci import platform as platforms
from limpet.oci import reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from limpet.build.attest.request import Provenance
    from limpet.build.planning.plan import Plan, Stage, Step
    from limpet.store.store import Store

_TYPE_1 = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
_TYPE_02 = "https://mobyproject.org/buildkit@v1"
HIDDEN = "***"


@dataclass(frozen=True)
class Facts:
    """Of one build. `path` and `source`: the Dockerfile's; `context`: an address, "" for a directory.

    `fetched`: of what ADD fetched, the address → (algorithm, hex digits). Times in Unix seconds.
    """

    path: str
    source: str
    context: str = ""
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    fetched: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    epoch: int = 0
    started: float = 0.0
    finished: float = 0.0


def attestation(store: Store, asked: Provenance, made: Plan, target: Stage, facts: Facts) -> Attestation:
    """`target`: the stage that became the image."""
    told = _Told(store, asked, made, target, facts)
    kind, predicate = (SLSA_1, told.v1()) if asked.version == "v1" else (SLSA_02, told.v02())
    return Attestation(kind, predicate, "" if asked.inline_only else asked.filename)


class _Told:
    def __init__(self, store: Store, asked: Provenance, made: Plan, target: Stage, facts: Facts) -> None:
        self._store = store
        self._asked = asked
        self._made = made
        self._facts = facts
        self._max = asked.mode == "max"
        self._stages = _needed(made, target)
        self._materials = list(self._dependencies())
        self._request = self._made_request()

    def v1(self) -> dict[str, Any]:
        internal: dict[str, Any] = {"builderPlatform": str(platforms.host())}
        if self._max:
            internal["buildConfig"] = {"llbDefinition": self._steps()[0]}
        return {
            "buildDefinition": {
                "buildType": _TYPE_1,
                "externalParameters": {"configSource": self._source("path"), "request": self._request},
                "internalParameters": internal,
                "resolvedDependencies": self._materials,
            },
            "runDetails": {
                "builder": {"id": self._asked.builder_id},
                "metadata": {
                    "invocationId": self._invocation(),
                    **dict(zip(("startedOn", "finishedOn"), self._times(), strict=True)),
                    "buildkit_metadata": self._metadata(),
                    "buildkit_hermetic": self._hermetic(),
                    "buildkit_completeness": {"request": self._max, "resolvedDependencies": False},
                    "buildkit_reproducible": self._asked.reproducible,
                },
            },
        }

    def v02(self) -> dict[str, Any]:
        return {
            "builder": {"id": self._asked.builder_id},
            "buildType": _TYPE_02,
            "materials": self._materials,
            "invocation": {
                "configSource": self._source("entryPoint"),
                "parameters": self._request,
                "environment": {"platform": str(platforms.host())},
            },
            **({"buildConfig": {"llbDefinition": self._steps()[0]}} if self._max else {}),
            "metadata": {
                "buildInvocationID": self._invocation(),
                **dict(zip(("buildStartedOn", "buildFinishedOn"), self._times(), strict=True)),
                "completeness": {"parameters": self._max, "environment": True, "materials": False},
                "reproducible": self._asked.reproducible,
                f"{_TYPE_02}#hermetic": self._hermetic(),
                f"{_TYPE_02}#metadata": self._metadata(),
            },
        }

    def _times(self) -> tuple[str, str]:
        """The image's own time, if the statement is to be the same each time."""
        if self._asked.reproducible:
            return _time(self._facts.epoch), _time(self._facts.epoch)
        return _time(self._facts.started), _time(self._facts.finished)

    def _invocation(self) -> str:
        """One for all images of a build."""
        what = [self._facts.path, self._facts.source, self._request, self._times()]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:25]

    def _source(self, key: str) -> dict[str, Any]:
        uri = {"uri": without_login(self._facts.context)} if self._facts.context else {}
        return {**uri, key: self._facts.path}

    def _made_request(self) -> dict[str, Any]:
        facts = self._facts
        found: dict[str, Any] = {"frontend": "dockerfile.v0", "args": {}}
        if not facts.context:
            found["locals"] = [{"name": "context"}, {"name": "dockerfile"}]
        if not self._max:
            return found
        args = {f"build-arg:{key}": _open(key, value) for key, value in facts.arguments.items()}
        args |= {f"label:{key}": _open(key, value) for key, value in facts.labels.items()}
        if facts.target:
            args["target"] = facts.target
        found["args"] = dict(sorted(args.items()))
        for kind, name in (("secret", "secrets"), ("ssh", "ssh")):
            wanted = {
                (each.mount.id or each.mount.source or each.mount.target.rpartition("/")[2] or "default"):
                not each.mount.required
                for step in self._all() if isinstance(step, plans.Run)
                for each in step.mounts if each.mount.type == kind
            }  # fmt: skip
            found[name] = [{"id": key, "optional": optional} for key, optional in sorted(wanted.items())]
        return found

    def _all(self) -> Iterator[Step]:
        return (step for stage in self._stages for step in stage.steps)

    def _dependencies(self) -> Iterator[dict[str, Any]]:
        """Images, and what is fetched, each once."""
        seen: set[str] = set()
        for uri, digest in self._origins():
            if uri not in seen:
                seen.add(uri)
                yield {"uri": uri, **({"digest": dict([digest])} if digest else {})}

    def _origins(self) -> Iterator[tuple[str, tuple[str, str] | None]]:
        for stage in self._stages:
            origins = [(stage.base, stage.platform)]
            for step in stage.steps:
                if isinstance(step, plans.Copy):
                    origins.append((step.origin, self._made.platform))
                    for remote in step.remotes:
                        kind, _, digits = remote.checksum.partition(":")
                        known = self._facts.fetched.get(remote.url) or ((kind, digits) if digits else None)
                        yield without_login(remote.url), known
                elif isinstance(step, plans.Run):
                    origins += [(each.origin, self._made.platform) for each in step.mounts]
            for origin, platform in origins:
                if origin.kind == "image":
                    yield self._image(origin, platform)

    def _image(self, origin: plans.Origin, platform: str) -> tuple[str, tuple[str, str]]:
        """By the digest that the registry has for it; of one that came from nowhere, its id."""
        where = platforms.parse(platform) if platform else platforms.host()
        digest = origin.id
        try:
            name = reference.parse(origin.image)
            uri = purl(name, where)
            row = self._store.db.row(
                "SELECT coalesce(index_digest, manifest) FROM name WHERE reference = ?", name.canonical
            )
            digest = (row[0] if row is not None else None) or digest
        except LimpetError:
            uri = f"pkg:docker/{origin.image}"
        kind, _, digits = digest.partition(":")
        return uri, (kind, digits)

    def _hermetic(self) -> bool:
        return all(step.network == "none" for step in self._all() if isinstance(step, plans.Run))

    def _metadata(self) -> dict[str, Any]:
        if not self._max:
            return {}
        data = base64.b64encode(self._facts.source.encode(errors="surrogateescape")).decode()
        info = {"filename": self._facts.path, "language": "Dockerfile", "data": data}
        locations = {
            identity: {"locations": [{"ranges": [{"start": {"line": line}, "end": {"line": line}}]}]}
            for identity, line in self._steps()[1].items()
        }
        return {"source": {"locations": locations, "infos": [info]}}

    def _steps(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """The steps as a graph, and each one's line in the Dockerfile."""
        found: list[dict[str, Any]] = []
        lines: dict[str, int] = {}
        last: dict[int, str] = {}  # a stage's number → its last step

        def add(op: dict[str, Any], inputs: Sequence[str], line: int = 0) -> str:
            identity = f"step{len(found)}"
            found.append(
                {"id": identity, "op": {"Op": op}, **({"inputs": [f"{one}:0" for one in inputs]} if inputs else {})}
            )
            if line:
                lines[identity] = line
            return identity

        def of(origin: plans.Origin) -> list[str]:
            if origin.kind == "stage":
                return [last[origin.stage]] if origin.stage in last else []
            if origin.kind == "image":
                return [add({"source": {"identifier": f"docker-image://{origin.image}"}}, [])]
            return [add({"source": {"identifier": "local://context"}}, [])] if origin.kind == "context" else []

        for stage in self._stages:
            before = of(stage.base)
            for step in stage.steps:
                if isinstance(step, plans.Note):
                    continue
                op, origins = _operation(step)
                inputs = [*before, *(one for origin in origins for one in of(origin))]
                before = [add(op, inputs, step.place.line)]
            if before:
                last[stage.number] = before[0]
        return found, lines


def _operation(step: Step) -> tuple[dict[str, Any], list[plans.Origin]]:
    if isinstance(step, plans.Run):
        meta: dict[str, Any] = {
            "args": list(step.argv),
            "env": [f"{key}={_open(key, value)}" for key, value in step.env],
            "cwd": step.workdir,
            **({"user": step.user} if step.user else {}),
        }
        mounts = [{"type": each.mount.type, "dest": each.mount.target or each.mount.id} for each in step.mounts]
        origins = [each.origin for each in step.mounts if each.origin.kind != "scratch"]
        return {"exec": {"meta": meta, **({"mounts": mounts} if mounts else {}), "network": step.network}}, origins
    if isinstance(step, plans.Copy):
        sources = [*step.sources, *(without_login(one.url) for one in step.remotes), *(one.name for one in step.files)]
        action = {"copy": {"src": sources, "dest": step.target}}
        return {"file": {"actions": [action]}}, [step.origin] if step.sources else []
    assert isinstance(step, plans.Directory)
    return {"file": {"actions": [{"mkdir": {"path": step.path}}]}}, []


def _needed(made: Plan, target: Stage) -> list[Stage]:
    """The stages that one of several targets stands on, in the plan's order."""
    wanted, todo = set(), [target.number]
    while todo:
        number = todo.pop()
        if number in wanted:
            continue
        wanted.add(number)
        stage = made.stage(number)
        origins = [stage.base]
        for step in stage.steps:
            if isinstance(step, plans.Copy):
                origins.append(step.origin)
            elif isinstance(step, plans.Run):
                origins += [each.origin for each in step.mounts]
        todo += [origin.stage for origin in origins if origin.kind == "stage"]
    return [stage for stage in made.stages if stage.number in wanted]


def _open(key: str, value: str) -> str:
    return HIDDEN if sounds_secret(key) else without_login(value)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
