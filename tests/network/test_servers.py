"""Twenty stock servers of Debian's, as their packages configure them, all at once on their default ports.

The image is made by hand, since that takes minutes (see `COMMAND`); without it the test is skipped.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.network import inside

Limpet = Any

IMAGE = Path(__file__).resolve().parents[2] / ".cache/check/servers.tar"
PACKAGES = (
    "apache2 beanstalkd busybox-static dnsmasq-base lighttpd memcached mosquitto nginx-light nodejs openssh-server"
    " postgresql redis-server rsync tinyproxy vsftpd"
)
COMMAND = f"mmdebstrap --variant=apt --include={PACKAGES.replace(' ', ',')} bookworm {IMAGE}"

pytestmark = pytest.mark.slow

HTTP = b"GET / HTTP/1.0\r\n\r\n"
# A question for the address of localhost (RFC 1035 section 4.1).
DNS = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\x09localhost\0\0\1\0\1"


_PERL = """
perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 9000, Listen => 5);
print {$s->accept} q(perl) while 1'
"""
_TINYPROXY = "install -d -o tinyproxy /run/tinyproxy /var/log/tinyproxy; tinyproxy -d"


class Server(NamedTuple):
    """What it is run by, where it answers, what it is asked ("" for one that speaks first), what is in the answer."""

    command: str
    port: int
    question: bytes
    answer: bytes


SERVERS = {
    "nginx": Server("nginx -g 'daemon off;'", 80, HTTP, b"Server: nginx"),
    "apache": Server("apache2ctl -D FOREGROUND", 80, HTTP, b"Server: Apache"),
    "lighttpd": Server("lighttpd -D -f /etc/lighttpd/lighttpd.conf", 80, HTTP, b"Server: lighttpd"),
    "busybox": Server("busybox httpd -f -h /etc", 80, HTTP, b"HTTP/1.1"),
    "redis": Server("redis-server /etc/redis/redis.conf --daemonize no", 6379, b"PING\r\n", b"+PONG"),
    "memcached": Server("memcached -u nobody -l 127.0.0.1", 11211, b"version\r\n", b"VERSION"),
    "postgres": Server("pg_ctlcluster 15 main start --foreground", 5432, b"\0\0\0\x08\x04\xd2\x16\x2f", b"S"),
    "sshd": Server("mkdir -p /run/sshd; /usr/sbin/sshd -D", 22, b"", b"SSH-2.0-OpenSSH"),
    "rsync": Server("touch /etc/rsyncd.conf; rsync --daemon --no-detach", 873, b"", b"@RSYNCD"),
    "mosquitto": Server("mosquitto", 1883, b"\x10\x10\0\4MQTT\4\2\0\x3c\0\4test", b"\x20\2\0\0"),
    "beanstalkd": Server("beanstalkd", 11300, b"stats\r\n", b"OK "),
    "tinyproxy": Server(_TINYPROXY, 8888, b"GET http://tinyproxy.stats/ HTTP/1.0\r\n\r\n", b"HTTP/1.0 200"),
    "vsftpd": Server("mkdir -p /var/run/vsftpd/empty; vsftpd", 21, b"", b"220 (vsFTPd"),
    "dnsmasq": Server("dnsmasq -k -u root", 53, DNS, socket.inet_aton("127.0.0.1")),
    "node": Server("node -e 'require(`http`).createServer((q, s) => s.end(`node`)).listen(3000)'", 3000, HTTP, b"node"),
    "perl": Server(_PERL, 9000, b"", b"perl"),
}
TWICE = ("nginx", "redis", "postgres", "memcached")


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    with inside.apart():
        yield


@pytest.fixture
def servers(limpet: Limpet) -> str:
    if not IMAGE.exists():
        pytest.skip(f"needs an image that is made by hand: {COMMAND}")
    limpet("import", IMAGE, "servers")
    return "servers"


def test_twenty_servers_on_their_default_ports(limpet: Limpet, servers: str) -> None:
    wanted = {**SERVERS, **{f"{name}2": SERVERS[name] for name in TWICE}}
    assert len(wanted) == 20
    for name, server in wanted.items():
        limpet("run", "-d", "--name", name, servers, "sh", "-c", server.command)
    rows = limpet("ps", "--format", "{{.Names}} {{.Address}}").stdout.splitlines()
    where = dict(row.split(" ") for row in rows)
    failed = {}
    for name, server in wanted.items():
        answer, end = b"", time.monotonic() + 15
        while server.answer not in answer and time.monotonic() < end:
            answer = ask(where.get(name, "127.0.0.1"), server)
            time.sleep(0.05)
        if server.answer not in answer:
            failed[name] = (answer, limpet("logs", name).stdout[-500:] + limpet("logs", name).stderr[-500:])
    assert failed == {}
    assert len(set(where.values())) == 20
    # As their own clients use them, by name and by localhost.
    assert limpet("exec", "redis", "redis-cli", "-h", "localhost", "ping").stdout == "PONG\n"
    assert limpet("exec", "redis", "redis-cli", "ping").stdout == "PONG\n"
    assert "accepting connections" in limpet("exec", "postgres2", "pg_isready", "-h", "localhost").stdout
    script = "psql -h localhost -Atc 'select inet_client_addr()'"
    limpet("exec", "-u", "postgres", "postgres", "psql", "-c", "alter user postgres password 'x'")
    assert limpet("exec", "-e", "PGPASSWORD=x", "-e", "PGUSER=postgres", "postgres", "sh", "-c", script).stdout in (
        "127.0.0.1/32\n",
        "::1/128\n",
        "127.0.0.1\n",
        "::1\n",
    )


def ask(address: str, server: Server) -> bytes:
    kind = socket.SOCK_DGRAM if server.question == DNS else socket.SOCK_STREAM
    try:
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(3)
            client.connect((address, server.port))
            client.sendall(server.question)
            answer = b""
            while server.answer not in answer:
                more = client.recv(4096)
                if not more:
                    break
                answer += more
            return answer
    except OSError as e:
        return repr(e).encode()
