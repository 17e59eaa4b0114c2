"""Whether anything comes to a socket: a filter that lets every packet pass and counts it.

Connections inherit the filter of the socket that they were accepted from (net/core/sock.c, `sk_clone_lock`), so that
one cell tells of a service and all its clients, with nobody in between.
"""

from __future__ import annotations

import os
import struct

from limpet.kernel import bpf, bpfmaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
else:
    import _socket as socket

_SOCKET_FILTER = 1  # BPF_PROG_TYPE_SOCKET_FILTER
_SO_ATTACH_BPF = 50
_CELL = struct.pack("<I", 0)


def counter() -> int:
    """A descriptor of a new cell. Raises OSError where this user may not load programs."""
    return bpfmaps.create(bpfmaps.ARRAY, 4, 8, 1, "packets")


def count(sockets: Sequence[socket.socket], cell: int) -> None:
    """What comes to them from now on is counted in the cell."""
    code = bpf.Assembler()
    code.store_number(4, bpf.FRAME, -4, 0)
    code.address(bpf.R2, -4)
    code.map(bpf.R1, cell)
    code.call(bpf.MAP_LOOKUP)
    code.if_null(bpf.R0, "pass")
    code.load(8, bpf.R1, bpf.R0, 0)
    code.add(bpf.R1, 1)  # two at once may count as one: it is only asked whether it moves
    code.store(8, bpf.R0, 0, bpf.R1)
    code.label("pass")
    code.leave(0x7FFFFFFF)  # so many bytes of the packet are kept
    program = bpf.load(_SOCKET_FILTER, code.assemble(), "count")
    try:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
    finally:
        os.close(program)


def counted(cell: int) -> int:
    return int.from_bytes(bpfmaps.get(cell, _CELL, 8) or b"", "little")
