"""`-t`: a real terminal, of the right size from the first moment; the user's own is as it was afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Limpet = Any


class Terminal:
    """A command on a pty of ours."""

    def __init__(self, limpet: Limpet, *args: str, rows: int = 24, columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            [*limpet.command, *args], stdin=slave, stdout=slave, stderr=slave, env=limpet.environment,
            start_new_session=True,
        )  # fmt: skip
        self.seen = ""

    def expect(self, text: str, seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while text not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} did not come: {self.seen!r}"
            if select.select([self.master], [], [], left)[0]:
                self.seen += os.read(self.master, 65536).decode()
        self.seen = self.seen[self.seen.index(text) + len(text) :]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)  # it is not the foreground process of a session here

    def end(self) -> int:
        code = self.process.wait(15)
        end = time.monotonic() + 5
        while termios.tcgetattr(self.slave) != self.before:  # by another process, when the client was killed
            assert time.monotonic() < end
        os.close(self.master)
        os.close(self.slave)
        return code


READER = ("sh", "-c", 'echo ready; while read line; do eval "$line"; done')  # a shell that does not edit lines


def test_size_signals_and_exit_code(limpet: Limpet, busybox: str) -> None:
    terminal = Terminal(limpet, "run", "--rm", "-it", busybox, "sh", "-c", "stty size; tty; echo $TERM; PS1='> ' sh",
                        rows=33, columns=101)  # fmt: skip
    terminal.expect("33 101")
    terminal.expect("/dev/pts/0")
    terminal.expect("xterm")
    terminal.expect("> ")
    terminal.resize(44, 55)
    terminal.type("until [ \"$(stty size)\" = '44 55' ]; do :; done; echo re''sized\r")
    terminal.expect("resized")
    terminal.type("sleep 1000\r")
    terminal.expect("sleep 1000")
    time.sleep(0.1)  # until sleep is the foreground job: nothing tells from outside
    terminal.type("\x03")
    terminal.type("echo code $?\r")
    terminal.expect("code 130")
    terminal.type("exit 9\r")
    assert terminal.end() == 9


def test_the_third_interrupt_kills_who_does_not_listen(limpet: Limpet, busybox: str) -> None:
    client = Terminal(limpet, "run", "--name", "deaf", busybox, "sh", "-c", "trap '' INT; echo ready; sleep 60")
    client.expect("ready")
    client.process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    client.process.send_signal(signal.SIGINT)
    client.expect("limpet: deaf got ^C twice and still runs: once more kills it")
    client.process.send_signal(signal.SIGINT)
    assert client.end() == 137


def test_detach_and_attach_again(limpet: Limpet, busybox: str) -> None:
    terminal = Terminal(limpet, "run", "-it", "--name", "box", busybox, *READER)
    terminal.expect("ready")
    terminal.type("\x10\x11")
    assert terminal.end() == 0
    assert "box" in limpet("ps").stdout
    terminal = Terminal(limpet, "attach", "--detach-keys", "ctrl-x,q", "box")
    terminal.type("echo a''gain\r")
    terminal.expect("again")
    terminal.type("\x18q")
    assert terminal.end() == 0
    terminal = Terminal(limpet, "attach", "box")
    terminal.type("exit 7\r")
    assert terminal.end() == 7
    assert "again" in limpet("logs", "box").stdout


def test_the_terminal_is_restored_when_the_container_is_killed(limpet: Limpet, busybox: str) -> None:
    terminal = Terminal(limpet, "run", "-it", "--name", "box", busybox, "sh", "-c", "echo ready; sleep 1000")
    terminal.expect("ready")
    limpet("kill", "box")
    assert terminal.end() == 137


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_terminal_is_restored_when_the_client_is_ended(limpet: Limpet, busybox: str, number: int) -> None:
    terminal = Terminal(limpet, "run", "-it", "--name", "box", busybox, "sh", "-c", "echo ready; sleep 1000")
    terminal.expect("ready")
    terminal.process.send_signal(number)
    assert terminal.end() in (-number, 128 + number)
    assert "Up" in limpet("ps").stdout  # the container goes on


def test_exec_with_a_terminal(limpet: Limpet, busybox: str) -> None:
    limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
    terminal = Terminal(limpet, "exec", "-it", "box", "sh", "-c", "stty size; echo $TERM; tty; PS1='> ' sh; exit 3",
                        rows=20, columns=70)  # fmt: skip
    terminal.expect("20 70")
    terminal.expect("xterm")
    terminal.expect("/dev/pts/0")
    terminal.resize(21, 71)
    terminal.type("until [ \"$(stty size)\" = '21 71' ]; do :; done; echo re''sized\r")
    terminal.expect("resized")
    terminal.type("exit\r")
    assert terminal.end() == 3


def test_a_terminal_without_input(limpet: Limpet, busybox: str) -> None:
    out = limpet("run", "--rm", "-t", busybox, "sh", "-c", "tty; echo line").stdout
    assert out == "/dev/pts/0\nline\n"


def test_input_that_is_no_terminal_is_refused(limpet: Limpet, busybox: str) -> None:
    result = limpet("run", "--rm", "-it", busybox, "sh", check=False, input="")
    assert result.returncode == 1
    assert "the input device is not a TTY" in result.stderr
