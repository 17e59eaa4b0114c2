"""Names on the host's network: every container finds the others in its /etc/hosts, which is kept up to date in place.

`<run>/names` is what all of them get: a line for each container that runs. No server answers, so none can fail. A line
never moves while it is there (who has gone leaves empty lines behind, and who comes takes such a gap): one that reads
the file in pieces while it changes misses nobody who was there all the time.
"""

from __future__ import annotations

import fcntl
import os

from limpet.network.private import hosts
from limpet.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

HOST = ("host.limpet.internal", "host.docker.internal")
FIRST = f"127.0.0.1\t{' '.join(HOST)}"
DOMAIN = "limpet"
"""On the host a container NAME is NAME.limpet, where `install` was asked for that."""
_MOST = 1 << 20  # bytes of a list
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_INSTALLED = "hosts-of-the-host"


def lines(run: str) -> list[str]:
    """As they stand in every container's file."""
    try:
        with open(f"{run}/names", encoding="ascii") as file:
            return file.read(_MOST).splitlines() or [FIRST]
    except FileNotFoundError:
        return [FIRST]


def join(run: str, root: str, own4: str, names: Sequence[str]) -> None:
    """A container has come: `names` are its own, the beginning of its id (12 digits) second. Tells all others.

    What can't be a host's name is left out: a resolver would read it as something else.
    """
    _change(run, root, own4, f"{own4}\t{' '.join(name for name in names if _LETTERS.issuperset(name))}")


def leave(run: str, root: str, own4: str) -> None:
    _change(run, root, own4, "")


def keep(run: str, root: str, living: Collection[str]) -> None:
    """Forgets all whose address is not of `living`: killed, and not started again."""
    for line in lines(run)[1:]:
        own4 = line.partition("\t")[0]
        if own4 and own4 not in living:
            leave(run, root, own4)


def _change(run: str, root: str, own4: str, line: str) -> None:
    try:
        fd = os.open(f"{run}/names", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        return  # the store was taken away
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        old = os.pread(fd, _MOST, 0).decode("ascii", "replace") or f"{FIRST}\n"
        new = _placed(_without(old, own4, line.split("\t")[-1].split(" ")[0]), line)
        if new == old:
            return
        data = new.encode("ascii", "replace")
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))
        _tell(root, new.splitlines())
    finally:
        os.close(fd)


def _without(text: str, own4: str, name: str) -> str:
    """Without the container of that address, and without what was killed and had the name before."""
    kept = []
    for line in text.splitlines():
        address, _, names = line.partition("\t")
        gone = address == own4 or (name and names.split(" ")[0] == name)
        kept.append("\n" * len(line) if gone else line)
    return "\n".join(kept) + "\n"


def _placed(text: str, line: str) -> str:
    """With the line, in a gap if there is one that is large enough. Gaps at the end are none."""
    text = text.rstrip("\n") + "\n"
    if not line:
        return text
    gap = text.find("\n" * (len(line) + 2))
    if gap < 0:
        return f"{text}{line}\n"
    return f"{text[: gap + 1]}{line}{text[gap + 1 + len(line) :]}"


def _tell(root: str, known: list[str]) -> None:
    """Writes what is known into the files of all who are in it, and into the host's, if that is wanted."""
    directories = {name[:12]: name for name in os.listdir(f"{root}/containers")}
    for line in known[1:]:
        short = line.partition("\t")[2].split(" ")[1:2]
        if short and short[0] in directories:
            hosts.update(f"{root}/containers/{directories[short[0]]}/hosts", known)
    place = installed(root)
    if place:
        hosts.update(place, of_the_host(known))


def of_the_host(known: list[str]) -> list[str]:
    """The same lines for the host: NAME.limpet and nothing else, so that no name of its own is hidden."""
    found = []
    for line in known[1:]:
        address, _, names = line.partition("\t")
        found.append(f"{address}\t{names.split(' ')[0]}.{DOMAIN}" if names else "")
    return found


def installed(root: str) -> str:
    """The path of the host's file that is kept up to date too; "" for none."""
    try:
        with open(f"{root}/{_INSTALLED}", encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def install(run: str, root: str, path: str) -> None:
    """From here on `path` has a block with the containers' names. Raises OSError if it can't be written."""
    os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    files.write_file(f"{root}/{_INSTALLED}", os.fsencode(os.path.abspath(path)), 0o644)
    hosts.update(path, of_the_host(lines(run)))


def remove(root: str) -> str:
    """Takes the block away; the path that had it, or ""."""
    path = installed(root)
    if path:
        os.unlink(f"{root}/{_INSTALLED}")
        hosts.remove(path)
    return path
