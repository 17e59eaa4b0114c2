"""Who has a port of this host, for the error of somebody who wanted it."""

from __future__ import annotations

import os
import socket
import sys

_LISTEN, _CLOSE = "0A", "07"  # include/net/tcp_states.h: TCP_LISTEN, TCP_CLOSE
_NEXT = 100  # ports that are tried


def find(address: str, port: int, protocol: str) -> str:
    """ "nginx (process 1234)" that listens there, or on every address; "" if nobody is seen to.

    "a process that can't be seen" where the socket has a holder in no directory of /proc that we may read.
    """
    inode = _inode(address, port, protocol)
    if not inode:
        return ""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{name}") == f"socket:[{inode}]":
                    with open(f"/proc/{pid}/comm") as file:
                        return f"{file.read().strip()} (process {pid})"
        except OSError:
            continue  # it has ended, or closed what we looked at
    return "a process that can't be seen"


def free(address: str, port: int, protocol: str) -> int:
    """The next port that could be bound; 0 if there is none near."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    for number in range(port + 1, min(port + _NEXT, 65536)):
        with socket.socket(family, kind) as channel:
            try:
                channel.bind((address, number))
                return number
            except OSError:
                continue
    return 0


def _inode(address: str, port: int, protocol: str) -> str:
    """Of the socket that serves it, in this network namespace (proc(5), /proc/net/tcp)."""
    state = _LISTEN if protocol == "tcp" else _CLOSE
    everywhere = address in ("0.0.0.0", "::")
    for suffix, family in (("", socket.AF_INET), ("6", socket.AF_INET6)):
        try:
            with open(f"/proc/self/net/{protocol}{suffix}", encoding="ascii") as file:
                lines = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        for fields in lines:
            where, _, number = fields[1].partition(":")
            if fields[3] != state or int(number, 16) != port or fields[9] == "0":
                continue
            words = [int(where[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(where), 8)]
            there = socket.inet_ntop(family, b"".join(words)).removeprefix("::ffff:")
            mine = (":" in there) == (":" in address) or there == "::"
            if mine and (everywhere or there == address or there in ("0.0.0.0", "::")):
                return fields[9]
    return ""
