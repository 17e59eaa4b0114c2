"""What goes wrong while a build reads: a context that changes, one that is hostile or huge, a base that goes."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.build.test_execute import build

from limpet.build.copying.context import Entry, Tree, context
from limpet.build.copying.copy import Copying
from limpet.build.copying.digests import Digests
from limpet.build.planning import plan
from limpet.errors import Invalid
from limpet.layers.rootfs_tar import TarWriter
from limpet.store.store import Store

CHANGED = "was changed while it was read"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    path.mkdir()
    (path / "a").write_text("one")
    return path


def listed(directory: Path) -> tuple[Tree, Entry]:
    tree = context(str(directory))
    (entry,) = (each for each in tree.copies(("",), "/", target_is_directory=True) if each.path == "a")
    return tree, entry


def changes(directory: Path, how: str) -> None:
    info = os.stat(directory / "a")
    if how == "size":
        (directory / "a").write_text("longer")
    elif how == "same time":
        (directory / "a").write_text("two")
        os.utime(directory / "a", ns=(info.st_atime_ns, info.st_mtime_ns))
    elif how == "replaced":
        (directory / "b").write_text("two")
        os.utime(directory / "b", ns=(info.st_atime_ns, info.st_mtime_ns))
        (directory / "b").rename(directory / "a")
    elif how == "link":
        (directory / "a").rename(directory / "b")
        (directory / "a").symlink_to("b")


@pytest.mark.parametrize("how", ["size", "same time", "replaced", "link"])
def test_a_file_that_changes_between_listing_digest_and_packing(directory: Path, how: str) -> None:
    tree, entry = listed(directory)
    tree.content(entry)
    changes(directory, how)
    with pytest.raises(Invalid, match=CHANGED):
        tree.write(TarWriter(lambda data: None), entry, 0)
    with pytest.raises(Invalid, match=CHANGED):
        tree.content(entry)
    tree.close()


def test_a_file_that_is_removed(directory: Path) -> None:
    tree, entry = listed(directory)
    (directory / "a").unlink()
    for read in (lambda: tree.content(entry), lambda: tree.write(TarWriter(lambda data: None), entry, 0)):
        with pytest.raises(Invalid, match="a was removed while it was read"):
            read()
    tree.close()


def test_a_directory_that_changes_while_it_is_walked(directory: Path) -> None:
    """Somebody writes all the time: each build says so, or is of one state; none ends in a traceback."""
    for name in "bcdefgh":
        (directory / name).mkdir()
        (directory / name / "x").write_text("x")
    ends = threading.Event()

    def writer() -> None:
        while not ends.is_set():
            for name in "bcdefgh":
                (directory / name / "x").rename(directory / name / "y")
                (directory / name / "y").rename(directory / name / "x")

    thread = threading.Thread(target=writer)
    thread.start()
    tree = context(str(directory))
    outcomes = set()
    try:
        for _ in range(300):
            try:
                for entry in tree.copies(("",), "/", target_is_directory=True):
                    if entry.path.endswith(("x", "y")):
                        tree.content(entry)
                        tree.write(TarWriter(lambda data: None), entry, 0)
                outcomes.add("whole")
            except Invalid as e:
                outcomes.add(" ".join(e.message.split()[1:]))
    finally:
        ends.set()
        thread.join()
        tree.close()
    assert outcomes <= {"whole", CHANGED, "was removed while it was read"}
    assert len(outcomes) > 1


@pytest.mark.parametrize("how", ["content", "added", "removed", "mode", "linked"])
def test_a_directory_that_changes_between_digest_and_packing(store: Store, directory: Path, how: str) -> None:
    """Its digest is made without a list of its files: what the layer then has must be what it is of."""
    (directory / "d/e").mkdir(parents=True)
    for name in ("d/one", "d/e/two"):
        (directory / name).write_text("1")
        os.utime(directory / name, (1, 1))
    if how == "linked":  # such a directory is listed from the beginning
        os.link(directory / "d/one", directory / "d/e/three")
    tree = context(str(directory), digests=Digests(store, str(directory)))
    step = plan.Copy(plan.Place("COPY d /", 1, 1), plan.Origin("context"), ("d",), (), (), "/d/")
    try:
        with store.lease(), closing(Copying(store, [], step, tree, 0)) as copying:
            copying.digest()
            assert copying.write().startswith("sha256:")
        with store.lease(), closing(Copying(store, [], step, tree, 0)) as copying:
            copying.digest()
            if how == "content":
                (directory / "d/e/two").write_text("2")
            elif how == "added":
                (directory / "d/e/four").touch()
            elif how in ("removed", "linked"):
                (directory / "d/e/two").unlink()
            else:
                (directory / "d/e").chmod(0o700)
            with pytest.raises(Invalid, match=r"was (changed|removed) while it was read"):
                copying.write()
    finally:
        tree.close()
    assert os.listdir(f"{store.root}/tmp") == []


def test_a_build_of_a_context_that_changes_says_so(limpet: Any, busybox: str, directory: Path) -> None:
    """The file is written to until the build has ended: it is large enough to be met while it is read."""
    (directory / "a").write_bytes(bytes(64 << 20))
    (directory / "Dockerfile").write_text(f"FROM {busybox}\nCOPY a /\n")
    process = subprocess.Popen(
        [*limpet.command, "build", directory], env=limpet.environment, stderr=subprocess.PIPE, text=True
    )
    with open(directory / "a", "ab") as file:
        while process.poll() is None:
            file.write(b"x")
            file.flush()
    assert process.stderr is not None
    with process.stderr:
        message = process.stderr.read()
    assert process.returncode == 1, message
    assert f"a {CHANGED} >>> COPY a /\nbuild again when nobody writes there" in message
    assert os.listdir(limpet.root / "tmp") == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("../host", "../host lies outside the build context"),
        ("/../../host", "/../../host lies outside the build context"),
        ("up", "up: leads out of the context"),
        ("up/host", "up/host: leads out of the context"),
        ("absolute", "absolute: leads out of the context"),
        ("round/host", "round/host: leads out of the context"),
        ("loop", "loop: leads out of the context"),
        ("proc/self/environ", "proc/self/environ: leads out of the context"),
    ],
)
def test_nothing_outside_of_the_context_can_be_copied(
    limpet: Any, busybox: str, directory: Path, tmp_path: Path, source: str, message: str
) -> None:
    (tmp_path / "host").write_text("the host's")
    (directory / "up").symlink_to("..")
    (directory / "absolute").symlink_to(tmp_path / "host")
    (directory / "round").symlink_to("../context/../")
    (directory / "loop").symlink_to("loop")
    (directory / "proc").symlink_to("/proc")
    result = build(limpet, directory, f"FROM {busybox}\nCOPY {source} /x\n", check=False)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_links_of_a_directory_and_of_a_stage_stay_what_they_are(limpet: Any, busybox: str, directory: Path) -> None:
    """A link below a directory is copied as a link; in a stage an absolute one means the stage's file."""
    (directory / "d").mkdir()
    (directory / "d/out").symlink_to("/etc/shadow")
    build(
        limpet,
        directory,
        f"FROM {busybox} AS one\nRUN echo inner > /inner && ln -s /inner /abs && ln -s ../../../../inner /up\n"
        f"FROM {busybox}\nCOPY d /d\nCOPY --from=one /abs /up /got/\nRUN ln -s /etc /into && mkdir /e\n"
        "COPY a /into/a\nCOPY a /e/../../../../x\n",
    )
    shown = limpet("run", "--rm", "made:1", "sh", "-c", "readlink /d/out; cat /got/abs /got/up /etc/a /x").stdout
    assert shown == "/etc/shadow\ninner\ninner\noneone"


def test_devices_sockets_and_fifos(limpet: Any, busybox: str, directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    os.mknod(directory / "null", 0o020666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "socket"))
        for name in ("fifo", "null"):
            result = build(limpet, directory, f"FROM {busybox}\nCOPY {name} /\n", check=False)
            assert f"{name}: neither a file, a directory nor a link" in result.stderr
            assert "ignore it" in result.stderr
        whole = build(limpet, directory, f"FROM {busybox}\nCOPY . /c/\n", check=False)
        assert "fifo: neither a file, a directory nor a link" in whole.stderr
        (directory / ".dockerignore").write_text("fifo\nnull\n")
        build(limpet, directory, f"FROM {busybox}\nCOPY . /c/\n")
    assert limpet("run", "--rm", "made:1", "stat", "-c", "%F %s", "/c/socket").stdout == "regular empty file 0\n"


@pytest.mark.slow
def test_a_base_that_is_removed_in_the_middle(limpet: Any, busybox: str, directory: Path) -> None:
    """What was found at the beginning is there until the end: a collection waits for the build."""
    limpet("tag", busybox, "second:1")
    (directory / "Dockerfile").write_text(
        f"FROM {busybox} AS one\nRUN --mount=type=bind,source=a,target=/a sleep 2; cat /a > /x\n"
        "FROM second:1\nCOPY --from=one /x /y\nRUN cat /y\n"
    )
    process = subprocess.Popen(
        [*limpet.command, "build", "-t", "made:1", directory], env=limpet.environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "RUN" in process.stderr.readline()
    limpet("rmi", "-f", "second:1", busybox)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert limpet("run", "--rm", out.strip(), "cat", "/y").stdout == "one"
    assert limpet("system", "check").returncode == 0


@pytest.mark.slow
def test_long_lines_and_endless_variables(limpet: Any, busybox: str, directory: Path) -> None:
    build(limpet, directory, f"FROM {busybox}\nCOPY <<EOF /long\n" + "y" * 10_000_000 + "\nEOF\n")
    assert limpet("run", "--rm", "made:1", "wc", "-c", "/long").stdout == "10000001 /long\n"
    result = build(limpet, directory, f"FROM {busybox}\nRUN : " + "y" * 10_000_000 + "\n", check=False)
    assert "argument list too long" in result.stderr
    assert len(result.stderr) < 5000
    for text, message in (
        ("ARG X=aaaaaaaaaaaaaaaa\n" + "ARG X=$X$X\n" * 40, "the variables bring more than 16 MiB"),
        ("ENV X=aaaaaaaaaaaaaaaa\n" + "ENV X=$X$X$X$X\n" * 20, "the variables bring more than 16 MiB"),
        ("ARG X=" + "${X:-" * 3000 + "}" * 3000 + "\n", "variables nested more than 64 deep"),
    ):
        result = build(limpet, directory, f"FROM {busybox}\n{text}RUN true\n", check=False)
        assert result.returncode == 1
        assert message in result.stderr
        assert len(result.stderr) < 2000
    mutual = build(limpet, directory, f'ARG A=$B\nARG B=$A\nFROM {busybox}\nARG A=x$A\nRUN echo "[$A]"\n')
    assert "[x]" in mutual.stderr


@pytest.mark.slow
def test_a_context_of_50_000_files(limpet: Any, directory: Path) -> None:
    for number in range(100):
        (directory / f"d{number}").mkdir()
        fd = os.open(directory / f"d{number}", os.O_RDONLY)
        for inner in range(500):
            os.close(os.open(f"f{inner}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd))
        os.close(fd)
    text = "FROM scratch\nCOPY . /all\n"
    first = build(limpet, directory, text)
    (directory / "d7/f8").write_text("changed")
    explained = build(limpet, directory, text, "--explain")
    assert first.stdout != explained.stdout
    assert "      d7/f8: content\n" in explained.stderr
    layer = max((limpet.root / "layers").iterdir(), key=lambda path: path.stat().st_mtime)
    assert (layer / "data").stat().st_size > 50_000 * 512


def test_more_files_than_a_layer_may_have(directory: Path, limpet: Any) -> None:
    for number in range(20):
        (directory / f"f{number}").touch()
    limpet.environment["LIMPET_MAX_LAYER_ENTRIES"] = "10"
    result = build(limpet, directory, "FROM scratch\nCOPY . /all\n", check=False)
    assert "23 files are more than a layer may have: 10 >>> COPY . /all\n" in result.stderr
    assert "LIMPET_MAX_LAYER_ENTRIES sets the limit" in result.stderr
