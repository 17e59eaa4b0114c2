"""`--network private`: a namespace of its own whose way out is pasta(1), of the package passt: no bridge, no rules.

pasta is a child of the container's monitor and dies with it, however that ends. It copies the host's address and route
into the namespace, and makes the host's own sockets of what the container's programs send. It runs as root without
most of root's capabilities, in a mount namespace with nothing in it and under a seccomp filter (passt `isolation.c`).
"""

from __future__ import annotations

import os

from limpet.errors import LimpetError
from limpet.kernel import process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from limpet.network.publication import Port

_PLACES = ("/usr/bin/pasta", "/usr/local/bin/pasta")
_NAMESPACE, _READY = 3, 4  # descriptors in pasta
_CHATTER = ("No external routable interface for IPv6", "Failed to send", "Don't run as root")
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def start(namespace: int, ports: Iterable[Port], log: str) -> int:
    """pasta's process id, once it works. `log`: a file for what it says. Raises LimpetError with its last words."""
    program = next((path for path in _PLACES if os.access(path, os.X_OK)), None)
    if program is None:
        raise LimpetError("--network private needs pasta, which is not installed", "on Debian: apt-get install passt")
    read, write = os.pipe()
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become(program, _arguments(ports), namespace, write, said, parent)
        finally:
            os._exit(127)
    os.close(write)
    os.close(said)
    ready = os.read(read, 64)  # its id, or the end
    os.close(read)
    if ready:
        return pid
    os.waitpid(pid, 0)
    raise LimpetError(f"--network private: pasta ended: {_last_words(log)}", "it needs a default route on the host")


def stop(pid: int) -> None:
    """Ends it. Its sockets close, and so does what is published."""
    try:
        os.kill(pid, signals.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # somebody else ended it, or waited for it


def _arguments(ports: Iterable[Port]) -> list[str]:
    by_protocol: dict[str, list[str]] = {"tcp": [], "udp": []}
    for address, port, inner, protocol in ports:
        where = "" if address in ("0.0.0.0", "::") else f"{address}/"
        text = f"{where}{port}:{inner}"
        if text not in by_protocol[protocol]:  # without an address it is both families
            by_protocol[protocol].append(text)
    # The host's loopback is not to be reached: no gateway that stands for it, no ports of the host inside.
    words = "--quiet --foreground --stderr --config-net --netns-only --runas 0 --no-map-gw -T none -U none".split(" ")
    words += [f"--netns=/proc/self/fd/{_NAMESPACE}", f"--pid=/proc/self/fd/{_READY}"]
    for letter, protocol in (("-t", "tcp"), ("-u", "udp")):
        for text in by_protocol[protocol] or ["none"]:
            words += [letter, text]
    return words


def _become(program: str, arguments: list[str], namespace: int, write: int, said: int, parent: int) -> None:
    process.set_death_signal(signals.SIGKILL)
    if os.getppid() != parent:
        return  # it ended before that
    # Out of the way of the numbers that they shall have, and then there.
    import fcntl

    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (said, namespace, write)]
    for fd, target in zip(high, (2, _NAMESPACE, _READY), strict=True):
        os.dup2(fd, target)
    process.close_range(_READY + 1, 0xFFFFFFFF)
    os.chdir("/")
    signals.reset()
    signals.block(signals.SIG_SETMASK, ())
    os.execve(program, [program, *arguments], _ENVIRONMENT)


def _last_words(log: str) -> str:
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file.read(1 << 16).splitlines()]
    except OSError:
        lines = []
    told = [line for line in lines if line and not line.startswith(_CHATTER)]
    return told[-1] if told else "without a word"
