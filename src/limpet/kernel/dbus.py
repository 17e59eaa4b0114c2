"""D-Bus messages and connections, as much as one question to systemd needs. Pure but for `Connection`.

(D-Bus specification 1.14: "Type System", "Marshaling", "Message Protocol", "Authentication Protocol".) A library costs
50 ms to import, which is twice what `limpet run` has. Little endian, no file descriptors, no big messages.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import Any
else:
    import _socket as socket

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_TO, DESTINATION, SIGNATURE = 1, 2, 3, 4, 5, 6, 8

_TEXTS = {PATH: "o", INTERFACE: "s", MEMBER: "s", ERROR_NAME: "s", DESTINATION: "s", SIGNATURE: "g"}
_SIZES = {"y": 1, "b": 4, "i": 4, "u": 4, "x": 8, "t": 8, "d": 8}
_ALIGNED = {"y": 1, "g": 1, "v": 1, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}
_LONGEST = 1 << 20
"""Bytes of a message that is read; systemd's answers have a few hundred."""


class Message:
    """One that came. `kind`: CALL, RETURN, ERROR or SIGNAL; `fields`: by number, as PATH; `values`: of the body."""

    __slots__ = ("fields", "kind", "values")

    def __init__(self, kind: int, fields: dict[int, Any], values: list[Any]) -> None:
        self.kind = kind
        self.fields = fields
        self.values = values


class Connection:
    """To a bus, or to systemd's own socket, which talks to one client at a time and knows no names of clients."""

    def __init__(self, address: str, end: float) -> None:
        """`end`: when (by the monotonic clock) waiting is over. Raises OSError."""
        self._end = end
        self._serial = 0
        # Without a name: whom the socket says that we are (in a user namespace we are another than outside of it).
        self._pending = bytearray(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        self._data = bytearray()
        self._begun = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(address)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def call(self, fields: dict[int, str], signature: str = "", values: Sequence[Any] = ()) -> int:
        """Queues a call; `flush` sends it. Its number, which is REPLY_TO of the answer."""
        self._serial += 1
        self._pending += encode(self._serial, fields, signature, values)
        return self._serial

    def flush(self) -> None:
        self._socket.sendall(self._pending, socket.MSG_NOSIGNAL)
        self._pending.clear()

    def receive(self) -> Message:
        """The next message. Raises TimeoutError, ConnectionError, PermissionError, ValueError (nonsense came)."""
        if not self._begun:
            self._begin()
        while (message := decode(self._data)) is None:
            self._more()
        return message

    def _begin(self) -> None:
        for expected in (b"DATA", b"OK"):
            while b"\r\n" not in self._data:
                self._more()
            line, _, rest = self._data.partition(b"\r\n")
            if not line.startswith(expected):
                raise PermissionError(f"the bus takes no such user ({line[:60].decode(errors='replace')})")
            self._data = bytearray(rest)
        self._begun = True

    def _more(self) -> None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError
        self._data += data


def encode(serial: int, fields: dict[int, str], signature: str = "", values: Sequence[Any] = ()) -> bytes:
    """A call. `fields`: PATH, INTERFACE, MEMBER, DESTINATION; `values`: of the complete types in `signature`."""
    body = bytearray()
    for kind, value in zip(types(signature), values, strict=True):
        _put(body, kind, value)
    if signature:
        fields = {**fields, SIGNATURE: signature}
    head = bytearray(b"l%c\0\1" % CALL)
    for number in (len(body), serial):
        _put(head, "u", number)
    _put(head, "a(yv)", [(number, (_TEXTS[number], text)) for number, text in fields.items()])
    _align(head, 8)
    return bytes(head + body)


def decode(data: bytearray) -> Message | None:
    """Takes the first message off the data; None if it is not whole yet. Raises ValueError."""
    if len(data) < 16:
        return None
    if data[0] != ord("l"):
        raise ValueError("a message in another byte order")
    head = 16 + int.from_bytes(data[12:16], "little")
    head += -head % 8
    length = head + int.from_bytes(data[4:8], "little")
    if length > _LONGEST:
        raise ValueError(f"a message of {length} bytes")
    if len(data) < length:
        return None
    whole = bytes(data[:length])
    del data[:length]
    try:
        found, _ = _get(whole, 12, "a(yv)")
        fields = {number: value for number, (_, value) in found}
        values, place = [], 0
        for kind in types(fields.get(SIGNATURE, "")):
            value, place = _get(whole[head:], place, kind)
            values.append(value)
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, RecursionError) as e:
        raise ValueError("a message that does not keep to its signature") from e
    return Message(whole[1], fields, values)


def types(signature: str) -> list[str]:
    """The complete types that it has: "sa(sv)u" → ["s", "a(sv)", "u"]. Raises ValueError."""
    found, start = [], 0
    while start < len(signature):
        end = start
        while signature[end : end + 1] == "a":
            end += 1
        depth = 0
        while True:
            letter = signature[end : end + 1]
            if not letter:
                raise ValueError(f"the signature '{signature}' ends too early")
            depth += (letter in "({") - (letter in ")}")
            end += 1
            if depth == 0:
                break
        found.append(signature[start:end])
        start = end
    return found


def _align(out: bytearray, size: int) -> None:
    out += bytes(-len(out) % size)


def _put(out: bytearray, kind: str, value: Any) -> None:
    first = kind[0]
    _align(out, _ALIGNED.get(first, 4))
    if first in _SIZES:
        out += int(value).to_bytes(_SIZES[first], "little", signed=first in "ix")
    elif first in "so":
        text = value.encode()
        _put(out, "u", len(text))
        out += text + b"\0"
    elif first == "g":
        out += b"%c%s\0" % (len(value), value.encode())
    elif first == "v":
        inner, content = value
        _put(out, "g", inner)
        _put(out, inner, content)
    elif first == "a":
        place = len(out)
        out += bytes(4)
        _align(out, _ALIGNED.get(kind[1], 4))
        start = len(out)
        for item in value:
            _put(out, kind[1:], item)
        out[place : place + 4] = (len(out) - start).to_bytes(4, "little")
    else:  # a structure
        for inner, item in zip(types(kind[1:-1]), value, strict=True):
            _put(out, inner, item)


def _get(data: bytes, place: int, kind: str) -> tuple[Any, int]:
    """The value, a variant as (signature, value), and where the next one begins."""
    first = kind[0]
    place += -place % _ALIGNED.get(first, 4)
    if first in _SIZES:
        end = place + _SIZES[first]
        if end > len(data):
            raise IndexError
        return int.from_bytes(data[place:end], "little", signed=first in "ix"), end
    if first in "sog":
        size, place = _get(data, place, "y" if first == "g" else "u")
        if place + size + 1 > len(data):
            raise IndexError
        return data[place : place + size].decode(), place + size + 1
    if first == "v":
        inner, place = _get(data, place, "g")
        value, place = _get(data, place, inner)
        return (inner, value), place
    found: list[Any] = []
    if first == "a":
        size, place = _get(data, place, "u")
        place += -place % _ALIGNED.get(kind[1], 4)
        end = place + size
        if end > len(data):
            raise IndexError
        while place < end:
            value, place = _get(data, place, kind[1:])
            found.append(value)
        return found, place
    if first not in "({":
        raise KeyError(first)
    for inner in types(kind[1:-1]):
        value, place = _get(data, place, inner)
        found.append(value)
    return tuple(found), place
