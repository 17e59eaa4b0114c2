"""A secret's value is nowhere after a build: not in what it made, kept, printed or told, however the build ended."""

from __future__ import annotations

import base64
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.build.reporting.masking import Masking
from limpet.build.steps.secrecy import left

VALUE = "c0rrect-h0rse-battery"


def masked(secrets: list[bytes], pieces: list[bytes]) -> bytes:
    masking = Masking(secrets)
    out = [masking.feed(1, 1, piece) for piece in pieces]
    return b"".join([*out, *(data for _, data in masking.rest(1))])


def test_values_are_masked_however_they_arrive() -> None:
    secrets = [VALUE.encode() + b"\n", b"first line of a key\nsecond line of a key\n", b"aaaaab", b"ab"]
    text = f"x{VALUE}y aaaaaaab first line of a key|{VALUE[:-1]} second line of a key ab {VALUE}{VALUE}{VALUE[:5]}"
    wanted = f"x***y aa*** ***|{VALUE[:-1]} *** ab ******{VALUE[:5]}".encode()
    choose = random.Random(1)
    for _ in range(300):
        cuts = sorted(choose.sample(range(len(text)), choose.randrange(12)))
        pieces = [text[begin:end].encode() for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert masked(secrets, pieces) == wanted
    assert masked([b"short"], [b"short"]) == b"short"


def test_the_streams_don_t_mix() -> None:
    masking = Masking([VALUE.encode()])
    assert masking.feed(1, 1, VALUE[:8].encode()) == b""
    assert masking.feed(1, 2, VALUE[8:].encode()) == VALUE[8:].encode()
    assert masking.feed(2, 1, VALUE[8:].encode()) == VALUE[8:].encode()
    assert masking.feed(1, 1, VALUE[8:].encode()) == b"***"
    assert list(masking.rest(1)) == []


def test_what_is_left_in_files(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/conf").write_text(f"token={VALUE}\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert list(left(str(tmp_path), {"token": VALUE.encode() + b"\n", "other": b"nowhere"})) == [("token", "/etc/conf")]


@pytest.mark.slow
def test_nothing_of_a_build_has_it(limpet: Any, busybox: str, tmp_path: Path) -> None:
    context, out = tmp_path / "context", tmp_path / "out"
    context.mkdir()
    out.mkdir()
    (tmp_path / "secret").write_text(f"{VALUE}\n")
    (context / "Dockerfile").write_text(
        f"FROM {busybox}\n"
        "RUN --mount=type=secret,id=token,mode=0440,uid=33,gid=1000 stat -c '%a %u %g' /run/secrets/token >/out\n"
        "RUN --mount=type=secret,id=token,env=TOKEN set -x; echo $TOKEN; env >/dev/null; echo ${#TOKEN} >>/out\n"
        "RUN --mount=type=secret,id=token,target=/a/b/c cat /a/b/c; cat /a/b/c >&2; mkdir /d; ls -l /a/b >/dev/null\n"
        "RUN --mount=type=secret,id=variable,env=X --mount=type=cache,target=/c echo $X | tee /dev/null\n"
    )
    limpet.environment["BUILD_VARIABLE"] = VALUE
    result = limpet(
        *("build", "-t", "made", "--secret", f"id=token,src={tmp_path}/secret"),
        *("--secret", "id=variable,env=BUILD_VARIABLE", "--explain"),
        *("--metadata-file", out / "metadata", "--iidfile", out / "iid"),
        *("--cache-to", f"type=local,dest={out}/cache,mode=max"),
        *("-o", f"type=oci,dest={out}/oci,tar=false", "-o", f"type=local,dest={out}/local", "-o", "type=image"),
        context,
    )
    assert "***" in result.stderr
    assert limpet("run", "--rm", "made", "cat", "/out").stdout == f"440 33 1000\n{len(VALUE) + 1}\n"
    limpet("save", "-o", out / "saved.tar", "made")
    (out / "log").write_text(result.stdout + result.stderr)
    for name, words in (
        ("history", ("history", "--no-trunc", "made")),
        ("inspect", ("image", "inspect", "made")),
        ("events", ("events", "--since", "1h", "--until", "0s")),
        ("plan", ("build", "--print=plan", context)),
        ("kept", ("cache", "ls", "--format", "json")),
    ):
        (out / name).write_text(limpet(*words).stdout)
    assert found(limpet.root, out) == ""
    assert "is in the image now" not in result.stderr


@pytest.mark.slow
def test_a_step_that_keeps_it_is_told(limpet: Any, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM {busybox}\nRUN --mount=type=secret,id=k cp /run/secrets/k /root/.npmrc\n"
    )
    (tmp_path / "secret").write_text(VALUE)
    result = limpet("build", "--secret", f"id=k,src={tmp_path}/secret", "-f", tmp_path / "Dockerfile", tmp_path)
    assert "the secret k is in the image now, in /root/.npmrc: whoever has the image can read it" in result.stderr


@pytest.mark.slow
def test_a_build_that_is_killed_leaves_none(limpet: Any, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM {busybox}\nRUN --mount=type=secret,id=k --mount=type=secret,id=k,env=K echo begun; sleep 1000\n"
    )
    (tmp_path / "secret").write_text(VALUE)
    words = ["build", "--secret", f"id=k,src={tmp_path}/secret", "-f", str(tmp_path / "Dockerfile"), str(tmp_path)]
    process = subprocess.Popen(
        [*limpet.command, *words], env=limpet.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip() == b"begun" or line.rstrip().endswith(b" begun"):
            break
    assert found(limpet.root) == ""
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert found(limpet.root) == ""
    while str(limpet.root) in Path("/proc/mounts").read_text():  # what the step had goes with its last process
        time.sleep(0.05)


def found(*places: Path) -> str:
    """The files that have the value, plain or as base64."""
    patterns = [VALUE, *(base64.b64encode(b" " * shift + VALUE.encode()).decode()[4:-4] for shift in range(3))]
    options = [option for pattern in patterns for option in ("-e", pattern)]
    done = subprocess.run(["grep", "-rlaFs", *options, *map(os.fspath, places)], capture_output=True, text=True)
    return done.stdout
