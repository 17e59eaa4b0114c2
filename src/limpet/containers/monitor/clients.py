"""The monitor's side of attaching: who listens to the container, and how far behind each of them is.

The first client of `run` and `start --attach` is the container's own terminal or pipe: while it is behind, the
container waits, as in a shell pipe. One that attached later and falls behind by more than `BEHIND` bytes is dropped,
so that it can't stop the container.
"""

from __future__ import annotations

import os

from limpet.containers.monitor import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
else:
    import _socket as socket

WAIT = 1 << 20
BEHIND = 4 << 20
MOST = 64  # clients at once


class Client:
    __slots__ = ("finished", "first", "input", "output", "socket", "subscribed")

    def __init__(self, connection: socket.socket, *, first: bool = False) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.first = first
        self.subscribed = first
        self.input = bytearray()
        self.output = bytearray()
        self.finished = False  # nothing more will be sent: close when the output is out


class Clients:
    """`on_frame(client, kind, payload)` gets what clients send; `on_leave(client)` when one is gone."""

    def __init__(
        self,
        path: str,
        first: socket.socket | None,
        on_frame: Callable[[Client, int, bytes], None],
        on_leave: Callable[[Client], None],
        listener: int = -1,
    ) -> None:
        self._on_frame = on_frame
        self._on_leave = on_leave
        self._clients: dict[int, Client] = {}
        self._path = path
        self.paused = False  # the container does not read its standard input: don't read the clients' either
        if listener >= 0:  # it listens already
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, listener)
            return
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        # The path may be longer than a socket address holds (108 bytes): reach it through its directory's descriptor.
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        os.close(directory)
        self._listener.listen(16)
        self._listener.setblocking(False)
        if first is not None:
            self._clients[first.fileno()] = Client(first, first=True)

    def interests(self) -> list[tuple[int, bool, bool]]:
        """(descriptor, want to read, want to write) for the event loop."""
        wanted = [
            (fd, not client.finished and not self.paused, bool(client.output)) for fd, client in self._clients.items()
        ]
        if len(self._clients) < MOST:
            wanted.append((self._listener.fileno(), True, False))
        return wanted

    @property
    def nobody(self) -> bool:
        return not self._clients

    @property
    def listener(self) -> int:
        return self._listener.fileno()

    def waiting(self) -> bool:
        """The first client is behind: the container's output has to wait."""
        return any(client.first and len(client.output) > WAIT for client in self._clients.values())

    @property
    def unsent(self) -> bool:
        return any(client.output for client in self._clients.values())

    @property
    def first(self) -> Client | None:
        return next((client for client in self._clients.values() if client.first), None)

    def handle(self, fd: int, readable: bool, writable: bool) -> bool:
        """Serves one event; False if the descriptor is none of ours."""
        if fd == self._listener.fileno():
            self._accept()
            return True
        client = self._clients.get(fd)
        if client is None:
            return False
        if writable:
            self._flush(client)
        if readable and fd in self._clients:
            self._read(client)
        return True

    def broadcast(self, kind: int, data: bytes) -> None:
        message = frames.frame(kind, data)
        for client in list(self._clients.values()):
            if client.subscribed and not client.finished:
                client.output += message
                self._flush(client)
                if not client.first and len(client.output) > BEHIND:
                    self._drop(client)

    def finish(self, code: int) -> None:
        """Tells everybody that the container has ended; each is closed once it has read all."""
        message = frames.frame(frames.EXIT, frames.number_payload(code))
        for client in list(self._clients.values()):
            if not client.finished:
                client.output += message
                client.finished = not client.first  # the first one tells by closing that it has done its part
                self._flush(client)

    def close(self) -> None:
        self._listener.close()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        for client in self._clients.values():
            client.socket.close()
        self._clients.clear()

    def _accept(self) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        self._clients[fd] = Client(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd))

    def _read(self, client: Client) -> None:
        try:
            data = client.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        client.input += data
        try:
            while (found := frames.take(client.input)) is not None:
                kind, payload = found
                if kind == frames.SUBSCRIBE:
                    client.subscribed = True
                else:
                    self._on_frame(client, kind, payload)
        except ValueError:
            self._drop(client)

    def _flush(self, client: Client) -> None:
        try:
            while client.output:
                sent = client.socket.send(client.output[: 1 << 18], socket.MSG_NOSIGNAL)
                del client.output[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if client.finished:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        fd = client.socket.fileno()
        if self._clients.pop(fd, None) is not None:
            client.output.clear()
            client.socket.close()
            self._on_leave(client)
