"""build."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from limpet.build.steps.runner import Runner
from limpet.cli import build_outputs, build_steps
from limpet.cli.building import progress_option
from limpet.cli.progress import progress
from limpet.cli.table import Command, Option
from limpet.errors import Exit, Invalid, NotFound
from limpet.kernel import signals

if TYPE_CHECKING:
    from limpet.build.build import Asked, Checked
    from limpet.build.reproducible.twice import Second
    from limpet.build.steps.stepmounts import Given
    from limpet.cli.table import Call


class _Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP: what runs is ended as by Ctrl-C."""

    number = 0


def _end(number: int, frame: object) -> None:
    error = _Ended()
    error.number = number
    raise error


def build(call: Call) -> int:
    for number in (signals.SIGTERM, signals.SIGHUP):
        signals.set_handler(number, _end)
    try:
        with ExitStack() as stack:
            return _build(call, stack)
    except _Ended as e:
        return 128 + e.number


def _build(call: Call, stack: ExitStack) -> int:
    # Before anything large is loaded: see `runner`.
    call.options["check"] = call["check"] or call["call"] == "check"
    if not (call["check"] or call["print"]):
        call.enter()
    runner = None if call["check"] or call["print"] else Runner()
    from limpet.build import build as builds
    from limpet.build.caching import specs
    from limpet.build.sources import named
    from limpet.cli.build_given import given
    from limpet.cli.building.choice import Shown, mode

    for path in (call["iidfile"], call["metadata-file"]):
        if path and not os.path.isdir(os.path.dirname(path) or "."):
            raise NotFound(f"{path}: there is no directory {os.path.dirname(path)}", "make it first")
    asked = builds.Asked(
        directory=call.arguments[0],
        file=call["file"],
        target=call["target"],
        arguments=_arguments(call["build-arg"]),
        platform=",".join(call["platform"]),
        contexts=named.parse(call["build-context"]),
        conditions=build_steps.conditions(call),
        pull=call["pull"],
    )
    if call["check"]:
        return _check(call, asked, stack)
    if call["debug-shell"]:
        from limpet.build.steps import debugshell

        debugshell.check_terminal()
    things = given(
        call["secret"],
        call["ssh"],
        call.store,
        stack,
        debug=call["debug-shell"],
        limits=asked.conditions.limits,
        parallel=call["parallel"],
    )
    if call["print"]:
        return _print(call, asked, things)
    wanted = build_outputs.wanted(call)
    second = None
    if call["check-reproducible"]:
        from limpet.build.reproducible.twice import Second

        second = Second()
    kind = "quiet" if call["quiet"] else call["progress"]
    if call["debug-shell"] and kind in ("", "auto", "tty"):
        kind = "plain"  # the terminal will be the shell's
    shown = mode(kind)
    explained: list[str] = []
    with Shown(call.store, shown, secrets=things.secrets.values(), profile=call["profile"], after=explained) as report:
        done = builds.build(
            call.store,
            asked,
            wanted,
            labels=dict(text.partition("=")[::2] for text in call["label"]),
            no_cache=call["no-cache"],
            caching=specs.caching(call["cache-from"], call["cache-to"], call["no-cache-filter"]),
            given=things,
            explain=explained.append if call["explain"] else None,
            second=second,
            runner=runner,
            report=report,
        )
    build_outputs.written(call, done)
    if wanted.is_image and not wanted.takes_standard_output:
        print(done.id)
    return _compared(call, second) if second is not None else 0


def _compared(call: Call, second: Second) -> int:
    """What the second build found, to standard error; exit code 1 if it is not the same."""
    from limpet.build.reproducible import report

    second.tidy(call.store)
    for line in report.lines(second):
        print(line, file=sys.stderr)
    return 0 if second.ok else 1


def _print(call: Call, asked: Asked, things: Given) -> int:
    from limpet.build import build as builds
    from limpet.build.planning import graph, plan

    with progress(quiet=call["quiet"]) as shown:
        made = builds.make_plan(call.store, asked, given=things, progress=shown)
    print(plan.to_json(made) if call["print"] == "plan" else graph.to_svg(made))
    return 0


def _check(call: Call, asked: Asked, stack: ExitStack) -> int:
    from limpet.build import build as builds
    from limpet.cli.build_given import given

    things = given(call["secret"], call["ssh"], call.store, stack)
    with progress(quiet=call["quiet"]) as shown:
        checked = builds.check(call.store, asked, given=things, progress=shown)
    return print_checked(checked)


def print_checked(checked: Checked) -> int:
    """Findings to standard output, each with what to do; exit code 1 if there are any and `error=true` is set."""
    for finding in checked.findings:
        print(f"{finding.text}\n  {finding.rule.name}: {finding.rule.advice}")
        if finding.rule.url:
            print(f"  {finding.rule.url}")
    if checked.error is not None:
        raise checked.error
    count = len(checked.findings)
    print(f"Check complete, {'no warnings' if not count else '1 warning' if count == 1 else f'{count} warnings'} found")
    if count and checked.is_error:
        raise Exit(1)
    return 0


def _arguments(texts: list[str]) -> dict[str, str]:
    """`--build-arg KEY=VALUE`; `--build-arg KEY` takes the caller's variable, and nothing if there is none."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key:
            raise Invalid(f"--build-arg {text}: a name is needed", "as in --build-arg VERSION=1.2")
        if equals:
            found[key] = value
        elif key in os.environ:
            found[key] = os.environ[key]
    return found


COMMANDS = {
    "build": Command(
        name="build",
        handler=build,
        usage="[OPTIONS] DIRECTORY | URL | -",
        summary="Build an image from a Dockerfile",
        options=(
            Option("build-arg", kind="list", metavar="KEY=VALUE", help="Value of an ARG"),
            Option(
                "build-context",
                kind="list",
                metavar="NAME=SOURCE",
                help="What a name means: a directory, a URL, docker-image://, oci-layout://",
            ),
            Option(
                "cache-from",
                kind="list",
                metavar="REF|type=…",
                help="Take steps from a cache, as in type=local,src=DIR",
            ),
            Option(
                "cache-to",
                kind="list",
                metavar="REF|type=…",
                help="Write a cache, as in type=registry,ref=REF,mode=max",
            ),
            Option(
                "call",
                kind="string",
                default="build",
                metavar="METHOD",
                help="build, or check: the same as --check",
                choices=("build", "check"),
            ),
            Option("check", help="Only check how the Dockerfile is written"),
            Option("check-reproducible", help="Build twice and show what differs"),
            Option("debug-shell", help="Open a shell in a RUN that fails"),
            Option("explain", help="Say why each step was cached or not"),
            Option(
                "file",
                "f",
                kind="string",
                default="",
                metavar="FILE",
                help="The Dockerfile: in a context that is fetched a path of it; a URL; - for stdin",
            ),
            Option("label", kind="list", metavar="KEY=VALUE", help="Set a label"),
            *build_outputs.OPTIONS,
            *build_steps.OPTIONS,
            Option("no-cache", help="Run every step again"),
            Option("no-cache-filter", kind="list", metavar="STAGE", help="Run the steps of these stages again"),
            Option(
                "parallel", kind="int", default=0, metavar="N", help="Steps at once (as many as processors, 4 at least)"
            ),
            Option("platform", kind="list", metavar="OS/ARCH[,…]", help="Platform of the image; an index of several"),
            Option(
                "print",
                kind="string",
                default="",
                choices=("plan", "graph"),
                metavar="plan|graph",
                help="Print the plan: JSON, SVG",
            ),
            Option(
                "profile",
                kind="list",
                metavar="FILE.svg|FILE.json",
                help="Write where the time went: a picture, trace events",
            ),
            progress_option("How the build shows itself: auto, plain, tty, quiet, rawjson (BUILDKIT_PROGRESS)"),
            Option("quiet", "q", help="Print only the image's id (--progress=quiet)"),
            Option("secret", kind="list", metavar="id=NAME,src=FILE", help="A secret for RUN --mount=type=secret"),
            Option(
                "ssh",
                kind="list",
                metavar="NAME[=SOCKET|KEY]",
                help="An ssh agent, or keys, for --mount=type=ssh and git",
            ),
            Option("target", kind="string", default="", metavar="STAGE", help="Stage to build, instead of the last"),
        ),
        examples=(
            "limpet build -t web .",
            "limpet build -f docker/Dockerfile -t web:1 --build-arg VERSION=2 .",
            "limpet build --check .",
            "limpet build -t web https://git.example.org/web.git#main:docker",
            "tar c . | limpet build -t web -",
            "limpet build --build-context lib=../lib --build-context alpine=docker-image://alpine:3.20 .",
            "limpet build --network none --memory 2g --cpus 1.5 .",
            "limpet build --progress=plain --profile build.svg -t web .",
            "limpet build --check-reproducible -t web .",
            "limpet build --explain -t web .",
            "limpet build --debug-shell .",
            "limpet build --sbom --provenance=mode=max --push -t registry.example/web .",
            "limpet build --cache-from HOST/app:cache --cache-to type=registry,ref=HOST/app:cache,mode=max .",
            "limpet build -o out .",
            "limpet build -o type=oci,dest=app.tar -t registry.example/app:1 --push .",
        ),
        min_args=1,
        max_args=1,
        complete="file",
    ),
}
