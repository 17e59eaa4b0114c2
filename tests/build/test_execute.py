"""Building: what comes out, what is run again, and that the same inputs give the same image."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def build(limpet: Any, context: Path, dockerfile: str, *options: str, check: bool = True) -> Any:
    (context / "Dockerfile").write_text(dockerfile)
    return limpet("build", "-t", "made:1", *options, context, check=check)


def run(limpet: Any, *command: str) -> str:
    return str(limpet("run", "--rm", "made:1", *command).stdout)


def test_every_instruction_has_its_effect(limpet: Any, busybox: str, context: Path) -> None:
    (context / "file").write_text("content\n")
    (context / "tree/below").mkdir(parents=True)
    (context / "tree/below/script").write_text("#!/bin/sh\necho from the script\n")
    (context / "tree/below/script").chmod(0o755)
    (context / "tree/link").symlink_to("below/script")
    build(
        limpet,
        context,
        f"""
        FROM {busybox}
        ENV GREETING="hello there" PORT=80
        WORKDIR /srv/app
        COPY file renamed
        COPY tree .
        COPY file tree/link /several/
        RUN echo $GREETING > made && mkdir d && touch d/x
        RUN ["rm", "d/x"]
        EXPOSE $PORT
        CMD ["/srv/app/link"]
        """,
    )
    assert run(limpet) == "from the script\n"
    assert run(limpet, "cat", "/srv/app/renamed", "made", "/several/file") == "content\nhello there\ncontent\n"
    assert run(limpet, "ls", "d") == ""
    assert run(limpet, "stat", "-c", "%u:%g %a %Y %n", "renamed", "below/script") == (
        "0:0 644 0 renamed\n0:0 755 0 below/script\n"
    )
    config = json.loads(limpet("image", "inspect", "made:1").stdout)[0]["Config"]
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert config["WorkingDir"] == "/srv/app"
    assert "GREETING=hello there" in config["Env"]
    history = limpet("history", "--no-trunc", "--format", "{{.CreatedBy}}", "made:1").stdout
    assert history.splitlines()[0] == 'CMD ["/srv/app/link"]'


def test_a_copy_into_a_linked_directory_and_into_one_with_a_mode(limpet: Any, busybox: str, context: Path) -> None:
    (context / "tool").write_text("#!/bin/sh\necho tool\n")
    (context / "tool").chmod(0o755)
    build(
        limpet,
        context,
        f"FROM {busybox}\nRUN mkdir -p /usr/lib && ln -s usr/lib /lib\nCOPY tool /lib/\nCOPY tool /tmp/x\nCMD tool\n",
    )
    assert run(limpet, "/lib/tool") == "tool\n"
    assert run(limpet, "readlink", "/lib") == "usr/lib\n"
    assert run(limpet, "ls", "/usr/lib") == "tool\n"
    assert run(limpet, "stat", "-c", "%a", "/tmp") == "1777\n"


def test_steps_are_cached_by_what_they_depend_on(limpet: Any, busybox: str, context: Path) -> None:
    (context / "a").write_text("1")
    (context / "b").write_text("1")
    text = f"FROM {busybox}\nCOPY a /a\nRUN cat /a > /made\nCOPY b /b\n"
    first = build(limpet, context, text)
    assert first.stderr.count(": cached") == 0
    second = build(limpet, context, text)
    assert second.stderr.count(": cached") == 3
    assert second.stdout == first.stdout

    os.utime(context / "a", (1, 1))  # times are no input
    assert build(limpet, context, text).stderr.count(": cached") == 3
    (context / "b").write_text("2")
    assert build(limpet, context, text).stderr.count(": cached") == 2
    (context / "a").chmod(0o700)  # modes are
    assert build(limpet, context, text).stderr.count(": cached") == 0
    assert build(limpet, context, text, "--no-cache").stderr.count(": cached") == 0


def test_the_same_inputs_give_the_same_image(limpet: Any, busybox: str, context: Path) -> None:
    (context / "a").write_text("1")
    text = f"FROM {busybox}\nCOPY a /a\nRUN mkdir /d && echo x > /d/x && ln /d/x /d/y && ln -s x /d/z\n"
    first = build(limpet, context, text).stdout
    os.utime(context / "a", (1, 1))
    assert build(limpet, context, text, "--no-cache").stdout == first


def test_a_step_that_fails_ends_the_build_and_leaves_nothing(limpet: Any, busybox: str, context: Path) -> None:
    result = build(limpet, context, f"FROM {busybox}\nRUN echo going; exit 3\n", check=False)
    assert result.returncode == 1
    assert "going" in result.stderr
    message = "limpet: the command of line 2 failed with exit code 3: RUN echo going; exit 3"
    assert result.stderr.splitlines()[-1] == message
    assert limpet("ps", "-aq").stdout == ""
    assert limpet("system", "check").returncode == 0
    assert "made" not in limpet("images").stdout


def test_files_that_are_not_there_or_lead_out(limpet: Any, busybox: str, context: Path) -> None:
    (context / "docker").mkdir()
    (context / "docker/entry.sh").write_text("")
    (context / "out").symlink_to("/etc/passwd")
    missing = build(limpet, context, f"FROM {busybox}\nCOPY entry.sh /\n", check=False)
    assert missing.stderr.splitlines()[-2:] == [
        f"limpet: COPY entry.sh: not in the context {context}",
        "did you mean docker/entry.sh?",
    ]
    out = build(limpet, context, f"FROM {busybox}\nCOPY out /\n", check=False)
    assert out.stderr.splitlines()[-1].startswith("limpet: out: leads out of the context")
    nowhere = limpet("build", context / "nope", check=False)
    assert "no such directory" in nowhere.stderr


def test_a_build_leaves_the_caller_s_standard_output_to_the_image_id(limpet: Any, busybox: str, context: Path) -> None:
    result = build(limpet, context, f"FROM {busybox}\nRUN echo to standard output\n")
    assert result.stdout.startswith("sha256:")
    assert result.stdout.count("\n") == 1
    assert "to standard output" in result.stderr
