"""bake: the targets of a definition, built one after another."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from limpet.build.steps.runner import Runner
from limpet.cli import output
from limpet.cli.building import progress_option
from limpet.cli.progress import progress
from limpet.cli.table import Command, Option
from limpet.errors import Exit, Invalid, LimpetError

if TYPE_CHECKING:
    from limpet.build.bake.definition import Definition
    from limpet.build.bake.run import Request
    from limpet.build.bake.selection import Selected
    from limpet.build.build import Asked
    from limpet.build.outputs.deliver import Delivered
    from limpet.build.steps.conditions import Conditions
    from limpet.build.steps.stepmounts import Given
    from limpet.cli.table import Call

_LISTS = ("targets", "variables")


def bake(call: Call) -> int:
    from limpet.build.bake import files, overrides, selection, show
    from limpet.build.bake.run import request

    variables = _variables(call["var"])
    defined = files.read(files.chosen(call["file"]), variables)
    if call["list"] is not None:
        return _list(defined, _what(call))
    changes = overrides.parse([*call["set"], *_shorthands(call)], os.environ)
    selected = selection.select(defined, call.arguments, changes)
    if call["print"]:
        print(show.to_json(selected))
        return 0
    requests = {name: request(name, selected.targets[name]) for name in selected.ordered()}
    return _Baking(call, selected, requests).run()


def _variables(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or (not equals and name not in os.environ):
            raise Invalid(f"--var {text}: it has no value", "as in --var VERSION=2", exit_code=1)
        found[name] = value if equals else os.environ[name]
    return found


def _shorthands(call: Call) -> list[str]:
    from limpet.build.bake.compose import attestation_text

    found = [f"*.{key}=true" for key in ("push", "load", "no-cache", "pull") if call[key]]
    if call["check"]:
        found.append("*.call=check")
    asked = [key for key in ("provenance", "sbom") if call[key]]
    return found + [f"*.attest={attestation_text(key, call[key])}" for key in asked]


def _what(call: Call) -> str:
    """The value of `--list`, which people write as the next word, too: `--list variables`."""
    words = [each for each in (call["list"], *call.arguments) if each]
    if len(words) > 1:
        raise Invalid(f"--list {words[0]}: it takes no target, and {words[1]} is one", "leave it out", exit_code=1)
    return words[0] if words else "targets"


def _list(defined: Definition, text: str) -> int:
    """`targets`, `variables`, or `type=…,format=json`."""
    from limpet.build.bake import fields, show

    try:
        wanted = fields.csv_fields(text) if "=" in text else {"type": text}
    except ValueError as e:
        raise Invalid(f"--list {text}: {e}", exit_code=1) from None
    if wanted.get("type") not in _LISTS or wanted.get("format", "table") not in ("table", "json"):
        raise Invalid(f"--list {text}", "targets, variables, or type=targets,format=json", exit_code=1)
    rows: list[dict[str, Any]] = [*show.targets(defined)]
    headers = [("TARGET", "name"), ("DESCRIPTION", "description")]
    if wanted["type"] == "variables":
        rows = [*show.variables(defined)]
        headers = [("VARIABLE", "name"), ("TYPE", "type"), ("VALUE", "value"), ("DESCRIPTION", "description")]
    if wanted.get("format") == "json":
        print(json.dumps([{key: value for key, value in row.items() if value} for row in rows], indent=2))
        return 0
    cells = [["<null>" if row[key] is None else str(row[key]) for _, key in headers] for row in rows]
    output.say(output.table([title for title, _ in headers], cells))
    return 0


class _Baking:
    def __init__(self, call: Call, selected: Selected, requests: dict[str, Request]) -> None:
        from limpet.cli.building.choice import mode

        self._call = call
        self._selected = selected
        self._requests = requests
        self._done: dict[str, Delivered] = {}
        self._stack = ExitStack()
        self._mode = mode("quiet" if call["quiet"] else call["progress"])

    def run(self) -> int:
        code = 0
        self._call.enter()
        runner = Runner() if len(self._requests) == 1 else None
        try:
            for request in self._requests.values():
                code |= self._one(request, runner)
        finally:
            self._stack.close()
            self._tidy()
        if self._call["metadata-file"]:
            self._write_metadata(self._call["metadata-file"])
        return code

    def _one(self, request: Request, runner: Runner | None) -> int:
        from limpet.build import build as builds
        from limpet.build.caching import specs
        from limpet.build.outputs import grammar
        from limpet.cli.build_given import given
        from limpet.cli.building.choice import Shown

        if self._mode in ("plain", "tty"):
            print(f"{request.name}:", file=sys.stderr, flush=True)
        file = self._inline(request) if request.inline else request.file
        try:
            asked = builds.Asked(
                directory=request.directory,
                file=file,
                target=request.target,
                arguments=request.arguments,
                platform=request.platform,
                contexts={name: self._context(source) for name, source in request.contexts.items()},
                conditions=self._conditions(request),
                pull=request.pull,
            )
            secrets, agents = list(request.secrets), list(request.agents)
            handed = given(secrets, agents, self._call.store, self._stack, limits=asked.conditions.limits)
            if request.check:
                return self._check(asked, handed)
            is_kept = not request.cache_only
            wanted = grammar.wanted(
                request.tags if is_kept else (), request.outputs if is_kept else (), request.annotations
            )
            wanted = replace(wanted, attests=request.attests)
            caching = specs.caching(request.cache_from, request.cache_to, request.skip)
            with Shown(self._call.store, self._mode, secrets=handed.secrets.values()) as report:
                done = builds.build(
                    self._call.store,
                    asked,
                    wanted,
                    labels=request.labels,
                    no_cache=request.no_cache,
                    caching=caching,
                    given=handed,
                    runner=runner,
                    report=report,
                )
        except LimpetError as e:
            e.message = f"target {request.name}: {e.message.removeprefix(f'target {request.name}: ')}"
            raise
        finally:
            if request.inline:
                os.unlink(file)
        self._done[request.name] = done
        if request.name not in self._selected.linked and done.id:
            print(f"{request.name}  {done.id}", flush=True)
        return 0

    def _conditions(self, request: Request) -> Conditions:
        from limpet.build.bake.run import rights
        from limpet.cli import build_steps

        return build_steps.checked(
            network=request.network,
            shm_size=request.shm_size,
            ulimits=request.ulimits,
            hosts=request.hosts,
            limits=build_steps.limits(request.resources.get),
            allowed=rights(request, self._call["allow"]),
        )

    def _check(self, asked: Asked, handed: Given) -> int:
        from limpet.build import build as builds
        from limpet.cli.build import print_checked

        try:
            with progress(quiet=self._mode == "quiet") as shown:
                checked = builds.check(self._call.store, asked, given=handed, progress=shown)
            return print_checked(checked)
        except Exit as e:
            return e.code

    def _inline(self, request: Request) -> str:
        """The Dockerfile's text as a file; the caller removes it."""
        path = f"{self._call.store.temporary('bake')}.Dockerfile"
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(request.inline)
        return path

    def _context(self, source: str) -> str:
        """`target:NAME` is the image that was built of it."""
        from limpet.build.bake.selection import LINK

        if not source.startswith(LINK):
            return source
        name = source.removeprefix(LINK)
        kept = self._done[name].kept
        if not kept:
            raise Invalid(
                f"the target {name} leaves no image to build from", "give it no output, or type=docker", exit_code=1
            )
        return f"docker-image://{kept}"

    def _tidy(self) -> None:
        """Images that were only made for others go again; their steps stay in the cache."""
        from limpet.build.caching import usage

        for name, done in self._done.items():
            if self._requests[name].cache_only and done.kept:
                usage.forget_image(self._call.store, done.kept)

    def _write_metadata(self, path: str) -> None:
        from limpet.images.save import to_file

        found = {name: done.metadata for name, done in self._done.items() if name not in self._selected.linked}
        data = json.dumps(found, indent=2, sort_keys=True).encode() + b"\n"
        to_file(path, lambda file: file.write(data), mode=0o644)


COMMANDS = {
    "bake": Command(
        name="bake",
        handler=bake,
        usage="[OPTIONS] [TARGET…]",
        summary="Build the targets of docker-bake.hcl or a Compose file",
        options=(
            Option(
                "allow", kind="list", metavar="RIGHT", help="Give targets a right that they want: security.insecure, …"
            ),
            Option("check", help="Only check how the Dockerfiles are written"),
            Option("file", "f", kind="list", metavar="FILE", help="A definition: HCL, JSON, Compose; - for stdin"),
            Option(
                "list",
                kind="optional",
                metavar="targets|variables",
                help="List what the files define, and build nothing",
                offers=("targets", "variables"),
            ),
            Option("load", help="Keep the images in the store, too"),
            Option("metadata-file", kind="string", default="", metavar="FILE", help="Write digests and names, as JSON"),
            Option("no-cache", help="Run every step again"),
            Option("print", help="Print the targets as JSON, and build nothing"),
            progress_option("How the builds show themselves: auto, plain, tty, quiet, rawjson (BUILDKIT_PROGRESS)"),
            Option(
                "provenance",
                kind="string",
                default="",
                metavar="MODE",
                help="Short for --set '*.attest=type=provenance'",
            ),
            Option("pull", help="Short for --set '*.pull=true'"),
            Option("push", help="Push the images under their tags"),
            Option("quiet", "q", help="Print only the images' ids"),
            Option("sbom", kind="string", default="", metavar="MODE", help="Short for --set '*.attest=type=sbom'"),
            Option("set", kind="list", metavar="TARGET.KEY=VALUE", help="Set an attribute; TARGET may be a pattern"),
            Option("var", kind="list", metavar="NAME=VALUE", help="Value of a variable"),
        ),
        examples=(
            "limpet bake",
            "limpet bake --print app",
            "limpet bake -f docker-bake.hcl --set '*.args.VERSION=2' --push release",
        ),
        complete="",
    ),
}
