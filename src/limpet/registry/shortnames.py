"""Names without a registry: which full names are meant, in order (`aliases` and `search` of registries.toml).

Without settings that is Docker Hub, as Docker has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from limpet.oci import reference

if TYPE_CHECKING:
    from limpet.oci.reference import Reference
    from limpet.registry.registries import Registries


@dataclass(frozen=True)
class Candidate:
    """`why` says what turned the short name into this one, with FILE:LINE; "" where nothing did."""

    name: Reference
    why: str = ""


def candidates(settings: Registries, text: str) -> list[Candidate]:
    """At least one; more than one only where several registries are searched. Raises Invalid."""
    plain = reference.parse(text)
    if not is_short(text):
        return [Candidate(plain)]
    bare, rest = _split(text)
    full, source = (settings.aliases or {}).get(bare, ("", ""))
    if full:
        return [Candidate(reference.parse(full + rest), f"an alias in {source}")]
    if not settings.search:
        return [Candidate(plain)]
    why = f"a short name, searched for as {settings.search_source} says"
    return [Candidate(reference.parse(f"{place}/{text}"), why) for place in settings.search]


def is_short(text: str) -> bool:
    """Whether a reference has no registry in it."""
    first, slash, _ = text.partition("/")
    return not (slash and (any(c in first for c in ".:") or first == "localhost" or first.lower() != first))


def _split(text: str) -> tuple[str, str]:
    """(name, `:tag` and `@digest` as written)."""
    name, at, digest = text.partition("@")
    colon = name.rfind(":")
    cut = colon if colon > name.rfind("/") else len(name)
    return name[:cut], name[cut:] + at + digest
