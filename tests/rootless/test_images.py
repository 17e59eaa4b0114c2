"""build, pull, push, save, load, up, down, prune: as root's, and what comes of a build is root's to the byte."""

from __future__ import annotations

import json
import socket
import tarfile
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.registry.server import Registry
    from tests.rootless.conftest import User

pytestmark = pytest.mark.slow

DOCKERFILE = """\
FROM busybox:test
RUN mkdir /app && echo built >/app/text && chmod 4711 /app/text && rm -r /home
COPY --chown=33:42 file /app/file
RUN --network=none --mount=type=cache,target=/cache --mount=type=secret,id=word cp /run/secrets/word /app/word
FROM busybox:test
COPY --from=0 /app /app
CMD ["cat", "/app/text"]
"""


def context(work: Path) -> Path:
    (work / "ctx").mkdir(exist_ok=True)
    (work / "ctx/Dockerfile").write_text(DOCKERFILE)
    (work / "ctx/file").write_text("a file\n")
    (work / "ctx/word").write_text("secret\n")
    return work / "ctx"


def image_id(limpet: Any, name: str) -> str:
    found: str = json.loads(limpet("inspect", name).stdout)[0]["Id"]
    return found


def test_a_build_is_the_same_image_as_roots(user: User, limpet: Any, busybox_tar: Path, tmp_path: Path) -> None:
    """The base has another time than root's: it goes over as an archive."""
    context(user.work)
    user("save", "-o", "base.tar", "busybox:test")
    limpet("load", "-i", user.work / "base.tar")
    words = ("build", "-q", "--secret", "id=word,src=ctx/word", "-t", "built:test", "ctx")
    user(*words)
    context(tmp_path)
    limpet(*words, cwd=tmp_path)
    assert image_id(user, "built:test") == image_id(limpet, "built:test")
    assert user("run", "--rm", "built:test").stdout == "built\n"
    user("rmi", "built:test")
    (user.work / "base.tar").unlink()


def test_to_a_registry_and_back(user: User, registry: Registry) -> None:
    name = f"{registry.domain}/busybox:{user.kind}"
    user("tag", "busybox:test", name)
    wanted = image_id(user, name)
    user("push", name)
    user("rmi", name)
    user("pull", name)
    assert image_id(user, name) == wanted
    assert user("run", "--rm", name, "echo", "here").stdout == "here\n"
    user("rmi", name)


def test_archives(user: User) -> None:
    wanted = image_id(user, "busybox:test")
    user("tag", "busybox:test", "saved:test")
    user("save", "-o", "saved.tar", "saved:test")
    with tarfile.open(user.work / "saved.tar") as tar:
        assert "manifest.json" in tar.getnames()
    assert (user.work / "saved.tar").stat().st_uid == 54_321
    user("rmi", "saved:test")
    user("load", "-i", "saved.tar")
    assert image_id(user, "saved:test") == wanted
    user("rmi", "saved:test")
    (user.work / "saved.tar").unlink()


def test_up_and_down(user: User) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = user.work / "site"
    place.mkdir(exist_ok=True)
    (place / "page").write_text("hello\n")
    (place / "Dockerfile").write_text(
        f'FROM busybox:test\nCOPY page /www/\nEXPOSE {port}\nCMD ["httpd", "-f", "-p", "{port}", "-h", "/www"]\n'
    )
    said = user("up", "-d", "site").stdout
    assert f"http://127.0.0.1:{port}" in said
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/page", timeout=10) as answer:
        assert answer.read() == b"hello\n"
    user("down", "site")
    assert user("ps", "-aq").stdout == ""
    (place / "Dockerfile").write_text("FROM busybox:test\nEXPOSE 80\nCMD sleep 9\n")
    if int(open_text("/proc/sys/net/ipv4/ip_unprivileged_port_start")) > 80:
        refused = user("up", "-d", "site", check=False)
        assert refused.returncode == 1
        assert "port 80: only root may listen below port" in refused.stderr
        user("down", "site", check=False)


def open_text(path: str) -> str:
    with open(path) as file:
        return file.read()


def test_what_is_there_is_counted_checked_and_collected(user: User) -> None:
    user("commit", user("create", "busybox:test", "true").stdout.strip(), "thrown:away")
    rows = user("system", "df", "--format", "json").stdout.splitlines()
    assert any(json.loads(row)["Type"] == "Images" for row in rows)
    assert user("system", "check").stdout.endswith("nothing is wrong\n")
    user("rmi", "thrown:away", check=False)
    user("system", "prune", "-f")
    assert user("ps", "-aq").stdout == ""
    assert {path.name for path in (user.root / "containers").iterdir()} == set()
