"""Programs of the host that a plan names for moments of a container's life (runtime-spec config.md, "Hooks").

Each gets the container's state (runtime.md, "State") as JSON on its standard input. Those before the start see, beside
all of the host, the container's root with its mounts at `rootfs` in the bundle, in a mount namespace of their own:
what they write there stays, what they mount does not reach the container.
"""

from __future__ import annotations

import os
import select
import time

from limpet import jsontext
from limpet.containers.execution.outcome import StartFailed
from limpet.kernel import mounts, process, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Config = dict[str, Any]

BEFORE = ("prestart", "createRuntime", "createContainer")
"""In this order, when the container's mounts are made and its program does not run yet."""

_OUTPUT = 4096  # bytes of what a hook said that an error may tell


def before(config: Config, bundle: str, pid: int) -> None:
    """The hooks before the start. Raises StartFailed for one that fails: the container is not to start."""
    try:
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as e:
        raise StartFailed("the container ended before its hooks were run", "", 128) from e
    try:
        for kind in BEFORE:
            for hook in config["hooks"].get(kind, ()):
                failed = _run(hook, _state(config, bundle, pid, "creating"), f"{bundle}/rootfs", namespace)
                if failed:
                    raise StartFailed(f"{kind} hook {hook['path']}: {failed}", "", 125)
    finally:
        os.close(namespace)


def after(config: Config, bundle: str, pid: int, kind: str) -> None:
    """poststart, poststop: a failure changes nothing for the container (config.md)."""
    status = "running" if kind == "poststart" else "stopped"
    for hook in config.get("hooks", {}).get(kind, ()):
        _run(hook, _state(config, bundle, pid, status), "", -1)


def _state(config: Config, bundle: str, pid: int, status: str) -> bytes:
    state: Config = {"ociVersion": config["ociVersion"], "id": os.path.basename(bundle), "status": status}
    if status != "stopped":
        state["pid"] = pid
    return jsontext.dumps({**state, "bundle": bundle, "annotations": config.get("annotations", {})}).encode()


def _run(hook: Config, state: bytes, place: str, namespace: int) -> str:
    """What went wrong, or "". `place`: where to show the root of the mount namespace, if there is one."""
    given, feed = os.pipe()
    heard, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(hook, given, said, place, namespace)
    os.close(given)
    os.close(said)
    pidfd = os.pidfd_open(pid)
    end = time.monotonic() + hook["timeout"] if hook.get("timeout") else None
    output = b""
    try:
        try:
            os.write(feed, state)  # less than a pipe holds: it never waits
        except BrokenPipeError:
            pass  # not every hook reads it
        os.close(feed)
        poll = select.poll()
        poll.register(heard, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        while True:
            ready = poll.poll(None if end is None else max(end - time.monotonic(), 0) * 1000)
            if not ready:
                process.pidfd_send_signal(pidfd, signals.SIGKILL)
                os.waitpid(pid, 0)
                return f"took more than {hook['timeout']} s"
            if any(fd == heard for fd, _ in ready):
                piece = os.read(heard, _OUTPUT)
                output = (output + piece)[-_OUTPUT:]
                if piece:
                    continue
                poll.unregister(heard)
            if any(fd == pidfd for fd, _ in ready):
                break
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(pidfd)
        os.close(heard)
    lines = output.decode(errors="replace").strip().splitlines()
    words = f": {''.join(c if c.isprintable() else ' ' for c in lines[-1])}" if lines else ""
    return f"ended with {f'exit code {code}' if code >= 0 else f'signal {-code}'}{words}" if code else ""


def _become(hook: Config, given: int, said: int, place: str, namespace: int) -> NoReturn:
    try:
        os.setsid()
        for target, fd in ((0, given), (1, said), (2, said)):
            os.dup2(fd, target)
        if place:
            process.unshare(process.CLONE_NEWNS)
            mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_SLAVE)
            tree = mounts.open_tree_in(namespace, "/", recursive=True)
            mounts.set_attributes(tree, propagation=mounts.MS_PRIVATE, recursive=True)
            mounts.attach(tree, place)
        process.close_range(3, 0xFFFFFFFF)
        signals.reset()
        signals.block(signals.SIG_SETMASK, ())
        environment = dict(text.split("=", 1) for text in hook.get("env", ()) if "=" in text)
        os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)
    except OSError as e:
        os.write(2, (e.strerror or str(e)).encode())
    finally:
        os._exit(127)
