"""Contexts that are no directory: the same image as from the directory, and nothing of the host in it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.build.sources.gitserver import Origin, daemon, git
from tests.build.sources.web import Web

pytestmark = pytest.mark.slow

DOCKERFILE = "FROM scratch\nCOPY . /all/\nCOPY docs/page /\n"


@pytest.fixture
def directory(build: Any) -> Path:
    """A context with all kinds of files, and the image `build.id` of it."""
    place: Path = build.directory
    (place / "docs/deep").mkdir(parents=True)
    (place / "docs/page").write_text("page\n")
    (place / "docs/deep/other").write_text("other\n")
    (place / "docs/left-out").write_text("no\n")
    (place / "run").write_text("#!/bin/sh\n")
    (place / "run").chmod(0o755)
    (place / "link").symlink_to("docs/page")
    (place / ".dockerignore").write_text("docs/left-out\n")
    (place / "Dockerfile").write_text(DOCKERFILE)
    build.run(place)
    return place


def tar(directory: Path, *options: str) -> bytes:
    return subprocess.run(["tar", "c", *options, "."], cwd=directory, check=True, capture_output=True).stdout


def run(build: Any, *arguments: str, data: bytes, check: bool = True) -> Any:
    """`build -` with bytes on standard input."""
    command = [*build.limpet.command, "build", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, env=build.limpet.environment, timeout=60)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    assert not check or done.returncode == 0, done.stderr
    build.id = done.stdout.strip()
    return done


@pytest.mark.parametrize("option", ["", "--gzip", "--bzip2", "--xz", "--zstd", "--format=pax"])
def test_a_tar_on_standard_input(build: Any, directory: Path, option: str) -> None:
    wanted = build.id
    run(build, "-", data=tar(directory, *([option] if option else []), "--owner=12", "--numeric-owner"))
    assert build.id == wanted
    assert [each.name for each in (build.limpet.root / "tmp").iterdir()] == []


def test_which_dockerfile(build: Any, directory: Path, web: Web, tmp_path: Path) -> None:
    wanted = build.id
    (directory / "Dockerfile").rename(directory / "docs/file")
    (directory / "docs/file.dockerignore").write_text("docs/left-out\ndocs/file*\n")
    data = tar(directory)
    error = run(build, "-", data=data, check=False).stderr
    assert "no such Dockerfile in standard input" in error
    run(build, "-t", "made", "-f", "docs/file", "-", data=data)
    assert build.listing()[-1].endswith(" page")
    (directory / "docs/file").unlink()
    (directory / "docs/file.dockerignore").unlink()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    run(build, "-f", "-", str(directory), data=DOCKERFILE.encode())
    assert build.id == wanted
    build.run("-f", web.put("/any", DOCKERFILE), directory)
    assert build.id == wanted
    error = run(build, "-f", "-", "-", data=b"x", check=False).stderr
    assert "both the context and the Dockerfile are to be standard input" in error


def test_a_dockerfile_alone(build: Any, web: Web, busybox: str) -> None:
    text = f"FROM {busybox}\nADD {web.put('/file', 'hello')} /file\nRUN cat /file >/copy\n"
    run(build, "-", data=text.encode())
    one = build.id
    build.run(web.put("/Dockerfile", text))
    assert build.id == one
    error = run(build, "-", data=f"FROM {busybox}\nCOPY a /\n".encode(), check=False).stderr
    assert "<standard input>:2:1: a: not in the context standard input" in error
    assert "-f - DIRECTORY has" in error
    assert "neither an archive nor text" in run(build, "-", data=b"\x7fELF\0\1", check=False).stderr
    assert "it is empty" in run(build, "-", data=b"", check=False).stderr
    error = run(build, "-f", "x", "-", data=text.encode(), check=False).stderr
    assert "-f x: standard input is a Dockerfile itself" in error


def test_a_tar_by_http(build: Any, directory: Path, web: Web) -> None:
    wanted = build.id
    url = web.put("/context.tar.gz", tar(directory, "-z"))
    build.run(url)
    assert build.id == wanted
    build.run(url)
    assert (build.id, web.statuses()) == (wanted, [200, 304])


def test_a_repository(build: Any, directory: Path, tmp_path: Path) -> None:
    wanted = build.id
    served = tmp_path / "served"
    served.mkdir()
    origin = Origin(served)
    subprocess.run(["cp", "-a", f"{directory}/.", str(origin.directory)], check=True)
    commit = origin.commit("one")
    (origin.directory / "docs/Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    origin.commit("two")
    with daemon(served) as base:
        build.run(f"{base}/app.git#{commit}")
        assert build.id == wanted
        error = build.run(f"{base}/app.git#main:no", check=False).stderr
        assert "it has no directory no" in error
        build.run("-t", "made", f"{base}/app.git?subdir=docs")
        assert [line.split()[-1] for line in build.listing()] == [
            *("Dockerfile", "deep/", "deep/other", "left-out", "page"),
        ]
        run(build, "-f", "-", f"{base}/app.git#{commit}", data=DOCKERFILE.encode())
        assert build.id == wanted
        error = build.run("-f", "../../etc/hosts", f"{base}/app.git", check=False).stderr
        assert "../../etc/hosts: leads out of the context" in error
        keep = ("--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1")
        (origin.directory / "Dockerfile").write_text("FROM scratch\nCOPY .git/HEAD /\n")
        head = origin.commit("three")
        assert "not in the context" in build.run(f"{base}/app.git", check=False).stderr
        build.run("-t", "made", *keep, f"{base}/app.git")
        assert "HEAD" in build.listing()[0]
        assert git(origin.directory, "rev-parse", "main") == head
        checked = build.limpet("build", "--check", f"{base}/app.git")
        assert "Check complete, no warnings found" in checked.stdout
        planned = build.limpet("build", "--print=plan", f"{base}/app.git")
        assert '"path": "Dockerfile"' in planned.stdout


def made(*members: tuple[str, bytes, str, bytes]) -> bytes:
    """A tar of (name, type, link, data)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, link, data in (("Dockerfile", tarfile.REGTYPE, "", b"FROM scratch\nCOPY x /\n"), *members):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../x", tarfile.REGTYPE, "", b"1")], "standard input: "),
        ([("x", tarfile.SYMTYPE, "/etc/passwd", b"")], "x: leads out of the context"),
        ([("x", tarfile.LNKTYPE, "/etc/passwd", b"")], "isn't in the archive"),
        ([("d", tarfile.SYMTYPE, "/etc", b""), ("d/x", tarfile.REGTYPE, "", b"1")], "x: not in the context"),
        ([("x", tarfile.FIFOTYPE, "", b"")], "neither a file, a directory nor a link"),
        ([("Dockerfile", tarfile.SYMTYPE, "/etc/passwd", b"")], "Dockerfile: leads out of the context"),
        ([(".dockerignore", tarfile.SYMTYPE, "../../../etc/passwd", b"")], ".dockerignore: leads out of the context"),
    ],
)
def test_hostile_tars(build: Any, members: Any, message: str) -> None:
    done = run(build, "-", data=made(*members), check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "root:" not in done.stderr
    assert [each.name for each in (build.limpet.root / "tmp").iterdir()] == []


def test_bombs_and_broken_tars(build: Any, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    with open(big / "x", "wb") as file:
        file.truncate(300 << 20)
    packed = subprocess.run(f"tar c -C {big} . | zstd -q", shell=True, capture_output=True, check=True).stdout
    done = run(build, "-", data=packed, check=False)
    assert done.returncode != 0
    assert "standard input: " in done.stderr
    assert "times" in done.stderr or "ratio" in done.stderr, done.stderr
    build.limpet.environment["LIMPET_MAX_LAYER_ENTRIES"] = "3"
    many = made(*((f"f{number}", tarfile.REGTYPE, "", b"") for number in range(10)))
    assert "standard input: " in run(build, "-", data=many, check=False).stderr
    cut = made(("x", tarfile.REGTYPE, "", bytes(100_000)))[:50_000]
    assert "standard input: " in run(build, "-", data=cut, check=False).stderr
