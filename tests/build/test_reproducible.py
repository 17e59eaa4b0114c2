"""`build --check-reproducible`: what differs is shown to the byte, with the step and the usual reason."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.build.test_execute import build

from limpet.build.reproducible import inside, reasons
from limpet.build.reproducible.differ import Content, Difference, Range, ranges

REPORT = "--check-reproducible"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


@pytest.mark.slow
def test_a_build_that_is_the_same_each_time(limpet: Any, busybox: str, context: Path) -> None:
    (context / "tree/below").mkdir(parents=True)
    (context / "tree/below/file").write_text("1")
    (context / "ignored").write_text("1")
    os.mkfifo(context / "fifo")
    (context / ".dockerignore").write_text("ignored\nfifo\n")
    text = f"""
        FROM {busybox} AS one
        COPY tree /tree
        RUN --mount=type=cache,target=/cache ls /cache > /seen; touch /cache/x; umask > /umask; hostname > /host
        FROM {busybox}
        WORKDIR /made
        COPY --from=one /seen /umask /host ./
        RUN --mount=type=bind,target=/src ls -a /src > list; env | sort > env
        """
    result = build(limpet, context, text, REPORT)
    assert (
        result.stderr.splitlines()[-1] == "Reproducible: 5 steps done again, in other conditions, gave the same bytes"
    )
    assert limpet("run", "--rm", "made:1", "sh", "-c", "cat seen umask host list").stdout == (
        "0022\nlimpet-build\n.\n..\n.dockerignore\nDockerfile\ntree\n"
    )
    environment = limpet("run", "--rm", "made:1", "cat", "env").stdout
    assert environment.splitlines() == [
        "HOME=/root",
        "HOSTNAME=limpet-build",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PWD=/made",
        "SHLVL=1",
    ]
    caches = limpet("cache", "ls", "--format", "{{.Name}}").stdout.split("\n")
    assert "/cache" in caches
    assert not [name for name in caches if name.startswith("again-")]
    assert os.listdir(limpet.root / "tmp") == []


@pytest.mark.slow
def test_each_step_at_fault_is_found_and_what_differs(limpet: Any, busybox: str, context: Path) -> None:
    text = f"""
        FROM {busybox}
        RUN echo constant > /before; date +%s > /built
        RUN cat /built > /copy
        RUN mkdir -p /var/log && cat /proc/sys/kernel/random/uuid | tee /var/log/x /id && echo 1 | gzip > /z.gz
        RUN touch /$(cat /proc/sys/kernel/random/uuid)
        RUN echo always the same > /same
        """
    result = build(limpet, context, text, REPORT, check=False)
    assert result.returncode == 1
    path = os.path.relpath(context / "Dockerfile")
    report = result.stderr.partition("Not reproducible: 3 of 5 steps give something else each time\n")[2]
    assert report, result.stderr
    one, two, three = report.strip().split("\n\n")
    assert one.splitlines()[0] == f"{path}:3:9: RUN echo constant > /before; date +%s > /built"
    assert one.splitlines()[1:3] == [f"  {reasons._TIME}: 1 file", f"  → {reasons._TIME_REMEDY}"]
    assert one.splitlines()[3].startswith("    /built: bytes ")
    assert " of 11" in one.splitlines()[3]
    assert one.splitlines()[4].startswith("      - ")
    assert two.splitlines()[0].startswith(f"{path}:5:9: RUN mkdir")
    assert "  a log: 1 file\n  → rm -rf /var/log/* at the end of the same RUN\n    /var/log/x: bytes " in two
    assert "a random value is written into it: 1 file" in two
    assert "\n    /id: bytes " in two
    assert three.startswith(f"{path}:6:9: RUN touch")
    assert "in the first build only" in three
    assert "in the second build only" in three
    # What the first build made is in the cache, and nothing of the second is left.
    assert build(limpet, context, text).stderr.count(": cached") == 5
    layers = {path.name for path in (limpet.root / "layers").iterdir()}
    assert len(layers) == 6


def test_several_platforms_at_once(limpet: Any, context: Path) -> None:
    (context / "a").write_text("1")
    result = build(limpet, context, "FROM scratch\nCOPY a /\n", "--platform", "linux/amd64,linux/arm64", REPORT)
    assert "Reproducible: 2 steps done again" in result.stderr


@pytest.mark.slow
def test_the_order_of_a_directory_is_found_on_one_machine(limpet: Any, busybox: str, context: Path) -> None:
    """A disk lists files by their hashes, memory by when they were made."""
    made = "mkdir /d && cd /d && for i in 1 2 3 4 5 6 7 8 9; do echo $i > file$i; done"
    text = f"FROM {busybox}\nRUN {made} && find /d > /list\nRUN cat $(ls /d/*) > /sorted; tar cf /x.tar d\n"
    result = build(limpet, context, text, REPORT, check=False)
    assert "Not reproducible: 1 of 2 steps" in result.stderr
    assert "the same lines in another order: 1 file" in result.stderr
    assert "    /list: bytes " in result.stderr
    sorted_text = text.replace("find /d > /list", "find /d | sort > /list")
    assert "Reproducible: 2 steps" in build(limpet, context, sorted_text, REPORT).stderr


def content(tmp_path: Path, name: str, data: bytes) -> Content:
    path = tmp_path / name
    path.write_bytes(data)
    return Content(os.open(path, os.O_RDONLY), 0, len(data))


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        (b"same", b"same", []),
        (b"abcdef", b"abXdef", [(2, 3, 3)]),
        (b"a" + bytes(40) + b"b", b"x" + bytes(40) + b"y", [(0, 1, 1), (41, 42, 42)]),
        (b"a" + bytes(8) + b"b", b"x" + bytes(8) + b"y", [(0, 10, 10)]),
        (b"head tail", b"head more tail", [(5, 5, 10)]),
        (b"", b"new", [(0, 0, 3)]),
        (b"aaa", b"aa", [(2, 3, 2)]),
        (bytes(700_000) + b"1", bytes(700_000) + b"2", [(700_000, 700_001, 700_001)]),
    ],
)
def test_ranges(tmp_path: Path, one: bytes, two: bytes, expected: list[tuple[int, int, int]]) -> None:
    found = list(ranges(content(tmp_path, "one", one), content(tmp_path, "two", two)))
    assert found == [Range(*each) for each in expected]


def differing(tmp_path: Path, path: str, one: bytes, two: bytes) -> Difference:
    contents = content(tmp_path, "one", one), content(tmp_path, "two", two)
    return Difference(path, "content", ranges=tuple(ranges(*contents)), contents=contents)


def zipped(time: tuple[int, int, int, int, int, int], data: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("member", time), data)
    return buffer.getvalue()


def tarred(time: int, *names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.mtime = time
            archive.addfile(info)
    return buffer.getvalue()


AR = b"!<arch>\n" + b"%-16s%-12s%-6s%-6s%-8s%-10s`\nxxxx"


def archived(time: bytes) -> bytes:
    return AR % (b"a.o/", time, b"0", b"0", b"100644", b"4")


def compiled(time: int, code: bytes = b"code") -> bytes:
    return b"\xa7\r\r\n" + bytes(4) + time.to_bytes(4, "little") + bytes(4) + code


@pytest.mark.parametrize(
    ("path", "one", "two", "why", "notes"),
    [
        ("a.gz", gzip.compress(b"x", mtime=1), gzip.compress(b"x", mtime=2), "the header of a gzip", "1 / 2"),
        (
            "a.tgz",
            gzip.compress(tarred(1, "a"), mtime=1),
            gzip.compress(tarred(2, "a"), mtime=1),
            "the members of a tar",
            "a: time",
        ),
        ("a.jar", zipped((2020, 1, 1, 0, 0, 0)), zipped((2021, 1, 1, 0, 0, 0)), "the members of a zip", "member: time"),
        ("a.tar", tarred(1, "a", "b"), tarred(2, "a", "b"), "the members of a tar", "a: time 1 / 2"),
        ("a.tar", tarred(1, "a", "b"), tarred(1, "b", "a"), "files are taken in the order", "the order of the members"),
        ("lib.a", archived(b"1700000000"), archived(b"1700000001"), "the members of a static library", "a.o/: time"),
        ("x.pyc", compiled(1), compiled(2), "a compiled Python file", "time of the source 1 / 2"),
        ("x.pyc", compiled(1), compiled(1, b"core"), "what is in it differs", "compiled code"),
        ("var/cache/ldconfig/aux-cache", b"1", b"2", "ldconfig's cache", ""),
        ("etc/machine-id", b"1", b"2", "the machine's random id", ""),
        ("etc/shadow", b"root:*:1:", b"root:*:2:", "the day of the last change of a password", ""),
        ("list", b"a\nb\n", b"b\na\n", "the same lines in another order", ""),
        ("x", b"Built Nov 24 2026", b"Built Nov 25 2026", "a time is written", ""),
        ("x", b"at 1700000000", b"at 1700000001", "a time is written", ""),
    ],
)
def test_usual_reasons(tmp_path: Path, path: str, one: bytes, two: bytes, why: str, notes: str) -> None:
    found = reasons.reason(differing(tmp_path, path, one, two))
    assert found is not None
    assert found.why.startswith(why)
    assert notes in " ".join(found.notes)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("x.gz", b"\x1f\x8b\x08broken"),
        ("x.a", b"!<arch>\n" + b"x" * 70),
        ("x.a", AR % (b"a.o/", b"1", b"0", b"0", b"100644", b"-99")),
        ("x.zip", b"PK\x03\x04broken"),
        ("x.tar", tarred(1, "a")[:300]),
        ("x.pyc", b"\xa7\r\r\n"),
    ],
)
def test_a_broken_archive_is_a_file_like_another(tmp_path: Path, path: str, data: bytes) -> None:
    difference = differing(tmp_path, path, data + b"1", data + b"2")
    found = inside.describe(difference)
    assert found is None or not found.only_times
    assert len(difference.ranges) == 1


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(65 << 20), 9)
    assert inside.describe(differing(tmp_path, "x.gz", bomb, bomb[:5] + b"x" + bomb[6:])) is None


def tree(path: Path, time: int) -> None:
    path.mkdir()
    names = ["a", "b", "c/d", "c/e"]
    for name in names if time % 2 else reversed(names):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(name)
        (path / name).chmod(0o640)
        os.utime(path / name, (time, time))
    os.link(path / "a", path / "c/link")


@pytest.mark.slow
def test_other_places_users_umasks_times_and_drivers_give_one_digest(
    limpet: Any, busybox_tar: Path, tmp_path: Path
) -> None:
    """What a build depends on is in the Dockerfile and the context: nothing of where and by whom it is done."""
    text = (
        "FROM busybox:test AS one\nCOPY . /all\n"
        "RUN echo x > /x && ln /x /y && mkdir -m 1777 /d && find /all | sort > /z\n"
        "FROM busybox:test\nWORKDIR /srv/app\nCOPY --from=one --chown=7:8 /x /y /\nADD a.tar /\nCOPY --from=one /z .\n"
        "RUN --mount=type=bind,target=/src (hostname; umask; env; pwd; echo $$; "
        "stat -c '%n %a %u %h %Y' /src/* /src/c/*; date; readlink /bin/ash) | grep -v 20.. > /out; rm /bin/ash\n"
    )
    limpet("import", busybox_tar, "busybox:test")
    limpet("save", "-o", tmp_path / "base.tar", "busybox:test")
    digests = set()
    stores = []
    for number, (driver, umask) in enumerate([("erofs", 0o022), ("dir", 0o077), ("erofs", 0o000)]):
        place = tmp_path / f"place{number}/in/a{'b' * number}"
        place.parent.mkdir(parents=True)
        tree(place, 1_000_000_000 + number * 86_401)
        (place / "a.tar").write_bytes(tarred(86_400, "m", "n"))
        (place / "a.tar").chmod(0o644)
        (place / "Dockerfile").write_text(text)
        (place / "Dockerfile").chmod(0o644)
        if number == 2:
            for each in [place, *place.rglob("*")]:
                os.chown(each, 1000 + number, 50)  # another user's checkout
        root = tmp_path / f"store{number}"
        environment = {
            **limpet.environment,
            "LIMPET_ROOT": str(root),
            "LIMPET_RUN": f"{root}/run",
            "LIMPET_DRIVER": driver,
            "TZ": ("UTC", "Asia/Tokyo", "America/New_York")[number],
            "LC_ALL": ("C", "de_DE.UTF-8", "C.UTF-8")[number],
            "USER": f"user{number}",
            "HOME": f"/home/user{number}",
            "HOSTNAME": f"host{number}",
        }
        limpet.environment = environment
        limpet("load", "-i", tmp_path / "base.tar")
        result = limpet("build", "-q", ".", cwd=place, umask=umask)
        digests.add(result.stdout)
        stores.append(root)
    assert len(digests) == 1
    for root in stores:
        shutil.rmtree(root)
