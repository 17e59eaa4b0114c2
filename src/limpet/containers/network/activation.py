"""Sockets that a container is given already listening (`--socket`), by the protocol of sd_listen_fds(3).

The monitor opens them before the first start and keeps them from one run to the next: who connects while the container
is restarted waits in the queue. With `--on-demand` the container is started by the first one who connects, with
`--idle-stop` it is stopped when nobody has for a while, and then waits again. They are the host's sockets, whatever
network the container has: one with `--network none` can serve, and nothing else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import time

from limpet.containers.execution.process import FIRST_FREE
from limpet.errors import Invalid, LimpetError
from limpet.kernel import inotify, timer
from limpet.network import activity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.containers.options import Options

LOOPBACK = "127.0.0.1"
"""Where a port is bound when no address is said, and the container has none of its own."""

_CHECKS = 4  # looks at a socket within the time of --idle-stop
_BACKLOG = 4096
_ESTABLISHED, _UNIX_CONNECTED = "01", "03"  # include/net/tcp_states.h, net/unix (SS_CONNECTED)
_TCP_TABLES = {socket.AF_INET: "/proc/net/tcp", socket.AF_INET6: "/proc/net/tcp6"}


class Wanted:
    """`--socket`: a port of TCP or UDP at `address` ("": the container's), or a Unix socket at a path (port 0)."""

    __slots__ = ("address", "port", "udp")

    def __init__(self, address: str, port: int, udp: bool) -> None:
        self.address = address
        self.port = port
        self.udp = udp

    @property
    def name(self) -> str:
        """For LISTEN_FDNAMES, which has no colons."""
        return str(self.port) if self.port else os.path.basename(self.address).replace(":", "_")

    def __str__(self) -> str:
        if not self.port:
            return self.address
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}{':' if address else ''}{self.port}{'/udp' if self.udp else ''}"


def parse(text: str) -> Wanted:
    """`[ADDRESS:]PORT[/tcp|/udp]` or `/PATH`. Raises Invalid."""
    if text.startswith("/"):
        if len(os.fsencode(text)) > 107:
            raise Invalid(f"--socket {text}: the path is longer than 107 bytes")
        return Wanted(text, 0, False)
    place, _, protocol = text.partition("/")
    address, _, port = place.rpartition(":")
    address = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if protocol not in ("", "tcp", "udp") or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Invalid(f"invalid --socket '{text}'", "write [ADDRESS:]PORT[/udp] or /PATH")
    try:
        if address:
            socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        raise Invalid(f"invalid --socket '{text}': {address} is no address") from None
    return Wanted(address, int(port), protocol == "udp")


def check(options: Options) -> None:
    """Raises Invalid."""
    wanted = [str(parse(text)) for text in options.sockets]
    for text in wanted:
        if wanted.count(text) > 1:
            raise Invalid(f"--socket {text} is said twice")
    if (options.on_demand or options.idle_stop) and not options.sockets:
        raise Invalid("--on-demand and --idle-stop need a --socket to listen on", "--socket PORT")
    if options.idle_stop and not options.on_demand:
        raise Invalid("--idle-stop without --on-demand: nobody would start it again", "add --on-demand")
    if options.on_demand and not options.detach:
        raise Invalid("--on-demand is for containers in the background", "add -d")
    if options.on_demand and options.auto_remove:
        raise Invalid("--on-demand with --rm: it would be gone after its first run", "leave out one of the two")
    if options.runtime != "limpet" and options.sockets:
        raise Invalid(f"--socket is not there with the runtime {options.runtime}", "leave out one of the two")


class Activation:
    """Of one container, as long as its monitor lives, whichever process that is (`saved`, `restored`)."""

    def __init__(self, options: Options, run: str, saved: dict[str, Any] | None = None) -> None:
        """Opens the sockets, or goes on with those of `saved`. Raises LimpetError."""
        self._run = run
        self._wanted = [parse(text) for text in options.sockets]
        for wanted in self._wanted:
            wanted.address = wanted.address or (options.own_address or [LOOPBACK])[0]
        self.on_demand = options.on_demand
        self._idle = options.idle_stop
        self._called = False
        self._word = -1
        self._counted: int = 0
        self._quiet_since: float = 0.0
        if saved:
            self.descriptors: list[int] = saved["descriptors"]
            self._timer, self._counter, self._word = saved["timer"], saved["counter"], saved["word"]
            self._counted, self._quiet_since = saved["counted"], saved["quiet_since"]
            return
        self.descriptors = []
        self._timer = timer.create() if self._idle else -1
        self._counter = _new_counter() if self._idle else -1
        for wanted in self._wanted:
            self.descriptors.append(_open(wanted))
        if self._counter >= 0:
            opened = [socket.socket(fileno=os.dup(fd)) for fd in self.descriptors]
            activity.count([each for each in opened if each.family != socket.AF_UNIX], self._counter)
            for each in opened:
                each.close()

    def saved(self) -> dict[str, Any]:
        return {
            "descriptors": self.descriptors,
            "timer": self._timer,
            "counter": self._counter,
            "word": self._word,
            "counted": self._counted,
            "quiet_since": self._quiet_since,
        }

    @property
    def kept(self) -> list[int]:
        """Descriptors that a sleep must not close."""
        return [fd for fd in (*self.descriptors, self._timer, self._counter, self._word) if fd >= 0]

    def environment(self) -> list[str]:
        """For the program; LISTEN_PID is known at its exec."""
        names = ":".join(wanted.name for wanted in self._wanted)
        return [f"LISTEN_FDS={len(self._wanted)}", f"LISTEN_FDNAMES={names}"]

    def __str__(self) -> str:
        return ", ".join(map(str, self._wanted))

    # While it waits for somebody to connect

    def await_call(self) -> None:
        self._called = False
        self._word = inotify.watch(self._run, inotify.IN_MOVED_TO | inotify.IN_CREATE)

    @property
    def waiting(self) -> bool:
        return self._word >= 0

    @property
    def called(self) -> bool:
        """Whether the wait is over: somebody connected, or `stop` left its mark."""
        return self._called or self.stopped

    @property
    def stopped(self) -> bool:
        return os.path.exists(f"{self._run}/stopped")

    def end_wait(self) -> None:
        if self._word >= 0:
            os.close(self._word)
        self._word = -1

    # In the monitor's event loop

    def interests(self, running: bool) -> dict[int, int]:
        if self.waiting:
            return dict.fromkeys((*self.descriptors, self._word), select.POLLIN)
        return {self._timer: select.POLLIN} if running and self._timer >= 0 else {}

    def handle(self, fd: int) -> bool | None:
        """None for a descriptor that is not its own; else whether the container has been idle for its time."""
        if self.waiting and fd in self.descriptors:
            self._called = True
        elif fd == self._word:
            inotify.drain(fd)
        elif fd == self._timer:
            return bool(timer.is_up(fd)) and self._is_idle()
        else:
            return None
        return False

    def began(self) -> None:
        """A run has begun: its idleness is looked at from now on."""
        if self._timer >= 0:
            self._quiet_since = time.monotonic()
            self._counted = self._packets()
            timer.arm(self._timer, self._idle / _CHECKS)

    def close(self) -> None:
        for fd in self.kept:
            os.close(fd)
        for wanted in self._wanted:
            if not wanted.port:
                try:
                    os.unlink(wanted.address)
                except OSError:
                    pass

    def _is_idle(self) -> bool:
        """No packet for the time of --idle-stop, and nobody connected now."""
        packets, now = self._packets(), time.monotonic()
        if packets != self._counted or any(map(_connections, self._wanted)):
            self._counted, self._quiet_since = packets, now
        left = self._quiet_since + self._idle - now
        timer.arm(self._timer, max(min(left, self._idle / _CHECKS), 0.05))
        return left <= 0

    def _packets(self) -> int:
        return activity.counted(self._counter) if self._counter >= 0 else 0


def _open(wanted: Wanted) -> int:
    """Bound and listening, its number high. Raises LimpetError."""
    if not wanted.port:
        return _open_path(wanted.address)
    family = socket.AF_INET6 if ":" in wanted.address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM if wanted.udp else socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if not wanted.udp:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((wanted.address, wanted.port))
        if not wanted.udp:
            opened.listen(_BACKLOG)
        return _high(opened)
    except OSError as e:
        opened.close()
        hints = {
            errno.EADDRINUSE: "`ss -lntup` shows who has it",
            errno.EADDRNOTAVAIL: "the host has no such address: `ip addr` shows those it has",
        }
        what = {errno.EADDRINUSE: "the port is in use"}.get(e.errno or 0, (e.strerror or str(e)).lower())
        raise LimpetError(f"--socket {wanted}: {what}", hints.get(e.errno or 0, "")) from e


def _open_path(path: str) -> int:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead(path)
        opened.bind(path)
        opened.listen(_BACKLOG)
        return _high(opened)
    except OSError as e:
        opened.close()
        raise LimpetError(f"--socket {path}: {(e.strerror or str(e)).lower()}", "") from e


def _remove_dead(path: str) -> None:
    """A socket that a killed monitor left: nobody listens any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # nothing is there, or not a socket: bind says what


def _high(opened: socket.socket) -> int:
    try:
        return fcntl.fcntl(opened.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)
    finally:
        opened.close()


def _new_counter() -> int:
    """A cell in the kernel for packets; -1 where a user may not load programs: then only connections count."""
    try:
        return _moved(activity.counter())
    except OSError:
        return -1


def _moved(fd: int) -> int:
    """The same file by a number out of the way."""
    moved: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)
    os.close(fd)
    return moved


def _connections(wanted: Wanted) -> int:
    """How many are open, by the host's tables (proc(5))."""
    if wanted.udp:
        return 0
    if not wanted.port:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
            rows = [line.split(None, 7) for line in file]
        return sum(len(row) == 8 and row[7].strip() == wanted.address and row[5] == _UNIX_CONNECTED for row in rows)
    suffix = f":{wanted.port:04X}"
    tables = {_TCP_TABLES[socket.AF_INET6 if ":" in wanted.address else socket.AF_INET], "/proc/net/tcp6"}
    count = 0
    for table in tables:
        try:
            with open(table, encoding="ascii") as file:
                count += sum(line.split()[1].endswith(suffix) and line.split()[3] == _ESTABLISHED for line in file)
        except FileNotFoundError:
            pass  # no IPv6
    return count
