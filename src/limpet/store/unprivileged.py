"""The store of a user without root: where it is, and the user namespace in which it makes sense.

Each command enters that namespace once, before it opens the store; there the user is root, and all code below is the
same as root's. All that live at one time are in one namespace, since only who is in a container's namespace may join
the container: commands and monitors hold `<run>/userns-…` (`kernel.idmap`), and who finds it held joins. Who doesn't
makes a namespace: with the ranges that /etc/subuid and /etc/subgid give the user, by newuidmap(1) and newgidmap(1), or
with one id. A small process keeps a new one for some minutes, because the two programs cost milliseconds; nothing
depends on it. The mount namespace is each command's own, so that what the host mounts meanwhile is seen.

What a store's files belong to depends on its ids: `<root>/ids` says once for all which it began with.
"""

from __future__ import annotations

import fcntl
import os

from limpet.errors import LimpetError, Refused
from limpet.kernel import idmap, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RANGES, SINGLE = "ranges", "single"
SUBIDS = ("/etc/subuid", "/etc/subgid")
_LASTS = 300_000  # milliseconds that a namespace is kept for the next command
_RANGES = 64  # of one user that count

NO_NAMESPACE = (
    "the system lets users have none: see /proc/sys/user/max_user_namespaces, "
    "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns; or use sudo"
)


def places(root: str, run: str) -> tuple[str, str]:
    """Where the store and its run directory are, for a user (XDG Base Directory Specification), as absolute paths.

    `root`, `run`: what the user said, or "". Directories that are a user's own are made, for him alone.
    """
    uid = os.getuid()
    root = root or os.environ.get("LIMPET_ROOT", "")
    run = run or os.environ.get("LIMPET_RUN", "")
    if not root:
        data = os.environ.get("XDG_DATA_HOME", "")
        if not data.startswith("/"):  # "… relative paths should be ignored"
            home = os.environ.get("HOME") or _home(uid)
            if not home.startswith("/"):
                raise LimpetError("there is no place for images and containers: HOME is not set", "--root says where")
            data = f"{home}/.local/share"
        _make(data)
        root = f"{data}/limpet"
        if not run:
            run = f"{_runtime_directory(uid)}/limpet"
    root = os.path.abspath(root)
    return root, os.path.abspath(run or f"{root}/run")


def enter(root: str, run: str, *, make: bool) -> None:
    """Makes this process, which has one thread, root of the user namespace that the store at `root` has.

    Without `make` nothing is left where there is no store. Raises Refused where the system does not let a user do that.
    """
    uid, gid = os.getuid(), os.getgid()
    if make or os.path.isdir(root):
        _make(run)
    kind = _kind(root, uid, make)
    try:
        file = os.open(f"{run}/userns-{kind}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # nothing is here, and nothing shall be made
        file = os.memfd_create("limpet-userns", os.MFD_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        if not idmap.join(file):
            fcntl.flock(file, fcntl.LOCK_EX)
            if not idmap.join(file):
                _new_namespace(file, kind, uid, gid)
        idmap.hold(file)  # for good: the descriptor is never closed
        process.unshare(process.CLONE_NEWNS)
        os.environ.setdefault("LIMPET_CGROUP", _group(run, uid))
    except OSError as e:
        raise Refused(f"making a user namespace: {e.strerror}", NO_NAMESPACE) from e
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def refuse_root(root: str) -> None:
    """What root makes in a user's store that user could not open any more. Raises Refused."""
    if not idmap.nested():
        owner = os.stat(root).st_uid
        raise Refused(f"{root} is the store of user {owner}", f"run limpet as that user: `sudo -u '#{owner}' limpet`")


def hold(run: str) -> int:
    """For a process that was forked of a command and outlives it: its own hold on the namespace; -1 if it has none.

    The descriptor must stay open, and no other one of the file may be opened.
    """
    if not idmap.nested():
        return -1
    for kind in (RANGES, SINGLE):
        if idmap.single() == (kind == SINGLE) and os.path.exists(f"{run}/userns-{kind}"):
            file = os.open(f"{run}/userns-{kind}", os.O_RDWR | os.O_CLOEXEC)
            idmap.hold(file)
            return file
    return -1


def ranges(path: str, uid: int, names: Sequence[str] = ()) -> list[tuple[int, int]]:
    """(first, count) of each range of a user in a file of the form of subuid(5); lines that are none count as absent.

    `names`: the user's, by which a line may name him as well as by number.
    """
    found = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 20).splitlines()
    except OSError:
        return []
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in (str(uid), *names) and fields[1].isdecimal() and fields[2].isdecimal():
            first, count = int(fields[1]), int(fields[2])
            if count and first + count < 1 << 32:
                found.append((first, count))
    return found[:_RANGES]


def _group(run: str, uid: int) -> str:
    """The control group below which containers have theirs, or "": one of version 2 that was delegated to the user.

    That of the command that found one first, and the same for all others as long as it is there.
    """
    from limpet.kernel import cgroup
    from limpet.store.files import put

    mounted = cgroup.root()
    if mounted is None:
        return ""
    try:
        with open(f"{run}/cgroup", encoding="utf-8") as file:
            known = file.read(4096)
        if os.access(f"{known}/cgroup.procs", os.W_OK):
            return known
    except OSError:
        pass
    instance = mounted + cgroup.user_instance(uid)
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    if os.path.exists(f"{runtime}/systemd/private") and os.access(f"{instance}/cgroup.procs", os.W_OK):
        return instance  # in scopes, see `containers.scopes`
    own = cgroup.of_self()
    place = f"{mounted}{own}".rstrip("/")
    if own == "/" or not os.access(place, os.W_OK) or not os.access(f"{place}/cgroup.procs", os.W_OK):
        return ""
    try:
        put(f"{run}/cgroup", place.encode())
    except OSError:
        pass  # the next command looks again
    return place


def _kind(root: str, uid: int, make: bool) -> str:
    """With which ids the store works. A new one gets what the user has now."""
    from limpet.store.files import write_file

    path = f"{root}/ids"
    try:
        with open(path, encoding="ascii") as file:
            kind = file.read(64).strip()
    except FileNotFoundError:
        kind = RANGES if all(ranges(each, uid, _names(uid)) for each in SUBIDS) and _programs() else SINGLE
        if os.path.exists(f"{root}/state.db"):
            raise Refused(f"{root} is not a store of a user without root", "use sudo, or another --root") from None
        if make:
            try:
                os.makedirs(root, 0o700, exist_ok=True)
                write_file(path, f"{kind}\n".encode())
            except OSError as e:
                raise LimpetError(
                    f"{root}: {e.strerror}", "choose another place with --root, LIMPET_ROOT or XDG_DATA_HOME"
                ) from e
    except PermissionError:
        raise Refused(f"{root} is another user's", "use sudo, or another --root") from None
    if kind not in (RANGES, SINGLE):
        raise LimpetError(f"{path}: '{kind[:20]}' is not known", "it says ranges or single")
    return kind


def _new_namespace(file: int, kind: str, uid: int, gid: int) -> None:
    if kind == SINGLE:
        idmap.make()
        idmap.write_own(uid, gid)
    else:
        _with_ranges(uid, gid)
    idmap.hold(file)
    if os.fstat(file).st_nlink:
        _keep(file)


def _with_ranges(uid: int, gid: int) -> None:
    """A child that stays outside has the two programs write the ids: they must be run by the user, not in there."""
    names = _names(uid)
    words = {}
    for program, path, own in (("newuidmap", SUBIDS[0], uid), ("newgidmap", SUBIDS[1], gid)):
        found = ranges(path, uid, names)
        if not found:
            raise Refused(
                f"the store was made with a range of ids, and {path} has none for user {uid} now",
                f"put one there again, as usermod --add-sub{program[3:4]}ids does; or use another --root",
            )
        words[program] = ["0", str(own), "1"]
        inside = 1
        for first, count in found:
            words[program] += [str(inside), str(first), str(count)]
            inside += count
    asked, ask = os.pipe()
    answered, answer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ask)
            if os.read(asked, 1):
                os.write(answer, _map(os.getppid(), words))
        finally:
            os._exit(0)
    os.close(asked)
    os.close(answer)
    try:
        idmap.make()
        os.write(ask, b"1")
    finally:
        os.close(ask)
        with open(answered, "rb") as pipe:
            said = pipe.read(4096).decode(errors="replace").strip()
        os.waitpid(child, 0)
    if said != "ok":
        raise Refused(
            f"giving the user namespace its ids: {said.replace(chr(10), '; ') or 'newuidmap failed'}",
            f"are {SUBIDS[0]} and {SUBIDS[1]} right, and may newuidmap (package uidmap) gain rights here?",
        )


def _map(pid: int, words: dict[str, list[str]]) -> bytes:
    """b"ok", or what the programs said."""
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, write, 2)]
    children = []
    for name, program in zip(words, _programs(), strict=True):
        arguments = [name, str(pid), *words[name]]
        children.append(os.posix_spawn(program, arguments, {"PATH": os.defpath}, file_actions=actions))
    os.close(write)
    failed = [code for child in children if (code := os.waitpid(child, 0)[1])]
    return os.read(read, 4000) or b"newuidmap failed" if failed else b"ok"


def _programs() -> tuple[str, ...]:
    """The paths of newuidmap and newgidmap; () if they are not there."""
    for place in (*os.environ.get("PATH", "").split(":"), "/usr/bin", "/bin", "/usr/sbin"):
        if place.startswith("/") and all(os.access(f"{place}/new{kind}idmap", os.X_OK) for kind in "ug"):
            return f"{place}/newuidmap", f"{place}/newgidmap"
    return ()


def _keep(file: int) -> None:
    """A process that does nothing but be in the namespace, for the next commands."""
    from limpet.kernel import machinecode, signals

    code = machinecode.waiting(_LASTS)
    if code is None:
        return
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            signals.reset()
            signals.block(signals.SIG_SETMASK, ())
            os.chdir("/")
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
            program = machinecode.in_memory("limpet-userns", code)
            kept = os.dup(file) if file < 3 else file
            process.close_range(3, 0xFFFFFFFF, process.CLOSE_RANGE_CLOEXEC)
            os.set_inheritable(kept, True)
            idmap.hold(kept)
            os.execve(program, ["limpet userns"], {})
    finally:
        os._exit(0)


def _runtime_directory(uid: int) -> str:
    """$XDG_RUNTIME_DIR, or, without one, what a login would have made, or a directory in /tmp that is the user's."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given.startswith("/") and os.path.isdir(given):
        return given
    usual = f"/run/user/{uid}"
    if _is_own(usual, uid):
        return usual
    own = f"/tmp/limpet-user-{uid}"
    try:
        os.mkdir(own, 0o700)
    except FileExistsError:
        pass
    if not _is_own(own, uid):
        raise Refused(f"{own} is not a directory of yours alone", "set XDG_RUNTIME_DIR to one that is")
    return own


def _is_own(path: str, uid: int) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return found.st_mode & 0o170077 == 0o040000 and found.st_uid == uid


def _make(path: str) -> None:
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except OSError as e:
        raise LimpetError(f"{path}: {e.strerror}", "choose another place with --root, --run or XDG_DATA_HOME") from e


def _home(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return ""


def _names(uid: int) -> tuple[str, ...]:
    import pwd

    try:
        return (pwd.getpwuid(uid).pw_name,)
    except KeyError:
        return ()
