"""Names and extended attributes from outside: what Linux can't have or must not obey is refused or left out.

Left out, as containerd and GNU tar do it (with a warning or none): attributes of name spaces that Linux does not have,
and those that it refuses for the kind of file (`user.*` of links and devices, ACLs of links, default ACLs of files).
`trusted.overlay.*` and `user.overlay.*` are left out because they would be orders to overlayfs. Refused: attributes
that are damaged.
"""

from __future__ import annotations

import stat
import struct

from limpet.errors import Invalid, quoted

_VALUE_LIMIT = 65535  # XATTR_SIZE_MAX is one more, which EROFS's 16 bits can't say
_TOTAL_LIMIT = 250_000  # EROFS counts an inode's attributes in 16 bits, units of 4 bytes
_ACCESS, _DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
OVERRIDE = b"user.containers.override_stat"
"""What `owners` writes at files: from outside it would be an order to us."""

_PREFIXES = (b"user.", b"trusted.", b"security.")
# linux/posix_acl_xattr.h: a version, then (tag, permissions, id) of each entry, in the order of the tags.
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_ENTRY = struct.Struct("<HHI")


def clean(name: bytes) -> bytes:
    """A member's name as a path from the root: no leading slash, no `.`; `..` raises Invalid."""
    if name[:2] == b"./":
        name = name[2:]
    name = name.strip(b"/")
    if b"//" in name or b"./" in name or name[-2:] in (b"/.", b"..") or name == b".":
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise Invalid(f"path traversal: '..' in the member {quoted(name[:200])}")
        name = b"/".join(parts)
    return name


def kept(mode: int, xattrs: dict[bytes, bytes], path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The attributes that a file of this mode (type and permissions) gets, as (name, value). Raises Invalid."""
    result = []
    total = 0
    for name, value in xattrs.items():
        if b"\0" in name or len(name) > 255 or len(value) > _VALUE_LIMIT:
            raise Invalid(
                f"the extended attribute {quoted(name[:80])} of {quoted(path[:200])} is too long, or its name is bad"
            )
        if not _fits(mode, name):
            continue
        if name == b"security.capability" and (len(value), value[3:4]) not in ((20, b"\x02"), (24, b"\x03")):
            raise Invalid(f"the file capability of {quoted(path[:200])} is damaged")
        if name in (_ACCESS, _DEFAULT):
            acl = _acl(value, path, mode if name == _ACCESS else None)
            if acl is None:
                continue
            value = acl
        total += len(name) + len(value) + 8
        result.append((name, value))
    if total > _TOTAL_LIMIT:
        raise Invalid(f"{quoted(path[:200])} has more than {_TOTAL_LIMIT} bytes of extended attributes")
    return tuple(result)


def packed(entries: list[tuple[int, int, int]]) -> bytes:
    """An ACL in the kernel's form, of (tag, permissions, id)."""
    return b"\2\0\0\0" + b"".join(_ENTRY.pack(*entry) for entry in entries)


def _fits(mode: int, name: bytes) -> bool:
    kind = stat.S_IFMT(mode)
    if name == _ACCESS:
        return kind != stat.S_IFLNK
    if name == _DEFAULT:
        return kind == stat.S_IFDIR
    if name.startswith((b"trusted.overlay.", b"user.overlay.")) or name == OVERRIDE:
        return False
    if name.startswith(b"user.") and kind not in (stat.S_IFREG, stat.S_IFDIR):
        return False
    return name.startswith(_PREFIXES) and name not in _PREFIXES


def _acl(value: bytes, path: bytes, mode: int | None) -> bytes | None:
    """Checked as the kernel does (posix_acl_valid). An access ACL gets the permissions of the mode, which is set after
    it (containerd; posix_acl_chmod); None if nothing is left that the mode does not say."""
    if len(value) < 4 or len(value) % 8 != 4 or value[:4] != b"\x02\0\0\0":
        raise Invalid(f"the ACL of {quoted(path[:200])} is damaged")
    entries = list(_ENTRY.iter_unpack(value[4:]))
    tags = [tag for tag, _, _ in entries]
    named = _USER in tags or _GROUP in tags
    if (
        tags != sorted(tags)
        or any(tags.count(tag) != 1 for tag in (_USER_OBJ, _GROUP_OBJ, _OTHER))
        or tags.count(_MASK) > 1
        or (named and _MASK not in tags)
        or any(tag not in (1, 2, 4, 8, 16, 32) or permissions > 7 for tag, permissions, _ in entries)
    ):
        if not entries:
            return None
        raise Invalid(f"the ACL of {quoted(path[:200])} is damaged")
    if mode is None:
        return value
    if _MASK not in tags:
        return None
    bits = {_USER_OBJ: mode >> 6 & 7, _MASK: mode >> 3 & 7, _OTHER: mode & 7}
    return value[:4] + b"".join(_ENTRY.pack(tag, bits.get(tag, old), who) for tag, old, who in entries)
