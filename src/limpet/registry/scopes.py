"""What a token allows (distribution, "Token Scope Documentation"): `TYPE:NAME:ACTION,ACTION`, several by blanks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

Scopes = dict[str, frozenset[str]]
"""Actions by `TYPE:NAME`."""

_MAX_SCOPES = 100


def parse(text: str) -> Scopes:
    """What is no scope is left out."""
    found: Scopes = {}
    for word in text.split()[:_MAX_SCOPES]:
        resource, colon, actions = word.rpartition(":")
        if colon and ":" in resource:
            found[resource] = found.get(resource, frozenset()) | frozenset(filter(None, actions.split(",")))
    return found


def union(left: Scopes, right: Scopes) -> Scopes:
    return {key: left.get(key, frozenset()) | right.get(key, frozenset()) for key in [*left, *right]}


def covers(wide: Scopes, narrow: Scopes) -> bool:
    return all(actions <= wide.get(key, frozenset()) for key, actions in narrow.items())


def words(scopes: Scopes) -> list[str]:
    """One for each resource; `pull` before `push`, as servers write it themselves."""
    return [f"{key}:{','.join(sorted(actions))}" for key, actions in scopes.items()]


def is_pull(text: str) -> bool:
    """Whether it asks for reading of one repository, and nothing else."""
    scopes = parse(text)
    return len(scopes) == 1 and all(
        key.startswith("repository:") and actions == {"pull"} for key, actions in scopes.items()
    )


def renamed(text: str, name: Callable[[str], str]) -> str:
    """With other names of repositories."""
    found = []
    for word in text.split():
        kind, _, rest = word.partition(":")
        repository, _, actions = rest.rpartition(":")
        found.append(f"{kind}:{name(repository)}:{actions}" if kind == "repository" else word)
    return " ".join(found)


def repository(text: str) -> str:
    """The first repository that is named, "" if none is: whose login to use."""
    for key in parse(text):
        kind, _, name = key.partition(":")
        if kind == "repository":
            return name
    return ""
