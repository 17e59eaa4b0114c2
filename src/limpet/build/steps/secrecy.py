"""Whether a step leaves the value of one of its secrets in a file of the image. (`masking` hides it in what it prints.)

A value counts line by line, without the blanks around it; what is shorter than SHORTEST is no secret that could be told
from other text.
"""

from __future__ import annotations

import mmap
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHORTEST = 6
LONGEST = 4096
MOST_LINES = 1000


def values(secret: bytes) -> list[bytes]:
    """What is looked for of one secret."""
    lines = (line.strip() for line in secret.split(b"\n")[:MOST_LINES])
    return [line for line in lines if SHORTEST <= len(line) <= LONGEST]


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
