"""What is allowed and still worth a word: the build checks. The rules, and a finding of one.

Names, texts and addresses of the rules are Docker's (docs.docker.com, "Build checks"); `advice` is what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.build.language.dockerfile import where
from limpet.frozen import dataclass

if TYPE_CHECKING:
    from limpet.build.language.dockerfile import Instruction
    from limpet.build.language.lines import Word

_BASE = "https://docs.docker.com/go/dockerfile/rule/"


@dataclass(frozen=True, slots=True)
class Rule:
    """`slug` is the end of its address; "" for a rule that is ours. `experimental` ones are off unless asked for."""

    name: str
    slug: str
    description: str
    advice: str
    experimental: bool = False

    @property
    def url(self) -> str:
        return f"{_BASE}{self.slug}/" if self.slug else ""


@dataclass(frozen=True, slots=True)
class Finding:
    """`text` is `path:line:column: message >>> source line`."""

    rule: Rule
    message: str
    text: str
    line: int
    column: int
    end_line: int


RULES = {
    rule.name: rule
    for rule in (
        Rule("StageNameCasing", "stage-name-casing", "Stage names should be lowercase", "write it in small letters"),
        Rule(
            "FromAsCasing",
            "from-as-casing",
            "The 'as' keyword should match the case of the 'from' keyword",
            "write both in capitals, or both in small letters",
        ),
        Rule(
            "NoEmptyContinuation",
            "no-empty-continuation",
            "Empty continuation lines will become errors in a future release",
            "take the blank line out, or make it a comment",
        ),
        Rule(
            "ConsistentInstructionCasing",
            "consistent-instruction-casing",
            "All commands within the Dockerfile should use the same casing (either upper or lower)",
            "write it as the others are written",
        ),
        Rule("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique", "give it another name"),
        Rule(
            "ReservedStageName",
            "reserved-stage-name",
            "Reserved words should not be used as stage names",
            "give it another name",
        ),
        Rule(
            "JSONArgsRecommended",
            "json-args-recommended",
            "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
            'write it as a JSON list: ["program", "argument"]; or say with SHELL that a shell is meant',
        ),
        Rule(
            "MaintainerDeprecated",
            "maintainer-deprecated",
            "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            'LABEL org.opencontainers.image.authors="…"',
        ),
        Rule(
            "UndefinedArgInFrom",
            "undefined-arg-in-from",
            "FROM command must use declared ARGs",
            "declare it with ARG before the first FROM",
        ),
        Rule(
            "WorkdirRelativePath",
            "workdir-relative-path",
            "Relative workdir without an absolute workdir declared within the build can have unexpected results "
            "if the base image changes",
            "write an absolute path",
        ),
        Rule(
            "UndefinedVar",
            "undefined-var",
            "Variables should be defined before their use",
            "declare it with ARG or ENV above, or quote the dollar",
        ),
        Rule(
            "MultipleInstructionsDisallowed",
            "multiple-instructions-disallowed",
            "Multiple instructions of the same type should not be used in the same stage",
            "take this one out: a later one replaces it",
        ),
        Rule(
            "LegacyKeyValueFormat",
            "legacy-key-value-format",
            "Legacy key/value format with whitespace separator should not be used",
            "put = between them",
        ),
        Rule(
            "InvalidBaseImagePlatform",
            "invalid-base-image-platform",
            "Base image platform does not match expected target platform",
            "name an image that there is for this platform, or say FROM --platform",
        ),
        Rule(
            "RedundantTargetPlatform",
            "redundant-target-platform",
            "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            "leave --platform out",
        ),
        Rule(
            "SecretsUsedInArgOrEnv",
            "secrets-used-in-arg-or-env",
            "Sensitive data should not be used in the ARG or ENV commands",
            "use RUN --mount=type=secret",
        ),
        Rule(
            "InvalidDefaultArgInFrom",
            "invalid-default-arg-in-from",
            "Default value for global ARG results in an empty or invalid base image name",
            "give the ARG a default, as in ARG NAME=VALUE",
        ),
        Rule(
            "FromPlatformFlagConstDisallowed",
            "from-platform-flag-const-disallowed",
            "FROM --platform flag should not use a constant value",
            "leave it out, or use $BUILDPLATFORM",
        ),
        Rule(
            "CopyIgnoredFile",
            "copy-ignored-file",
            "Attempting to Copy file that is excluded by .dockerignore",
            "take it out of .dockerignore, or make an exception with !",
        ),
        Rule(
            "InvalidDefinitionDescription",
            "invalid-definition-description",
            "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this "
            "is not intended to be a description comment, add an empty line or comment between the instruction and the "
            "comment.",
            "put a blank line between, or begin the comment with the name",
            experimental=True,
        ),
        Rule(
            "ExposeProtoCasing",
            "expose-proto-casing",
            "Protocol in EXPOSE instruction should be lowercase",
            "write it in small letters",
        ),
        Rule(
            "ExposeInvalidFormat",
            "expose-invalid-format",
            "IP address and host-port mapping should not be used in EXPOSE instruction. "
            "This will become an error in a future release",
            "name the container's port only; -p of `run` publishes it",
        ),
        Rule(
            "UnknownSyntax",
            "",
            "A front end of another language is never fetched: the file is read as a Dockerfile",
            "write syntax=docker/dockerfile:1, or leave the line out",
        ),
    )
}


class Notes:
    """Collects findings, without those that the Dockerfile switches off (`# check=skip=…`)."""

    def __init__(self, skip: frozenset[str], experimental: frozenset[str]) -> None:
        self.findings: list[Finding] = []
        self._seen: set[Finding] = set()
        self._skip = skip
        self._experimental = experimental

    def add(self, name: str, message: str, instruction: Instruction, at: Word | None = None) -> None:
        rule = RULES[name]
        skip, experimental = self._skip, self._experimental
        for comment in instruction.comments:
            found = options_of_comment(comment.text)
            if found:
                skip, experimental = skip | found.skip, experimental | found.experimental
        if rule.experimental:
            if not experimental & {name, "all"}:
                return
        elif skip & {name, "all"}:
            return
        word = at or instruction.keyword
        text = where(instruction, message, word.line, word.column)
        finding = Finding(rule, message, text, word.line, word.column, instruction.end_line)
        if finding not in self._seen:  # stages that stand on one another say the same twice
            self._seen.add(finding)
            self.findings.append(finding)


@dataclass(frozen=True, slots=True)
class Options:
    """`# check=skip=A,B;experimental=C;error=true`."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False


def options(text: str) -> Options:
    """Raises ValueError with what is wrong."""
    lists: dict[str, frozenset[str]] = {"skip": frozenset(), "experimental": frozenset()}
    error = False
    for part in text.split(";", 2):
        if not part.strip():
            continue
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or key not in ("skip", "experimental", "error"):
            raise ValueError(f'invalid check option "{key}"')
        if key == "error":
            if value.lower() not in ("true", "false", "1", "0", "t", "f"):
                raise ValueError(f'invalid check option "{part.strip()}": true or false is wanted')
            error = value.lower() in ("true", "1", "t")
        else:
            lists[key] = frozenset(name.strip() for name in value.split(","))
    return Options(lists["skip"], lists["experimental"], error)


def options_of_comment(text: str) -> Options | None:
    """The same in a comment directly above an instruction; None if it is another comment."""
    key, equals, value = text.partition("=")
    if not equals or key.strip().lower() != "check":
        return None
    try:
        return options(value.split()[0] if value.split() else "")
    except ValueError:
        return None
