"""Mounts that a path alone does not say: images, subpaths, other owners; and what a hostile volume can't reach."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from limpet.containers.execution.outcome import StartFailed
from limpet.containers.mounts import mountgrammar, mountplan, mounttrees
from limpet.containers.options import Options
from limpet.errors import Invalid, NotFound
from limpet.kernel import fs, mounts
from limpet.store.store import Store

Limpet = Any


@pytest.mark.slow
def test_an_image_is_mounted_and_stays(limpet: Limpet, busybox: str) -> None:
    limpet("create", "--name", "made", busybox, "true")
    limpet("commit", "-c", "LABEL of=data", "made", "data:1")
    limpet("rm", "made")
    mount = "type=image,src=data:1,dst=/x"
    script = "cat /x/etc/group | head -1; touch /x/new; ls /y; touch /w/new /w/bin/new; ls -d /w/new"
    args = ("--mount", mount, "--mount", "type=image,source=data:1,target=/y,image-subpath=home")
    args += ("--mount", "type=image,source=data:1,target=/w,rw=true")
    limpet("create", "--name", "box", *args, busybox, "sh", "-c", script)
    result = limpet("start", "-a", "box", check=False)
    assert result.stdout == "root:x:0:\nuser\n/w/new\n"
    assert "/x/new: Read-only file system" in result.stderr
    # It is in use by a container of another image: neither prune nor rmi takes it, by name, by force, or in part.
    assert "data:1" not in limpet("system", "prune", "-af", "images").stdout
    limpet("image", "prune", "-af")
    refused = limpet("rmi", "data:1", check=False)
    assert (refused.returncode, "container" in refused.stderr) == (1, True), refused.stderr
    limpet("rmi", "-f", "data:1", check=False)
    assert limpet("start", "-a", "box", check=False).stdout == "root:x:0:\nuser\n/w/new\n"
    assert limpet("cp", "box:/y/user", "-").returncode == 0
    assert limpet("system", "check").stdout == "nothing is wrong\n"
    assert limpet("diff", "box").stdout == ""
    limpet("rm", "box")
    limpet("image", "prune", "-af")
    assert "data" not in limpet("images").stdout


@pytest.mark.slow
def test_an_image_in_a_user_namespace(limpet: Limpet, busybox: str) -> None:
    args = ("--userns", "auto", "--mount", f"type=image,src={busybox},dst=/x,subpath=etc")
    script = "stat -c %u /x/passwd; stat -c '%u %g' /d/sub; touch /x/new"
    limpet("run", "--rm", "-v", "data:/d", busybox, "sh", "-c", "mkdir -p /d/in/sub; chown 33:44 /d/in/sub")
    args += ("--mount", "source=data,target=/d,volume-subpath=in")
    result = limpet("run", "--rm", *args, busybox, "sh", "-c", script, check=False)
    assert result.stdout == "0\n33 44\n", result.stderr
    assert "Read-only" in result.stderr


@pytest.mark.slow
def test_the_callers_files_are_the_containers(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """`idmap`: nothing on disk is given to anybody else, and what the container makes is the caller's."""
    source = tmp_path / "src"
    source.mkdir()
    (source / "mine").write_text("x\n")
    (source / "roots").write_text("x\n")
    for path in (source, source / "mine"):
        os.chown(path, 1234, 2345)
    script = "stat -c '%u:%g' /src/mine; stat -c %u /src/roots; echo y >/src/made"
    out = limpet("run", "--rm", "-v", f"{source}:/src:idmap", busybox, "sh", "-c", script).stdout
    assert out == "0:0\n1234\n"
    out = limpet("run", "--rm", "-u", "1000:1000", "-v", f"{source}:/src:U", busybox, "sh", "-c", script, check=False)
    assert out.stdout == "1000:1000\n0\n"
    assert [(p.stat().st_uid, p.stat().st_gid) for p in (source / "made", source / "mine")] == [(1234, 2345)] * 2
    ranges = "idmap=uids=1234-7-1#0-0-1;gids=2345-8-1#0-0-1"
    spec = f"type=bind,src={source},dst=/src,{ranges},ro"
    assert limpet("run", "--rm", "--mount", spec, busybox, "stat", "-c", "%u:%g", "/src/mine").stdout == "7:8\n"
    auto = limpet("run", "--rm", "--userns", "auto", "-v", f"{source}:/src:idmap", busybox, "sh", "-c", script)
    assert auto.stdout.startswith("0:0\n")
    assert (source / "made").stat().st_uid == 1234
    wrong = f"type=bind,src={source},dst=/src,idmap=uids=0-1-5#2-9-5;gids=0-0-1"
    refused = limpet("run", "--rm", "--mount", wrong, busybox, "true", check=False)
    assert (refused.returncode, "ranges overlap" in refused.stderr) == (125, True), refused.stderr


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("abs", "/etc"),
        ("up", "../../../../../../../../etc"),
        ("by", "in/../../../_data/../../../../etc"),
        ("proc", "/proc/self/root/etc"),
        ("self", "self"),
    ],
)
def test_a_subpath_never_leaves_its_volume(store: Store, link: str, target: str) -> None:
    """CVE-2021-30465, CVE-2017-1002101: a link that another container made is no way to the host's files."""
    (mount,) = mountplan.plan(store, Options(mounts=[f"source=data,target=/d,volume-subpath={link}"]), [])
    whole = Path(store.volume_path("data")) / "_data"
    (whole / "in").mkdir(parents=True)
    (whole / link).symlink_to(target)
    with pytest.raises(StartFailed, match=f"subpath {link} of volume data on /d"):
        mounttrees.open_all(store, "x", [mount], (0, 0))


def test_a_subpath_is_what_was_found(store: Store) -> None:
    """Links that stay inside are fine; a race after the look is too late, since the descriptor is what is mounted."""
    (mount,) = mountplan.plan(store, Options(mounts=["source=data,target=/d,volume-subpath=link/below"]), [])
    whole = Path(store.volume_path("data")) / "_data"
    (whole / "in/below").mkdir(parents=True)
    (whole / "in/below/file").write_text("inside")
    (whole / "link").symlink_to("in")
    trees = mounttrees.open_all(store, "x", [mount], (0, 0))
    (whole / "link").unlink()
    (whole / "link").symlink_to("/etc")
    assert os.listdir(f"/proc/self/fd/{trees['/d']}") == ["file"]
    os.close(trees["/d"])
    with pytest.raises(StartFailed, match="a link in it leads outside"):
        mounttrees.open_all(store, "x", [mount], (0, 0))
    (mount,) = mountplan.plan(store, Options(mounts=["source=data,target=/d,volume-subpath=nosuch"]), [])
    with pytest.raises(StartFailed, match="no such file or directory"):
        mounttrees.open_all(store, "x", [mount], (0, 0))


def test_a_part_of_a_mount_as_older_kernels_have_it(store: Store) -> None:
    (mount,) = mountplan.plan(store, Options(mounts=["source=data,target=/d,volume-subpath=in"]), [])
    before = mounts.below("/sys")
    whole = mounts.tmpfs()
    os.mkdir("in", dir_fd=whole)
    os.mkdir("in/file", dir_fd=whole)
    os.symlink("/etc", "out", dir_fd=whole)
    tree = mounttrees.beneath_attached(whole, mount)
    assert os.listdir(f"/proc/self/fd/{tree}") == ["file"]
    assert mounts.below("/sys") == before
    os.close(whole)
    assert os.listdir(f"/proc/self/fd/{tree}") == ["file"]
    os.close(tree)


@pytest.mark.slow
def test_read_only_reaches_as_far_as_said(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """And propagation, and how deep a bind goes: in a mount namespace of the test's own."""
    (tmp_path / "top/below").mkdir(parents=True)
    with mounts.Private():
        mounts.mount("tmpfs", str(tmp_path / "top"), "tmpfs")
        (tmp_path / "top/below").mkdir()
        mounts.mount("tmpfs", str(tmp_path / "top/below"), "tmpfs")
        (tmp_path / "top/below/file").touch()
        script = "touch /t/a; touch /t/below/a; ls /t/below"

        def run(more: str) -> tuple[str, int]:
            spec = f"type=bind,src={tmp_path}/top,dst=/t,{more}"
            result = limpet("run", "--rm", "--mount", spec, busybox, "sh", "-c", script, check=False)
            return result.stdout, result.stderr.count("Read-only")

        assert run("ro") == ("file\n", 2)
        assert run("ro,bind-recursive=readonly") == ("file\n", 2)
        assert run("ro,bind-recursive=writable") == ("a\nfile\n", 1)
        assert run("bind-recursive=disabled")[0] == "a\n"
        assert run("bind-nonrecursive,ro") == ("a\n", 2)  # of the run before
        mounts.mount(None, str(tmp_path / "top"), None, mounts.MS_SHARED)
        args = ("--privileged", "-v", f"{tmp_path}/top:/t")
        inner = "mkdir -p /t/new; mount -t tmpfs none /t/new; touch /t/new/from-inside"
        limpet("run", "--rm", f"{args[0]}", "-v", f"{args[2]}:rshared", busybox, "sh", "-c", f"{inner}; sleep 0.1")
        assert os.listdir(tmp_path / "top/new") == ["from-inside"]
        mounts.umount(str(tmp_path / "top/new"))
        limpet("run", "--rm", *args, busybox, "sh", "-c", inner)
        assert os.listdir(tmp_path / "top/new") == []
        limpet("run", "-d", "--name", "slave", "-v", f"{tmp_path}/top:/t:rslave", busybox, "sleep", "60")
        mounts.mount("tmpfs", str(tmp_path / "top/new"), "tmpfs")
        (tmp_path / "top/new/later").touch()
        assert limpet("exec", "slave", "ls", "/t/new").stdout == "later\n"
        limpet("rm", "-f", "slave")


@pytest.mark.slow
def test_a_tmpfs_as_said(limpet: Limpet, busybox: str) -> None:
    args = ("--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1700,uid=1000,exec", "--tmpfs", "/u:size=64k,ro")
    out = limpet("run", "--rm", *args, busybox, "sh", "-c", "grep -E ' /[tu] ' /proc/mounts; stat -c '%a %u' /t").stdout
    first, second, stat = out.splitlines()
    assert "rw,nosuid,nodev,relatime,size=1024k,mode=1700,uid=1000" in first
    assert second.split()[3].startswith("ro,nosuid,nodev,noexec")
    assert stat == "1700 1000"


@pytest.mark.slow
def test_mounts_of_another_container(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    image = f"type=image,src={busybox},dst=/i"
    args = ("-v", "data:/v", "-v", f"{tmp_path}/d:/b", "--tmpfs", "/t", "--mount", image)
    limpet("run", "--name", "one", *args, busybox, "sh", "-c", "touch /v/f /b/f /t/f")
    script = "ls /v /b /t /i/etc/group; touch /v/g; touch /b/g"
    out = limpet("run", "--rm", "--volumes-from", "one:ro", busybox, "sh", "-c", script, check=False)
    assert out.stdout == "/i/etc/group\n\n/b:\nf\n\n/v:\nf\n"
    assert out.stderr.count("Read-only") == 2
    assert limpet("run", "--rm", "--volumes-from", "one", busybox, "touch", "/v/g").stdout == ""
    missing = limpet("run", "--volumes-from", "nosuch", busybox, "true", check=False)
    assert (missing.returncode, "--volumes-from nosuch: No such container" in missing.stderr) == (125, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=image,dst=/x", "the name of an image"),
        ("type=image,src=nosuch:1,dst=/x", "No such image: nosuch:1"),
        ("type=bind,src=/etc,dst=/x,subpath=a", "a bind mount has no subpath"),
        ("type=bind,src=/etc,dst=/x,bind-recursive=maybe", "unexpected 'bind-recursive=maybe'"),
        ("type=bind,src=/etc,dst=/x,bind-recursive=writable", "goes with readonly"),
        ("type=volume,src=data,dst=/x,tmpfs-size=1m", "'tmpfs-size' is for type=tmpfs, and this is type=volume"),
        ("type=tmpfs,dst=/x,bind-propagation=shared", "is for type=bind"),
        ("type=tmpfs,dst=/x,subpath=y", "a tmpfs has no subpath"),
        ("type=volume,src=data,dst=/x,subpath=/abs", "beneath the volume"),
        ("type=bind,src=/etc,dst=/x,idmap=uids=0-1", "invalid idmap"),
        ("type=bind,src=/etc,dst=/x,idmap=uids=0-0-1", "it needs uids and gids"),
        ('type=bind,"src=/etc', "not closed"),
        ('type=bind,"src=/etc"x,dst=/x', "after a closing quotation mark"),
    ],
)
def test_what_does_not_go_together_is_said(store: Store, text: str, message: str) -> None:
    with pytest.raises((Invalid, NotFound)) as caught:
        mountplan.plan(store, Options(mounts=[text]), [])
    assert message in caught.value.message
    assert "\n" not in str(caught.value)


def test_a_path_with_a_comma(store: Store, tmp_path: Path) -> None:
    (tmp_path / 'a,"b').mkdir()
    mount = mountgrammar.from_mount(store, f'type=bind,"src={tmp_path}/a,""b",dst=/x', False)
    assert mount.source == f'{tmp_path}/a,"b'


def test_openat2_is_what_keeps_links_inside(tmp_path: Path) -> None:
    """If this kernel did not hold the flag, the tests above would prove nothing."""
    (tmp_path / "link").symlink_to("/etc")
    root = os.open(tmp_path, os.O_PATH)
    with pytest.raises(OSError, match="cross-device"):
        fs.openat2("link", os.O_PATH, dirfd=root, resolve=fs.RESOLVE_BENEATH)
    os.close(root)
