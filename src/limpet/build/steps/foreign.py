"""RUN for another machine than this one: the kernel hands its programs to an emulator, or it can't be done."""

from __future__ import annotations

from limpet.errors import LimpetError
from limpet.kernel import binfmt

_HINT = "FROM --platform=$BUILDPLATFORM builds for it on this machine's"


def check(architecture: str) -> None:
    """`architecture` of a step's programs, by Go's name. Raises LimpetError if they can't run here."""
    if binfmt.is_native(architecture):
        return
    found = binfmt.handler(architecture)
    if found is None:
        message = f"this machine runs no programs for {architecture}: its kernel has no emulator for them (binfmt_misc)"
        raise LimpetError(message, f"install QEMU's, as Debian's qemu-user-static; or {_HINT}", exit_code=1)
    if not found.fixed:
        message = f"the emulator for {architecture} ({found.interpreter}) is not in the image: it lacks flag F"
        raise LimpetError(message, f"register it with F, as Debian's qemu-user-static does; or {_HINT}", exit_code=1)
