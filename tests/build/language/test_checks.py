"""The build checks: each of Docker's rules finds what it should and nothing else; how they are switched off."""

from __future__ import annotations

from typing import Any

import pytest

from limpet.build.language import ignore, notes
from limpet.build.language.checks import check_program
from limpet.build.language.dockerfile import parse
from limpet.build.language.notes import RULES, Notes, Options
from limpet.build.language.program import program
from limpet.build.planning import planner
from limpet.build.planning.planner import Base


def findings(text: str, *, ignored: str = "", experimental: str = "", known: bool = True) -> list[tuple[str, str]]:
    """(rule, message with its place), as `--check` gives them."""
    read = program(parse(text))
    collected = Notes(frozenset(), frozenset([experimental]))
    check_program(read, collected)

    def bases(name: str, platform: str) -> Base | None:
        inner: dict[str, Any] = {"Env": ["PATH=/bin", "BASE_DIR=/srv"]}
        return Base("sha256:x", {"os": "linux", "architecture": "s390x", "config": inner}) if known else None

    planner.make(read, bases, notes=collected, ignored=ignore.parse(ignored), every_stage=True)
    return [(each.rule.name, each.text.partition(" >>> ")[0]) for each in collected.findings]


def names(text: str, **options: Any) -> list[str]:
    return [name for name, _ in findings(text, **options) if name != "InvalidBaseImagePlatform"]


CASES = {
    "StageNameCasing": ("FROM a AS Build", "FROM a AS build"),
    "FromAsCasing": ("FROM a as build", "from a as build"),
    "NoEmptyContinuation": ("FROM a\nRUN x \\\n\n y", "FROM a\nRUN x \\\n# c\n y"),
    "ConsistentInstructionCasing": ("FROM a\nRun x", "from a\nrun x"),
    "DuplicateStageName": ("FROM a AS b\nFROM a AS b", "FROM a AS b\nFROM a AS c"),
    "ReservedStageName": ("FROM a AS scratch", "FROM a AS scratched"),
    "JSONArgsRecommended": ("FROM a\nCMD x", 'FROM a\nSHELL ["/bin/bash", "-c"]\nCMD x\nENTRYPOINT ["y"]'),
    "MaintainerDeprecated": ("FROM a\nMAINTAINER me", "FROM a\nLABEL maintainer=me"),
    "UndefinedArgInFrom": ("ARG VERSION=1\nFROM a:${VERSON:-1}", "ARG V=1\nFROM --platform=$BUILDPLATFORM a:$V"),
    "WorkdirRelativePath": ("FROM a\nWORKDIR x", "FROM a\nWORKDIR /x\nWORKDIR y"),
    "UndefinedVar": ("FROM a\nCOPY $BASE_DIRR .", "FROM a\nARG X\nCOPY $BASE_DIR$X .\nRUN echo $ANY"),
    "MultipleInstructionsDisallowed": ('FROM a\nCMD ["x"]\nCMD ["y"]', 'FROM a\nCMD ["x"]\nFROM a\nCMD ["y"]'),
    "LegacyKeyValueFormat": ("FROM a\nENV x y", "FROM a\nENV x=y"),
    "RedundantTargetPlatform": ("FROM --platform=$TARGETPLATFORM a", "FROM --platform=$BUILDPLATFORM a"),
    "SecretsUsedInArgOrEnv": ("FROM a\nARG NPM_TOKEN", "FROM a\nARG TOKENIZER\nENV PUBLIC_KEY=x TOKEN_FILE=y"),
    "InvalidDefaultArgInFrom": ("ARG TAG\nFROM a:${TAG}", "ARG TAG=latest\nFROM a:${TAG}"),
    "FromPlatformFlagConstDisallowed": (
        "FROM --platform=linux/s390x a",
        "FROM --platform=linux/s390x a AS build_s390x",
    ),
    "ExposeProtoCasing": ("FROM a\nEXPOSE 80/TcP", "FROM a\nEXPOSE 80/tcp"),
    "ExposeInvalidFormat": ("FROM a\nEXPOSE 127.0.0.1:80:80", "FROM a\nEXPOSE 80"),
}


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_finds_what_it_is_for_and_nothing_in_the_better_way(rule: str) -> None:
    bad, good = CASES[rule]
    assert names(bad) == [rule]
    assert names(good) == []


def test_every_rule_of_docker_is_there() -> None:
    others = {"CopyIgnoredFile", "InvalidBaseImagePlatform", "InvalidDefinitionDescription"}
    ours = {"UnknownSyntax"}
    assert RULES.keys() == CASES.keys() | others | ours
    urls = {rule.name: rule.url for rule in RULES.values() if rule.name not in ours}
    assert all(url.startswith("https://docs.docker.com/go/dockerfile/rule/") for url in urls.values())
    assert all(rule.advice for rule in RULES.values())


def test_what_ignored_files_are_copied() -> None:
    assert names("FROM a\nCOPY x/y .\nADD z .", ignored="x\n") == ["CopyIgnoredFile"]
    assert names("FROM a\nCOPY . .", ignored="x\n") == []
    assert names("FROM a\nCOPY . .", ignored="*\n") == ["CopyIgnoredFile"]
    assert names("FROM a\nCOPY x/y .", ignored="x\n!x/y\n") == []


def test_a_base_for_another_platform() -> None:
    found = findings("FROM --platform=linux/amd64 a AS amd64\nRUN x")
    assert found == [
        (
            "InvalidBaseImagePlatform",
            'Dockerfile:1:29: Base image a was pulled with platform "linux/s390x", expected "linux/amd64" '
            "for current build",
        )
    ]


def test_descriptions_are_looked_at_only_if_wanted() -> None:
    text = "# what is this\nARG A=1\n\n# builds it\nFROM a AS base\n# A is it\nARG A\n# other\n\nARG B\n"
    assert names(text) == []
    rule = "InvalidDefinitionDescription"
    assert findings(text, experimental=rule)[:2] == [
        (
            "InvalidDefinitionDescription",
            "Dockerfile:1:1: Comment for ARG should follow the format: `# A <description>`",
        ),
        (
            "InvalidDefinitionDescription",
            "Dockerfile:4:1: Comment for FROM should follow the format: `# base <description>`",
        ),
    ]


def test_a_syntax_that_is_none_of_docker_s() -> None:
    assert findings("# syntax=some/thing:2\nFROM a", known=False) == [
        (
            "UnknownSyntax",
            "Dockerfile:1:1: the syntax some/thing:2 is not known, the file is read as docker/dockerfile:1",
        )
    ]
    for known in ("docker/dockerfile:1", "docker/dockerfile:1.7-labs", "docker.io/docker/dockerfile@sha256:00 x"):
        assert names(f"# syntax={known}\nFROM a") == []


def test_near_names_and_places() -> None:
    assert findings("FROM a\nARG VERSION=1\nLABEL a=1 \\\n  b=$VERSIO", known=False) == []
    found = findings("FROM a\nARG VERSION=1\nLABEL a=1 \\\n  b=$VERSIO")
    assert ("UndefinedVar", "Dockerfile:4:5: Usage of undefined variable '$VERSIO' (did you mean $VERSION?)") in found


def test_switching_rules_off() -> None:
    text = "# check=skip=JSONArgsRecommended, StageNameCasing;error=true\nFROM a\n"
    directive = parse(text).directive("check")
    assert directive
    assert notes.options(directive.value) == Options(
        frozenset({"JSONArgsRecommended", "StageNameCasing"}), frozenset(), error=True
    )
    assert notes.options("experimental=all").experimental == {"all"}
    for wrong in ("skp=x", "skip", "error=maybe"):
        with pytest.raises(ValueError, match="invalid check option"):
            notes.options(wrong)


def test_a_comment_switches_rules_off_for_what_is_below_it() -> None:
    assert names("FROM a\n# check=skip=JSONArgsRecommended\nCMD x\nENTRYPOINT y") == ["JSONArgsRecommended"]
    assert names("FROM a\n# check=skip=all\nCMD x") == []
