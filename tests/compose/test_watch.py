"""`up --watch`: what a change leads to, and what is no change."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.build.language import ignore
from limpet.compose import directives, syncing
from limpet.compose.contextwatch import ContextWatch
from limpet.compose.directives import Sync
from limpet.errors import Invalid


def test_directives_stand_at_the_top() -> None:
    text = (
        "# syntax=docker/dockerfile:1\n# limpet: sync src /srv/src\n#limpet: sync+restart ./etc/app.conf /etc/\n\n"
        "#  limpet:   sync . /all/\nFROM scratch\n# limpet: sync late /late\n"
    )
    assert directives.parse(text, "Dockerfile") == (
        Sync("src", "/srv/src"),
        Sync("etc/app.conf", "/etc", into=True, restart=True),
        Sync("", "/all", into=True),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("# limpet: sync a", "Dockerfile:1: 'sync a' is not understood"),
        ("# limpet: copy a /b", "is not understood"),
        ("# limpet: sync ../a /b", "../a is not in the context"),
        ("# limpet: sync a b", "b is no absolute path"),
    ],
)
def test_what_a_directive_is_not(line: str, message: str) -> None:
    with pytest.raises(Invalid) as error:
        directives.parse(f"{line}\nFROM scratch\n", "Dockerfile")
    assert message in str(error.value)


def test_where_a_file_goes() -> None:
    rules = (Sync("src", "/srv"), Sync("a.conf", "/etc", into=True), Sync("b.conf", "/etc/b"))
    planned = syncing.plan(rules, {"src/x/y", "a.conf", "b.conf", "src"})
    assert planned is not None
    assert {path: rule.place(path) for path, rule in planned.items()} == {
        "src/x/y": "/srv/x/y",
        "src": "/srv",
        "a.conf": "/etc/a.conf",
        "b.conf": "/etc/b",
    }
    assert syncing.plan(rules, {"src/x", "other"}) is None
    assert syncing.plan(rules, {""}) is None
    assert syncing.plan(rules, {"srcs"}) is None


def test_a_watch_tells_what_changed(tmp_path: Path) -> None:
    for name in ("kept/below", "left/below", "left/except"):
        (tmp_path / name).mkdir(parents=True)
    ignored = ignore.parse("left\n!left/except\n*.log\nDockerfile\n")

    def changed(*changes: Any) -> set[str]:
        with ContextWatch(str(tmp_path), ignored, {"Dockerfile"}) as watch:
            (tmp_path / "left/below/x").write_text("x")  # nobody is told of these
            (tmp_path / "a.log").write_text("x")
            for change in changes:
                change()
            return watch.wait()

    assert changed(lambda: (tmp_path / "kept/below/x").write_text("1")) == {"kept/below/x"}
    assert changed(lambda: (tmp_path / "left/except/x").write_text("1")) == {"left/except/x"}
    assert changed(lambda: (tmp_path / "Dockerfile").write_text("1")) == {"Dockerfile"}
    assert changed(lambda: (tmp_path / "kept/below/x").rename(tmp_path / "y")) == {"kept/below/x", "y"}
    assert changed(lambda: (tmp_path / "kept/new/deep").mkdir(parents=True)) == {"kept/new", "kept/new/deep"}
    assert changed(lambda: (tmp_path / "kept").rename(tmp_path / "moved")) >= {"kept", "moved", "moved/new/deep"}
    assert changed(lambda: (tmp_path / "y").unlink(), lambda: (tmp_path / "z").symlink_to("/")) == {"y", "z"}

    # What a directory got after it came is told as well, and one that was moved is known by its new name.
    with ContextWatch(str(tmp_path), ignored) as watch:
        (tmp_path / "moved").rename(tmp_path / "again")
        assert "again" in watch.wait()
        (tmp_path / "again/below/x").write_text("x")
        assert watch.wait() == {"again/below/x"}


class Watching:
    """`limpet up --watch`, and what it has said by now."""

    def __init__(self, limpet: Any, directory: Path) -> None:
        self.text = ""
        self._process = subprocess.Popen(
            [*limpet.command, "up", "--watch", directory],
            env=limpet.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._came:
                self.text += line
                self._came.notify_all()

    def until(self, *texts: str) -> str:
        """What was said since the last time, when all of `texts` are in it."""
        deadline = time.monotonic() + 30
        with self._came:
            while not all(text in self.text for text in texts):
                assert self._came.wait(deadline - time.monotonic()), f"waiting for {texts}:\n{self.text}"
            said, self.text = self.text, ""
        return said

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(30)
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code


@pytest.mark.slow
def test_a_change_is_copied_or_built(limpet: Any, tmp_path: Path, busybox: str) -> None:
    directory = tmp_path / "app"
    (directory / "src").mkdir(parents=True)
    (directory / "src/page").write_text("one")
    (directory / "other").write_text("x")
    (directory / ".dockerignore").write_text("**/*.swp\n")
    program = "trap 'exit 0' TERM; echo begins; while :; do cat /srv/src/* /srv/other; echo .; sleep 0.1; done"
    rules = "# limpet: sync src /srv/src\n# limpet: sync+restart conf /srv/conf\n"
    text = f"{rules}FROM {busybox}\nCOPY . /srv\nCMD {program}\n"
    (directory / "Dockerfile").write_text(text)
    watching = Watching(limpet, directory)
    try:
        watching.until("watching", "begins", "onex.")
        first = limpet("ps", "-q").stdout

        (directory / "src/.page.swp").write_text("nothing")
        (directory / "src/page").write_text("two")
        said = watching.until("copied src/page", "twox.")
        assert "swp" not in said

        (directory / "src/more").write_text("three")
        (directory / "src/page").unlink()
        watching.until("threex.")
        assert limpet("exec", "app-app-1", "ls", "-l", "/srv/src").stdout.split()[2:5] == ["-rw-r--r--", "1", "root"]
        assert limpet("ps", "-q").stdout == first

        (directory / "conf").write_text("c")
        assert "ended with" not in watching.until("copied conf", "started again", "begins")
        assert limpet("ps", "-q").stdout == first

        (directory / "other").write_text("y")
        assert "ended with" not in watching.until("recreated", "begins", "watching", "threey.")
        assert limpet("ps", "-q").stdout != first

        (directory / "Dockerfile").write_text("FROM\n")
        watching.until("limpet: ", "Dockerfile:1", "watching", "threey.")
        (directory / "Dockerfile").write_text(text.replace(". /srv", ". /srv/"))
        watching.until("watching")
    finally:
        code = watching.interrupt()
    assert code == 130
    assert limpet("ps", "-aq").stdout == ""
    assert limpet("images", "--format", "{{.Repository}}").stdout == "busybox\n"
    assert os.listdir(limpet.root / "containers") == []
