"""Log drivers other than json-file: the local format, real syslog receivers, the journal's protocol, back-pressure."""

from __future__ import annotations

import array
import gzip
import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limpet.containers.logging.logdrivers import attributes, choice, local
from limpet.containers.logging.logdrivers.journald import Journald, field_name
from limpet.containers.logging.logdrivers.local import LocalLog
from limpet.containers.logging.logdrivers.localreader import LocalReader
from limpet.containers.logging.logdrivers.writer import WriterProcess
from limpet.containers.logging.logfile import LogFile
from limpet.containers.logging.logs import TextReader
from limpet.containers.options import Options
from limpet.errors import Invalid, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

VALUES = dict.fromkeys(attributes.FIELDS, "x") | {"ID": "ab" * 6, "FullID": "ab" * 32, "Name": "web"}


def texts(directory: Path, tail: int | None = None) -> list[str]:
    reader = LocalReader(str(directory))
    try:
        if tail is not None:
            reader.go_to_tail(tail)
        return [entry.text for entry in reader.entries()]
    finally:
        reader.close()


def write(directory: Path, *pieces: bytes, size: int = -1, files: int = 5, compress: bool = False) -> None:
    log = LocalLog(str(directory), size, files, compress=compress)
    for piece in pieces:
        log.write("stdout", piece)
    log.close()


# The local format


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(st.binary(max_size=40000), max_size=6), st.integers(0, 9))
def test_local_any_bytes_in_any_pieces(tmp_path: Path, pieces: list[bytes], tail: int) -> None:
    directory = tmp_path / os.urandom(8).hex()
    write(directory, *pieces)
    text = b"".join(pieces).decode("utf-8", "replace")
    found = texts(directory)
    # Parts of a long line are cut anywhere, in the middle of a character too; their number of bytes is what counts.
    if max((len(line) for line in b"".join(pieces).split(b"\n")), default=0) < 16 << 10:
        assert "".join(found) == (text if text.endswith("\n") or not text else text + "\n")
        assert texts(directory, tail) == (found[-tail:] if tail else [])


@pytest.mark.parametrize("count", [0, 1, 2, 7, 19, 20, 21, 1000])
@pytest.mark.parametrize("compress", [False, True])
def test_local_tail_over_files(tmp_path: Path, count: int, compress: bool) -> None:
    write(tmp_path / "log", *[b"%d\n%d\n" % (i, i + 1) for i in range(0, 20, 2)], size=100, files=10, compress=compress)
    assert len(list((tmp_path / "log").iterdir())) > 3
    assert texts(tmp_path / "log") == [f"{i}\n" for i in range(20)]
    assert texts(tmp_path / "log", count) == [f"{i}\n" for i in range(max(20 - count, 0), 20)]


def test_local_parts_of_a_long_line_belong_together(tmp_path: Path) -> None:
    write(tmp_path, b"first\n", b"x" * 40000 + b"\n", b"last")
    assert [len(text) for text in texts(tmp_path)] == [6, 16384, 16384, 7233, 5]
    assert [len(text) for text in texts(tmp_path, 2)] == [16384, 16384, 7233, 5]
    assert texts(tmp_path, 1) == ["last\n"]


def test_local_keeps_the_newest_files(tmp_path: Path) -> None:
    write(tmp_path, *[b"line %d\n" % i for i in range(200)], size=200, files=3)
    assert len(list(tmp_path.iterdir())) == 3
    found = texts(tmp_path)
    assert found == [f"line {i}\n" for i in range(200 - len(found), 200)]


def test_local_a_torn_end_is_skipped_wherever_it_was_torn(tmp_path: Path) -> None:
    """A kill in the middle of a write: what was whole before is read, and what the next writer adds."""
    write(tmp_path, b"one\n", b"two\n", b"three\n")
    file = tmp_path / "00000001"
    whole = file.read_bytes()
    last = len(whole) - len(b"three\n") - local.OVERHEAD
    for length in range(last, len(whole)):
        file.write_bytes(whole[:length])
        assert texts(tmp_path) == ["one\n", "two\n"], length
        write(tmp_path, b"four\n")
        assert texts(tmp_path) == ["one\n", "two\n", "four\n"], length
        assert texts(tmp_path, 2) == ["two\n", "four\n"]
    for length in range(len(local.HEAD)):
        file.write_bytes(whole[:length])
        assert texts(tmp_path) == []
        write(tmp_path, b"four\n")
        assert texts(tmp_path) == ["four\n"]


def test_local_damage_costs_no_more_than_its_record(tmp_path: Path) -> None:
    write(tmp_path, b"one\n", b"two\n", b"three\n")
    file = tmp_path / "00000001"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"two\n", b"tvo\n"))
    assert texts(tmp_path) == ["one\n", "three\n"]
    file.write_bytes(whole.replace(b"two\n", b"two, and much more\n"))
    assert texts(tmp_path) == ["one\n", "three\n"]


def test_local_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, b"one\n")
    file = tmp_path / "00000001"
    newer = b"limpetL\x63" + file.read_bytes()[8:]
    file.write_bytes(newer)
    with pytest.raises(Refused, match="a newer one wrote it"):
        texts(tmp_path)
    write(tmp_path, b"two\n")
    assert file.read_bytes() == newer


@pytest.mark.parametrize("text", [False, True])
def test_a_follower_survives_rotation_and_compression(tmp_path: Path, text: bool) -> None:
    """Every line once and in order, while the files behind it are compressed."""
    path = tmp_path / "log"
    log = LogFile(str(path), 3000, 4, compress=True) if text else LocalLog(str(path), 3000, 4, compress=True)
    reader = TextReader(str(path)) if text else LocalReader(str(path))
    seen = 0
    for number in range(2000):
        log.write("stdout", b"%d %s\n" % (number, b"x" * (number % 97)))
        if number % 7 == 0:
            for entry in reader.entries():
                assert entry.text.split()[0] == str(seen)
                seen += 1
    log.flush()
    while log.saved() is None:  # the compressor works
        time.sleep(0.01)
    for entry in reader.entries():
        assert entry.text.split()[0] == str(seen)
        seen += 1
    reader.close()
    assert seen == 2000
    packed = sorted((tmp_path if text else path).glob("*.gz"))
    assert len(packed) == 3
    with gzip.open(packed[0]) as file:  # anybody's gzip reads it
        assert file.read(7) == (b'{"log":' if text else local.HEAD[:7])


# Options


@pytest.mark.parametrize(
    ("driver", "given", "message"),
    [
        ("jsonfile", {}, "log driver 'jsonfile' is not there; did you mean json-file"),
        ("fluentd", {}, "log driver 'fluentd' is not there; there are json-file"),
        ("none", {"max-size": "1m"}, "there is no log"),
        ("json-file", {"max-sice": "1m"}, "did you mean max-size"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for the local log driver"),
        ("json-file", {"mode": "non-block"}, "it is one of blocking, non-blocking"),
        ("json-file", {"max-buffer-size": "1m"}, "needs mode=non-blocking"),
        ("json-file", {"mode": "non-blocking", "max-buffer-size": "1"}, "64k to 1g"),
        ("json-file", {"compress": "maybe"}, "true or false"),
        ("json-file", {"tag": "{{.Nme}}"}, r"{{.Nme}} is not there; there are .ID"),
        ("json-file", {"tag": "{{.Name"}, "a field does not end"),
        ("json-file", {"env-regex": "("}, "is no regular expression"),
        ("syslog", {"syslog-address": "localhost:514"}, "write udp://"),
        ("syslog", {"syslog-address": "tcp://:1"}, "write tcp://HOST:PORT"),
        ("syslog", {"syslog-address": "tcp://h:99999"}, "write tcp://HOST:PORT"),
        ("syslog", {"syslog-address": "unix://log"}, "the path must be absolute"),
        ("syslog", {"syslog-facility": "loacl0"}, "it is one of kern"),
        ("syslog", {"syslog-format": "rfc1"}, "it is one of rfc3164"),
        ("syslog", {"syslog-tls-ca-cert": "/x"}, "needs syslog-address=tcp"),
        ("syslog", {"cache-max-size": "x"}, "invalid size"),
    ],
)
def test_what_is_wrong_is_said(driver: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(Invalid) as e:
        choice.check(Options(log_driver=driver, log_opts=given))
    assert message in str(e.value)
    assert "\n" not in str(e.value)


def test_addresses() -> None:
    assert choice.address({"syslog-address": "udp://[::1]:99"}) == ("udp", "::1", 99)
    assert choice.address({"syslog-address": "udp://[::1]"}) == ("udp", "::1", 514)
    assert choice.address({"syslog-address": "tcp+tls://logs.example"}) == ("tcp+tls", "logs.example", 6514)
    assert choice.address({"syslog-address": "unixgram:///dev/log"}) == ("unixgram", "/dev/log", 0)
    assert choice.facility({"syslog-facility": "local3"}) == choice.facility({"syslog-facility": "19"}) == 19


def test_tag_labels_and_variables(limpet: Any, busybox: str) -> None:
    # fmt: off
    limpet("run", "--name", "web", "--label", "a=1", "--label", "b=2", "-e", "LANG=C", "-e", "X_1=é", "--log-opt",
           "labels=a", "--log-opt", "env-regex=^X_", "--log-opt", "tag={{.Name}}/{{ .ID }}", busybox, "echo", "hi")
    # fmt: on
    container = json.loads(limpet("inspect", "web").stdout)[0]
    line = json.loads(Path(container["LogPath"]).read_text())
    assert line["attrs"] == {"tag": f"web/{container['Id'][:12]}", "X_1": "é", "a": "1"}
    assert limpet("logs", "web").stdout == "hi\n"
    detailed = f"X_1=%C3%A9,a=1,tag=web%2F{container['Id'][:12]} hi\n"
    assert limpet("logs", "--details", "web").stdout == detailed


@pytest.mark.parametrize("driver", ["local", "k8s-file"])
def test_logs_of_files(limpet: Any, busybox: str, driver: str) -> None:
    script = "echo out; sleep 0.05; echo err >&2; sleep 0.05; echo 'end &<>\"'"
    limpet("run", "--name", "web", "--log-driver", driver, "--log-opt", "max-size=1m", busybox, "sh", "-c", script)
    result = limpet("logs", "web")
    assert (result.stdout, result.stderr) == ('out\nend &<>"\n', "err\n")
    assert limpet("logs", "-n", "1", "web").stdout == 'end &<>"\n'
    assert limpet("logs", "--since", "2100-01-01", "web").stdout == ""
    assert limpet("logs", "--until", "1h", "web").stdout == ""
    for line in limpet("logs", "-t", "web").stdout.splitlines():
        assert len(line.partition(" ")[0]) == 30
    if driver == "k8s-file":
        path = Path(json.loads(limpet("inspect", "web").stdout)[0]["LogPath"])
        assert [line.split(" ", 3)[1:] for line in path.read_text().splitlines()][:2] == [
            ["stdout", "F", "out"],
            ["stderr", "F", "err"],
        ]


def test_logs_follows_the_local_format(limpet: Any, busybox: str) -> None:
    script = "read x; echo $x; read x; echo $x"
    # fmt: off
    with subprocess.Popen([*limpet.command, "run", "-i", "--name", "web", "--log-driver", "local", busybox, "sh", "-c",
                           script], env=limpet.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        # fmt: on
        assert run.stdin is not None
        assert run.stdout is not None
        run.stdin.write(b"one\n")
        run.stdin.flush()
        assert run.stdout.readline() == b"one\n"
        with subprocess.Popen([*limpet.command, "logs", "-f", "web"], env=limpet.environment,
                              stdout=subprocess.PIPE) as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline() == b"one\n"
            run.stdin.write(b"two\n")
            run.stdin.flush()
            assert follower.stdout.readline() == b"two\n"
            run.stdin.close()
            assert follower.wait(10) == 0


def test_logs_of_none(limpet: Any, busybox: str) -> None:
    limpet("run", "--name", "web", "--log-driver", "none", busybox, "echo", "hi")
    result = limpet("logs", "web", check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert "web has --log-driver none" in result.stderr


# syslog


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        yield receiver


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        receiver.settimeout(10)
        yield receiver


def where(receiver: socket.socket, scheme: str) -> str:
    return f"syslog-address={scheme}://127.0.0.1:{receiver.getsockname()[1]}"


def test_syslog_by_udp(limpet: Any, busybox: str, udp: socket.socket) -> None:
    # fmt: off
    limpet("run", "--name", "web", "--log-driver", "syslog", "--log-opt", where(udp, "udp"), "--log-opt",
           "tag=it/{{.Name}}", "--log-opt", "syslog-facility=local1", "--log-opt", "syslog-format=rfc5424micro",
           busybox, "sh", "-c", "echo one; sleep 0.1; echo two >&2")
    # fmt: on
    host = os.uname().nodename
    for priority, text in ((17 * 8 + 6, "one"), (17 * 8 + 3, "two")):
        head, _, rest = udp.recv(65536).decode().partition(" ")
        assert head == f"<{priority}>1"
        moment, name, tag, _pid, message_id, data, said = rest.split(" ")
        assert (name, tag, message_id, data, said) == (host, "it/web", "it/web", "-", text)
        assert len(moment) == len("2026-01-01T00:00:00.000000+00:00")
    assert limpet("logs", "web").stdout == "one\n"  # the copy
    assert limpet("logs", "--tail", "1", "web").stderr == "two\n"


def test_syslog_by_a_unix_socket(limpet: Any, busybox: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        receiver.settimeout(10)
        options = ("--log-opt", f"syslog-address=unix://{tmp_path}/log", "--log-opt", "cache-disabled=true")
        limpet("run", "--name", "web", "--log-driver", "syslog", *options, busybox, "echo", "hi")
        seen = receiver.recv(65536).decode()
    container_id = limpet("inspect", "-f", "{{.Id}}", "web").stdout[:12]
    assert seen.startswith("<30>")
    assert f" {container_id}[" in seen
    assert seen.endswith("]: hi")
    assert "cache-disabled" in limpet("logs", "web", check=False).stderr


def test_syslog_nobody_there(limpet: Any, busybox: str, tmp_path: Path) -> None:
    address = f"syslog-address=unix://{tmp_path}/log"
    # fmt: off
    result = limpet("run", "--rm", "--log-driver", "syslog", "--log-opt", address, busybox, "true", check=False)
    # fmt: on
    assert result.returncode == 125
    assert f"its log driver syslog: unix://{tmp_path}/log: No such file or directory" in result.stderr


def test_syslog_by_tcp_survives_a_restart_of_the_receiver(limpet: Any, busybox: str, tcp: socket.socket) -> None:
    """In blocking mode nothing is lost: what is written while nobody listens comes when somebody does again."""
    port = tcp.getsockname()[1]
    script = "echo one; read x; echo two; read x; echo three"
    # fmt: off
    with subprocess.Popen([*limpet.command, "run", "-i", "--name", "web", "--log-driver", "syslog", "--log-opt",
                           where(tcp, "tcp"), busybox, "sh", "-c", script],
                          env=limpet.environment, stdin=subprocess.PIPE) as run:
        # fmt: on
        assert run.stdin is not None
        tcp.accept()[0].close()  # the look before the start
        connection = tcp.accept()[0]
        with connection.makefile("rb") as file:
            assert file.readline().endswith(b"]: one\n")
        connection.close()
        tcp.close()
        run.stdin.write(b"\n")
        run.stdin.flush()
        time.sleep(0.3)
        with socket.create_server(("127.0.0.1", port)) as again:
            again.settimeout(10)
            with again.accept()[0] as connection, connection.makefile("rb") as file:
                assert file.readline().endswith(b"]: two\n")
                run.stdin.write(b"\n")
                run.stdin.flush()
                assert file.readline().endswith(b"]: three\n")
        run.stdin.close()
        assert run.wait(20) == 0
    assert limpet("logs", "web").stdout == "one\ntwo\nthree\n"


FLOOD = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i $LONG; done; echo over >&2"
LONG = "LONG=" + "x" * 8000


@pytest.mark.slow
def test_blocking_a_container_waits_for_its_log(limpet: Any, busybox: str, tcp: socket.socket) -> None:
    # fmt: off
    limpet("run", "-d", "--name", "web", "-e", LONG, "--log-driver", "syslog", "--log-opt", where(tcp, "tcp"),
           "--log-opt", "cache-disabled=true", busybox, "sh", "-c", FLOOD + "; sleep 1000")
    # fmt: on
    tcp.accept()[0].close()
    connection = tcp.accept()[0]
    time.sleep(1)
    began = time.monotonic()
    assert limpet("exec", "web", "echo", "here").stdout == "here\n"  # nobody else waits
    assert time.monotonic() - began < 3
    with connection, connection.makefile("rb") as file:
        for number in range(1, 401):
            assert file.readline().split(b"]: ", 1)[1].startswith(b"%d x" % number)
        assert file.readline().endswith(b"over\n")
    assert "LogDropped" not in limpet("inspect", "web").stdout


@pytest.mark.slow
def test_non_blocking_lines_are_dropped_and_counted(limpet: Any, busybox: str, tcp: socket.socket) -> None:
    # fmt: off
    limpet("run", "-d", "--name", "web", "-e", LONG, "--log-driver", "syslog", "--log-opt", where(tcp, "tcp"),
           "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=64k", "--log-opt", "cache-max-size=10m",
           busybox, "sh", "-c", FLOOD + f"; {FLOOD}; {FLOOD}; {FLOOD}; touch /tmp/over; sleep 1000")
    # fmt: on
    tcp.accept()[0].close()
    connection = tcp.accept()[0]  # nobody reads
    end = time.monotonic() + 20
    while limpet("exec", "web", "test", "-e", "/tmp/over", check=False).returncode:
        assert time.monotonic() < end, "the container waits for its log"
        time.sleep(0.05)
    received = bytearray()

    def read() -> None:
        while data := connection.recv(1 << 16):
            received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    limpet("stop", "-t", "0", "web")
    reader.join(20)
    connection.close()
    dropped = json.loads(limpet("inspect", "web").stdout)[0]["State"]["LogDropped"]
    assert 0 < dropped < 1600
    assert received.count(b"\n") + dropped == 4 * 401
    result = limpet("logs", "web")
    assert result.stdout.count("\n") == 1600  # the copy has all of them
    assert f"limpet: {dropped} lines of web are not in its log" in result.stderr


def test_a_killed_writer_is_replaced(tmp_path: Path) -> None:
    log = WriterProcess(lambda: LocalLog(str(tmp_path), -1, 1, compress=False), 1 << 20, drop=True)
    log.write("stdout", b"one\n")
    while not texts(tmp_path):
        time.sleep(0.01)
    log.write("stdout", b"two\n")
    while texts(tmp_path) != ["one\n", "two\n"]:
        time.sleep(0.01)
    os.kill(log._pid, 9)
    os.waitid(os.P_PID, log._pid, os.WEXITED | os.WNOWAIT)
    log.write("stdout", b"three\n")
    log.close()
    assert texts(tmp_path) == ["one\n", "two\n", "three\n"]
    assert log.dropped == 0


def test_the_writer_sleeps_with_the_monitor(tmp_path: Path) -> None:
    log = WriterProcess(lambda: LocalLog(str(tmp_path), -1, 1, compress=False), 1 << 20, drop=False)
    log.write("stdout", b"one\nha")
    while (saved := log.saved()) is None:
        time.sleep(0.01)
    assert log.descriptor == -1
    again = WriterProcess(lambda: LocalLog(str(tmp_path), -1, 1, compress=False), 1 << 20, drop=False)
    again.restore(json.loads(json.dumps(saved)))
    again.write("stdout", b"lf\n")
    again.close()
    assert texts(tmp_path) == ["one\n", "half\n"]


def test_a_full_disk_costs_lines_and_no_more(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        for name, log in (
            ("local", LocalLog(str(tmp_path / "local"), -1, 1, compress=False)),
            ("text", LogFile(str(tmp_path / "text"), -1, 1)),
        ):
            for number in range(20):
                log.write("stdout", b"%d %s\n" % (number, b"x" * 5000))
            reader = LocalReader(str(tmp_path / name)) if name == "local" else TextReader(str(tmp_path / name))
            found = [entry.text.split()[0] for entry in reader.entries()]
            assert found == [str(number) for number in range(len(found))]
            assert len(found) + log.dropped == 20
            (tmp_path / name / "00000001" if name == "local" else tmp_path / name).unlink()
            log.write("stdout", b"y\n")
            reader.close()
            log.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# The journal


def fields(datagram: bytes) -> dict[str, bytes]:
    """As journald parses an entry (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        found[name.decode()] = value
        datagram = rest
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        receiver.settimeout(10)
        yield receiver


def test_journal_entries(journal: socket.socket) -> None:
    log = Journald(VALUES, "the tag", {"a.b": "1\n2", "_X": "y"}, journal.getsockname())
    log.write("stdout", b"one\n", 1767225600_000000000)
    log.write("stderr", b"\xfftwo\n")
    log.write("stdout", b"x" * (16 << 10) + b"rest\n")
    first, second, part, last = (fields(journal.recv(1 << 20)) for _ in range(4))
    assert first["CONTAINER_ID"] == b"ab" * 6
    assert first["CONTAINER_ID_FULL"] == b"ab" * 32
    assert first["CONTAINER_NAME"] == b"web"
    assert first["CONTAINER_TAG"] == first["SYSLOG_IDENTIFIER"] == b"the tag"
    assert (first["MESSAGE"], first["PRIORITY"], first["A_B"], first["X"]) == (b"one", b"6", b"1\n2", b"y")
    assert first["SYSLOG_TIMESTAMP"] == b"2026-01-01T00:00:00Z"
    assert (second["MESSAGE"], second["PRIORITY"]) == (b"\xfftwo", b"3")
    assert part["CONTAINER_PARTIAL_MESSAGE"] == b"true"
    assert part["CONTAINER_PARTIAL_ID"] == last["CONTAINER_PARTIAL_ID"]
    assert (last["MESSAGE"], last["CONTAINER_PARTIAL_LAST"]) == (b"rest", b"true")
    log.close()


def test_a_large_entry_comes_as_a_sealed_file(journal: socket.socket) -> None:
    large = "y" * (9 << 20)
    log = Journald(VALUES, "tag", {"large": large}, journal.getsockname())
    log.write("stdout", b"one\n")
    data, rights, _, _ = journal.recvmsg(1 << 16, socket.CMSG_SPACE(4))
    assert data == b""
    fd = array.array("i", rights[0][2])[0]
    with open(fd, "rb") as file:
        found = fields(file.read())
        with pytest.raises(PermissionError):
            os.truncate(f"/proc/self/fd/{fd}", 0)
    assert (found["MESSAGE"], found["LARGE"]) == (b"one", large.encode())
    log.close()


def test_names_of_fields() -> None:
    assert field_name("com.example-x") == "COM_EXAMPLE_X"
    assert field_name("__1abc") == "ABC"
    assert len(field_name("x" * 100)) == 64


def test_journald_needs_a_journal(limpet: Any, busybox: str) -> None:
    if os.path.exists("/run/systemd/journal/socket"):
        pytest.skip("needs a host without systemd-journald")
    result = limpet("run", "--rm", "--log-driver", "journald", busybox, "true", check=False)
    assert result.returncode == 125
    assert "its log driver journald: /run/systemd/journal/socket: No such file" in result.stderr
