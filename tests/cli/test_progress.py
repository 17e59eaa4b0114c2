"""Bars on a terminal for what lasts, plain lines elsewhere, nothing with -q."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"

WORK = """
import sys, time, threading
sys.path.insert(0, sys.argv[1])
from limpet.cli.progress import progress
steps = int(sys.argv[2])
with progress() as shown:
    def work(key):
        shown.begin(key, f"layer {key}", 1000 * steps)
        for _ in range(steps):
            time.sleep(0.02)
            shown.advance(key, 1000)
        shown.finish(key, "done")
    threads = [threading.Thread(target=work, args=(key,)) for key in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("rich" if "rich" in sys.modules else "no rich")
"""


def on_a_terminal(command: list[str], environment: dict[str, str], columns: int = 100) -> str:
    """What a command writes to a terminal that is both its outputs."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**environment, "TERM": environment.get("TERM") or "xterm"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    data = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # EIO: the last holder of the other end is gone
            break
        data += piece
    os.close(ours)
    assert process.wait(30) == 0, data
    return data.decode()


@pytest.fixture
def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM", "COLUMNS", "LINES")}


def work(steps: int) -> list[str]:
    return [sys.executable, "-c", WORK, str(SOURCE), str(steps)]


def test_bars_for_what_lasts(environment: dict[str, str]) -> None:
    shown = on_a_terminal(work(30), environment)
    assert "━" in shown
    assert "MB/s" in shown or "kB/s" in shown
    assert "layer a: done (30kB)" in shown
    assert "All" in shown
    assert "60.0 kB" in shown or "/60.0" in shown, "the total counts all, the finished ones too"
    assert "\x1b[3" in shown or "\x1b[9" in shown
    assert shown.rstrip().endswith("rich")
    assert "━" not in shown[shown.rindex("\x1b[2K") :], "nothing of the bars stays"


def test_no_colour_when_it_is_not_wanted(environment: dict[str, str]) -> None:
    shown = on_a_terminal(work(30), {**environment, "NO_COLOR": "1"})
    assert "━" in shown
    assert "\x1b[3" not in shown
    assert "\x1b[9" not in shown


def test_a_narrow_terminal_has_no_rate(environment: dict[str, str]) -> None:
    shown = on_a_terminal(work(30), environment, columns=50)
    assert "━" in shown
    assert "B/s" not in shown


def test_what_is_quick_has_no_bars_and_loads_nothing(environment: dict[str, str]) -> None:
    shown = on_a_terminal(work(1), environment)
    assert sorted(shown.split("\r\n")) == ["", "layer a: done (1kB)", "layer b: done (1kB)", "no rich"]


def test_plain_lines_where_a_terminal_cannot_move_its_cursor(environment: dict[str, str]) -> None:
    shown = on_a_terminal(work(15), {**environment, "TERM": "dumb"})
    assert sorted(shown.split("\r\n")) == ["", "layer a: done", "layer b: done", "no rich"]


def test_plain_lines_and_silence_without_a_terminal(limpet: Any, busybox: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    limpet("save", "-o", archive, busybox)
    limpet("rmi", busybox)
    loaded = limpet("load", "-i", archive)
    assert "\x1b" not in loaded.stderr
    assert len(loaded.stderr.splitlines()) == 1
    limpet("rmi", busybox)
    assert limpet("load", "-q", "-i", archive).stderr == ""
