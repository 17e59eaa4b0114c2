"""cp: what arrives is what `cp -a` would bring, Docker's rules for paths hold, and nothing leads out of a container."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.containers import state
from limpet.containers.files import copy, copyroot, unpack
from limpet.errors import Invalid, LimpetError, NotFound
from limpet.store.files import remove_tree
from limpet.store.store import Store

pytestmark = pytest.mark.slow

MTIME = 1_234_567_890_123_456_789


@pytest.fixture
def mine(limpet: Any, busybox: str) -> Store:
    return Store(str(limpet.root), f"{limpet.root}/run")


@pytest.fixture(params=["running", "stopped"])
def web(limpet: Any, busybox: str, request: pytest.FixtureRequest) -> str:
    """A container called web, once running and once never started."""
    command = ["run", "-d"] if request.param == "running" else ["create"]
    limpet(*command, "--name", "web", busybox, "sleep", "1000")
    return "web"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One of each kind that `cp -a` keeps."""
    top = tmp_path / "tree"
    (top / "inner/empty").mkdir(parents=True)
    (top / "plain").write_bytes(b"hello\n")
    (top / "zero").write_bytes(b"")
    (top / "big").write_bytes(os.urandom(3 << 20) + bytes(2 << 20) + b"end")
    (top / "inner/link").symlink_to("../plain")
    (top / "inner/dangling").symlink_to("/nowhere")
    os.link(top / "plain", top / "inner/hard")
    os.mkfifo(top / "inner/fifo")
    os.mknod(top / "inner/device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (top / ("n" * 200)).write_text("long name")
    (top / os.fsdecode(b"not \xff utf-8")).write_text("x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(top / "socket"))
    os.setxattr(top / "plain", "user.note", b"\x00\xffvalue")
    os.setxattr(top / "inner", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.chown(top / "plain", 1234, 4294967293)
    os.chown(top / "inner/link", 33, 44, follow_symlinks=False)
    (top / "plain").chmod(0o6755)
    (top / "inner").chmod(0o1770)
    for path in [*top.rglob("*"), top]:
        os.utime(path, ns=(MTIME, MTIME), follow_symlinks=False)
    return top


def described(top: Path) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        info = path.lstat()
        if stat.S_ISSOCK(info.st_mode):
            continue  # no tar can hold one, and nobody listens to a copy
        content: Any = None
        if stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        xattrs = {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)}
        found[str(path.relative_to(top))] = (
            oct(info.st_mode),
            info.st_uid,
            info.st_gid,
            info.st_rdev,
            info.st_mtime_ns,
            1 if stat.S_ISDIR(info.st_mode) else info.st_nlink,
            content,
            xattrs,
        )
    return found


def test_there_and_back_all_is_kept(limpet: Any, web: str, tree: Path, tmp_path: Path) -> None:
    result = limpet("cp", tree, f"{web}:/tmp/copied")
    assert result.stdout == ""
    assert result.stderr == f"Successfully copied 5.24MB to {web}:/tmp/copied\n"
    assert limpet("cp", "-aq", f"{web}:/tmp/copied", tmp_path / "back").stderr == ""
    assert described(tmp_path / "back") == described(tree)


def test_a_device_that_a_container_made_is_root_s_alone_on_the_host(
    limpet: Any, web: str, busybox: str, tmp_path: Path
) -> None:
    limpet("create", "--name", "other", busybox, "true")
    os.mknod(tmp_path / "disk", stat.S_IFBLK, os.makedev(7, 200))
    os.chown(tmp_path / "disk", 1000, 1000)
    (tmp_path / "disk").chmod(0o666)
    limpet("cp", tmp_path / "disk", f"{web}:/tmp/disk")
    limpet("cp", f"{web}:/tmp/disk", "other:/tmp/disk")
    limpet("cp", "other:/tmp/disk", tmp_path / "copy")
    info = (tmp_path / "copy").stat()
    assert (oct(info.st_mode), info.st_uid, info.st_gid, info.st_rdev) == ("0o60600", 0, 0, os.makedev(7, 200))
    shown = limpet("cp", "other:/tmp/disk", "-").stdout.encode()
    (member,) = tarfile.open(fileobj=io.BytesIO(shown)).getmembers()
    assert (oct(member.mode), member.uid, member.isblk()) == ("0o666", 1000, True)


def test_between_containers(limpet: Any, web: str, busybox: str, tree: Path, tmp_path: Path) -> None:
    limpet("create", "--name", "other", busybox, "true")
    limpet("cp", tree, f"{web}:/tmp/tree")
    limpet("cp", f"{web}:/tmp/tree", "other:/srv")
    limpet("cp", "other:/srv", tmp_path / "back")
    assert described(tmp_path / "back") == described(tree)
    limpet("cp", f"{web}:/etc/passwd", f"{web}:/tmp/passwd")
    limpet("cp", f"{web}:/tmp/passwd", tmp_path / "passwd")
    assert (tmp_path / "passwd").read_text().startswith("root:")


def test_a_sparse_file_stays_sparse(limpet: Any, web: str, tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(16 << 20)
    limpet("cp", tmp_path / "sparse", f"{web}:/tmp/sparse")
    limpet("cp", f"{web}:/tmp/sparse", tmp_path / "back")
    info = (tmp_path / "back").stat()
    assert (info.st_size, info.st_blocks) == (16 << 20, 0)


def test_rules_for_paths(limpet: Any, web: str, tmp_path: Path) -> None:
    """The table of Docker's reference, `docker container cp`."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_text("1")
    (tmp_path / "file").write_text("2")

    def inside(path: str) -> list[str]:
        names = subprocess.run(
            [*limpet.command, "cp", f"{web}:{path}", "-"], env=limpet.environment, capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(names)) as tar:
            return tar.getnames()

    limpet("cp", tmp_path / "dir", f"{web}:/tmp/new")  # not there: made, with the contents
    assert inside("/tmp/new") == ["new", "new/file"]
    limpet("cp", tmp_path / "dir", f"{web}:/tmp/new")  # there: the directory itself goes into it
    assert inside("/tmp/new") == ["new", "new/dir", "new/dir/file", "new/file"]
    limpet("cp", f"{tmp_path}/dir/.", f"{web}:/tmp/")  # /. : the contents
    assert inside("/tmp/file") == ["file"]
    assert inside("/tmp/new/.") == [".", "dir", "dir/file", "file"]
    limpet("cp", tmp_path / "file", f"{web}:/tmp/name")
    limpet("cp", tmp_path / "file", f"{web}:/root")
    assert inside("/root/file") == ["file"]
    limpet("cp", tmp_path / "file", f"{web}:tmp/relative")  # from the root
    assert inside("/tmp/relative") == ["relative"]
    here = limpet("cp", f"{web}:/tmp/name", ".", cwd=tmp_path / "dir")
    assert here.stderr.endswith(f"to {tmp_path}/dir/.\n")
    assert (tmp_path / "dir/name").read_text() == "2"


MISTAKES = [
    ("web:/nope", "{tmp}", "Could not find the file /nope in container web"),
    ("{tmp}/nope", "web:/tmp", "lstat {tmp}/nope: no such file or directory"),
    ("{tmp}/file", "web:/no/where", "Could not find the directory /no in container web"),
    ("{tmp}/file", "web:/nowhere/", "Could not find the directory /nowhere/ in container web"),
    ("{tmp}", "web:/etc/passwd", "cannot copy a directory to the file /etc/passwd"),
    ("web:/etc", "{tmp}/file", "cannot copy a directory to the file {tmp}/file"),
    ("web:/etc/passwd", "{tmp}/no/where", 'invalid output path: directory "{tmp}/no" does not exist'),
    ("{tmp}/file", "{tmp}/other", "must specify at least one container source"),
    ("web:/tmp", "web:/tmp/below", "cannot copy the directory /tmp into itself"),
    ("web:/etc/*.none", "{tmp}", "Could not find the file /etc/*.none in container web"),
    ("wbe:/etc", "{tmp}", "No such container: wbe"),
]


def test_mistakes(limpet: Any, web: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    place = {"tmp": tmp_path}
    for source, target, message in MISTAKES:
        result = limpet("cp", source.format(**place), target.format(**place), check=False)
        assert result.stderr.splitlines()[0] == f"limpet: {message.format(**place)}"
        assert result.returncode == 1
    assert (tmp_path / "file").read_text() == "x"


def test_an_error_half_way(limpet: Any, web: str, tmp_path: Path) -> None:
    """What is wrong at one end is said, whatever the other end was about to do."""
    (tmp_path / "in/etc/passwd").mkdir(parents=True)
    (tmp_path / "in/etc/z").write_bytes(os.urandom(1 << 20))
    result = limpet("cp", f"{tmp_path}/in/.", f"{web}:/", check=False)
    assert result.stderr == "limpet: cannot overwrite non-directory etc/passwd with directory\n"
    assert result.returncode == 1
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        result = limpet("cp", f"{web}:/bin/busybox", small, check=False)
        assert result.stderr == f"limpet: the host: writing {small}/busybox: No space left on device\n"
        assert result.returncode == 1
    finally:
        subprocess.run(["umount", small], check=True)


def test_links(limpet: Any, web: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").write_text("1")
    limpet("cp", tmp_path / "link", f"{web}:/tmp/l1")
    limpet("cp", "-L", tmp_path / "link", f"{web}:/tmp/l2")
    limpet("cp", f"{web}:/tmp/l1", tmp_path / "b1")
    limpet("cp", f"{web}:/tmp/l2", tmp_path / "b2")
    assert os.readlink(tmp_path / "b1") == "file"
    assert (tmp_path / "b2").read_text() == "1"
    limpet("cp", tmp_path / "file", f"{web}:/tmp/target")
    (tmp_path / "absolute").symlink_to("/tmp/target")
    limpet("cp", tmp_path / "absolute", f"{web}:/tmp/absolute")
    (tmp_path / "file").write_text("changed")
    limpet("cp", tmp_path / "file", f"{web}:/tmp/absolute")  # onto a link: what it means is written
    limpet("cp", f"{web}:/tmp/target", tmp_path / "b3")
    assert (tmp_path / "b3").read_text() == "changed"


def test_globs(limpet: Any, web: str, tmp_path: Path) -> None:
    for name in ("a.log", "b.log", "c.txt", ".hidden.log", "[x]"):
        (tmp_path / name).write_text(name)
        limpet("cp", tmp_path / name, f"{web}:/var/log/")
    (tmp_path / "out").mkdir()
    limpet("cp", f"{web}:/v?r/log/*.log", tmp_path / "out")
    limpet("cp", f"{web}:/var/log/[x]", tmp_path / "out")  # a name, after all
    assert sorted(os.listdir(tmp_path / "out")) == ["[x]", "a.log", "b.log"]
    result = limpet("cp", f"{web}:/var/log/*.log", tmp_path / "nowhere", check=False)
    assert f'directory "{tmp_path}/nowhere" does not exist' in result.stderr


def test_tar_from_standard_input(limpet: Any, web: str, tmp_path: Path) -> None:
    for mode in ("w", "w:gz", "w:xz"):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode=mode) as tar:
            member = tarfile.TarInfo(f"deep/{mode[2:]}/file")
            member.size, member.uid = 5, 77
            tar.addfile(member, io.BytesIO(b"12345"))
        feed(limpet, data.getvalue(), f"{web}:/tmp")
    limpet("cp", f"{web}:/tmp/deep", tmp_path / "deep")
    assert sorted(p.stat().st_uid for p in tmp_path.glob("deep/*/file") if p.read_bytes() == b"12345") == [77] * 2
    assert (tmp_path / "deep/file").stat().st_uid == 77
    assert "not a tar" in feed(limpet, b"x" * 2000, f"{web}:/tmp", code=1)
    assert "not a tar" in feed(limpet, stream(("f", tarfile.REGTYPE, "x")).getvalue()[:512], f"{web}:/tmp", code=1)
    assert "has no directory /nope" in feed(limpet, data.getvalue(), f"{web}:/nope", code=1)


def feed(limpet: Any, data: bytes, target: str, code: int = 0) -> str:
    result = subprocess.run(
        [*limpet.command, "cp", "-", target], input=data, env=limpet.environment, capture_output=True
    )
    assert result.returncode == code, result.stderr
    return result.stderr.decode()


def test_volumes_are_part_of_the_tree(limpet: Any, busybox: str, tmp_path: Path) -> None:
    """As in Docker also before the first start, and a volume has by then what the image has there."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "here").write_text("bind")
    limpet("create", "--name", "web", "-v", f"{host}:/data:ro", "-v", "vol:/etc", busybox, "sleep", "1000")
    limpet("cp", "web:/data", tmp_path / "data")
    assert (tmp_path / "data/here").read_text() == "bind"
    limpet("cp", host / "here", "web:/etc/added")
    volume = Path(limpet.root) / "volumes/vol/_data"
    assert (volume / "added").read_text() == "bind"
    assert (volume / "passwd").exists()
    result = limpet("cp", host / "here", "web:/data/new", check=False)
    assert (result.returncode, "read-only" in result.stderr) == (1, True)
    assert not (Path(limpet.root) / "containers" / "none").exists()
    limpet("start", "web")
    assert limpet("exec", "web", "cat", "/etc/added").stdout == "bind"
    limpet("cp", "web:/data", tmp_path / "again")
    assert (tmp_path / "again/here").read_text() == "bind"
    with open("/proc/self/mountinfo") as file:
        assert str(limpet.root) not in file.read()


def test_a_read_only_container_stays_as_it_is(limpet: Any, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name, command in (("one", ["create"]), ("two", ["run", "-d"])):
        limpet(*command, "--name", name, "--read-only", busybox, "sleep", "1000")
        result = limpet("cp", tmp_path / "file", f"{name}:/tmp", check=False)
        assert result.stderr == f"limpet: container {name}: /tmp is on a read-only file system\n"
        assert result.returncode == 1


def test_what_the_engine_mounts_is_left_out(limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    limpet("cp", "web:/", tmp_path / "all")
    assert (tmp_path / "all/bin/busybox").exists()
    for name in ("proc", "sys", "dev"):
        assert os.listdir(tmp_path / "all" / name) == []


def test_a_mount_point_is_written_in_place(limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    (tmp_path / "hosts").write_text("127.0.0.1 here\n")
    limpet("cp", tmp_path / "hosts", "web:/etc/hosts")
    assert limpet("exec", "web", "cat", "/etc/hosts").stdout == "127.0.0.1 here\n"


def test_two_copies_of_a_stopped_container_take_turns(limpet: Any, mine: Store, busybox: str, tmp_path: Path) -> None:
    limpet("create", "--name", "web", busybox, "true")
    container = state.find(mine, "web")
    with copyroot.container_root(mine, container):
        second = subprocess.Popen([*limpet.command, "cp", "web:/etc", str(tmp_path / "etc")], env=limpet.environment)
        assert state.status(mine, container).state == "created"
        assert second.poll() is None
    assert second.wait(20) == 0
    assert (tmp_path / "etc/passwd").exists()


# Hostile


def test_links_lead_nowhere_outside(limpet: Any, web: str, mine: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("host")
    links = tmp_path / "links"
    links.mkdir()
    (links / "absolute").symlink_to(secret)
    (links / "climbing").symlink_to("../" * 30 + str(secret)[1:])
    (links / "magic").symlink_to("/proc/1/root" + str(secret))
    limpet("cp", links, f"{web}:/links")
    for name in ("absolute", "climbing", "magic"):
        for path in (f"{web}:/links/{name}/key", f"{web}:/links/{name}/../secret/key"):
            assert limpet("cp", path, tmp_path / "stolen", check=False).returncode == 1
        assert limpet("cp", tmp_path / "links", f"{web}:/links/{name}/", check=False).returncode == 1
    assert os.listdir(secret) == ["key"]
    assert not (tmp_path / "stolen").exists()


def stream(*members: tuple[str, bytes, str]) -> io.BytesIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, kind, rest in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = rest
            else:
                member.size = len(rest)
            tar.addfile(member, io.BytesIO(rest.encode()))
    data.seek(0)
    return data


@pytest.mark.parametrize(
    "members",
    [
        [("../escaped", tarfile.REGTYPE, "x")],
        [("a/../../escaped", tarfile.REGTYPE, "x")],
        [("d", tarfile.SYMTYPE, "{out}"), ("d/escaped", tarfile.REGTYPE, "x")],
        [("d", tarfile.SYMTYPE, ".."), ("d/escaped", tarfile.REGTYPE, "x")],
        [("d", tarfile.SYMTYPE, "{out}"), ("d", tarfile.DIRTYPE, ""), ("d/escaped", tarfile.REGTYPE, "x")],
        [("h", tarfile.LNKTYPE, "../outside/secret"), ("h", tarfile.REGTYPE, "x")],
        [("d", tarfile.SYMTYPE, "{out}"), ("h", tarfile.LNKTYPE, "d/secret")],
        [("odd", b"Z", "")],
    ],
)
def test_hostile_tars_do_not_leave_the_directory_on_the_host(tmp_path: Path, members: list[Any]) -> None:
    """What a container sends could hold this if its file system lies (FUSE): `d` first a link, then a directory."""
    out = tmp_path / "outside"
    out.mkdir()
    (out / "secret").write_text("secret")
    place = tmp_path / "place"
    place.mkdir()
    data = stream(*[(name, kind, rest.format(out=out)) for name, kind, rest in members])
    with copyroot.host_root() as root, pytest.raises(LimpetError):
        unpack.unpack(data, root, str(place))
    assert os.listdir(out) == ["secret"]
    assert (out / "secret").read_text() == "secret"
    assert (out / "secret").stat().st_nlink == 1
    assert sorted(os.listdir(tmp_path)) == ["outside", "place"]


def test_an_absolute_name_is_meant_beneath_the_directory(tmp_path: Path) -> None:
    with copyroot.host_root() as root:
        unpack.unpack(stream(("/etc/limpet-test", tarfile.REGTYPE, "x")), root, str(tmp_path))
    assert (tmp_path / "etc/limpet-test").read_text() == "x"
    assert not Path("/etc/limpet-test").exists()


NEST = "import os, sys\nfor i in range(int(sys.argv[1])):\n    os.mkdir(sys.argv[2])\n    os.chdir(sys.argv[2])\n"


def nest(place: Path, levels: int, name: str) -> None:
    """Directories in directories, deeper than a path can say, with a file at the bottom, and one on the way back."""
    bottom = f"{NEST}os.mknod('file')\nos.chdir('..')\nos.mkdir('zz')\n"
    subprocess.run([sys.executable, "-S", "-I", "-c", bottom, str(levels), name], cwd=place, check=True)


def shape(place: Path) -> list[str]:
    """Names of all that is there, without the paths. `find` holds no descriptor for each level."""
    found = subprocess.run(
        ["find", ".", "-printf", "%d %y %f\\n"], cwd=place, capture_output=True, text=True, check=True
    )
    return sorted(found.stdout.splitlines())


def test_deeper_than_a_path_can_say(limpet: Any, mine: Store, busybox: str, tmp_path: Path) -> None:
    for name in ("source", "back"):
        (tmp_path / name).mkdir()
    nest(tmp_path / "source", 1500, "deep")
    try:
        limpet("create", "--name", "web", busybox, "true")
        limpet("cp", tmp_path / "source/deep", "web:/srv")
        limpet("cp", "web:/srv", tmp_path / "back/deep")
        copied = shape(tmp_path / "back")
        assert copied == shape(tmp_path / "source")
        assert "1501 f file" in copied
        assert "1500 d zz" in copied
    finally:
        for name in ("source", "back"):
            remove_tree(str(tmp_path / name))


def test_too_deep(limpet: Any, mine: Store, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    nest(tmp_path / "source", 300, "d" * 60)
    limpet("create", "--name", "web", busybox, "true")
    result = limpet("cp", tmp_path / "source", "web:/", check=False)
    remove_tree(str(tmp_path / "source"))
    assert result.returncode == 1
    assert result.stderr.endswith(": a path of more than 16384 characters\n")
    container = state.find(mine, "web")
    with copyroot.container_root(mine, container) as root, pytest.raises(NotFound):
        copy.pack(root, "/none", "d", lambda data: None)


def test_names_of_a_hostile_tar_that_have_no_end(tmp_path: Path) -> None:
    with copyroot.host_root() as root:
        unpack.unpack(stream((f"{'a/' * 3000}file", tarfile.REGTYPE, "x")), root, str(tmp_path))
        assert "3001 f file" in shape(tmp_path)
        with pytest.raises(Invalid, match="a name of more than"):
            unpack.unpack(stream(("b/" * 10000, tarfile.DIRTYPE, "")), root, str(tmp_path))
    remove_tree(f"{tmp_path}/a")
    assert os.listdir(tmp_path) == []


def test_a_link_below_the_longest_path_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "outside").mkdir()
    deep = "a/" * 2100
    with copyroot.host_root() as root, pytest.raises(LimpetError):
        unpack.unpack(
            stream((f"{deep}link", tarfile.SYMTYPE, f"{tmp_path}/outside"), (f"{deep}link/file", tarfile.REGTYPE, "x")),
            root,
            f"{tmp_path}/place",
        )
    remove_tree(f"{tmp_path}/place")
    assert os.listdir(tmp_path / "outside") == []


def test_what_can_not_be_written_is_named(limpet: Any, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    result = limpet("cp", tmp_path / "file", "web:/proc/nothing", check=False)
    assert (result.returncode, result.stderr) == (
        1,
        "limpet: container web: writing /proc/nothing: No such file or directory\n",
    )


def test_a_container_that_races(limpet: Any, mine: Store, busybox: str, tmp_path: Path) -> None:
    """A directory and a link to the host's take turns while files are copied through the name, both ways."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("SECRET")
    script = (
        f"mkdir -p /srv/real; echo mine > /srv/real/file; ln -s {outside} /srv/evil; ln -s /srv/real /srv/name;"
        " while :; do ln -sfn /srv/evil /srv/name; rm -f /srv/name; mkdir /srv/name; echo mine > /srv/name/file;"
        " rm -r /srv/name; ln -s /srv/real /srv/name; done"
    )
    limpet("run", "-d", "--name", "web", busybox, "sh", "-c", script)
    container = state.find(mine, "web")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("from the host")
    copied = 0
    end = time.monotonic() + 3
    with copyroot.container_root(mine, container) as root, copyroot.host_root() as host:
        while time.monotonic() < end:
            for args in (
                (host, f"{tmp_path}/in/.", root, "/srv/name"),
                (root, "/srv/name/file", host, str(tmp_path / "got")),
            ):
                try:
                    copy.copy(*args)
                    copied += 1
                except (LimpetError, OSError):
                    pass
            if (tmp_path / "got").exists():
                assert "SECRET" not in (tmp_path / "got").read_text()
    assert copied > 0
    assert os.listdir(outside) == ["file"]
    assert (outside / "file").read_text() == "SECRET"
    assert threading.active_count() < 5


def test_files_that_are_made_as_they_are_read(limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
    limpet("cp", "box:/proc/version", tmp_path / "version")
    assert (tmp_path / "version").read_text() == Path("/proc/version").read_text()
