"""The errors that limpet raises on purpose: a small family, split by what a caller does about it.

    LimpetError            one line for a person; the command line exits with `exit_code`
    ├── NotFound           no such image, container, file: often followed by a suggestion
    ├── Conflict           a name in use, a container running, an image needed by another
    ├── Invalid            bad input from outside: a reference, a manifest, a tar, a flag
    │   └── Corrupt        bytes that do not have the digest or the form that they claim
    ├── Refused            the other side said no: a registry, the kernel, a policy
    └── Exit               ends the command with a code, without a message (a container's own code)

Inside a room, builtin exceptions stay as they are (`OSError`, `ValueError`); only what a person shall read
is turned into one of these. This module imports nothing: it is on the path of `limpet run`.
"""

from __future__ import annotations


class LimpetError(Exception):
    """`message` names the thing and says what is wrong; `hint`, if any, what to do next. Both are one line."""

    exit_code = 125

    def __init__(self, message: str, hint: str = "", *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


OUTPUT = "standard output"
"""The name of a file in an error."""

_BAD_DESCRIPTOR = 9  # EBADF


def reason(error: OSError) -> str:
    """`path: what is wrong`, without Python's `[Errno 28]`."""
    text = error.strerror or str(error)
    name = error.filename
    if name == OUTPUT and error.errno == _BAD_DESCRIPTOR:
        text = "it is closed"
    if isinstance(name, bytes):
        name = name.decode("utf-8", "surrogateescape")
    return f"{name}: {text}" if name else text


def quoted(name: bytes) -> str:
    """Bytes from outside, of a tar for example, as people read them: 'etc/motd', what is no text as `\\xff`."""
    text = name.decode("utf-8", "backslashreplace")
    return "'" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + "'"


class NotFound(LimpetError):
    pass


class Conflict(LimpetError):
    pass


class Invalid(LimpetError):
    pass


class Corrupt(Invalid):
    pass


class Refused(LimpetError):
    pass


class Exit(Exception):
    """Ends the command with `code`; nothing is printed."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
