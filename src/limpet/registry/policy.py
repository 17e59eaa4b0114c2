"""What a pull must have (`[[policy]]` in registries.toml), asked before anything is fetched.

Of each file the most exact match decides, and all files must agree: a user's file can ask for more than the system's,
never for less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from limpet.errors import Refused
from limpet.registry.registries import Rule

if TYPE_CHECKING:
    from limpet.oci.reference import Reference
    from limpet.registry.registries import Registries, Requirement


def check(settings: Registries, name: Reference) -> None:
    """Raises Refused, saying which rule refuses and where it stands."""
    for group in dict.fromkeys(one.group for one in settings.requirements):
        own = [one for one in settings.requirements if one.group == group and _fits(one, name) >= 0]
        if not own:
            continue
        rule = max(own, key=lambda one: _fits(one, name))
        if rule.require == "digest" and not name.digest:
            raise Refused(
                f"{name.canonical}: refused by the policy for {rule.match}: a digest is required",
                f"pull NAME@sha256:…; {rule.source} has the rule",
            )
        if rule.require == "signature":
            raise Refused(
                f"{name.canonical}: refused by the policy for {rule.match}: a signature is required, and this release"
                " checks none",
                f"{rule.source} has the rule",
            )


def _fits(rule: Requirement, name: Reference) -> int:
    """How exactly; -1 for not at all."""
    if rule.match == "*":
        return 0
    domain, _, path = rule.match.partition("/")
    found = Rule(domain, path).fits(name.domain, name.path)
    return found + 1 if found >= 0 else -1
