"""The protocol of a monitor's socket: frames of one type byte, a 32-bit big-endian length and the payload.

A client that wants output sends SUBSCRIBE first; all get EXIT (the code) when the container ends. Everything a client
sends is bounded by `LIMIT`: the socket is root's, but a broken client must not fill the monitor's memory.

Monitors outlive the limpet that started them, so a client may be newer than its monitor, or older. A monitor says in
the container's status which `VERSION` it speaks. A new kind of frame needs no new version (both sides leave out kinds
that they don't know); a frame that means something else does, and clients must go on speaking the older ones.
"""

from __future__ import annotations

STDIN, STDOUT, STDERR, RESIZE, EXIT, CLOSE_STDIN, ERROR, SUBSCRIBE, SIGNAL = range(9)
VERSION = 1
HEAD = 5
LIMIT = 1 << 20


def frame(kind: int, payload: bytes = b"") -> bytes:
    return kind.to_bytes(1) + len(payload).to_bytes(4) + payload


def size_payload(rows: int, columns: int) -> bytes:
    """Of RESIZE: two 16-bit numbers."""
    return (rows & 0xFFFF).to_bytes(2) + (columns & 0xFFFF).to_bytes(2)


def number_payload(number: int) -> bytes:
    """Of EXIT (code) and SIGNAL (number)."""
    return number.to_bytes(4, signed=True)


def number(payload: bytes) -> int:
    return int.from_bytes(payload, signed=True)


def take(buffer: bytearray) -> tuple[int, bytes] | None:
    """Removes the first whole frame of the buffer. Raises ValueError for one that is too long."""
    if len(buffer) < HEAD:
        return None
    length = int.from_bytes(buffer[1:HEAD])
    if length > LIMIT:
        raise ValueError(f"frame of {length} bytes")
    if len(buffer) < HEAD + length:
        return None
    kind, payload = buffer[0], bytes(buffer[HEAD : HEAD + length])
    del buffer[: HEAD + length]
    return kind, payload
