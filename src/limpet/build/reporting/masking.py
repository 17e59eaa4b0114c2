"""Secrets in what steps write: a `RUN` that prints one must not put it on a screen, into a log, into a CI's page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEAST = 6
"""Bytes of a secret that is masked: shorter ones stand by chance in any text."""

_LEAST_LINE = 16
"""Bytes of one line of a secret of several, such as a key in PEM, that is masked on its own."""

_MOST = 4096
"""Bytes. Of what is longer the lines are looked for."""

_MASK = b"***"


class Masking:
    """A secret may come in several pieces: what may be the beginning of one is held back until more comes."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        words = set()
        for secret in secrets:
            whole = secret.strip()
            if _LEAST <= len(whole) <= _MOST:
                words.add(whole)
            lines = [line.strip() for line in whole.splitlines()]
            words |= {line for line in lines if _LEAST_LINE <= len(line) <= _MOST and len(lines) > 1}
        self._words = sorted(words, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._words))) if words else None
        self._held: dict[tuple[int, int], bytes] = {}

    def feed(self, step: int, stream: int, data: bytes) -> bytes:
        """What may be shown now."""
        if self._pattern is None:
            return data
        data = self._pattern.sub(_MASK, self._held.pop((step, stream), b"") + data)
        held = max((_overlap(data, word) for word in self._words), default=0)
        if held:
            self._held[step, stream] = data[-held:]
            data = data[:-held]
        return data

    def rest(self, step: int) -> Iterable[tuple[int, bytes]]:
        """What was held back of a step that has ended: (stream, bytes)."""
        for key in [key for key in self._held if key[0] == step]:
            yield key[1], self._held.pop(key)


def _overlap(data: bytes, word: bytes) -> int:
    """How many bytes at the end of `data` are the beginning of `word`, and not all of it."""
    end = data[-len(word) + 1 :]
    at = end.find(word[:1])
    while at >= 0:
        if word.startswith(end[at:]):
            return len(end) - at
        at = end.find(word[:1], at + 1)
    return 0
