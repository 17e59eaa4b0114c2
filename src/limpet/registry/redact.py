"""What must not be read in a message: passwords, tokens, `Authorization`, the user part and the query of an address.

A registry's own words are shown to people, and a proxy in between may repeat in them what it was sent. So all text from
outside passes `clean`, and the command line passes whatever it prints as an error (`cli/main.py`) once this module is
loaded.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import quote, quote_plus

HIDDEN = "***"

_SHORTEST = 4
"""Shorter ones would blacken half of every message, and are no secrets."""

_LONGEST = 20_000

_PATTERNS = (
    (re.compile(r"(?i)\b(basic|bearer)\s+[A-Za-z0-9+/=._~-]{6,}"), rf"\1 {HIDDEN}"),
    (
        re.compile(r"(?i)\b((?:proxy-)?authorization)\b(\"?\s*[:=]\s*\"?)(?!(?:basic|bearer)\b)[^\s\",;]+"),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"(://)[^/\s@]*(?:@[^/\s@]*)*@"), rf"\1{HIDDEN}@"),
    # Signed addresses of blob stores carry their permission in the query.
    (re.compile(r"(/[^\s?\"'/]*\?)[^\s\"']+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"(?i)([\"']?(?:password|passwd|secret|auth|(?:access_|refresh_|identity|registry)?_?token)[\"']?\s*[:=]\s*)"
            r"(\"[^\"]*\"|'[^']*'|[^\s,;&}\"']+)"
        ),
        rf"\1{HIDDEN}",
    ),
)

_known: set[str] = set()


def conceal(secret: str) -> None:
    """From now on `clean` hides this secret, and the forms in which it travels."""
    if len(secret) < _SHORTEST:
        return
    plain = secret.encode("utf-8", "surrogateescape")
    _known.update({secret, quote(plain, safe=""), quote_plus(plain), base64.b64encode(plain).decode()})


def clean(text: str) -> str:
    """The text without secrets; stays one line if it was one. Of a long one only the beginning."""
    if len(text) > _LONGEST:  # what is cut off may be a part of a secret: it goes with its whole word
        text = text[:_LONGEST].rpartition(" ")[0] + " …"
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
