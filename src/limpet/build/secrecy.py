"""What a step does with its secrets: their values are hidden in what it prints, and looked for in what it leaves.

A value counts line by line, without the blanks around it; what is shorter than SHORTEST is no secret that could be told
from other text.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

SHORTEST = 6
LONGEST = 4096
MOST_LINES = 1000
HIDDEN = b"***"


def values(secret: bytes) -> list[bytes]:
    """What is looked for of one secret."""
    lines = (line.strip() for line in secret.split(b"\n")[:MOST_LINES])
    return [line for line in lines if SHORTEST <= len(line) <= LONGEST]


class Hiding:
    """A sink for a step's output that hands it on without the values, also when one arrives in pieces."""

    def __init__(self, secrets: Iterable[bytes], sink: Callable[[int, bytes], None]) -> None:
        found = {value for secret in secrets for value in values(secret)}
        self._values = sorted(found, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._values)))
        self._sink = sink
        self._kept: dict[int, bytes] = {}

    def __call__(self, stream: int, data: bytes) -> None:
        if not self._values:
            self._sink(stream, data)
            return
        data = self._kept.pop(stream, b"") + data
        clean, rest = [], 0
        for match in self._pattern.finditer(data):
            clean += [data[rest : match.start()], HIDDEN]
            rest = match.end()
        begin = self._beginning(data, rest)
        if begin < len(data):
            self._kept[stream] = data[begin:]
        text = b"".join([*clean, data[rest:begin]])
        if text:
            self._sink(stream, text)

    def end(self) -> None:
        """Hands on what may have been the beginning of a value."""
        for stream, data in self._kept.items():
            self._sink(stream, data)
        self._kept = {}

    def _beginning(self, data: bytes, rest: int) -> int:
        """Where, from `rest` on, a value begins that may go on in the next piece; the end if none does."""
        earliest = len(data)
        for value in self._values:
            at = data.find(value[:1], max(rest, len(data) - len(value) + 1), earliest)
            while at >= 0:
                if value.startswith(data[at:]):
                    earliest = at
                    break
                at = data.find(value[:1], at + 1, earliest)
        return earliest


def left(directory: str, secrets: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """(secret, file) for each value that a file of a tree has; the file's path from the tree's top."""
    wanted = {name: values(secret) for name, secret in secrets.items()}
    for place, _, files in os.walk(directory):
        for file in files:
            path = f"{place}/{file}"
            info = os.lstat(path)
            if not stat.S_ISREG(info.st_mode) or not info.st_size:
                continue
            with open(path, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for name, found in wanted.items():
                    if any(data.find(value) >= 0 for value in found):
                        yield name, path[len(directory) :]
