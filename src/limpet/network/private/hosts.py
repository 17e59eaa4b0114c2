"""Names on private networks: a marked block in each container's /etc/hosts, rewritten when somebody comes or goes.

No server answers, so none can fail. The file is bind mounted, so it keeps its inode: the new text is written over the
old one by one write(2). What stands outside the block is the container's.
"""

from __future__ import annotations

import os

BEGIN, END = b"# limpet's networks, as of now:\n", b"# end of limpet's networks\n"
_MOST = 4 << 20  # bytes


def update(path: str, lines: list[str]) -> None:
    """Puts `lines` in place of the block, at the end where there is none. A file that is not there stays away.

    Who reads meanwhile sees the old text or the new one: it is shorter only after it was whole.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        old = os.pread(fd, _MOST, 0)
        new = placed(old, lines)
        if new == old:
            return
        # Filled up with empty lines first, so that nobody reads the end of the old text behind the new one.
        os.pwrite(fd, new.ljust(len(old), b"\n"), 0)
        os.ftruncate(fd, len(new))
    finally:
        os.close(fd)


def placed(text: bytes, lines: list[str]) -> bytes:
    """A file's text with `lines` in place of the block, at the end where there is none."""
    block = BEGIN + "".join(f"{line}\n" for line in lines).encode() + END
    first, last = text.find(BEGIN), text.find(END)
    if 0 <= first < last:
        return text[:first] + block + text[last + len(END) :]
    return (text if text.endswith(b"\n") or not text else text + b"\n") + block


def remove(path: str) -> None:
    """Takes the block away; what stands outside it stays as it is. A file that is not there has none."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        old = os.pread(fd, _MOST, 0)
        first, last = old.find(BEGIN), old.find(END)
        if 0 <= first < last:
            new = old[:first] + old[last + len(END) :]
            os.pwrite(fd, new.ljust(len(old), b"\n"), 0)
            os.ftruncate(fd, len(new))
    finally:
        os.close(fd)
