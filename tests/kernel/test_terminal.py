"""Pseudoterminals: sizes, raw mode and its end whatever happens, and a devpts of one's own."""

from __future__ import annotations

import os
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.descriptors import opened

from limpet.kernel import terminal

Alone = Callable[..., Any]


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    yield master, slave
    for fd in (master, slave):
        try:
            os.close(fd)
        except OSError:
            pass  # a test closed it


def test_sizes(pty: tuple[int, int]) -> None:
    master, slave = pty
    terminal.set_size(master, 50, 132)
    assert terminal.get_size(slave) == (50, 132)
    assert os.get_terminal_size(slave) == (132, 50)
    with open("/dev/null") as null:
        assert terminal.get_size(null.fileno()) == (0, 0)
        with pytest.raises(OSError, match="ioctl"):
            terminal.set_size(null.fileno(), 1, 1)


def test_raw_mode(pty: tuple[int, int]) -> None:
    master, slave = pty
    before = termios.tcgetattr(slave)
    with terminal.RawMode(slave):
        os.write(master, b"\x03\r\x1a\x13")  # ^C, Enter, ^Z, ^S: nothing is done with them
        assert os.read(slave, 10) == b"\x03\r\x1a\x13"
        os.write(slave, b"a\nb")
        assert os.read(master, 10) == b"a\nb"
    assert termios.tcgetattr(slave) == before


def test_raw_mode_ends_with_an_error(pty: tuple[int, int]) -> None:
    _, slave = pty
    before = termios.tcgetattr(slave)
    with pytest.raises(KeyboardInterrupt), terminal.RawMode(slave):
        raise KeyboardInterrupt
    assert termios.tcgetattr(slave) == before


def test_raw_mode_ends_on_a_terminal_that_somebody_has_stopped(pty: tuple[int, int]) -> None:
    _, slave = pty
    before = termios.tcgetattr(slave)
    with terminal.RawMode(slave):
        os.set_blocking(slave, False)
        termios.tcflow(slave, termios.TCOOFF)
    assert termios.tcgetattr(slave) == before


def test_raw_mode_ends_on_a_terminal_with_output_that_nobody_reads(pty: tuple[int, int]) -> None:
    _, slave = pty
    os.set_blocking(slave, False)
    written = 0
    with terminal.RawMode(slave):
        try:
            while True:
                written += os.write(slave, b"x" * 4096)
        except BlockingIOError:
            pass
    assert written > 0


def test_raw_mode_ends_on_a_terminal_that_is_gone(pty: tuple[int, int]) -> None:
    master, slave = pty
    with terminal.RawMode(slave):
        os.close(master)


def test_no_terminal() -> None:
    with open("/dev/null") as null, pytest.raises(termios.error), terminal.RawMode(null.fileno()):
        pass


def test_a_devpts_of_its_own(alone: Alone, tmp_path: Path) -> None:
    def body(directory):
        from limpet.kernel import mounts, terminal

        mounts.mount("devpts", directory, "devpts", data="newinstance,ptmxmode=0666,mode=0620")
        pairs = [terminal.open_ptmx(directory) for _ in range(2)]
        slave = os.open(pairs[1][1], os.O_RDWR | os.O_NOCTTY)
        os.write(slave, b"hello")
        return [path for _, path in pairs], os.read(pairs[1][0], 10).decode(), os.get_inheritable(pairs[0][0])

    paths, text, inherited = alone(body, str(tmp_path))
    assert paths == [f"{tmp_path}/0", f"{tmp_path}/1"]
    assert text == "hello"
    assert not inherited


def test_no_devpts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        terminal.open_ptmx(str(tmp_path))
    before = opened()
    (tmp_path / "ptmx").touch()
    with pytest.raises(OSError, match="Inappropriate"):
        terminal.open_ptmx(str(tmp_path))
    assert opened() == before
