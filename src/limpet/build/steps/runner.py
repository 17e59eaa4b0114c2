"""The builder's side of a RUN step: it is handed to a small process that starts it, followed, and perhaps ended.

That process is forked as early as can be, when the command has hardly loaded anything: each step takes two forks of
it, and a fork of the builder costs five times as much. It never sees the database. One serves all steps of a build,
those that run at the same time too.

Over the control socket goes one packet a step, with descriptors: the request as a file in memory, the root, the ends
of two pipes and of a socket that is this step's alone. Over that comes the outcome; when our end of it is shut, the
step is killed. When the control socket ends, so does all that runs.
"""

from __future__ import annotations

import _thread
import os
import select

from limpet import jsontext
from limpet.build.steps.cancelled import Cancelled
from limpet.containers.monitor import early
from limpet.errors import LimpetError
from limpet.store.files import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Any

    from limpet.build.steps.trash import Trash

    Sink = Callable[[int, bytes], None]
else:
    import _socket as socket

MOST = 250
"""Descriptors in one packet (unix(7): SCM_MAX_FD is 253)."""

_BLOCK = 1 << 16
_FEW = 100


class Runner:
    """The process, from its fork until `close`."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            _become(theirs)
        theirs.close()
        self._small: list[str] = []
        self._live: set[Running] = set()
        self._cancelled = False
        self._lock = _thread.allocate_lock()
        self._trash: Trash | None = None

    def ready(self) -> Runner:
        """Before the first step, from a thread that is in no mount namespace of its own."""
        if self._trash is None:
            from limpet.build.steps.trash import Trash

            self._trash = Trash()
        return self

    def start(self, request: dict[str, Any], root: int, trees: Sequence[int]) -> Running:
        """`request`: see `runnerprocess`. `root`: the step's mount; `trees`: of its bind mounts. They stay open here.

        Raises LimpetError.
        """
        if len(trees) > MOST - 5:
            raise LimpetError(f"a step with {len(trees)} mounts", f"{MOST - 5} are the limit")
        running = Running()
        with self._lock:
            self._live.add(running)
            if self._cancelled:
                running.cancel()
        out, err, reply = running.ends
        file = os.memfd_create("limpet-step", os.MFD_CLOEXEC)
        try:
            with open(file, "wb", closefd=False) as text:
                text.write(jsontext.dumps(request).encode())
            rights = b"".join(fd.to_bytes(4, "little") for fd in (file, root, out, err, reply.fileno(), *trees))
            self._control.sendmsg([b"R"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_NOSIGNAL)
        except OSError as e:
            running.close()
            raise LimpetError(f"the process that runs the build's steps is gone: {e.strerror}") from e
        finally:
            os.close(file)
            running.handed_over()
        self._tidy()
        return running

    def ended(self, running: Running) -> None:
        """`running` was followed to its end."""
        with self._lock:
            self._live.discard(running)

    def cancel(self) -> None:
        """Kills what runs, and what is started from now on."""
        with self._lock:
            self._cancelled = True
            live = list(self._live)
        for running in live:
            running.cancel()

    def throw_away(self, directory: str, entries: int) -> None:
        """What a step leaves behind goes while the next one runs, before `close` returns at the latest.

        Deleting waits for the disk's journal whenever somebody syncs: up to 30 ms, seen on a busy machine.
        """
        if entries <= _FEW:
            self._small.append(directory)
            return
        assert self._trash is not None
        self._trash.take(directory)

    def close(self) -> None:
        """Ends what still runs, and returns when it has ended."""
        self._control.close()
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass
        self._tidy()
        if self._trash is not None:
            self._trash.close()

    def _tidy(self) -> None:
        while self._small:
            try:
                directory = self._small.pop()
            except IndexError:  # another thread was as quick
                return
            remove_tree(directory)


class Outcome:
    """`code`: the exit code. `error` and `hint`: why it could not be started. `cpu`: seconds, -1 if not counted.

    `oom`: the kernel killed something of it for want of memory. `forks`: one was refused by the limit of processes.
    """

    __slots__ = ("code", "cpu", "error", "forks", "hint", "oom")

    def __init__(self, values: dict[str, Any]) -> None:
        self.code: int = values["code"]
        self.error: str = values.get("error", "")
        self.hint: str = values.get("hint", "")
        self.cpu: float = values.get("cpu", -1.0)
        self.oom: bool = values.get("oom", False)
        self.forks: bool = values.get("forks", False)


class Running:
    """One step. `follow` it until its end; `cancel` it, from any thread."""

    def __init__(self) -> None:
        self._streams: dict[int, int] = {}
        ends = []
        for stream in (1, 2):
            ours, end = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(ours, False)
            self._streams[ours] = stream
            ends.append(end)
        self._reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends = (ends[0], ends[1], theirs)
        self.cancelled = False

    def handed_over(self) -> None:
        out, err, reply = self.ends
        os.close(out)
        os.close(err)
        reply.close()

    def follow(self, sink: Sink) -> Outcome:
        """Until the step has ended: `sink` gets what it writes, 1 or 2 (standard output, standard error) and bytes.

        When this is left by an exception (Ctrl-C), the step has been killed. Raises Cancelled, and LimpetError if
        nobody can say how it ended.
        """
        try:
            answer = self._follow(sink)
        except BaseException:
            self.cancel()
            self._reply.recv(_BLOCK)  # its end, or that of the process that had it
            raise
        finally:
            self.close()
        if not answer:
            if self.cancelled:
                raise Cancelled
            raise LimpetError("the process that runs the build's steps was killed, and the step with it")
        if self.cancelled:
            raise Cancelled
        return Outcome(jsontext.loads(answer))

    def cancel(self) -> None:
        """The step is killed; `follow` returns soon."""
        self.cancelled = True
        try:
            self._reply.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended

    def close(self) -> None:
        for fd in self._streams:
            os.close(fd)
        self._streams = {}
        self._reply.close()

    def _follow(self, sink: Sink) -> bytes:
        poll = select.poll()
        reply = self._reply.fileno()
        for fd in (*self._streams, reply):
            poll.register(fd, select.POLLIN)
        answer: bytes | None = None
        while answer is None:
            for fd, _ in poll.poll():
                if fd == reply:
                    answer = self._reply.recv(_BLOCK)
                elif not self._pass(fd, sink):
                    poll.unregister(fd)
        for fd in self._streams:  # no process of it is left: what there is, is all
            while self._pass(fd, sink):
                pass
        return answer

    def _pass(self, fd: int, sink: Sink) -> bool:
        """False at the end, and when there is nothing now."""
        try:
            data = os.read(fd, _BLOCK)
        except BlockingIOError:
            return False
        if data:
            sink(self._streams[fd], data)
        return bool(data)


def _become(control: socket.socket) -> None:
    """The child: waits for the first step before it loads anything."""
    try:
        early.isolate([control.fileno()])
        if control.recv(1, socket.MSG_PEEK):
            from limpet.build.steps import runnerprocess

            runnerprocess.serve(control)
    finally:
        os._exit(1)
