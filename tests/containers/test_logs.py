"""The reader of json-file logs: rotated, truncated, followed; no byte is lost and none comes twice."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from limpet import jsontext
from limpet.cli import logs as command
from limpet.containers.logging import logs
from limpet.containers.logging.logfile import LogFile
from limpet.containers.options import Options
from limpet.containers.state import Container
from limpet.errors import Invalid
from limpet.store.store import Store


@pytest.fixture
def web(store: Store) -> Container:
    container = Container("ab" * 32, "web", None, "image", [], 0.0, Options())
    os.makedirs(store.container_path(container.id))
    os.makedirs(store.run_path(container.id))
    return container


def lines(store: Store, container: Container, **options: Any) -> list[str]:
    return [entry.text for entry in logs.read(store, container, **options)]


def write(store: Store, container: Container, *texts: bytes, size: int = -1, files: int = 3) -> None:
    log = LogFile(logs.path(store, container), size, files)
    for text in texts:
        log.write("stdout", text)
    log.close()


def test_nothing_yet(store: Store, web: Container) -> None:
    assert lines(store, web) == []
    assert lines(store, web, tail=3) == []
    assert lines(store, web, follow=True) == []  # nobody runs


def test_files_in_order(store: Store, web: Container) -> None:
    write(store, web, *[b"%d\n" % i for i in range(20)], size=300, files=10)
    assert len(list(Path(store.container_path(web.id)).glob("*.log*"))) == 4
    assert lines(store, web) == [f"{i}\n" for i in range(20)]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 19, 20, 21, 1000])
def test_tail(store: Store, web: Container, count: int) -> None:
    write(store, web, *[b"%d\n" % i for i in range(20)], size=300, files=10)
    assert lines(store, web, tail=count) == [f"{i}\n" for i in range(max(20 - count, 0), 20)]


def test_tail_of_one_big_file(store: Store, web: Container) -> None:
    write(store, web, b"".join(b"line %d\n" % i for i in range(5000)))
    for count in (1, 100, 1234):
        assert lines(store, web, tail=count) == [f"line {i}\n" for i in range(5000 - count, 5000)]


def test_parts_of_a_long_line_belong_together(store: Store, web: Container) -> None:
    write(store, web, b"first\n", b"x" * 40000 + b"\n", b"\\n last")
    assert [len(text) for text in lines(store, web)] == [6, 16384, 16384, 7233, 8]
    assert [len(text) for text in lines(store, web, tail=2)] == [16384, 16384, 7233, 8]
    assert lines(store, web, tail=1) == ["\\n last\n"]


def test_damaged_lines_are_left_out(store: Store, web: Container) -> None:
    write(store, web, b"one\n")
    with open(logs.path(store, web), "ab") as file:
        file.write(b'{"log":"hal\nnonsense\n[]\n{"log":1}\n')
    write(store, web, b"two\n")
    with open(logs.path(store, web), "ab") as file:
        file.write(b'{"log":"half')
    assert lines(store, web) == ["one\n", "two\n"]
    assert lines(store, web, tail=1) == ["two\n"]


def test_since_and_until(store: Store, web: Container) -> None:
    with open(logs.path(store, web), "w") as file:
        for second in range(10):
            values = {"log": f"{second}\n", "stream": "stdout", "time": f"2026-01-01T00:00:0{second}.5Z"}
            file.write(jsontext.dumps(values) + "\n")
    moment = command.moment("2026-01-01T00:00:03.5Z")
    assert lines(store, web, since=moment) == [f"{i}\n" for i in range(3, 10)]
    assert lines(store, web, until=moment) == [f"{i}\n" for i in range(4)]
    assert lines(store, web, since=moment, tail=2) == ["8\n", "9\n"]
    assert lines(store, web, since=moment + 1, until=moment + 2.2) == ["4\n", "5\n"]


class Writer:
    """What a monitor does: holds the lock, writes, says who it is; in a thread that can be waited for."""

    def __init__(self, store: Store, container: Container) -> None:
        self._lock = os.open(f"{store.run_path(container.id)}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        status = {"state": "running", "monitor": 0}
        Path(store.container_path(container.id), "status").write_text(json.dumps(status))

    def end(self) -> None:
        os.close(self._lock)


@pytest.mark.parametrize("files", [1, 2, 3])
def test_a_follower_survives_rotation_under_load(store: Store, web: Container, files: int) -> None:
    """Row 11 of the notes: every byte, in order, whatever the rotation does."""
    total = 4000
    writer = Writer(store, web)
    seen = 0
    room = threading.Semaphore(1 if files == 1 else 30)  # lines that may be unread: fewer than the files hold

    def produce() -> None:
        log = LogFile(logs.path(store, web), 4000, files)
        for number in range(total):
            room.acquire()
            log.write("stdout", b"%d %s\n" % (number, b"x" * (number % 97)))
        log.close()
        writer.end()

    thread = threading.Thread(target=produce)
    thread.start()
    for entry in logs.read(store, web, follow=True):
        assert entry.text == f"{seen} {'x' * (seen % 97)}\n"
        seen += 1
        room.release()
    thread.join()
    assert seen == total
    assert len(list(Path(store.container_path(web.id)).glob("*.log*"))) == files


def test_a_follower_goes_on_after_truncation(store: Store, web: Container) -> None:
    writer = Writer(store, web)
    write(store, web, b"before\n")
    entries = logs.read(store, web, follow=True)
    assert next(entries).text == "before\n"
    os.truncate(logs.path(store, web), 0)
    threading.Timer(0.05, lambda: write(store, web, b"after\n")).start()
    assert next(entries).text == "after\n"
    writer.end()
    assert list(entries) == []


def test_a_follower_waits_for_the_first_line(store: Store, web: Container) -> None:
    writer = Writer(store, web)
    threading.Timer(0.05, lambda: (write(store, web, b"first\n"), writer.end())).start()
    assert lines(store, web, follow=True, tail=0) == ["first\n"]


def test_a_follower_ends_at_until(store: Store, web: Container) -> None:
    writer = Writer(store, web)
    write(store, web, b"line\n")
    began = time.monotonic()
    assert lines(store, web, follow=True, until=time.time() + 0.2) == ["line\n"]
    assert time.monotonic() - began < 5
    writer.end()


def test_it_sleeps_while_nothing_is_written(limpet: Any, busybox: str) -> None:
    """No busy loop: half a second of a silent container costs no processor time, and its end is seen at once."""
    limpet("run", "-d", "--name", "web", busybox, "sh", "-c", "echo up; exec sleep 1000")
    with subprocess.Popen(
        [*limpet.command, "logs", "-f", "web"], env=limpet.environment, stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "up\n"

        def switches() -> int:
            text = Path(f"/proc/{follower.pid}/status").read_text()
            return int(text.rpartition("nonvoluntary")[0].rpartition("voluntary_ctxt_switches:")[2])

        while Path(f"/proc/{follower.pid}/syscall").read_text().split()[0] not in ("7", "73", "271"):  # poll, ppoll
            os.sched_yield()
        before = switches()
        time.sleep(0.5)  # what is measured
        assert switches() - before <= 1
        began = time.monotonic()
        limpet("kill", "web")
        assert follower.wait(10) == 0
        assert time.monotonic() - began < 5


def test_streams_and_times(limpet: Any, busybox: str) -> None:
    limpet("run", "--name", "web", busybox, "sh", "-c", "echo out; echo err >&2; printf end")
    result = limpet("logs", "web")
    assert (sorted(result.stdout.splitlines()), result.stderr) == (["end", "out"], "err\n")
    for line in limpet("logs", "-t", "web").stdout.splitlines():
        moment, _, text = line.partition(" ")
        assert (len(moment), moment[-1], text in ("out", "end")) == (30, "Z", True)
    assert limpet("logs", "--tail", "0", "web").stdout == ""
    assert limpet("logs", "--since", "1h", "--until", "0.000001s", "web").stdout.startswith("out\n")
    assert limpet("logs", "--since", "2100-01-01", "web").stdout == ""
    assert limpet("logs", "-f", "-n", "all", "web").stdout.endswith("end\n")
    result = limpet("logs", "wbe", check=False)
    assert (result.returncode, result.stderr) == (1, "limpet: No such container: wbe\ndid you mean web?\n")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1767225600", 1767225600.0),
        ("1767225600.25", 1767225600.25),
        ("2026-01-01", 1767225600.0),
        ("2026-01-01T00:00", 1767225600.0),
        ("2026-01-01T00:00:00", 1767225600.0),
        ("2026-01-01T00:00:00.5Z", 1767225600.5),
        ("2026-01-01T01:00:00+01:00", 1767225600.0),
        ("2025-12-31T22:30:00.25-01:30", 1767225600.25),
    ],
)
def test_moments(text: str, seconds: float) -> None:
    assert command.moment(text) == seconds


@pytest.mark.parametrize("text", ["yesterday", "2026-13-77x", "1q", "--", "12:00", "2026-01-01T00:00:00+1", "é"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(Invalid, match="invalid time"):
        command.moment(text)


def test_durations() -> None:
    assert command.duration("1h30m") == 5400
    assert command.duration("1.5s") == 1.5
    assert command.duration("10ms") == 0.01
    assert command.duration("x") is None
    assert abs(command.moment("10m") - (time.time() - 600)) < 5


def test_both_streams_in_the_order_that_they_came(limpet: Any, busybox: str) -> None:
    script = "for i in 1 2 3; do echo o$i; sleep 0.05; echo e$i >&2; sleep 0.05; done"
    limpet("run", "--name", "box", busybox, "sh", "-c", script)
    words = [*limpet.command, "logs", "box"]
    both = subprocess.run(words, env=limpet.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert both.stdout.split() == ["o1", "e1", "o2", "e2", "o3", "e3"]
