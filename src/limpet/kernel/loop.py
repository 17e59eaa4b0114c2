"""Loop devices (loop(4)): a file as a block device. LOOP_CONFIGURE, Linux 5.8."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_READ_ONLY, _AUTOCLEAR = 1, 4
_INFO = struct.Struct("<5Q4I64s64s32s2Q")  # struct loop_info64
_CONFIG = struct.Struct(f"<2I{_INFO.size}s64x")  # struct loop_config
_TRIES = 64


def attach(path: str, *, read_only: bool = False) -> int:
    """A descriptor of a device with the file's content, which is free again when nobody has it open or mounted.

    Raises OSError.
    """
    file = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    try:
        flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0)
        info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, os.fsencode(path)[-63:], b"", b"", 0, 0)
        config = _CONFIG.pack(file, 0, info)
        for _ in range(_TRIES):
            device = _free()
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
                return device
            except OSError as e:
                os.close(device)
                if e.errno != errno.EBUSY:  # else somebody was faster
                    raise OSError(e.errno, f"a loop device for {path}: {e.strerror}") from None
        raise OSError(errno.EBUSY, f"a loop device for {path}: none stayed free")
    finally:
        os.close(file)


def _free() -> int:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)
    path = f"/dev/loop{number}"
    if not os.path.exists(path):  # no udev here
        os.mknod(path, 0o060600, os.makedev(7, number))
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)
