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

_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?i)\b(?:basic|bearer)\s+(?P<secret>[A-Za-z0-9+/=._~-]{6,})",
        r"(?i)\b(?:proxy-)?authorization\b\"?\s*[:=]\s*\"?(?!(?:basic|bearer)\b)(?P<secret>[^\s\",;]+)",
        r"://(?P<secret>[^/\s@]*(?:@[^/\s@]*)*)@",
        # Signed addresses of blob stores carry their permission in the query.
        r"/[^\s?\"'/]*\?(?P<secret>[^\s\"']+)",
        r"(?i)[\"']?(?:password|passwd|secret|auth|(?:access_|refresh_|identity|registry)?_?token)[\"']?\s*[:=]\s*"
        r"(?P<secret>\"[^\"]*\"|'[^']*'|[^\s,;&}\"']+)",
    )
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
    hidden = [match.span("secret") for pattern in _PATTERNS for match in pattern.finditer(text)]
    for secret in _known:
        at = text.find(secret)
        while at >= 0:
            hidden.append((at, at + len(secret)))
            at = text.find(secret, at + 1)
    cleaned, position = [], 0
    for begin, end in sorted(hidden):
        if begin >= position:
            cleaned += [text[position:begin], HIDDEN]
        position = max(position, end)
    return "".join([*cleaned, text[position:]])
