"""Sends lines to a syslog receiver: the host's own, or another by UDP, TCP, TLS or a Unix socket.

Formats: as syslog(3) writes to its own host, RFC 3164, RFC 5424 (with seconds, or microseconds). Over streams a message
ends with a newline (RFC 6587, 3.4.2), over TLS RFC 5424's come with their length before them (RFC 5425, 4.3).
A receiver that is gone is waited for: in `writer` that is what makes the container wait, or lines be dropped.
"""

from __future__ import annotations

import os
import socket
import time

from limpet.containers.logging.logdrivers import choice
from limpet.containers.logging.logfile import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

CONNECT = 10.0  # seconds
LONGEST_DELAY = 5.0
HOST = ("/dev/log", "/var/run/syslog", "/var/run/log")
_SEVERITIES = {"stdout": 6, "stderr": 3}  # RFC 5424, 6.2.1: informational, error
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


class Syslog:
    """A `logdrivers.opening.Driver`. `tag`: the program's name in each message."""

    def __init__(self, options: dict[str, str], tag: str) -> None:
        self._options = options
        self._scheme, self._where, self._port = choice.address(options)
        self._facility = choice.facility(options)
        self._format = options.get("syslog-format", "")
        self._tag = "".join(c if c.isprintable() and c != " " else "_" for c in tag)
        self._host = os.uname().nodename
        self._socket: socket.socket | ssl.SSLSocket | None = None
        self._stream = False
        self._lines = Lines()
        self.dropped = 0

    def write(self, stream: str, data: bytes, moment: int = 0) -> None:
        texts = [
            line for run, whole in self._lines.cut(stream, data) for line in (run.split(b"\n")[:-1] if whole else [run])
        ]
        head = self._head(stream, moment or time.time_ns())
        counted = self._scheme == "tcp+tls" and self._format.startswith("rfc5424")
        self._send([b"%d %s" % (len(head) + len(t), head + t) if counted else head + t for t in texts], counted=counted)

    def flush(self) -> None:
        for stream, line in self._lines.rest():
            self.write(stream, line)

    def close(self) -> None:
        self.flush()
        self._put_away()

    def connect(self) -> None:
        """Raises OSError, with the address."""
        try:
            self._socket = self._connected()
            self._socket.settimeout(None)
        except OSError as e:
            where = self._options.get("syslog-address") or HOST[0]
            raise OSError(e.errno, e.strerror or str(e), where) from e

    def _connected(self) -> socket.socket | ssl.SSLSocket:
        self._stream = self._scheme in ("tcp", "tcp+tls")
        if self._stream:
            plain = socket.create_connection((self._where, self._port), CONNECT)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return self._secured(plain) if self._scheme == "tcp+tls" else plain
        if self._scheme == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(self._where, self._port, type=socket.SOCK_DGRAM)[0]
            found = socket.socket(family, kind, protocol)
            found.connect(address)
            return found
        paths = [self._where] if self._where else [path for path in HOST if os.path.exists(path)] or HOST[:1]
        last: OSError | None = None
        for path in paths:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):  # whatever the receiver has made of it
                if self._scheme == "unixgram" and kind == socket.SOCK_STREAM:
                    continue
                found = socket.socket(socket.AF_UNIX, kind)
                try:
                    found.settimeout(CONNECT)
                    found.connect(path)
                    self._stream = kind == socket.SOCK_STREAM
                    return found
                except OSError as e:
                    found.close()
                    last = e
        assert last is not None
        raise last

    def _secured(self, plain: socket.socket) -> ssl.SSLSocket:
        import ssl

        context = ssl.create_default_context(cafile=self._options.get("syslog-tls-ca-cert") or None)
        if choice.flag(self._options, "syslog-tls-skip-verify", default=False):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._options.get("syslog-tls-cert"):
            context.load_cert_chain(self._options["syslog-tls-cert"], self._options["syslog-tls-key"])
        return context.wrap_socket(plain, server_hostname=self._where)

    def _put_away(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, messages: list[bytes], *, counted: bool) -> None:
        """Returns when they are sent. Over a stream some may come twice, after it broke."""
        delay = 0.1
        while messages:
            try:
                if self._socket is None or (self._stream and self._gone()):
                    self._put_away()
                    self.connect()
                assert self._socket is not None
                if self._stream:
                    self._socket.sendall(b"".join(m if counted else m + b"\n" for m in messages))
                    return
                while messages:
                    self._socket.send(messages[0])
                    del messages[0]
            except OSError:
                self._put_away()
                if self._scheme == "udp" and delay > 1:  # nobody listens, which UDP need not tell: lost
                    self.dropped += len(messages)
                    return
                time.sleep(delay)
                delay = min(delay * 2, LONGEST_DELAY)

    def _gone(self) -> bool:
        """Whether the other side has closed the stream: a first send would be taken all the same, and be lost."""
        if self._scheme == "tcp+tls" or self._socket is None:
            return False
        try:
            return self._socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False

    def _head(self, stream: str, moment: int) -> bytes:
        """All of a message but its text."""
        priority, pid = self._facility * 8 + _SEVERITIES[stream], os.getppid()  # the monitor's
        seconds, nanoseconds = divmod(moment, 1_000_000_000)
        now = time.localtime(seconds)
        if self._format.startswith("rfc5424"):
            fraction = f".{nanoseconds // 1000:06d}" if self._format == "rfc5424micro" else ""
            zone = time.strftime("%z", now)
            stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', now)}{fraction}{zone[:3]}:{zone[3:]}"
            return f"<{priority}>1 {stamp} {self._host} {self._tag[:48]} {pid} {self._tag[:32]} - ".encode()
        stamp = f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} {time.strftime('%H:%M:%S', now)}"
        host = f"{self._host} " if self._format == "rfc3164" or self._scheme in ("udp", "tcp", "tcp+tls") else ""
        return f"<{priority}>{stamp} {host}{self._tag}[{pid}]: ".encode()
