"""`--build-context`: what a name of the Dockerfile stands for."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.build.sources.gitserver import Origin, daemon
from tests.build.sources.web import Web

pytestmark = pytest.mark.slow


@pytest.fixture
def lib(tmp_path: Path) -> Path:
    place = tmp_path / "lib"
    (place / "sub").mkdir(parents=True)
    (place / "sub/file").write_text("from the library\n")
    (place / "ignored").write_text("no\n")
    (place / ".dockerignore").write_text("ignored\n.dockerignore\n")
    return place


def names(build: Any) -> list[str]:
    return [line.split()[-1] for line in build.listing()]


def context(name: str, source: object) -> tuple[str, str]:
    return ("--build-context", f"{name}={source}")


def test_a_directory_for_from_of_copy_and_of_a_mount(build: Any, lib: Path, busybox: str) -> None:
    build("FROM scratch", "COPY --from=lib . /all/", options=context("lib", lib))
    assert names(build) == ["all/", "all/sub/", "all/sub/file"]
    run = "RUN --mount=from=lib,source=sub,target=/m cat /m/file >/out && ls /m >>/out"
    build(f"FROM {busybox}", run, options=context("lib", lib))
    assert build.limpet("run", "--rm", "made", "cat", "/out").stdout == "from the library\nfile\n"
    (lib / "sub/file").write_text("changed\n")
    assert "cached" not in build(f"FROM {busybox}", run, options=context("lib", lib)).stderr
    assert "cached" in build(f"FROM {busybox}", run, options=context("lib", lib)).stderr
    error = build.error("FROM scratch", "COPY --from=lib ignored /", options=context("lib", lib))
    assert "Dockerfile:2:1: ignored: excluded by .dockerignore" in error
    error = build.error("FROM scratch", "COPY --from=lib sbu/file /", options=context("lib", lib))
    assert "sbu/file: not in the context lib" in error
    assert "did you mean sub/file?" in error


def test_a_directory_as_a_base(build: Any, lib: Path) -> None:
    build("FROM lib", "LABEL a=b", options=context("lib", lib))
    assert names(build) == ["sub/", "sub/file"]
    build("FROM scratch AS base", "COPY Dockerfile /other", "FROM base", options=context("base", lib))
    assert names(build) == ["sub/", "sub/file"]
    build(
        "FROM scratch AS base",
        "COPY Dockerfile /o",
        "FROM scratch",
        "COPY --from=base / /x/",
        options=context("base", lib),
    )
    assert names(build) == ["x/", "x/sub/", "x/sub/file"]


def test_images(build: Any, busybox: str, tmp_path: Path, lib: Path) -> None:
    (build.directory / "one").write_text("1")
    build("FROM scratch", "COPY one /one", "ENV WHO=me", options=("-t", "other:1"))
    other = context("alpine", "docker-image://other:1")
    for written in ("alpine", "alpine:latest", "docker.io/library/alpine"):
        build(f"FROM {written}", "COPY one /$WHO", options=other)
        assert names(build) == ["me"]
    build("FROM scratch", "COPY --from=docker.io/library/alpine:latest /one /two", options=other)
    assert names(build) == ["two"]
    build(
        "FROM nowhere.invalid/x AS tools",
        "RUN false",
        "FROM tools",
        "COPY one /$WHO",
        options=context("tools", "docker-image://other:1"),
    )
    assert names(build) == ["me"]
    build("FROM alpine", "COPY one /x", options=context("alpine", "docker-image://scratch"))
    assert names(build) == ["x"]

    build.limpet("save", "--format", "oci-archive", "-o", tmp_path / "other.tar", "other:1")
    layout = tmp_path / "layout"
    layout.mkdir()
    subprocess.run(["tar", "xf", tmp_path / "other.tar", "-C", layout], check=True)
    build.limpet("rmi", "-f", "other:1", "made")
    for source in ("", ":1", ":docker.io/library/other:1"):
        source = f"oci-layout://{layout}{source}"
        build("FROM alpine", "COPY one /$WHO", options=context("alpine", source))
        assert names(build) == ["me"]
    error = build.error("FROM alpine", options=context("alpine", f"oci-layout://{layout}:9"))
    assert "--build-context alpine: " in error
    assert "the layout has no image 9" in error
    assert "is no OCI layout" in build.error("FROM alpine", options=context("alpine", f"oci-layout://{lib}"))


def test_remote_ones(build: Any, lib: Path, web: Web, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    Origin(served).commit("one", sub__file="of git\n")
    data = subprocess.run(["tar", "cz", "-C", lib, "."], check=True, capture_output=True).stdout
    with daemon(served) as base:
        build("FROM scratch", "COPY --from=lib / /", options=context("lib", f"{base}/app.git#main:sub"))
        assert names(build) == ["file"]
    for _ in range(2):
        build("FROM scratch", "COPY --from=lib / /", options=context("lib", web.put("/lib.tgz", data)))
        assert names(build) == ["sub/", "sub/file"]
    build("FROM scratch", "COPY --from=lib / /", options=context("lib", web.put("/plain", "text")))
    assert names(build) == ["context"]
    web.statuses()
    build("FROM scratch", "COPY Dockerfile /", options=context("lib", f"{web.base}/plain"))
    assert web.statuses() == []  # no step needs it
    assert [each.name for each in (build.limpet.root / "tmp").iterdir()] == []


def test_what_is_wrong_is_said(build: Any, tmp_path: Path) -> None:
    for text, message in (
        ("lib", "a name and a source are needed"),
        ("=x", "a name and a source are needed"),
        ("Lib=x", "Lib is no name"),
        (f"lib={tmp_path}/none", "no such directory"),
        ("lib=http://127.0.0.1:1/x", "Connection refused"),
    ):
        error = build.error("FROM scratch", "COPY --from=lib / /", options=("--build-context", text))
        assert message in error
