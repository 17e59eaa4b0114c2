"""Digests as text: `sha256:` and 64 hex digits (OCI image spec, descriptor.md#digests)."""

from __future__ import annotations

from limpet.errors import Invalid

_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")


def check(text: str) -> str:
    """The same text, safe to be part of a path. Raises Invalid for an unknown algorithm, length or letter."""
    algorithm, _, value = text.partition(":")
    if algorithm not in _LENGTHS:
        raise Invalid(f"{text[:80]!r}: unsupported digest algorithm", "sha256 and sha512 are known")
    if len(value) != _LENGTHS[algorithm] or not _HEX.issuperset(value):
        raise Invalid(f"{text[:150]!r} is not a digest", "it is sha256: and 64 lower-case hex digits")
    return text


def of(data: bytes) -> str:
    """The SHA-256 digest of a document."""
    import hashlib  # OpenSSL is 4 ms to load, and who only checks a digest does not hash

    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def hex_of(digest: str) -> str:
    """The part after the colon."""
    return digest.partition(":")[2]


def short(digest: str) -> str:
    """The first 12 hex digits, as people see it."""
    return digest.partition(":")[2][:12] or digest[:12]
