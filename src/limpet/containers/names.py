"""Names of containers: which are allowed, and how one is made when the user gives none.

The rule is Docker's (moby `daemon/names`): `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, so at least two characters.
"""

from __future__ import annotations

import os

from limpet.errors import Invalid

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_.-")

_LEFT = (
    "amber ample brave breezy bright brisk calm candid clever coral cosy crisp dapper deft eager early fair fleet"
    " fond frank fresh gentle glad golden grand happy hardy humble jolly keen kind lively loyal lucid lucky mellow"
    " merry mild modest neat nimble noble patient placid plucky polite proud quick quiet ready robust rosy serene"
    " sharp shiny silent silver smart snug sober solid spry stable steady stoic sturdy subtle sunny swift tender"
    " tidy tranquil trusty upbeat vivid warm wise witty zesty"
)
_RIGHT = (
    "abalone barnacle bass blenny bream brill chiton clam cockle cod conch coral cowrie crab cuttle dab dogfish"
    " dulse eel flounder garfish goby gurnard haddock hake halibut herring kelp krill lamprey ling lobster"
    " mackerel marlin mullet murex mussel nautilus nerite octopus oyster perch periwinkle plaice pollack porpoise"
    " prawn ray rockling salmon sandeel sardine scallop seal seahorse shad shanny shrimp skate smelt snail sole"
    " sponge sprat squid starfish sturgeon tellin topshell trout tuna turbot urchin whelk whiting winkle wrasse"
)


def check(name: str, what: str = "container") -> str:
    """The name, without a leading '/'. Raises Invalid, which says that it is that of a `what`."""
    plain = name.removeprefix("/")
    if len(plain) < 2 or len(plain) > 253 or plain[0] not in _FIRST or not _REST.issuperset(plain):
        raise Invalid(
            f"invalid {what} name '{name}'",
            "it needs two or more of a-z A-Z 0-9 _ . - and begins with a letter or digit",
        )
    return plain


def container_id() -> str:
    """64 hex digits. The first 12 are never all digits: the short id would read as a number (moby `stringid`)."""
    while True:
        text = os.urandom(32).hex()
        if not text[:12].isdecimal():
            return text


def generate(attempt: int) -> str:
    """`swift_whelk`; from the second attempt on with a digit, since names are unique."""
    left, right = _LEFT.split(" "), _RIGHT.split(" ")
    random = os.urandom(5)
    name = f"{left[int.from_bytes(random[:2]) % len(left)]}_{right[int.from_bytes(random[2:4]) % len(right)]}"
    return f"{name}{random[4] % 10}" if attempt else name
