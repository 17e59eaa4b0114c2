"""ARG before the first FROM, the arguments that are there without one, and what `--build-arg` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.build.language import words as shell
from limpet.build.language.dockerfile import error
from limpet.build.language.lines import Word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from limpet.build.language.dockerfile import Instruction
    from limpet.build.language.instructions import Arg
    from limpet.build.language.words import Expansion
    from limpet.oci.platform import Platform

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
"""Arguments of the network around a build, not of what is built: they reach RUN, and neither key nor history."""

NOT_ENVIRONMENT = ("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE")
"""Arguments that say something to the builder: RUN doesn't see them."""


def predefined(build: Platform, target: Platform, stage: str, given: Mapping[str, str]) -> dict[str, str]:
    """The platform arguments (Dockerfile reference, "Automatic platform ARGs in the global scope")."""
    found = {
        "BUILDPLATFORM": str(build),
        "BUILDOS": build.os,
        "BUILDOSVERSION": build.os_version,
        "BUILDARCH": build.architecture,
        "BUILDVARIANT": build.variant,
        "TARGETPLATFORM": str(target),
        "TARGETOS": target.os,
        "TARGETOSVERSION": target.os_version,
        "TARGETARCH": target.architecture,
        "TARGETVARIANT": target.variant,
        "TARGETSTAGE": stage or "default",
    }
    return {key: given.get(key, value) for key, value in found.items()}


def is_predefined(key: str) -> bool:
    """Whether `--build-arg` may set it though no ARG declares it."""
    return (
        key.upper() in PROXIES
        or key in ("SOURCE_DATE_EPOCH", "TARGETSTAGE")
        or key.startswith("BUILDKIT_")
        or key.removeprefix("BUILD").removeprefix("TARGET") in ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")
    )


def global_scope(
    arguments: Sequence[Arg], start: Mapping[str, str], given: Mapping[str, str], escape: str
) -> dict[str, str]:
    """What FROM lines may use. Raises Invalid for a word that can't be expanded."""
    found = dict(start)
    for arg in arguments:
        for each in arg.arguments:
            if each.key.text in given:
                found[each.key.text] = given[each.key.text]
            elif each.value is not None:
                found[each.key.text] = expand(arg.source, each.value, found, escape).text
    return found


def proxies(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Both spellings of each, as programs look for either."""
    found: dict[str, str] = {}
    for key in sorted(given):
        if key.upper() in PROXIES:
            found[key.upper()] = found[key.lower()] = given[key]
    return tuple(sorted(found.items()))


def expand(
    source: Instruction, word: Word, values: Mapping[str, str], escape: str, *, quotes: bool = True
) -> Expansion:
    """One word of an instruction. Raises Invalid with the place."""
    try:
        return shell.expand(word.text, values, escape, quotes=quotes)
    except shell.WordError as e:
        at = Word("", word.line, word.column + e.at) if "\n" not in word.text else word
        raise error(source, f'failed to process "{word.text[:80]}": {e.message}', at=at) from None
