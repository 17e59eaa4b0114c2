"""CRIU (criu.org) as a program: a container's processes become files, and files processes again.

Its options are those of criu(8). Mounts that came from the host are *external*: they are named when they are kept, and
each name gets its place of now when they come back. Pipes to the monitor are replaced by those of the new monitor.
Groups are left to us: CRIU itself is put into the container's, so what it makes is there from its first moment.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from limpet.containers.execution import rootfs
from limpet.containers.execution.outcome import StartFailed
from limpet.errors import LimpetError, Refused
from limpet.kernel import cgroup, controllers, mounts, process, signals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    Config = dict[str, Any]

NAME = "criu"
LONGEST = 600.0  # seconds for a restore
_FIRST = 10  # of the descriptors that CRIU gives to what it restores
_NO_REASON = ("RLIMIT_NOFILE", "Unable to create tun", "FAILED", "cgroupd", "failed with -1")
_COMMON = ("--manage-cgroups=ignore", "--ext-unix-sk", "-v3")


def program() -> str:
    """The path of CRIU: `LIMPET_CRIU`, or what PATH has. Raises Refused."""
    wanted = os.environ.get("LIMPET_CRIU") or NAME
    for directory in (os.environ.get("PATH", "") + ":/usr/sbin:/sbin").split(":") if "/" not in wanted else [""]:
        path = f"{directory}/{wanted}" if directory else wanted
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise Refused(
        f"checkpoints need CRIU, and there is no {wanted} on this host",
        "install it (criu.org), or set LIMPET_CRIU to its path",
        exit_code=1,
    )


def external(config: Config, group: str) -> dict[str, str]:
    """Of each mount that comes from outside: where it is in the container → what it is on the host now.

    `group`: `Container.group`.
    """
    found: dict[str, str] = {}
    for mount in config["mounts"]:
        if mount["type"] == "cgroup":
            source = cgroup.path(group)
            if source is not None:
                found[mount["destination"]] = source
        elif _is_bind(mount):
            found[mount["destination"]] = mount["source"]
    return found


def dump(pid: int, place: str, config: Config, group: str, flags: Sequence[str], what: str) -> None:
    """Keeps the process tree of `pid` in `place`; it ends then, unless `flags` say otherwise. Raises LimpetError."""
    import subprocess

    words = [program(), "dump", "--tree", str(pid), "--images-dir", place, "--log-file", "dump.log", *_COMMON, *flags]
    for target in external(config, group):
        words += ["--external", f"mnt[{target}]:{target}"]
    result = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True)
    if result.returncode:
        raise LimpetError(f"{what}: CRIU can't keep it: {_reason(f'{place}/dump.log', result.stderr)}", exit_code=1)


def restore(
    config: Config,
    directory: str,
    group: str,
    root: int,
    stdio: tuple[int, int, int],
    entrances: Sequence[int],
    place: str,
    pipes: Sequence[int],
    flags: Sequence[str],
) -> int:
    """The process tree runs again, as a child of this process: its pid.

    `directory`: the container's; `root`: its mount; `pipes`: the inodes that 0, 1 and 2 had, or 0. Raises StartFailed.
    """
    log, pidfile = f"{directory}/restore.log", f"{directory}/restore.pid"
    words = [program(), "restore", "--images-dir", place, "--work-dir", directory, "--log-file", "restore.log"]
    words += ["--restore-detached", "--restore-sibling", "--pidfile", pidfile, "--root", f"{directory}/rootfs"]
    words += [*_COMMON, *flags]
    for target, source in external(config, group).items():
        words += ["--external", f"mnt[{target}]:{source}"]
    for fd, inode in enumerate(pipes):
        if inode:
            words += ["--inherit-fd", f"fd[{_FIRST + fd}]:pipe:[{inode}]"]
    for path in (log, pidfile):
        if os.path.exists(path):
            os.unlink(path)  # CRIU refuses one that is there
    child = os.fork()
    if child == 0:
        _become(words, config, f"{directory}/rootfs", cgroup.path(group), root, stdio, entrances)
    status = _wait(child)
    if status:
        made = cgroup.path(group)
        if made is not None and os.path.isdir(made):
            cgroup.kill(made)  # what it had made by then
        raise StartFailed(f"CRIU can't restore it: {_reason(log)}", f"{log} has the whole of it", 125)
    with open(pidfile, encoding="ascii") as file:
        pid = int(file.read())
    os.unlink(pidfile)
    os.unlink(log)
    return pid


def _wait(child: int) -> int:
    """Its status. One that does not end, as over images that are damaged, is ended."""
    pidfd = os.pidfd_open(child)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(LONGEST * 1000):
        process.pidfd_send_signal(pidfd, signals.SIGKILL)
    os.close(pidfd)
    return os.waitpid(child, 0)[1]


def _become(
    words: list[str],
    config: Config,
    place: str,
    group: str | None,
    root: int,
    stdio: tuple[int, int, int],
    entrances: Sequence[int],
) -> NoReturn:
    """In a child: CRIU, in the container's groups, in a mount namespace of its own that has the container's root."""
    try:
        if group is not None:
            with open(f"{group}/cgroup.procs", "w", encoding="ascii") as file:
                file.write("0")
        controllers.join(entrances)
        process.unshare(process.CLONE_NEWNS)
        mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_PRIVATE)
        mounts.attach(root, place)
        _make_targets(config, place)
        high = [os.dup(fd) for fd in stdio]  # above what is about to be replaced
        while min(high) < _FIRST + 3:
            high = [os.dup(fd) for fd in high]
        for number, fd in enumerate(high):
            os.dup2(fd, _FIRST + number)
        process.close_range(3, _FIRST - 1)
        process.close_range(_FIRST + 3, 0xFFFFFFFF)
        signals.block(signals.SIG_SETMASK, ())
        os.execve(words[0], words, dict(os.environ))
    finally:
        os._exit(127)


def _is_bind(mount: Config) -> bool:
    return bool({"bind", "rbind"} & set(mount.get("options", ())))


def _make_targets(config: Config, place: str) -> None:
    """Where the mounts go: an export has no empty directories of ours. In a child, whose root is the container's."""
    directories = {
        mount["destination"]: not _is_bind(mount) or os.path.isdir(mount["source"]) for mount in config["mounts"]
    }
    child = os.fork()
    if child == 0:
        try:
            os.chroot(place)
            os.chdir("/")
            for target, directory in directories.items():
                rootfs.make_target(target, directory=directory)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _reason(log: str, said: bytes = b"") -> str:
    """The last error of CRIU's log that says something, without its time and its place in the source."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line for line in file if "Error (" in line]
    except OSError:
        lines = []
    for line in reversed(lines):
        text = line.partition("): ")[2].strip() if "): " in line else line.strip()
        if not any(word in text for word in _NO_REASON):
            return text
    return said.decode(errors="replace").strip().partition("\n")[0] or "it does not say why"
