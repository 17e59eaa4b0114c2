"""ADD of a git repository: which commit, which files of it, what counts for the cache, and what is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.build.sources.gitserver import Origin, daemon, git, http_server

pytestmark = pytest.mark.slow


@pytest.fixture
def top(tmp_path: Path) -> Path:
    directory = tmp_path / "served"
    directory.mkdir()
    return directory


@pytest.fixture
def origin(top: Path) -> Origin:
    made = Origin(top)
    made.commit("one", file="one\n", docs__page="page\n", docs__deep__other="other\n")
    (made.directory / "run").write_text("#!/bin/sh\n")
    (made.directory / "run").chmod(0o755)
    (made.directory / "link").symlink_to("docs/page")
    made.commit("two")
    git(made.directory, "tag", "-a", "-m", "a release", "v1")
    made.commit("three", file="three\n")
    return made


@pytest.fixture
def base(top: Path, origin: Origin) -> Iterator[str]:
    with daemon(top) as address:
        yield address


def names(build: Any) -> list[str]:
    """Mode and name, and where a link leads, of what is below `x`."""
    found = []
    for line in build.listing():
        mode, owner, _size, _day, _time, *name = line.split()
        assert owner == "0/0"
        found.append(f"{mode} {' '.join(name)}")
    return found


def test_files_modes_and_names(build: Any, base: str) -> None:
    build("FROM scratch", f"ADD {base}/app.git /x")
    assert names(build) == [
        "drwxr-xr-x x/",
        "drwxr-xr-x x/docs/",
        "drwxr-xr-x x/docs/deep/",
        "-rw-r--r-- x/docs/deep/other",
        "-rw-r--r-- x/docs/page",
        "-rw-r--r-- x/file",
        "lrwxrwxrwx x/link -> docs/page",
        "-rwxr-xr-x x/run",
    ]
    build("FROM scratch", f"ADD --exclude=deep --chown=5:6 --chmod=600 {base}/app.git#main:docs /x/y/")
    assert [line.split()[:2] + line.split()[-1:] for line in build.listing()][-1] == ["-rw-------", "5/6", "x/y/page"]
    assert len(build.listing()) == 3


def test_branches_tags_commits(build: Any, base: str, origin: Origin) -> None:
    first = git(origin.directory, "rev-parse", "v1~1")
    git(origin.directory, "branch", "feature/x", first)
    sizes = {"": 6, "#v1": 4, "#refs/tags/v1": 4, "#feature/x": 4, f"#{first}": 4, "?tag=v1": 4, "?branch=main": 6}
    for reference, size in sizes.items():
        build("FROM scratch", f"ADD {base}/app.git{reference} /x/")
        assert [line.split()[2] for line in build.listing() if line.endswith(" x/file")] == [str(size)], reference
    build("FROM scratch", f"ADD {base}/app.git?ref=v1&subdir=docs/deep&submodules=false /x/")
    assert [name.split()[-1] for name in names(build)] == ["x/", "x/other"]


def test_the_commit_is_what_counts(build: Any, base: str, origin: Origin) -> None:
    lines = ("FROM scratch", f"ADD {base}/app.git /x/")
    build(*lines)
    first = build.id
    assert "cached" in build(*lines).stderr
    assert (
        "cached" in build("FROM scratch", f"ADD {base}/app.git#{git(origin.directory, 'rev-parse', 'main')} /x/").stderr
    )
    origin.commit("four", file="four\n")
    assert "cached" not in build(*lines).stderr
    assert build.id != first
    git(origin.directory, "reset", "-q", "--hard", "HEAD~1")
    assert "cached" in build(*lines).stderr
    assert build.id == first
    build.limpet("cache", "prune", "-f")
    build(*lines, options=("--no-cache",))
    assert build.id == first


def test_checksums(build: Any, base: str, origin: Origin) -> None:
    commit, tag = (git(origin.directory, "rev-parse", name) for name in ("v1^{commit}", "v1"))
    for good in (commit, commit[:7], tag):
        build("FROM scratch", f"ADD --checksum={good} {base}/app.git#v1 /x/")
    build("FROM scratch", f"ADD {base}/app.git?tag=v1&checksum={commit[:9]} /x/")
    build("FROM scratch", f"ADD {base}/app.git?checksum={commit}&fetch-by-commit /x/")
    error = build.error("FROM scratch", f"ADD --checksum={commit} {base}/app.git /x/")
    assert f"expected checksum to match {commit}, got {git(origin.directory, 'rev-parse', 'main')}" in error
    for wrong, message in (
        ("--checksum=sha256:12", "invalid checksum sha256:12 for a git repository"),
        ("--checksum=beef", "expected checksum to match beef, got"),
    ):
        assert message in build.error("FROM scratch", f"ADD {wrong} {base}/app.git#{commit} /x/")


def test_a_kept_git_directory_is_one_that_git_reads(build: Any, base: str, origin: Origin, busybox: str) -> None:
    line = f"ADD --keep-git-dir=true {base}/app.git#v1 /x/"
    build("FROM scratch", line)
    first = build.id
    build.limpet("cache", "prune", "-f")
    build("FROM scratch", f"ADD {base}/app.git /x/")  # what is kept of the repository is another part of it now
    build("FROM scratch", line, options=("--no-cache",))
    assert build.id == first
    build("FROM " + busybox, line)
    out = build.directory.parent / "out"
    out.mkdir()
    container = build.limpet("create", "made", "true").stdout.strip()
    build.limpet("cp", f"{container}:/x", out)
    build.limpet("rm", container)
    assert git(out / "x", "status", "--porcelain") == ""
    assert git(out / "x", "describe", "--tags") == "v1"
    assert git(out / "x", "log", "--format=%s") == "two"
    assert git(out / "x", "remote", "get-url", "origin") == f"{base}/app.git"
    git(out / "x", "fsck", "--strict")
    assert not (out / "x/.git/hooks").exists()


def test_submodules_come_along(build: Any, base: str, top: Path, origin: Origin) -> None:
    inner = Origin(top, "inner")
    inner.commit("inner", part="of it\n")
    git(origin.directory, "-c", "protocol.file.allow=always", "submodule", "add", "-q", f"{top}/inner.git", "sub")
    git(origin.directory, "config", "-f", ".gitmodules", "submodule.sub.url", "../inner.git")
    origin.commit("with a submodule")
    for option in ("", "--keep-git-dir "):
        build("FROM scratch", f"ADD {option}{base}/app.git /x/")
        found = [name.split()[-1] for name in names(build)]
        assert "x/sub/part" in found
        assert "x/sub/.git" not in found
    build("FROM scratch", f"ADD {base}/app.git?submodules=0 /x/")
    assert "x/sub/part" not in str(names(build))
    git(origin.directory, "config", "-f", ".gitmodules", "submodule.sub.url", str(top / "inner.git"))
    origin.commit("a submodule of the host's own")
    error = build.error("FROM scratch", f"ADD {base}/app.git /x/")
    assert "transport 'file' not allowed" in error
    assert "only http, https, ssh and git are spoken, in submodules too" in error


def test_by_http_with_a_login(build: Any, top: Path, origin: Origin, tmp_path: Path) -> None:
    with http_server(top, "x-access-token:sesamesesame") as (base, seen):
        error = build.error("FROM scratch", f"ADD {base}/app.git /x/")
        assert "--secret id=GIT_AUTH_TOKEN,src=FILE gives a login" in error
        (tmp_path / "token").write_text("sesamesesame\n")
        option = ("--secret", f"id=GIT_AUTH_TOKEN,src={tmp_path}/token")
        build("FROM scratch", f"ADD {base}/app.git /x/", options=option)
        assert "x/file" in str(names(build))
        seen.clear()
        login = base.replace("//", "//x-access-token:sesamesesame@")
        result = build("FROM scratch", f"ADD --keep-git-dir {login}/app.git#main /x/", options=("--no-cache",))
        assert "sesame" not in result.stderr + build.limpet("history", "--no-trunc", "made").stdout
        found = subprocess.run(["grep", "-rl", "sesame", str(build.limpet.root)], capture_output=True, text=True)
        assert found.stdout == ""
        assert any(seen)


def test_no_setting_and_no_hook_counts(build: Any, base: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "template/hooks").mkdir(parents=True)
    (home / "template/hooks/post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (home / "template/hooks/post-checkout").chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[init]\n\ttemplateDir = {home}/template\n[core]\n\thooksPath = {home}/template/hooks\n"
        '[url "git://127.0.0.1:1/"]\n\tinsteadOf = git://127.0.0.1\n'
    )
    build.limpet.environment["HOME"] = str(home)
    build("FROM scratch", f"ADD --keep-git-dir {base}/app.git /x/")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{base}/app.git#no-such", "it has no branch, tag or commit no-such"),
        ("{base}/app.git#" + "0" * 40, "it has no commit " + "0" * 40),
        ("{base}/other.git", "git ls-remote: "),
        ("{base}/app.git#main:no/such", "it has no directory no/such"),
        ("{base}/app.git#main:link", "it has no directory link"),
        ("{base}/app.git#--upload-pack=x", "is no name of a branch, tag or commit"),
        ("{base}/app.git?colour=red", "the query has an unknown colour"),
        ("{base}/app.git?ref=a#b", "two refs: b and a"),
        ("git://127.0.0.1:1/app.git", "Connection refused"),
        ("git@127.0.0.1:app.git", "an ssh agent is needed to fetch from there"),
        ("ssh://-oProxyCommand=x/app.git", "not an address"),
    ],
)
def test_what_fails_says_why(build: Any, base: str, source: str, message: str) -> None:
    error = build.error("FROM scratch", f"ADD {source.format(base=base)} /x/")
    assert message in error
    assert "Dockerfile:2:" in error
    tmp = build.limpet.root / "tmp"
    assert not tmp.exists() or list(tmp.iterdir()) == []


def test_without_git(build: Any, tmp_path: Path) -> None:
    build.limpet.environment["PATH"] = str(tmp_path)
    error = build.error("FROM scratch", "ADD git://127.0.0.1/app.git /x/")
    assert "git is not installed: a git repository can't be fetched" in error
