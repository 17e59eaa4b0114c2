"""What is said of a RUN that failed, and of one that copied files for the sake of their modes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from limpet.build.language.mounts import Mount
from limpet.build.planning.plan import MountFrom, Origin, Place, Run
from limpet.build.reporting import hints

PATH = "/usr/local/bin:/bin"
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\xb7\0" + bytes(40)
FILES = {
    "/srv/crlf.sh": hints.File(b"#!/bin/bash\r\necho\r\n", 0o755),
    "/srv/plain.sh": hints.File(b"#!/bin/sh\n", 0o644),
    "/srv/ruby": hints.File(b"#!/usr/bin/ruby\n", 0o755),
    "/srv/arm": hints.File(ELF, 0o755),
    "/bin/glibc": hints.File(ELF + b"\0/lib64/ld-linux-x86-64.so.2\0", 0o755),
    "/srv/text": hints.File(b"echo", 0o755),
}


def step(command: str, *, network: str = "default", mounts: tuple[MountFrom, ...] = ()) -> Run:
    place = Place(f"RUN {command}", 1, 1)
    argv = ("/bin/sh", "-c", command)
    return Run(place, argv, (("PATH", PATH),), (), "/srv", "", mounts, network=network)


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (
            127,
            "/bin/sh: 1: foo: not found",
            f"foo is in no directory of PATH ({PATH}): a step before has to install it",
        ),
        (127, "/bin/bash: line 1: foo: command not found", "foo is in no directory of PATH"),
        (127, "/bin/sh: foo: not found\n", "foo is in no directory of PATH"),
        (127, "zsh:1: command not found: foo", "foo is in no directory of PATH"),
        (127, "a: not found\nsh: b: not found", "b is in no directory of PATH"),
        (127, "/bin/sh: 1: text: not found", "text is in the working directory, which is not in PATH: write ./text"),
        (127, "/bin/sh: 1: ./no.sh: not found", "there is no ./no.sh in the step's file system"),
        (127, "/bin/sh: 1: ./crlf.sh: not found", "interpreter '/bin/bash' is missing (the line ends in a carriage"),
        (127, "/bin/sh: 1: ./ruby: not found", "./ruby is there, but its interpreter '/usr/bin/ruby' is missing"),
        (127, "bash: ./ruby: cannot execute: required file not found", "its interpreter '/usr/bin/ruby' is missing"),
        (127, "/bin/sh: 1: glibc: not found", "/bin/glibc is there, but /lib64/ld-linux-x86-64.so.2, which it needs"),
        (127, "/usr/bin/env: \u2018bash\\r\u2019: No such file or directory", "Windows line ends (CRLF)"),
        (126, "bash: ./crlf.sh: /bin/bash^M: bad interpreter: No such file or directory", "Windows line ends (CRLF)"),
        (127, "./x: line 2: $'\\r': command not found", "Windows line ends (CRLF)"),
        (126, "/bin/sh: 1: ./plain.sh: Permission denied", "./plain.sh is not executable: COPY --chmod=755"),
        (126, "/bin/sh: 1: ./arm: Permission denied", ""),  # it has the bit: it is something else
        (126, "/bin/sh: 1: ./arm: Exec format error", "./arm: the program is for arm64, this host is"),
        (126, "bash: ./arm: cannot execute binary file: Exec format error", "./arm: the program is for arm64"),
        (137, "Killed", "killed by SIGKILL, and not for want of memory"),
        (1, "tar: x: Cannot write: No space left on device", "`limpet system df` shows what takes the space"),
        (1, "something else: not found", ""),
        (2, "", ""),
    ],
)
def test_exit_codes_and_last_words(code: int, said: str, expected: str) -> None:
    text = hints.hint(code, step("x"), said.encode(), FILES.get, oom=False, forks=False, limited=False)
    assert expected in text if expected else text == ""
    assert "\n" not in text


@pytest.mark.parametrize(
    ("command", "said", "expected"),
    [
        (
            "apt-get install -y x",
            "E: Failed to fetch http://d/x.deb  404  Not Found [IP: 1]",
            "update and install in one",
        ),
        ("apt-get update && apt-get install -y x", "E: Failed to fetch http://d/x.deb  404  Not Found", ""),
        ("apt-get install x", "E: Unable to locate package x", "which this step did not fetch"),
        ("apt-get -q update; apt install x", "E: Unable to locate package x", ""),
        ("curl -f http://d/x", "404 Not Found", ""),
    ],
)
def test_lists_of_packages(command: str, said: str, expected: str) -> None:
    text = hints.hint(100, step(command), said.encode(), FILES.get, oom=False, forks=False, limited=False)
    assert expected in text if expected else text == ""


def test_what_lies_in_a_mount_is_not_judged() -> None:
    for target in ("/srv", "/srv/d", "/"):
        mount = MountFrom(Mount("bind", target), Origin("context"))
        text = hints.hint(
            127,
            step("x", mounts=(mount,)),
            b"sh: ./d/no.sh: not found",
            FILES.get,
            oom=False,
            forks=False,
            limited=False,
        )
        assert text == ""


def test_memory_processes_and_network() -> None:
    def said(text: str, code: int = 137, *, network: str = "default", **seen: bool) -> str:
        known = {"oom": False, "forks": False, "limited": False, **seen}
        return hints.hint(code, step("x", network=network), text.encode(), FILES.get, **known)

    assert "want of memory: --memory gives it more" in said("Killed", oom=True, limited=True)
    assert "want of memory: this machine has no more" in said("Killed", oom=True)
    assert "--pids-limit" in said("fork: retry", 1, forks=True)
    failed = "curl: (6) Could not resolve host: x"
    assert said(failed, 6, network="none") == "the step has no network (--network=none)"
    assert said(failed, 6) == ""


def build(limpet: Any, context: Path, dockerfile: str, *options: str, check: bool = True) -> Any:
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    return limpet("build", *options, context, check=check)


@pytest.mark.slow
def test_a_script_with_windows_line_ends_in_a_real_step(limpet: Any, busybox: str, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "go.sh").write_bytes(b"#!/bin/sh\r\necho x\r\n")
    (context / "go.sh").chmod(0o755)
    done = build(limpet, context, f"FROM {busybox}\nCOPY go.sh /\nRUN /go.sh\n", check=False)
    path = os.path.relpath(context / "Dockerfile")
    assert done.stderr.splitlines()[-2].startswith(f"limpet: {path}:3:1: the command failed with exit code 127 >>>")
    assert done.stderr.splitlines()[-1] == (
        "/go.sh is there, but its interpreter '/bin/sh' is missing (the line ends in a carriage return): save it with"
        " LF; `*.sh text eol=lf` in .gitattributes keeps that"
    )
    changed = build(
        limpet, context, f"FROM {busybox}\nRUN printf '#!/no/sh\\n' >/new; chmod 755 /new; /new\n", check=False
    )
    assert "/new is there, but its interpreter '/no/sh' is missing" in changed.stderr, "what the step made counts too"
    assert not list((limpet.root / "tmp").iterdir())


@pytest.mark.slow
def test_the_cost_of_chmod_and_chown_is_said(limpet: Any, busybox: str, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "big").write_bytes(os.urandom(2 << 20))
    (context / "more").write_bytes(os.urandom(1 << 20))
    begin = f"FROM {busybox}\nCOPY big more /srv/\n"
    done = build(limpet, context, f"{begin}RUN chmod -R go-rwx /srv\n")
    text = "2 files are in this layer again (3.15MB), only for their mode: COPY --chmod sets that where they come in"
    assert f"[2/2] warning: {text}" in done.stderr.splitlines()
    done = build(limpet, context, f"{begin}RUN chown 7 /srv/big\n")
    assert (
        "1 file is in this layer again (2.1MB), only for its owner: COPY --chown sets that where it comes in"
        in done.stderr
    )
    done = build(limpet, context, f"{begin}RUN chown 7 /srv/*; chmod 600 /srv/*\n")
    assert "only for their mode and owner: COPY --chmod and --chown set that" in done.stderr
    for quiet in (
        "cat /srv/more >>/srv/big; chmod 600 /srv/big",
        "cp -p /srv/big /srv/new",
        "chmod 600 /srv; touch /srv/big",
    ):
        assert not re.search("warning", build(limpet, context, f"{begin}RUN {quiet}\n").stderr), quiet
