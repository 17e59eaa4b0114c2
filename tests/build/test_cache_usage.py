"""What builds keep: listed, removed, bounded, carried away."""

from __future__ import annotations

import fcntl
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from limpet.build.caching import usage
from limpet.build.caching.usage import Entry

FILE = """\
FROM busybox:test AS tools
RUN head -c {size} /dev/zero >/big && echo {text} >/out
FROM busybox:test
COPY --from=tools /out /out
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "context").mkdir()
    return tmp_path / "context"


def build(limpet: Any, context: Path, text: str = "one", size: int = 2_000_000, name: str = "made") -> Any:
    (context / "Dockerfile").write_text(FILE.format(size=size, text=text))
    return limpet("build", "-t", name, context)


def listed(limpet: Any, *options: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in limpet("cache", "ls", "--format", "json", *options).stdout.splitlines()]


def mount(limpet: Any, context: Path, command: str, target: str = "/c", options: str = "") -> Any:
    line = f"RUN --mount=type=cache,target={target}{options} {command}"
    (context / "Dockerfile").write_text(f"FROM busybox:test\n{line}\n")
    return limpet("build", "--no-cache", context)


@pytest.mark.slow
@pytest.mark.usefixtures("busybox")
def test_steps_are_listed_with_what_shares_them(limpet: Any, context: Path) -> None:
    build(limpet, context)
    rows = {row["Name"].split()[0]: row for row in listed(limpet)}
    assert rows["RUN"]["Shared"] == "false"
    assert rows["RUN"]["Size"] == "2.01MB"
    assert rows["COPY"]["Shared"] == "true"
    assert [row["Name"] for row in listed(limpet, "--filter", "shared=true")] == [rows["COPY"]["Name"]]
    assert listed(limpet, "--filter", "until=1h") == []
    assert len(listed(limpet, "--filter", "type=step")) == 2
    result = limpet("cache", "ls", "--filter", "type=tape", check=False)
    assert result.returncode == 1
    assert "known are step, import, mount" in result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("busybox")
def test_prune_takes_what_only_the_cache_holds(limpet: Any, context: Path) -> None:
    build(limpet, context)
    before = limpet("system", "df", "--format", "{{.Type}} {{.Size}}").stdout
    assert "Build Cache 2.01MB" in before
    pruned = limpet("cache", "prune", "-f").stdout
    assert "Total reclaimed space: 2.0" in pruned
    assert [row["Shared"] for row in listed(limpet)] == ["true"]
    assert limpet("run", "--rm", "made", "cat", "/out").stdout == "one\n"
    limpet("cache", "prune", "-fa")
    assert listed(limpet) == []
    assert ": cached" not in build(limpet, context).stderr
    limpet("rmi", "made")
    assert listed(limpet) == []
    assert "Build Cache 0B" in limpet("system", "df", "--format", "{{.Type}} {{.Size}}").stdout


@pytest.mark.slow
@pytest.mark.usefixtures("busybox")
def test_rm_by_id_and_by_name(limpet: Any, context: Path) -> None:
    build(limpet, context)
    mount(limpet, context, "touch /c/x")
    step = next(row for row in listed(limpet, "--filter", "type=step") if "big" in row["Name"])
    assert limpet("cache", "rm", step["ID"], "/c").stdout.splitlines()[-1] == "/c"
    assert not any("big" in row["Name"] or row["Type"] == "mount" for row in listed(limpet))
    result = limpet("cache", "rm", "nothing", check=False)
    assert result.returncode == 1
    assert "no such cache: nothing" in result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("busybox")
def test_a_build_leaves_the_cache_within_its_bound(limpet: Any, context: Path) -> None:
    limpet.environment["LIMPET_CACHE_SIZE"] = "5m"
    for number in range(3):
        result = build(limpet, context, text=str(number), name=f"made:{number}")
        limpet("run", "--rm", f"made:{number}", "true")
    assert "entries that were not used for longest are gone" in result.stderr
    left = [row["Name"] for row in listed(limpet, "--filter", "shared=false")]
    assert len(left) == 2
    assert not any("echo 0" in name for name in left)
    assert ": cached" in build(limpet, context, text="2").stderr
    limpet.environment["LIMPET_CACHE_SIZE"] = "off"
    for number in range(3, 6):
        build(limpet, context, text=str(number), name=f"made:{number}")
    assert len(listed(limpet, "--filter", "shared=false")) == 5
    pruned = limpet("cache", "prune", "-f", "--keep-storage", "4m").stdout
    assert pruned.count("RUN") == 3
    limpet.environment["LIMPET_CACHE_SIZE"] = "much"
    result = limpet("build", "--no-cache", context, check=False)
    assert "invalid size 'much' for LIMPET_CACHE_SIZE" in result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("busybox")
def test_a_mount_in_use_stays(limpet: Any, context: Path) -> None:
    mount(limpet, context, "head -c 1000000 /dev/zero >/c/x")
    (row,) = listed(limpet, "--filter", "type=mount", "--no-trunc")
    lock = os.open(limpet.root / "caches" / row["ID"] / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_SH)
    try:
        assert "in use by a build" in limpet("cache", "prune", "-f").stderr
        assert "in use by a build" in limpet("cache", "export", "/c", "-", check=False).stderr
        tar = context.parent / "context.tar"
        with tarfile.open(tar, "w") as file:
            file.add(context, ".")
        assert "in use by a build" in limpet("cache", "import", "/c", tar, check=False).stderr
    finally:
        os.close(lock)
    assert len(listed(limpet, "--filter", "type=mount")) == 1
    limpet("cache", "prune", "-f")
    assert listed(limpet, "--filter", "type=mount") == []


@pytest.mark.slow
@pytest.mark.usefixtures("busybox")
def test_a_mount_travels(limpet: Any, context: Path, tmp_path: Path) -> None:
    mount(
        limpet,
        context,
        "mkdir /c/d && echo one >/c/d/file && ln /c/d/file /c/hard && ln -s d/file /c/soft && chmod 4711 /c/hard",
        options=",uid=7,gid=8,mode=2750",
    )
    tar = tmp_path / "c.tar"
    limpet("cache", "export", "/c", tar)
    with tarfile.open(tar) as file:
        assert file.getnames() == [".", "d", "d/file", "hard", "soft"]
    other = type(limpet)(tmp_path / "other")
    other("cache", "import", "/c", tar)
    place = next((other.root / "caches").iterdir()) / "data"
    info = place.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (7, 8, 0o2750)
    assert (place / "soft").read_text() == "one\n"
    assert (place / "hard").stat().st_ino == (place / "d/file").stat().st_ino
    assert (place / "hard").stat().st_mode & 0o7777 == 0o4711
    # What comes in replaces what was there, plain or compressed; a step sees it.
    os.system(f"echo two >{tmp_path}/two; tar -C {tmp_path} -czf {tmp_path}/two.tgz two")
    limpet("cache", "import", "/c", tmp_path / "two.tgz")
    mount(limpet, context, "sh -c '[ $(ls /c) = two ]'")


def test_a_hostile_tar_stays_inside(limpet: Any, tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        info = tarfile.TarInfo("link/escaped")
        tar.addfile(info, io.BytesIO())
        tar.addfile(tarfile.TarInfo("../escaped"), io.BytesIO())
    (tmp_path / "evil.tar").write_bytes(data.getvalue())
    limpet("cache", "import", "/c", tmp_path / "evil.tar", check=False)
    assert not (tmp_path / "escaped").exists()
    assert not list(limpet.root.rglob("escaped")) or all("/data/" in str(path) for path in limpet.root.rglob("escaped"))
    for content in (b"", b"no tar at all", os.urandom(5000)):
        (tmp_path / "bad").write_bytes(content)
        result = limpet("cache", "import", "/d", tmp_path / "bad", check=False)
        assert result.returncode == 1
        assert result.stderr.count("\n") <= 2
    assert not list((limpet.root / "tmp").iterdir())


def entry(id: str, used: float, size: int, *, layer: str = "", shared: bool = False) -> Entry:
    return Entry("step" if layer else "mount", id, id, 0.0, used, size, shared, "", layer)


def test_the_oldest_go_first_and_a_layer_with_its_last_step() -> None:
    found = [
        entry("a", 1, 100, layer="x"),
        entry("b", 2, 50),
        entry("c", 3, 100, layer="x"),
        entry("d", 4, 70, layer="y", shared=True),
        entry("e", 5, 30, layer="z"),
    ]
    assert usage.total(found) == 180
    free = [each for each in found if not each.shared]
    assert [each.id for each in usage.chosen(found, free, 180)] == []
    assert [each.id for each in usage.chosen(found, free, 130)] == ["a", "b"]
    assert [each.id for each in usage.chosen(found, free, 129)] == ["a", "b", "c"]
    assert [each.id for each in usage.chosen(found, free, 0)] == ["a", "b", "c", "e"]
