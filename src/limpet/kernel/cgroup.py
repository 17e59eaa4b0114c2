"""cgroup version 2 groups, one per container, below `limpet` at the root of the hierarchy that is there.

On a hybrid host version 2 is mounted at `unified` and has no controllers; freezing, killing and BPF work there too.
Without version 2 `create` gives None, and a container is held by its PID namespace alone. Where systemd has given a
container a scope (`kernel.systemd`), its group is in that, beside its monitor's: `limpet.slice/limpet-<id>.scope/`.

A group's *name* is that of its container or build step; with another parent it is `PARENT/NAME`, the parent being a
slice of systemd or the path of a group below the root.
"""

from __future__ import annotations

import os
import select
import time

from limpet.kernel.process import start_time

PARENT = "limpet"
INSIDE, MONITOR = "container", "monitor"
"""What is in a scope: processes are only at the ends of the tree (cgroup-v2.rst, "No Internal Process")."""
_OWNER = "user.limpet.store"
"""The extended attribute that says whose a group is: several stores have theirs below the one parent."""
_PARENT_MARK = "user.limpet.parent"

_PLACES = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_PAUSE, _PATIENCE = 0.002, 500
"""Seconds between two tries to remove a group, and how many there are."""


WAY = "with systemd, log in (not by su), or `loginctl enable-linger`; elsewhere LIMPET_CGROUP names one of yours"
"""For who has no group: what to do."""


def delegated() -> bool:
    """Whether groups are made below one that somebody else gave us (`unprivileged`), or none at all."""
    return "LIMPET_CGROUP" in os.environ


def root() -> str | None:
    """Where groups are made: cgroup2's root, or a group given to us. A group of version 1 has no cgroup.controllers."""
    if delegated():
        return os.environ["LIMPET_CGROUP"] or None
    for place in _PLACES:
        if os.path.exists(f"{place}/cgroup.controllers"):
            return place
    return None


def user_instance(uid: int) -> str:
    """The group of a user's own systemd, below cgroup2's root: in what that makes the user may have groups."""
    return f"/user.slice/user-{uid}.slice/user@{uid}.service"


def of_user_instance() -> bool:
    """Whether groups are made in scopes of a user's own systemd (`store.unprivileged`)."""
    name = os.path.basename(os.environ.get("LIMPET_CGROUP", ""))
    return name.startswith("user@") and name.endswith(".service")


def below(name: str) -> str:
    """Where the group of that name is below the root of a hierarchy, if it is in no scope."""
    return name if "/" in name else f"{PARENT}/{name}"


def scope(name: str) -> str:
    """The path of the scope that systemd has, or had, for the group of that name; "" where it has no say."""
    base = root()
    if base is None or not (base == _PLACES[0] or of_user_instance()):
        return ""
    parent, _, last = name.rpartition("/")
    if parent:
        from limpet.kernel import systemd

        directory = systemd.slice_path(parent if parent.endswith(".slice") else systemd.SLICE)
    else:
        directory = f"{PARENT}.slice"
    return f"{base}/{directory}/{scope_name(last)}"


def scope_name(name: str) -> str:
    """What systemd calls it."""
    return f"limpet-{name.rpartition('/')[2]}.scope"


def name_of(directory: str) -> str:
    """The name of the group that stands there: `scope_name`, undone."""
    is_scope = directory.endswith(".scope")
    return directory.removesuffix(".scope").removeprefix("limpet-") if is_scope else directory


def in_scope(name: str) -> bool:
    """Whether the group of that name is in its scope. One below a path that somebody named never is."""
    parent = name.rpartition("/")[0]
    return (not parent or parent.endswith(".slice")) and os.path.isdir(scope(name) or "/nowhere")


def version() -> str:
    """ "2", "hybrid" or "1": how this host has them, whether or not we may make any."""
    for place, found in zip(_PLACES, ("2", "hybrid"), strict=True):
        if os.path.exists(f"{place}/cgroup.controllers"):
            return found
    return "1"


def path(name: str) -> str | None:
    """Where the group of that name is, or would be."""
    base = root()
    if base is None:
        return None
    return f"{scope(name)}/{INSIDE}" if in_scope(name) else f"{base}/{below(name)}"


def outer(place: str) -> str:
    """The directory that stands for a container beside those of others: of a group in a scope that is the scope."""
    parent = os.path.dirname(place)
    in_one = os.path.basename(place) == INSIDE and parent.endswith(".scope")
    return parent if in_one else place


def level(place: str) -> int:
    """How far a group is below the root of its hierarchy, of which the level is 0."""
    return len(place.removeprefix(root() or "").strip("/").split("/"))


def parents() -> list[str]:
    """Where containers have their groups, unless somebody named another place; those of them that there are."""
    base = root()
    places = [f"{base}/{name}" for name in (PARENT, f"{PARENT}.slice")] if base else []
    return [place for place in places if os.path.isdir(place)]


def of_self() -> str:
    """The group of version 2 that the calling process is in, below the root of the hierarchy."""
    with open("/proc/self/cgroup", "rb") as file:
        return next((os.fsdecode(line[3:].strip()) for line in file if line.startswith(b"0::")), "/")


def relative(name: str) -> str:
    """As `path`, below the root of its hierarchy, as /proc/<pid>/cgroup and config.json have it."""
    return (path(name) or f"/{below(name)}").removeprefix(root() or "")


def create(name: str, owner: str = "") -> str | None:
    """A new group's path; one that a dead container left is taken over. None without cgroup2.

    `owner`: the store's root, by which `owned` finds the group again.
    """
    place = path(name)
    if place is None:
        return None
    make(place)
    if owner:
        try:
            os.setxattr(place, _OWNER, os.fsencode(owner))
        except OSError:
            pass  # before Linux 5.7: nobody will find it by its owner
    return place


def make(place: str) -> None:
    """A directory of a hierarchy, and those above it; one that is there is left as it is.

    Those above are marked, by which `remove` knows that they may go with the last group in them.
    """
    while True:
        try:
            os.mkdir(place, 0o755)
        except FileExistsError:
            return
        except FileNotFoundError:
            parent = os.path.dirname(place)
            make(parent)  # another container's end may take it away again
            mark(parent)
            continue
        return


def mark(place: str) -> None:
    """As a group that may go with the last one in it."""
    try:
        os.setxattr(place, _PARENT_MARK, b"1")
    except OSError:
        pass  # before Linux 5.7, or gone again


def of_process(pid: int) -> str:
    """How the names of the groups begin that belong to a process and end with it."""
    return f"process-{pid}-{start_time(pid)}-"


def process_lives(name: str) -> bool:
    """Whether a group is of a process that lives (`of_process`)."""
    kind, _, rest = name.partition("-")
    pid, _, rest = rest.partition("-")
    return kind == "process" and pid.isdecimal() and rest.partition("-")[0] == str(start_time(int(pid)))


def owned(owner: str) -> list[str]:
    """The paths of all groups that were created for that owner, whether something lives in them or not."""
    base = root()
    if base is None:
        return []
    found = []
    try:
        names = sorted(os.listdir(f"{base}/{PARENT}"))
    except FileNotFoundError:
        return []
    for name in names:
        try:
            if os.getxattr(f"{base}/{PARENT}/{name}", _OWNER) == os.fsencode(owner):
                found.append(f"{base}/{PARENT}/{name}")
        except OSError:
            pass  # a file, a group of somebody else, or one that went just now
    return found


def remove(place: str) -> bool:
    """Takes away a group whose processes have ended or are just ending, groups below it, and the last one's parent.

    What was killed counts for the group until the kernel has finished with it: up to a second is waited for that. False
    if something goes on living in it.
    """
    for attempt in range(_PATIENCE):
        try:
            _remove(place)
            break
        except FileNotFoundError:
            break
        except OSError:
            if attempt == _PATIENCE - 1:
                return False
            time.sleep(_PAUSE)
    parent = os.path.dirname(place)
    while _made_by_us(parent):
        try:
            os.rmdir(parent)
        except OSError:
            break  # other containers
        parent = os.path.dirname(parent)
    return True


def _made_by_us(place: str) -> bool:
    if os.path.basename(place) == PARENT:
        return True
    try:
        return bool(os.getxattr(place, _PARENT_MARK))
    except OSError:
        return False  # systemd's, somebody else's, or gone


def clear(name: str) -> None:
    """Kills what lives in the group of that name and takes it away, in the hierarchies of version 1 too (runc's).

    That of version 2 last, by which `owned` finds them again.
    """
    place = path(name)
    there = place is not None and os.path.isdir(place)
    if place is not None and there:
        kill(place)
    if root() != _PLACES[0] and not delegated():
        for hierarchy in os.listdir(_PLACES[0]) if os.path.isdir(_PLACES[0]) else ():
            old = f"{_PLACES[0]}/{hierarchy}/{below(name)}"
            if old != place and os.path.isdir(old):
                remove(old)
    if place is not None and there:
        remove(place)


def remove_parents() -> None:
    """Takes away `limpet` where it is empty, in every hierarchy: runc makes it in those of version 1 and leaves it."""
    for name in os.listdir(_PLACES[0]):
        try:
            os.rmdir(f"{_PLACES[0]}/{name}/{PARENT}")
        except OSError:
            pass  # not there, or other containers


def _remove(place: str) -> None:
    try:
        os.rmdir(place)
    except OSError:
        with os.scandir(place) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for group in below:
            _remove(group)
        os.rmdir(place)


def kill(place: str) -> None:
    """SIGKILL to every process of the group and of groups below it (5.14); those in the making too."""
    _write(f"{place}/cgroup.kill", b"1")


def freeze(place: str) -> None:
    """Asks for it; `settled` says when it is done."""
    _write(f"{place}/cgroup.freeze", b"1")


def frozen(place: str) -> bool:
    """Whether it was asked for; a process that waits for a device freezes when it gets on."""
    try:
        return _read(f"{place}/cgroup.freeze").startswith(b"1")
    except OSError:
        return False  # no such group (any more)


def settled(place: str, frozen: bool, seconds: float) -> bool:
    """Waits until every process of the group stands still (or none does); whether that is so within the time.

    Raises FileNotFoundError when the group is gone.
    """
    fd = os.open(f"{place}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    wanted = b"frozen 1" if frozen else b"frozen 0"
    end = time.monotonic() + seconds
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)  # kernfs reports a change once the file was read
        while wanted not in os.pread(fd, 256, 0):
            left = end - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
        return True
    finally:
        os.close(fd)


def thaw(place: str) -> None:
    _write(f"{place}/cgroup.freeze", b"0")


def enter(place: str, pid: int = 0) -> None:
    """Moves a process (0: the calling one) into the group."""
    _write(f"{place}/cgroup.procs", str(pid).encode())


def pids(place: str) -> list[int]:
    """The processes of the group and of those below it; none if the group is gone."""
    try:
        fd = os.open(f"{place}/cgroup.procs", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    data = b""
    try:
        while chunk := os.read(fd, 65536):
            data += chunk
    finally:
        os.close(fd)
    found = [int(line) for line in data.split()]
    with os.scandir(place) as entries:
        below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for group in below:
        found += pids(group)
    return found


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536)
    finally:
        os.close(fd)


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
