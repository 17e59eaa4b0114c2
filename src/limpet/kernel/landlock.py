"""Landlock (Documentation/userspace-api/landlock.rst): what a process denies itself, and all that comes of it."""

from __future__ import annotations

import os
import struct

from limpet.kernel.sys import Buffer, fail, syscall

_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_VERSION = 1
_SCOPE_ABSTRACT_UNIX_SOCKET = 1
SCOPES = 6
"""The version of the interface that has scopes (Linux 6.12)."""


def version() -> int:
    """Of the kernel's interface; 0 without Landlock."""
    try:
        return syscall(_LANDLOCK_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def scope_sockets() -> None:
    """From now on this process can't connect to abstract Unix sockets (unix(7)) but those of its own and its children.

    Needs no_new_privs or CAP_SYS_ADMIN in the user namespace. Raises OSError.
    """
    ruleset = -1
    attributes = struct.pack("<QQQ", 0, 0, _SCOPE_ABSTRACT_UNIX_SOCKET)  # struct landlock_ruleset_attr
    try:
        ruleset = syscall(_LANDLOCK_CREATE_RULESET, Buffer(attributes), len(attributes), 0)
        syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    except OSError as e:
        fail(e, "landlock")
    finally:
        if ruleset >= 0:
            os.close(ruleset)
