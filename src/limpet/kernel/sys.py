"""System calls by number, through the interpreter's own `_ctypes`: less than half of `import ctypes`.

`syscall` takes integers (passed as full 64-bit registers), bytes (as pointers to them; `text` makes those of paths),
`Buffer`s, and None (a null pointer). It gives the result or raises OSError with errno. No policy, and no other
function of libc than `syscall(2)` itself: every wrapper in this room names its call's number.
"""

from __future__ import annotations

import _ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "c"


class _Function(_ctypes.CFuncPtr):
    # FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO: errno is swapped into a place of our own around each call.
    _flags_ = 1 | 8
    _restype_ = _Long


_call = _Function(_ctypes.dlsym(_ctypes.dlopen("libc.so.6", 2), "syscall"))

MACHINE = os.uname().machine
_AARCH64 = MACHINE == "aarch64"


def by_machine(x86_64: int, aarch64: int) -> int:
    """The number of a call that the two differ in. Calls above 423 have one number everywhere."""
    return aarch64 if _AARCH64 else x86_64


_arrays: dict[int, Any] = {}


class Buffer:
    """Memory that a call may write into."""

    __slots__ = ("memory",)

    def __init__(self, data: bytes | int) -> None:
        size = data if isinstance(data, int) else len(data)
        kind = _arrays.get(size)
        if kind is None:
            # ctypes' own cache of array types is in the package that is not imported.
            kind = _arrays[size] = type(f"bytes_{size}", (_ctypes.Array,), {"_type_": _Byte, "_length_": size})
        self.memory = kind()
        if isinstance(data, bytes):
            memoryview(self.memory).cast("B")[:] = data

    def __bytes__(self) -> bytes:
        return bytes(memoryview(self.memory).cast("B"))

    @property
    def address(self) -> int:
        return _ctypes.addressof(self.memory)


def syscall(number: int, *arguments: int | bytes | Buffer | None) -> int:
    """The call's result. Raises OSError with errno, and with no path: the wrapper knows what it was about."""
    result: int = _call(
        _Long(number),
        *[_Long(a) if isinstance(a, int) else a.memory if isinstance(a, Buffer) else a for a in arguments],
    )
    if result == -1:
        error = _ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def text(value: str | bytes | None) -> bytes | None:
    """A path or name for the kernel. A null byte in it raises OSError: the kernel would read up to there only."""
    if value is None:
        return None
    data = os.fsencode(value)
    if 0 in data:
        raise OSError(errno.EINVAL, "null byte in a path", value)
    return data


def fail(error: OSError, what: str) -> NoReturn:
    """Raises the same error with a sentence that names the call and its object."""
    raise OSError(error.errno, f"{what}: {os.strerror(error.errno or 0)}") from None
