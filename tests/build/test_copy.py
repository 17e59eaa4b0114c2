"""COPY and ADD: which files come from where, what they become, and what is refused."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def files(context: Path, **contents: str) -> None:
    for name, content in contents.items():
        path = context / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def build(limpet: Any, context: Path, dockerfile: str, *options: str, check: bool = True) -> Any:
    (context / "Dockerfile").write_text(dockerfile)
    return limpet("build", "-t", "made:1", *options, context, check=check)


def listing(limpet: Any, place: str) -> list[str]:
    """Mode, owner, path of everything below a place."""
    script = f"cd {place} && find . | sort | while read f; do stat -c '%a %u:%g %n' \"$f\"; done"
    return str(limpet("run", "--rm", "made:1", "sh", "-c", script).stdout).splitlines()


def test_ignored_files_are_not_there(limpet: Any, busybox: str, context: Path) -> None:
    files(context, a="1", b="2", src__x="3", src__y="4", src__deep__keep="5", docs__z="6")
    (context / ".dockerignore").write_text("b\nsrc\n!src/deep/keep\n**/z\n")
    build(limpet, context, f"FROM {busybox}\nCOPY . /all/\nCOPY s*c /several/\n")
    assert [line.split()[2] for line in listing(limpet, "/all")] == [
        ".",
        "./.dockerignore",
        "./Dockerfile",
        "./a",
        "./docs",
        "./src",
        "./src/deep",
        "./src/deep/keep",
    ]
    assert [line.split()[2] for line in listing(limpet, "/several")] == [".", "./deep", "./deep/keep"]
    (context / "link").symlink_to("b")
    for name in ("b", "link"):
        result = build(limpet, context, f"FROM {busybox}\nCOPY {name} /\n", check=False)
        assert result.stderr.splitlines()[-2:] == [
            f"limpet: {os.path.relpath(context)}/Dockerfile:2:1: {name}: excluded by .dockerignore >>> COPY {name} /",
            "take it out of .dockerignore, or make an exception with !",
        ]


def test_an_ignored_tree_is_not_entered(limpet: Any, busybox: str, context: Path) -> None:
    files(context, a="1", cache__x="2")
    os.mkfifo(context / "cache/pipe")  # entering it would be an error
    (context / ".dockerignore").write_text("cache\n")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(context / "socket"))
    build(limpet, context, f"FROM {busybox}\nCOPY . /all/\nCOPY --chmod=711 a /made/for/a\n")
    assert "./cache" not in str(listing(limpet, "/all"))
    assert limpet("run", "--rm", "made:1", "stat", "-c", "%F", "/all/socket").stdout == "regular empty file\n"
    assert listing(limpet, "/made") == ["711 0:0 .", "711 0:0 ./for", "711 0:0 ./for/a"]
    (context / ".dockerignore").unlink()
    result = build(limpet, context, f"FROM {busybox}\nCOPY . /all/\n", check=False)
    assert "cache/pipe: neither a file, a directory nor a link" in result.stderr


def test_owners_and_modes(limpet: Any, busybox: str, context: Path) -> None:
    files(context, plain="1", tree__file="2")
    (context / "tree/file").chmod(0o640)
    (context / "tree").chmod(0o750)
    build(
        limpet,
        context,
        f"""
        FROM {busybox}
        RUN mkdir -p /etc && echo me:x:7:8::/: >>/etc/passwd && echo us:x:9: >>/etc/group
        COPY --chown=me plain /c/by-name
        COPY --chown=5 plain /c/by-number
        COPY --chown=me:us tree /c/new/tree
        COPY --chmod=600 tree /c/octal
        COPY --chmod=u=rwX,go=rX tree /c/symbolic
        COPY --chmod=751 <<script /c/
        #!/bin/sh
        script
        """.replace("\n        ", "\n"),
    )
    assert sorted(listing(limpet, "/c")) == sorted(
        [
            "755 7:8 .",
            "644 5:5 ./by-number",
            "644 7:8 ./by-name",
            "755 7:9 ./new",
            "755 7:9 ./new/tree",
            "640 7:9 ./new/tree/file",
            "600 0:0 ./octal",
            "600 0:0 ./octal/file",
            "751 0:0 ./script",
            "755 0:0 ./symbolic",
            "644 0:0 ./symbolic/file",
        ]
    )


def test_parents_and_excludes(limpet: Any, busybox: str, context: Path) -> None:
    files(context, a__b__x_dot_txt="1", a__b__y_dot_o="2", a__c__z_dot_txt="3", top_dot_txt="4")
    build(
        limpet,
        context,
        f"FROM {busybox}\nCOPY --parents a/b/x.txt a/*/z.txt /one/\nCOPY --parents a/./*/*.txt /two/\n"
        "COPY --exclude=*.o --exclude=z* a/b /three/\nCOPY --exclude=b/*.o a /four\nCOPY --parents **/*.txt /five/\n",
    )
    assert [line.split()[2] for line in listing(limpet, "/one")] == [
        ".", "./a", "./a/b", "./a/b/x.txt", "./a/c", "./a/c/z.txt"
    ]  # fmt: skip
    assert [line.split()[2] for line in listing(limpet, "/two")] == [".", "./b", "./b/x.txt", "./c", "./c/z.txt"]
    assert [line.split()[2] for line in listing(limpet, "/three")] == [".", "./x.txt"]
    assert [line.split()[2] for line in listing(limpet, "/four")] == [".", "./b", "./b/x.txt", "./c", "./c/z.txt"]
    assert [line.split()[2] for line in listing(limpet, "/five")] == [
        ".", "./a", "./a/b", "./a/b/x.txt", "./a/c", "./a/c/z.txt", "./top.txt"
    ]  # fmt: skip
    missing = build(limpet, context, f"FROM {busybox}\nCOPY --parents a/none /\n", check=False)
    assert ": a/none: not in the context" in missing.stderr


def test_from_a_stage_owners_links_and_attributes_come_too(limpet: Any, busybox: str, context: Path) -> None:
    build(
        limpet,
        context,
        f"""
        FROM {busybox} AS made
        RUN mkdir -p /out/d && echo x >/out/d/x && ln /out/d/x /out/d/y && ln -s /out/d/x /out/abs && chown -R 3:4 /out
        RUN ln -s /out /elsewhere && mknod /out/pipe p
        FROM {busybox}
        COPY --from=made /elsewhere/ /in/
        COPY --from=0 /out/abs /followed
        COPY --from={busybox} /bin/sh /other-sh
        """,
    )
    assert sorted(listing(limpet, "/in")) == sorted(
        ["755 0:0 .", "777 3:4 ./abs", "755 3:4 ./d", "644 3:4 ./d/x", "644 3:4 ./d/y", "644 0:0 ./pipe"]
    )
    script = "stat -c %h /in/d/x; cat /followed; readlink /in/abs; test -x /other-sh && test -p /in/pipe && echo fine"
    assert limpet("run", "--rm", "made:1", "sh", "-c", script).stdout.splitlines() == ["2", "x", "/out/d/x", "fine"]


def archive(path: Path, mode: str, members: dict[str, str]) -> None:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid, member.gid = len(content), 0o640, 5, 6
            file.addfile(member, io.BytesIO(content.encode()))


def test_archives_are_unpacked_by_add_only(limpet: Any, busybox: str, context: Path) -> None:
    for kind in ("", "gz", "bz2", "xz"):
        archive(context / f"a{kind}.tar", f"w:{kind}", {f"in/{kind or 'plain'}": kind, "same": kind})
    (context / "zipped.gz").write_bytes(subprocess.run(["gzip", "-c"], input=b"no tar", capture_output=True).stdout)
    build(
        limpet,
        context,
        f"FROM {busybox}\nADD a.tar agz.tar abz2.tar axz.tar zipped.gz /a/\nCOPY a.tar /c/\n"
        "ADD --unpack=false a.tar /n/\nADD --unpack=true --chown=1:2 --chmod=777 a.tar /u/\n",
    )
    assert listing(limpet, "/a")[1:] == [
        "755 0:0 ./in",
        "640 5:6 ./in/bz2",
        "640 5:6 ./in/gz",
        "640 5:6 ./in/plain",
        "640 5:6 ./in/xz",
        "640 5:6 ./same",
        "644 0:0 ./zipped.gz",
    ]
    assert [line.split()[2] for line in listing(limpet, "/c")] == [".", "./a.tar"]
    assert [line.split()[2] for line in listing(limpet, "/n")] == [".", "./a.tar"]
    assert "640 1:2 ./in/plain" in listing(limpet, "/u")
    assert limpet("run", "--rm", "made:1", "cat", "/a/same").stdout == "xz"
    second = build(limpet, context, (context / "Dockerfile").read_text())
    assert second.stderr.count(": cached") == 4


def test_hostile_archives_stay_in_the_image(limpet: Any, busybox: str, context: Path) -> None:
    with tarfile.open(context / "links.tar", "w") as file:
        for name, link in (("out", "/etc"), ("up", "../../..")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, link
            file.addfile(member)
        for name in ("/absolute", "up/through", "out/new"):
            member = tarfile.TarInfo(name)
            member.size = 1
            file.addfile(member, io.BytesIO(b"x"))
    build(limpet, context, f"FROM {busybox}\nADD links.tar /d/\n")
    assert [line.split()[2] for line in listing(limpet, "/d")] == [
        ".", "./absolute", "./etc", "./etc/new", "./out", "./through", "./up"
    ]  # fmt: skip
    archive(context / "up.tar", "w", {"../../escaped": "x"})
    up = build(limpet, context, f"FROM {busybox}\nADD up.tar /d/\n", check=False)
    assert ": up.tar: path traversal: '..' in the member" in up.stderr
    (context / "broken.tar").write_bytes((context / "links.tar").read_bytes()[:1600])
    broken = build(limpet, context, f"FROM {busybox}\nADD broken.tar /d/\n", check=False)
    assert ": broken.tar: the tar is truncated" in broken.stderr


def test_a_file_does_not_take_the_place_of_a_directory(limpet: Any, busybox: str, context: Path) -> None:
    files(context, tree__bin__x="1", flat__bin="2")
    tree = build(limpet, context, f"FROM {busybox}\nRUN ln -s bin /sbin-link\nCOPY flat /\n", check=False)
    assert "cannot copy the file flat/bin to /bin: it is a directory" in tree.stderr
    build(limpet, context, f"FROM {busybox}\nRUN ln -s bin /lib-link && rm -rf /x && ln -s bin /x\nCOPY tree/bin /x/\n")
    assert limpet("run", "--rm", "made:1", "readlink", "/x").stdout == "bin\n"


def test_a_wildcard_without_a_match_copies_nothing(limpet: Any, busybox: str, context: Path) -> None:
    files(context, a="1")
    build(limpet, context, f"FROM {busybox}\nCOPY a none* /d/\n")
    assert [line.split()[2] for line in listing(limpet, "/d")] == [".", "./a"]


def test_names_with_wildcards_and_spaces(limpet: Any, busybox: str, context: Path) -> None:
    (context / "a[1]*").write_text("x")
    (context / "b c").write_text("y")
    build(limpet, context, f'FROM {busybox}\nCOPY a[[]1][*] /d/one\nCOPY ["b c", "/d/t w"]\nADD a[[]1]* /d/three/\n')
    assert [line.split(" ", 2)[2] for line in listing(limpet, "/d")] == [
        ".", "./one", "./t w", "./three", "./three/a[1]*"
    ]  # fmt: skip


def test_an_archive_replaces_what_a_copy_does_not(limpet: Any, busybox: str, context: Path) -> None:
    with tarfile.open(context / "a.tar", "w") as tar:
        for name, kind in (("d", tarfile.REGTYPE), ("f", tarfile.DIRTYPE), ("f/x", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid = kind, 0o750, 7
            tar.addfile(member)
    base = f"FROM {busybox}\nRUN mkdir -p /t/d/below && echo file >/t/f\n"
    build(limpet, context, f"{base}ADD a.tar /t/\n")
    assert listing(limpet, "/t") == ["755 0:0 .", "750 7:0 ./d", "750 7:0 ./f", "750 7:0 ./f/x"]
    files(context, tree__d="", other__f__x="")
    for source, message in (
        ("tree", "cannot copy the file tree/d to /t/d: it is a directory"),
        ("other", "cannot copy the directory other/f to /t/f: it is something else"),
    ):
        result = build(limpet, context, f"{base}ADD {source} /t/\n", check=False)
        assert message in result.stderr
