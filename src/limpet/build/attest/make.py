"""The statements that are asked for, about what a build made: for each of its images, in their order."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from limpet.build.attest import provenance, sbom

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from limpet.build.attest.provenance import Facts
    from limpet.build.attest.request import Attests
    from limpet.build.attest.statement import Attestation
    from limpet.build.planning.plan import Plan
    from limpet.store.store import Store


def attestations(
    store: Store, asked: Attests, made: Plan, layers: Sequence[Sequence[str]], facts: Facts, name: str
) -> list[tuple[Attestation, ...]]:
    """`layers`: of each image. `name`: what the bill of materials calls it. The caller holds `store.lease()`."""
    facts = replace(facts, finished=time.time())
    found = []
    for target, stack in zip(made.results, layers, strict=True):
        said = []
        if asked.sbom:
            said.append(sbom.attestation(store, stack, name, facts.epoch))
        if asked.provenance is not None:
            said.append(provenance.attestation(store, asked.provenance, made, target, facts))
        found.append(tuple(said))
    return found


def fetched(keys: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """By address what ADD took, of the keys by which it is known (`sources.added`): a digest or a commit."""
    found = {}
    for url, key in keys.items():
        values = json.loads(key)
        if values[0] == "http":
            kind, _, digits = values[1].partition(":")
            found[url] = (kind, digits) if digits else ("sha256", kind)
        else:
            commit = next((each for each in values[1:] if _is_commit(each)), "")
            if commit:
                found[url] = ("sha1" if len(commit) == 40 else "sha256", commit)
    return found


def _is_commit(text: object) -> bool:
    return isinstance(text, str) and len(text) in (40, 64) and all(char in "0123456789abcdef" for char in text)
