"""What differs inside of a file: the members of an archive, the header of a gzip or a compiled Python file.

`describe` looks at a difference of contents, and says in words what is there. All sizes are bounded: the files are a
build's, and anything may be in them.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from typing import TYPE_CHECKING

from limpet.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limpet.build.reproducible.differ import Content, Difference

_MOST = 64 << 20
"""Bytes of a file, and of what is in it, that are looked at."""
_SHOWN = 5
_AR = b"!<arch>\n"


@dataclass(frozen=True, slots=True)
class Inside:
    """`what` it is ("gzip", "ar", "zip", "tar", "pyc"); `notes` say what differs in it.

    `only_times`: nothing but times does. `unpacked`: both contents, of what is compressed as a whole.
    """

    what: str
    notes: tuple[str, ...]
    only_times: bool
    unpacked: tuple[bytes, bytes] | None = None


def describe(difference: Difference) -> Inside | None:
    """None for what is no archive of a known kind in both builds, or too large."""
    if difference.contents is None or max(each.size for each in difference.contents) > _MOST:
        return None
    one, two = (_whole(each) for each in difference.contents)
    for known in (_pyc, _gzip, _ar, _zip, _tar):
        try:
            found = known(difference.path, one, two)
        except (ValueError, EOFError, zlib.error, struct.error, tarfile.TarError, zipfile.BadZipFile, OSError):
            continue
        except (NotImplementedError, RuntimeError):  # zipfile: an encrypted or an unknown one
            continue
        if found is not None:
            return found
    return None


def _pyc(path: str, one: bytes, two: bytes) -> Inside | None:
    """Python's compiled files: magic, flags, then the time and size of the source (PEP 552)."""
    if not path.endswith(".pyc") or min(len(one), len(two)) < 16 or one[2:4] != b"\r\n" != two[2:4]:
        return None
    if one[4:8] != bytes(4) or two[4:8] != bytes(4):
        return Inside("pyc", ("compiled code",), False)
    same_code = one[:8] == two[:8] and one[12:] == two[12:]
    first, second = struct.unpack_from("<I", one, 8)[0], struct.unpack_from("<I", two, 8)[0]
    notes = (f"time of the source {first} / {second}",) if first != second else ()
    return Inside("pyc", notes if same_code else (*notes, "compiled code"), same_code)


def _gzip(path: str, one: bytes, two: bytes) -> Inside | None:
    """RFC 1952: the time is in bytes 4 to 8, a name may follow."""
    if one[:3] != b"\x1f\x8b\x08" or two[:3] != b"\x1f\x8b\x08":
        return None
    notes = []
    first, second = struct.unpack_from("<I", one, 4)[0], struct.unpack_from("<I", two, 4)[0]
    if first != second:
        notes.append(f"time in the header {first} / {second}")
    inner = _inflated(one), _inflated(two)
    if inner[0] == inner[1]:
        if one[:4] + one[8:] != two[:4] + two[8:]:
            notes.append("the same content, compressed in another way")
            return Inside("gzip", tuple(notes), False)
        return Inside("gzip", tuple(notes), True)
    nested = _tar(path, *inner) if path.endswith((".tgz", ".tar.gz")) else None
    if nested is not None:
        return Inside("tar", (*notes, *nested.notes), nested.only_times, inner)
    return Inside("gzip", (*notes, "the content"), False, inner)


def _inflated(data: bytes) -> bytes:
    machine = zlib.decompressobj(wbits=31)
    found = machine.decompress(data, _MOST)
    if not machine.eof:
        raise ValueError("too large, or cut off")
    return found


def _ar(path: str, one: bytes, two: bytes) -> Inside | None:
    """ar(5): a header of 60 bytes for each member: name, time, owner, group, mode, size."""
    if not one.startswith(_AR) or not two.startswith(_AR):
        return None
    return _members("ar", _ar_members(one), _ar_members(two))


def _ar_members(data: bytes) -> dict[str, tuple[str, str, bytes]]:
    found: dict[str, tuple[str, str, bytes]] = {}
    at = len(_AR)
    while at + 60 <= len(data):
        name, time = data[at : at + 16].decode("latin-1").rstrip(" "), data[at + 16 : at + 28].decode("latin-1").strip()
        size = int(data[at + 48 : at + 58])
        if size < 0:
            raise ValueError("a negative size")
        rest = data[at + 28 : at + 48].decode("latin-1")
        found[_free(name, found)] = (time, rest, data[at + 60 : at + 60 + size])
        at += 60 + size + size % 2
    return found


def _zip(path: str, one: bytes, two: bytes) -> Inside | None:
    """zip, jar, wheel, docx: times of members are in DOS form."""
    if one[:4] != b"PK\x03\x04" or two[:4] != b"PK\x03\x04":
        return None
    return _members("zip", _zip_members(one), _zip_members(two))


def _zip_members(data: bytes) -> dict[str, tuple[str, str, bytes]]:
    found: dict[str, tuple[str, str, bytes]] = {}
    budget = _MOST
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for each in archive.infolist():
            budget -= each.file_size
            if budget < 0:
                raise ValueError("too large")
            time = "{:04}-{:02}-{:02} {:02}:{:02}:{:02}".format(*each.date_time)
            with archive.open(each) as member:
                content = member.read(each.file_size + 1)  # never more than it says
            rest = f"{each.external_attr} {each.compress_type}"
            found[_free(each.filename, found)] = (time, rest, content)
    return found


def _tar(path: str, one: bytes, two: bytes) -> Inside | None:
    if one[257:262] != b"ustar" or two[257:262] != b"ustar":
        return None
    return _members("tar", _tar_members(one), _tar_members(two))


def _tar_members(data: bytes) -> dict[str, tuple[str, str, bytes]]:
    found: dict[str, tuple[str, str, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for each in archive:
            reader = archive.extractfile(each) if each.isreg() and not each.issparse() else None
            content = reader.read() if reader is not None else b""
            rest = f"{each.mode:o} {each.uid}:{each.gid} {each.uname}:{each.gname} {each.linkname}"
            found[_free(each.name, found)] = (str(each.mtime), rest, content)
    return found


def _members(what: str, one: Mapping[str, tuple[str, str, bytes]], two: Mapping[str, tuple[str, str, bytes]]) -> Inside:
    """Members as (time, other attributes, content), in their order."""
    notes = []
    times = rest = 0
    for name in sorted({*one, *two}):
        first, second = one.get(name), two.get(name)
        if first is None or second is None:
            notes.append(f"{name}: only in the {'first' if second is None else 'second'}")
            rest += 1
            continue
        if first[0] != second[0]:
            times += 1
            notes.append(f"{name}: time {first[0]} / {second[0]}")
        if first[1:] != second[1:]:
            rest += 1
            notes.append(f"{name}: {'content' if first[2] != second[2] else 'attributes'}")
    if list(one) != list(two) and set(one) == set(two):
        rest += 1
        notes.append("the order of the members")
    shown = notes[:_SHOWN]
    if len(notes) > _SHOWN:
        shown.append(f"and {len(notes) - _SHOWN} more")
    return Inside(what, tuple(shown), times > 0 and rest == 0)


def _free(name: str, taken: Mapping[str, object]) -> str:
    """A name may come several times in an archive."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free


def _whole(content: Content) -> bytes:
    return content.read(0, content.size)
