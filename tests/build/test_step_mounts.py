"""`RUN --mount=…`: what a step sees for its time, and what stays of it: nothing."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.build.builder import Builder

pytestmark = pytest.mark.slow


@pytest.fixture
def build(limpet: Any, busybox: str, tmp_path: Path) -> Builder:
    return Builder(limpet, tmp_path / "context", busybox)


def layer_names(limpet: Any, tmp_path: Path) -> list[str]:
    """Paths in the top layer of `made`."""
    limpet("save", "-o", tmp_path / "made.tar", "made")
    subprocess.run(["sh", "-c", f"cd {tmp_path} && rm -rf un && mkdir un && tar xf made.tar -C un"], check=True)
    manifest = json.loads((tmp_path / "un/manifest.json").read_text())
    top = tmp_path / "un" / manifest[0]["Layers"][-1]
    return subprocess.run(["tar", "tf", top], check=True, capture_output=True, text=True).stdout.split()


def test_a_bind_of_the_context(build: Builder, limpet: Any, tmp_path: Path) -> None:
    (build.directory / "sub").mkdir()
    (build.directory / "sub/file").write_text("one\n")
    (build.directory / "hidden").write_text("secret\n")
    (build.directory / ".dockerignore").write_text("hidden\n")
    build(
        "RUN --mount=type=bind,target=/src cp /src/sub/file /out && ls /src >>/out && ! touch /src/new",
        "RUN --mount=type=bind,source=sub,target=/s,rw cat /s/file >>/out && touch /s/new",
        "RUN --mount=type=bind,source=sub/file,target=/f cat /f >>/out",
    )
    assert limpet("run", "--rm", "made", "cat", "/out").stdout == "one\nDockerfile\nsub\none\none\n"
    assert not (build.directory / "sub/new").exists()
    assert [name for name in layer_names(limpet, tmp_path) if name.strip("./")] == ["out"]
    assert limpet("run", "--rm", "made", "ls", "/").stdout.split().count("src") == 0


def test_a_bind_counts_for_the_key(build: Builder) -> None:
    line = "RUN --mount=type=bind,source=a,target=/a cat /a >/out"
    (build.directory / "a").write_text("one")
    (build.directory / "b").write_text("one")
    assert ": cached" not in build(line).stderr
    (build.directory / "b").write_text("two")
    assert ": cached" in build(line).stderr
    (build.directory / "a").write_text("two")
    assert ": cached" not in build(line).stderr
    assert build.limpet("run", "--rm", "made", "cat", "/out").stdout == "two"


def test_a_bind_of_a_stage_and_of_an_image(build: Builder) -> None:
    build(
        "RUN mkdir /opt /opt/tool && echo tool >/opt/tool/x && ln -s /opt/tool /link && ln -s /../../etc /out-of-it",
        f"FROM {build.base}",
        "RUN --mount=type=bind,from=tools,source=/link,target=/t cat /t/x >/out && ! touch /t/y",
        "RUN --mount=type=bind,from=tools,source=out-of-it,target=/t ls /t/passwd >>/out",
        f"RUN --mount=type=bind,from={build.base},target=/other,rw ls /other/bin/busybox >>/out; touch /other/new",
    )
    shown = build.limpet("run", "--rm", "made", "cat", "/out").stdout
    assert shown == "tool\n/t/passwd\n/other/bin/busybox\n"
    result = build("RUN --mount=type=bind,source=nowhere,target=/x true", check=False)
    assert result.returncode == 1
    assert "nowhere: not in " in result.stderr


def test_a_cache_stays_and_is_no_part_of_the_image(build: Builder, limpet: Any, tmp_path: Path) -> None:
    script = "echo x >>/root/.cache/pip/log; cat /root/.cache/pip/log >/out"
    line = f"RUN --mount=type=cache,target=/root/.cache/pip,mode=0700 {script}"
    build(line)
    assert sorted(name.strip("./") for name in layer_names(limpet, tmp_path)) in (["out", "root"], ["", "out", "root"])
    build(line, "RUN true", options=("--no-cache",))
    assert limpet("run", "--rm", "made", "cat", "/out").stdout == "x\nx\n"
    assert limpet("cache", "ls", "-q", "--filter", "type=mount").stdout == "/root/.cache/pip\n"
    count = limpet("system", "df", "--format", '{{if eq .Type "Build Cache"}}{{.TotalCount}}{{end}}').stdout.strip()
    assert int(count) == len(limpet("cache", "ls", "-q").stdout.split())
    (cache,) = (limpet.root / "caches").iterdir()
    assert (cache / "data").stat().st_mode & 0o7777 == 0o700
    with (cache / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        result = limpet("cache", "rm", "/root/.cache/pip", check=False)
        assert (result.returncode, result.stderr) == (1, "limpet: the cache /root/.cache/pip is in use by a build\n")
    assert "/root/.cache/pip\nTotal reclaimed space: " in limpet("cache", "prune", "-f").stdout
    assert list((limpet.root / "caches").iterdir()) == []
    assert limpet("cache", "rm", "nope", check=False).stderr == "limpet: no such cache: nope\n"


def test_a_cache_begins_as_a_copy(build: Builder) -> None:
    build(
        "RUN mkdir /c /c/d && echo seed >/c/d/f && chown 1000:33 /c/d/f && chmod 640 /c/d/f",
        f"FROM {build.base}",
        "RUN --mount=type=cache,from=tools,source=/c,target=/cache,uid=1000"
        " stat -c '%u:%g %a' /cache/d/f /cache >/out; cat /cache/d/f >>/out",
    )
    assert build.limpet("run", "--rm", "made", "cat", "/out").stdout == "1000:33 640\n1000:0 755\nseed\n"


@pytest.mark.parametrize("sharing", ["shared", "locked", "private"])
def test_sharing(build: Builder, sharing: str) -> None:
    script = "echo $(ls /c | wc -l) >/out; touch /c/$(cat /proc/sys/kernel/random/uuid)"
    line = f"RUN --mount=type=cache,id=x,target=/c,sharing={sharing} {script}"
    build(line)
    (cache,) = (build.limpet.root / "caches").iterdir()
    with (cache / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        words = [*build.limpet.command, "build", "--no-cache", "-t", "made", str(build.directory)]
        process = subprocess.Popen(words, env=build.limpet.environment, stderr=subprocess.PIPE, text=True)
        if sharing == "locked":
            assert process.stderr is not None
            while "waiting for the cache x" not in process.stderr.readline():
                assert process.poll() is None
            time.sleep(0.1)
            assert process.poll() is None
        else:
            process.communicate(timeout=60)
            assert process.returncode == 0
    process.communicate(timeout=60)
    assert process.returncode == 0
    expected = "0\n" if sharing == "private" else "1\n"
    assert build.limpet("run", "--rm", "made", "cat", "/out").stdout == expected


def test_a_secret_leaves_no_trace(build: Builder, limpet: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"t0p-s3cret-w0rd")
    options = ("--secret", f"id=token,src={tmp_path}/secret")
    result = build(
        "RUN --mount=type=secret,id=token stat -c '%a %u %s' /run/secrets/token >/out",
        "RUN --mount=type=secret,id=token,target=/etc/t,mode=0444,uid=1000 stat -c '%a %u %s' /etc/t >>/out",
        "RUN --mount=type=secret,id=token,env=TOKEN echo ${#TOKEN} >>/out",
        "RUN --mount=type=secret,id=other ls /run/secrets 2>/dev/null | wc -l >>/out",
        options=options,
    )
    assert limpet("run", "--rm", "made", "cat", "/out").stdout == "400 0 15\n444 1000 15\n15\n0\n"
    assert limpet("run", "--rm", "made", "ls", "/run", check=False).stdout == ""
    assert "t0p-s3cret" not in result.stdout + result.stderr + limpet("history", "--no-trunc", "made").stdout
    found = subprocess.run(["grep", "-rl", "t0p-s3cret-w0rd", limpet.root], capture_output=True, text=True)
    assert found.stdout == ""
    # The secret is no part of the key.
    (tmp_path / "secret").write_bytes(b"another")
    again = build("RUN --mount=type=secret,id=token stat -c '%a %u %s' /run/secrets/token >/out", options=options)
    assert ": cached" in again.stderr


def test_what_is_not_given(build: Builder, tmp_path: Path) -> None:
    result = build("RUN --mount=type=secret,id=token,required true", check=False)
    assert result.returncode == 1
    assert "secret token not found" in result.stderr
    assert "--secret id=token,src=FILE" in result.stderr
    result = build("RUN true", options=("--secret", f"id=x,src={tmp_path}/nope"), check=False)
    assert "nope: no such file or directory" in result.stderr
    result = build("RUN --mount=type=ssh,required true", check=False)
    assert "ssh agent default: not found" in result.stderr


def test_an_agent(build: Builder, tmp_path: Path) -> None:
    place = f"{tmp_path}/agent"
    if len(place) > 100:
        place = f"/tmp/limpet-agent-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(place)
        try:
            build(
                "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK >/out",
                options=("--ssh", f"default={place}"),
            )
        finally:
            os.unlink(place)
    assert build.limpet("run", "--rm", "made", "cat", "/out").stdout == "/run/buildkit/ssh_agent.0\n"


def test_nothing_is_mounted_on_the_host(build: Builder) -> None:
    build(
        f"RUN --mount=type=bind,from={build.base},target=/o,rw sleep 0.1",
    )
    assert str(build.limpet.root) not in Path("/proc/self/mounts").read_text()
    assert os.listdir(build.limpet.root / "tmp") == []
    result = build(f"RUN --mount=type=bind,from={build.base},target=/o exit 3", check=False)
    assert result.returncode == 1
    assert os.listdir(build.limpet.root / "tmp") == []
