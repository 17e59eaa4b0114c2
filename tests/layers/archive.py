"""Tars made byte by byte, good and bad."""

from __future__ import annotations

END = bytes(1024)


def header(
    name: bytes,
    kind: bytes = b"0",
    size: int = 0,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    device: tuple[int, int] = (0, 0),
    **fields: bytes,
) -> bytes:
    """One block; `fields` replaces whole fields (size_field=b"…", checksum=b"…", rest=b"…" from byte 345 on)."""
    block = bytearray(512)
    parts = (
        (0, name),
        (100, b"%07o\0" % mode),
        (108, b"%07o\0" % uid),
        (116, b"%07o\0" % gid),
        (124, fields.get("size_field", b"%011o\0" % size)),
        (136, b"%011o\0" % mtime),
        (148, b" " * 8),
        (156, kind),
        (157, link),
        (257, magic),
        (329, b"%07o\0" % device[0]),
        (337, b"%07o\0" % device[1]),
        (345, fields.get("rest", b"")),
    )
    for at, value in parts:
        block[at : at + len(value)] = value
    assert len(block) == 512
    block[148:156] = fields.get("checksum", b"%06o\0 " % sum(block))
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def file(name: bytes, data: bytes = b"", **fields: object) -> bytes:
    return header(name, b"0", len(data), **fields) + padded(data)  # type: ignore[arg-type]


def directory(name: bytes, mode: int = 0o755) -> bytes:
    return header(name, b"5", mode=mode)


def symlink(name: bytes, target: bytes) -> bytes:
    return header(name, b"2", link=target)


def hard_link(name: bytes, target: bytes) -> bytes:
    return header(name, b"1", link=target)


def pax(records: dict[bytes, bytes], kind: bytes = b"x") -> bytes:
    body = b""
    for key, value in records.items():
        rest = len(key) + len(value) + 3
        length = rest + len(str(rest))
        length += length != rest + len(str(length))
        body += b"%d %s=%s\n" % (length, key, value)
    return header(b"pax", kind, len(body)) + padded(body)
