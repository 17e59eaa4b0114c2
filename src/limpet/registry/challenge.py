"""The WWW-Authenticate header (RFC 9110, section 11.6.1), in registries' use (distribution: token authentication)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9._~+-]*)(?:\s+|$)")
_PARAMETER = re.compile(r'\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')


@dataclass(frozen=True)
class Challenge:
    """`scheme` in lower case; parameter names in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse(header: str) -> list[Challenge]:
    """All challenges of a header; what can't be understood ends the list."""
    found: list[Challenge] = []
    position = 0
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            break
        position = scheme.end()
        challenge = Challenge(scheme[1].lower())
        found.append(challenge)
        while (parameter := _PARAMETER.match(header, position)) is not None:
            quoted, plain = parameter[2], parameter[3]
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            challenge.parameters[parameter[1].lower()] = value
            position = parameter.end()
    return found
