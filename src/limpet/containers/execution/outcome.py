"""Whether a program could be started, as it travels from the container's child to its monitor and on to the starter."""

from __future__ import annotations

from limpet.errors import LimpetError

STARTED = b"K"
"""What the user is to be told all the same may follow it."""
LIMIT = 60000


class StartFailed(LimpetError):
    """`code` is what the container's status keeps (126, 127 or 128); the command exits with 125 in place of 128."""

    def __init__(self, message: str, hint: str = "", code: int = 128, *, exit_code: int | None = None) -> None:
        """`exit_code` alone, as of any `LimpetError`: who says in addition where it happened makes another one."""
        code = exit_code if exit_code in (126, 127) else code
        super().__init__(message, hint, exit_code=code if code in (126, 127) else 125)
        self.code = code


def pack(code: int, message: str, hint: str = "") -> bytes:
    """b"E" + code, message and hint, NUL between them."""
    message, hint = (text.replace("\0", " ")[: LIMIT // 8] for text in (message, hint))
    return b"E" + f"{code}\0{message}\0{hint}".encode(errors="replace")


def unpack(packet: bytes) -> StartFailed:
    code, message, hint = [*packet[1:].decode(errors="replace").split("\0"), "", ""][:3]
    return StartFailed(message, hint, int(code) if code.isdecimal() and len(code) < 4 else 128)
