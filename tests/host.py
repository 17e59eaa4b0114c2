"""Does a test session leave the host as it found it? `tests/conftest.py` asks at its end, and fails it if not.

Compared are processes (and with them the namespaces they hold), mounts, control groups, BPF programs (a link holds its
program, so links count too), and files of the default store. Other people's containers, sessions and daemons may come
and go meanwhile. A thing is *ours* when it bears this session's mark in its environment or its temporary directory in
a path. What bears neither, such as an empty group, is blamed on this session only if no other one is running.

A line of processes, each of which forks the next one and ends, is in no list of processes for long enough to be looked
at, and eats a processor. So the newest process of the machine is looked at again and again for a moment.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from limpet.kernel import bpf, cgroup
from limpet.kernel.sys import Buffer, by_machine, syscall

MARK = "LIMPET_TEST_SESSION"
"""The environment variable that all processes of a session inherit. A session inside a session adds to it."""

_DEFAULT_PLACES = ("/run/limpet", "/var/lib/limpet")
_DEPTH = 3
_PATIENCE = 5.0  # seconds for what ends by itself: a monitor that was told to, programs of a group that is gone
_MOMENT = 0.2  # seconds for which births are watched
_BPF = by_machine(321, 280)
_PROG_GET_NEXT_ID, _OBJ_GET_INFO_BY_FD, _CGROUP_DEVICE = 11, 15, 6


@dataclass(frozen=True)
class Thing:
    """`ours`: certainly this session's. `kind` and `name` identify it; `detail` is for people."""

    kind: str
    name: str
    detail: str
    ours: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.detail}".rstrip()


class Session:
    """From the start of a test session to its end."""

    def __init__(self, temporary: Path, lock: str = "/tmp/limpet-test-sessions.lock") -> None:
        """`temporary`: below it is whatever the tests write. `lock`: what all sessions share while they run."""
        own = f"{os.getpid()}.{time.monotonic_ns()}"
        os.environ[MARK] = f"{os.environ[MARK]}/{own}" if MARK in os.environ else own
        self.mark = own.encode()
        self.temporary = f"{temporary}/"
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        self._before = {(thing.kind, thing.name) for thing in self.things()}

    def leftovers(self) -> list[Thing]:
        """What is there now and was not at the start; what is about to end gets a few seconds for it."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            new = [thing for thing in self.things() if (thing.kind, thing.name) not in self._before]
            if not all(thing.ours for thing in new) and not self._alone():
                new = [thing for thing in new if thing.ours]
            if not new or time.monotonic() > deadline:
                return new
            time.sleep(0.05)  # none of these tells of its end in a way that one could wait for all of them

    def close(self) -> None:
        os.close(self._lock)

    def things(self) -> list[Thing]:
        ours = self._processes()
        groups, foreign = self._groups(ours)
        listed = [
            Thing("process", str(pid), line, ours=True) for pid, line in ours.items() if not _is_test_worker(pid, line)
        ]
        return [*listed, *self._lines(), *groups, *self._mounts(), *_programs(foreign), *_files()]

    def _alone(self) -> bool:
        """No other session holds the lock; the shared lock is kept whatever the answer."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A failed conversion may have lost the lock that was there (flock(2), "not guaranteed to be atomic").
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            return False
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        return True

    def _processes(self) -> dict[int, str]:
        """Those that bear our mark, with their command lines; not this one and those that started it."""
        found = {}
        above = _ancestors(os.getpid())
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) not in above and (line := self._own(int(entry))) is not None:
                found[int(entry)] = line
        return found

    def _own(self, pid: int) -> str | None:
        """The command line of a process that bears our mark or names our directory; None for another, or a dead one."""
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            directory = os.readlink(f"/proc/{pid}/cwd") + "/"
        except OSError:
            return None  # it has ended; a zombie has no cwd
        texts = (environment.decode(errors="replace"), line, directory)
        return line[:200] if self.mark in environment or any(self.temporary in text for text in texts) else None

    def _lines(self) -> list[Thing]:
        """Lines of short-lived processes of ours: who is born now, when nothing of ours should be at work."""
        found: dict[int, Thing] = {}
        first = last = _newest()
        half, end = (time.monotonic() + _MOMENT * part for part in (0.5, 1))
        while (now := time.monotonic()) < end:
            pid = _newest()
            if pid == last == first and now > half:
                break  # nobody forks at all
            if pid == last:
                continue
            last = pid
            try:
                group = os.getpgid(pid)
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue  # it was faster; the next one may not be
            if self.mark in environment:
                name = f"line of group {group}"
                found[group] = Thing("process", name, "forks and ends, again and again", ours=True)
        return list(found.values())

    def _groups(self, ours: dict[int, str]) -> tuple[list[Thing], list[str]]:
        """Groups of containers; and the paths of those that living processes of others are in."""
        root = cgroup.root()
        things, foreign = [], []
        base = Path("/sys/fs/cgroup")
        for parent in (base / cgroup.PARENT, *sorted(base.glob(f"*/{cgroup.PARENT}"))):
            second = str(parent.parent) == root  # else a hierarchy of version 1, where runc makes groups
            for path in sorted(parent.glob("**/")):
                if path == parent:
                    continue
                try:
                    pids = cgroup.pids(str(path))
                except OSError:
                    continue  # it went just now
                related = {pid for member in pids for pid in _ancestors(member)}
                if related & ours.keys():
                    things.append(Thing("group", str(path), f"of processes {pids}", ours=True))
                elif any(pid > 1 for pid in related - set(pids)):
                    if second:
                        foreign.append(str(path))  # someone watches over it, and it is none of us
                else:
                    things.append(Thing("group", str(path), f"of processes {pids}" if pids else "(empty)", ours=False))
        return things, foreign

    def _mounts(self) -> list[Thing]:
        found = []
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            place, (kind, source) = fields[4], fields[fields.index("-") + 1 :][:2]
            ours = place.startswith(self.temporary)
            # nsfs: a namespace that a mount holds. Engines of others mount overlays, but call them otherwise.
            if ours or kind in ("erofs", "nsfs") or source == "limpet" or place.startswith(_DEFAULT_PLACES):
                found.append(Thing("mount", place, f"{kind} {source}", ours=ours))
        return found


def _ancestors(pid: int) -> set[int]:
    """A process and all those above it."""
    found: set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            break
    return found


def _newest() -> int:
    """The last process that was made, in this PID namespace (proc(5), loadavg)."""
    return int(Path("/proc/loadavg").read_bytes().split()[-1])


def _is_test_worker(pid: int, line: str) -> bool:
    """pytest-xdist's own, which end a moment after the session's last hook."""
    return "exec(eval(sys.stdin.readline()))" in line and os.getpid() in _ancestors(pid)


def _programs(foreign: list[str]) -> list[Thing]:
    """BPF programs called limpet…, but for those on groups of others."""
    used: set[int] = set()
    for path in foreign:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            used.update(bpf.attached(fd, _CGROUP_DEVICE))
        finally:
            os.close(fd)
    found = []
    number = 0
    while True:
        attributes = Buffer(struct.pack("<3I", number, 0, 0))
        try:
            syscall(_BPF, _PROG_GET_NEXT_ID, attributes, 12)
            (number,) = struct.unpack_from("<I", bytes(attributes), 4)
            fd = bpf.by_id(number)
        except FileNotFoundError:
            if struct.unpack_from("<I", bytes(attributes), 4)[0] == 0:
                return found
            continue  # it went between the two calls
        try:
            info = Buffer(80)
            syscall(_BPF, _OBJ_GET_INFO_BY_FD, Buffer(struct.pack("<IIQ", fd, 80, info.address)), 16)
        finally:
            os.close(fd)
        name = bytes(info)[64:80].rstrip(b"\0").decode(errors="replace")  # struct bpf_prog_info
        if name.startswith("limpet") and number not in used:
            found.append(Thing("BPF program", str(number), name, ours=False))


def _files() -> list[Thing]:
    found: list[Thing] = []
    for place in _DEFAULT_PLACES:
        for directory, directories, files in os.walk(place):
            found += [Thing("file", f"{directory}/{name}", "", ours=False) for name in (*directories, *files)]
            if directory.count("/") - place.count("/") >= _DEPTH:
                directories.clear()
    return found
