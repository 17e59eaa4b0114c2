"""Whom a container's program runs as: `--user` and the image's USER, looked up in the image's own files.

The rules are Docker's (moby/sys `user.GetExecUser`): a number is always an id, and needs no entry; a name must have
one; supplementary groups come from /etc/group only when no group was written. The files are the image's, so they
are hostile: opened beneath its root, regular files of at most 1 MiB. One rule differs: a line of passwd or group
whose ids are not numbers counts as absent, where Docker takes such an id to be 0, which is root.
"""

from __future__ import annotations

import os

from limpet.errors import Invalid
from limpet.kernel import fs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ID = 2**31 - 1
MAX_FILE = 1 << 20

_REGULAR, _TYPE = 0o100000, 0o170000


class User:
    """`groups`: all that setgroups(2) gets, the primary one first (Docker since CVE-2022-36109). `home`: for $HOME."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home

    def __repr__(self) -> str:
        return f"User(uid={self.uid}, gid={self.gid}, groups={self.groups}, home={self.home!r})"


def resolve(root: str | int, spec: str, group_add: Iterable[str] = ()) -> User:
    """`spec`: "", "name", "uid", "name:group", "uid:gid"; `root`: the image's root, a path or a directory's descriptor.

    `group_add`: further groups by name or number (`--group-add`). Raises Invalid, with near names as the hint.
    """
    name, _, group = spec.partition(":")
    if ":" in group:
        raise Invalid(f"invalid user '{spec}'", "write USER or USER:GROUP, each a name or a number")
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if isinstance(root, str) else root
    try:
        user = _find_user(_passwd(fd), name)
        # The file is not read for what it can't change: a number without an entry belongs to no group by name.
        groups = _groups(fd) if group or user[3] or group_add else []
    finally:
        if isinstance(root, str):
            os.close(fd)
    uid, gid, home, matched = user
    if group:
        gid = _find_group(groups, group, "group")
        more = []
    else:
        more = [number for _, number, members in groups if matched and matched in members]
    more += [_find_group(groups, text, "group to add") for text in group_add]
    return User(uid, gid, tuple(dict.fromkeys([gid, *more])), home or "/")


def _find_user(entries: list[list[str]], name: str) -> tuple[int, int, str, str]:
    """uid, gid, home and the entry's name, "" if there is no entry. The first entry that fits wins."""
    number = 0 if not name else _number(name)
    for entry in entries:
        uid, gid = _number(entry[2]), _number(entry[3])
        if uid is None or gid is None:
            continue
        if entry[0] == name if number is None else uid == number:
            return _in_range(uid, name), _in_range(gid, name), entry[5] if len(entry) > 5 else "", entry[0]
    if number is None:
        raise Invalid(
            f"unable to find user {name}: no matching entries in passwd file",
            _near(name, [entry[0] for entry in entries], "user"),
        )
    return _in_range(number, name), 0, "/", ""


def _find_group(entries: list[tuple[str, int, list[str]]], name: str, what: str) -> int:
    number = _number(name)
    if number is not None:
        return _in_range(number, name)
    for known, gid, _ in entries:
        if known == name:
            return _in_range(gid, name)
    raise Invalid(
        f"unable to find {what} {name}: no matching entries in group file",
        _near(name, [entry[0] for entry in entries], "group"),
    )


def _passwd(root: int) -> list[list[str]]:
    entries = [line.split(":") for line in _lines(root, "etc/passwd")]
    return [entry for entry in entries if len(entry) >= 4]


def _groups(root: int) -> list[tuple[str, int, list[str]]]:
    found = []
    for line in _lines(root, "etc/group"):
        entry = line.split(":")
        gid = _number(entry[2]) if len(entry) >= 3 else None
        if gid is not None:
            found.append((entry[0], gid, entry[3].split(",") if len(entry) > 3 else []))
    return found


def _lines(root: int, path: str) -> list[str]:
    """What counts of a file that may be missing: no blank lines, no comments."""
    text = _read(root, path).decode("utf-8", "surrogateescape")
    lines = [line.strip(" \t\r") for line in text.split("\n")]
    return [line for line in lines if line and line[0] != "#"]


def _read(root: int, path: str) -> bytes:
    """Looked at before it is opened: opening a device or a fifo may have effects, or wait for ever."""
    try:
        found = fs.openat2(path, os.O_PATH, dirfd=root, resolve=fs.RESOLVE_IN_ROOT | fs.RESOLVE_NO_MAGICLINKS)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as e:
        raise Invalid(f"/{path} of the image: {e.strerror}") from e
    try:
        about = os.fstat(found)
        if about.st_mode & _TYPE != _REGULAR:
            raise Invalid(f"/{path} of the image is not a regular file")
        if about.st_size > MAX_FILE:
            raise Invalid(f"/{path} of the image has {about.st_size} bytes; {MAX_FILE} are the limit")
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)
    data = b""
    try:
        while len(data) <= MAX_FILE and (chunk := os.read(fd, MAX_FILE + 1 - len(data))):
            data += chunk
    finally:
        os.close(fd)
    if len(data) > MAX_FILE:
        raise Invalid(f"/{path} of the image has more than {MAX_FILE} bytes")
    return data


def _number(text: str) -> int | None:
    """As Go's Atoi: ASCII digits with an optional sign. None: it is a name."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    # 20 digits are past every range, and int() of a million of them takes seconds.
    return int(text[:21]) if digits.isascii() and digits.isdigit() else None


def _in_range(number: int, name: str) -> int:
    if not 0 <= number <= MAX_ID:
        raise Invalid(f"invalid user or group {name or number}: uids and gids must be in range 0-{MAX_ID}")
    return number


def _near(name: str, known: list[str], what: str) -> str:
    import difflib  # only after a mistake: it costs 10 ms

    close = difflib.get_close_matches(name, known[:1000], 3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    few = [entry for entry in known if entry.isprintable()][:5]
    return (
        f"the image has the {what}s {', '.join(few)}{', …' if len(known) > len(few) else ''}"
        if few
        else (f"the image has no {what}s by name: use a number")
    )
