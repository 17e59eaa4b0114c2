"""The client's side of a container's streams: this process's standard descriptors, its terminal and its signals.

`attach` talks to the monitor (`frames`) until the container ends or the user detaches. The terminal is set raw for that
time and restored whatever happens; the container never notices that a client comes or goes.
"""

from __future__ import annotations

import os
import select

from limpet.containers import state
from limpet.containers.execution import console
from limpet.containers.monitor import frames
from limpet.containers.observe import events
from limpet.errors import Conflict, Exit, Invalid, LimpetError, Refused
from limpet.kernel import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from limpet.containers.state import Container
    from limpet.store.store import Store
else:
    import _socket as socket

DETACH_KEYS = "ctrl-p,ctrl-q"
DETACHED = -1  # instead of an exit code
_PROXIED = ("HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "ALRM")
_DEADLY = ("HUP", "INT", "QUIT", "TERM")  # at a raw terminal they end the client and not the container, as in Docker


def connect(store: Store, container: Container) -> socket.socket:
    """A connection to the container's monitor. Raises Conflict if there is none, Refused if it is too new for us."""
    spoken = state.status(store, container).protocol
    if spoken > frames.VERSION:
        what = f"its monitor speaks version {spoken} of a protocol that this limpet knows up to {frames.VERSION}"
        raise Refused(f"container {container.name}: {what}", "use the newer limpet that started it")
    directory = None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        directory = os.open(store.run_path(container.id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection.connect(f"/proc/self/fd/{directory}/attach.sock")
    except OSError:
        connection.close()
        raise Conflict(f"container {container.name} is not running", exit_code=1) from None
    finally:
        if directory is not None:
            os.close(directory)
    return connection


def attach(
    store: Store,
    container: Container,
    *,
    connection: socket.socket | None = None,
    stdin: bool = True,
    detach_keys: str = "",
    proxy_signals: bool = True,
    sink: Callable[[int, bytes], None] = console.write_all,
) -> int:
    """Passes streams to and fro until the container ends: its exit code, or DETACHED.

    `connection` is the one made by `start.launch`; without it one is opened. It stays open: while the first client of a
    container with `--rm` holds it, the monitor leaves the removal to that client. `sink` gets the
    container's output, as it comes: 1 or 2 (this process's descriptors, by default), and the bytes.
    """
    keys = parse_keys(detach_keys or DETACH_KEYS)
    if connection is None:
        connection = connect(store, container)
        if state.is_paused(container.group):
            raise Conflict("cannot attach to a paused container, unpause it first", exit_code=1)
        try:
            connection.sendall(frames.frame(frames.SUBSCRIBE), socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            pass  # its monitor ended before it came to us: so says the first read
    events.tell(store, container, "attach")
    interactive = stdin and container.options.interactive
    raw = container.options.tty and interactive and os.isatty(0)
    session = _Session(connection, container.name, interactive, keys if raw else b"", container.options.tty, raw, sink)
    caught = _DEADLY if raw else _PROXIED if proxy_signals else ()
    restore = session.catch([*(signals.number(name) for name in caught), signals.SIGWINCH])
    try:
        if raw:
            with console.RawTerminal():
                code = session.run()
        else:
            code = session.run()
    finally:
        restore()
    if code is None:
        status = state.status(store, container)
        if status.state == "exited" and not status.lost:
            return status.exit_code  # it ended in the very moment in which we came
        raise LimpetError(f"container {container.name}: its monitor is gone, and the container with it", exit_code=137)
    return code


def wait(store: Store, container: Container) -> int | None:
    """Waits for the end of the run that is going on: its exit code; None if there is no monitor (any more)."""
    try:
        connection = connect(store, container)
    except Conflict:
        return None
    buffer = bytearray()
    try:
        while data := connection.recv(4096):
            buffer += data
            while (found := frames.take(buffer)) is not None:
                if found[0] == frames.EXIT:
                    return frames.number(found[1])
    except OSError:
        pass
    finally:
        connection.close()
    return None


def parse_keys(text: str) -> bytes:
    """'ctrl-p,ctrl-q' → b"\\x10\\x11" (moby `term.ToBytes`). Raises Invalid."""
    keys = bytearray()
    for word in text.split(",") if text else []:
        letter = word.removeprefix("ctrl-")
        if len(letter) != 1 or not letter.isascii():
            raise Invalid(f"invalid detach key '{word}'", "write letters or ctrl-LETTER, separated by commas")
        if word == letter:
            keys += letter.encode()
            continue
        position = "@abcdefghijklmnopqrstuvwxyz[\\]^_".find(letter.lower())
        if position < 0:
            raise Invalid(f"invalid detach key '{word}'")
        keys.append(position)
    return bytes(keys)


class _Session:
    def __init__(
        self,
        connection: socket.socket,
        name: str,
        interactive: bool,
        keys: bytes,
        tty: bool,
        raw: bool,
        sink: Callable[[int, bytes], None],
    ) -> None:
        self._socket = connection
        self._name = name
        self._interrupts = 0
        self._reading = interactive
        self._keys = console.KeyMatcher(keys)
        self._tty = tty
        self._sink = sink
        self._buffer = bytearray()
        self._wake = -1
        self._raw = raw
        self._ended_by = 0

    def catch(self, numbers: list[int]) -> Callable[[], None]:
        """Signals wake the loop instead of acting; the result puts everything back."""
        self._wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = [(number, signals.set_handler(number, _no_action)) for number in numbers]
        old = signals.set_wakeup_fd(write)
        signals.block(signals.SIG_UNBLOCK, signals.DEADLY)  # see `start.launch`

        def restore() -> None:
            signals.set_wakeup_fd(old)
            for number, handler in before:
                signals.set_handler(number, handler)
            os.close(self._wake)
            os.close(write)

        return restore

    def run(self) -> int | None:
        """The exit code; DETACHED; None when the monitor went without a word."""
        if self._tty:
            self._resize()
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        if self._reading:
            poll.register(0, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wake:
                    self._signals()
                    if self._ended_by:
                        raise Exit(128 + self._ended_by)
                elif fd == 0:
                    if self._read_stdin():
                        return DETACHED
                    if not self._reading:
                        poll.unregister(0)
                else:
                    try:
                        data = self._socket.recv(1 << 16)
                    except ConnectionResetError:  # what we sent was not read any more
                        data = b""
                    if not data:
                        return None
                    self._buffer += data
                    while (found := frames.take(self._buffer)) is not None:
                        kind, payload = found
                        if kind == frames.EXIT:
                            return frames.number(payload)
                        self._sink(1 if kind == frames.STDOUT else 2, payload)

    def _read_stdin(self) -> bool:
        """True when the user typed the detach keys."""
        try:
            data = os.read(0, 1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._reading = False
            self._send(frames.frame(frames.CLOSE_STDIN))
            return False
        data, detached = self._keys.feed(data)
        if data:
            self._send(frames.frame(frames.STDIN, data))
        return detached

    def _signals(self) -> None:
        for number in os.read(self._wake, 64):
            if number != signals.SIGWINCH and self._raw:
                self._ended_by = number
            elif number != signals.SIGWINCH:
                if number == signals.SIGINT and os.isatty(2):
                    number = self._interrupted()
                self._send(frames.frame(frames.SIGNAL, frames.number_payload(number)))
            elif self._tty:
                self._resize()

    def _interrupted(self) -> int:
        """What ^C sends: the third one kills, since nobody types it for a program that listens."""
        self._interrupts += 1
        if self._interrupts == 2:
            console.write_all(2, f"limpet: {self._name} got ^C twice and still runs: once more kills it\n".encode())
        return signals.SIGKILL if self._interrupts > 2 else signals.SIGINT

    def _resize(self) -> None:
        from limpet.kernel import terminal

        try:
            rows, columns = terminal.get_size(0 if os.isatty(0) else 1)
        except OSError:
            return
        self._send(frames.frame(frames.RESIZE, frames.size_payload(rows, columns)))

    def _send(self, message: bytes) -> None:
        try:
            self._socket.sendall(message, socket.MSG_NOSIGNAL)
        except OSError:
            pass  # the container has ended: what it said is still to be read


def _no_action(number: int, frame: object) -> None:
    pass
