"""Mounts in namespaces of their own: what is detached shows nowhere, what is refused says why, nothing stays open."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import needs
from tests.descriptors import opened

from limpet.kernel import features, mounts

Alone = Callable[..., Any]


def table() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_a_detached_mount_is_in_no_table_and_closes_on_exec() -> None:
    before = table()
    fds = [mounts.tmpfs(mounts.MOUNT_ATTR_NOSUID, mode="751", size="64k"), mounts.open_tree("/proc")]
    try:
        assert os.stat(fds[0]).st_mode & 0o7777 == 0o751
        assert os.statvfs(fds[0]).f_flag & os.ST_NOSUID
        assert "self" in os.listdir(f"/proc/self/fd/{fds[1]}")
        assert not any(os.get_inheritable(fd) for fd in fds)
        assert table() == before
    finally:
        for fd in fds:
            os.close(fd)


def test_attach_and_umount(alone: Alone, tmp_path: Path) -> None:
    def body(place):
        fd = mounts.tmpfs(size="1m")
        mounts.attach(fd, place)
        os.close(fd)
        open(f"{place}/file", "w").close()
        attached = any(line.split()[4] == place for line in open("/proc/self/mountinfo"))
        mounts.umount(place)
        return attached, os.listdir(place)

    assert alone(body, str(tmp_path)) == [True, []]


def test_attach_follows_no_link_at_the_end(alone: Alone, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    def body(directory):
        fd = mounts.tmpfs()
        try:
            mounts.attach(fd, f"{directory}/link")
        except OSError as e:
            return str(e)

    assert "move_mount to" in alone(body, str(tmp_path))


def test_the_classic_calls(alone: Alone, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()

    def body(source, target):
        mounts.mount(source, target, flags=mounts.MS_BIND)
        open(f"{target}/a", "w").close()
        mounts.mount(None, target, flags=mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY)
        try:
            open(f"{target}/b", "w")
        except OSError as e:
            refused = e.strerror
        mounts.umount(target, mounts.MNT_DETACH)
        mounts.mount("none", target, "tmpfs", mounts.MS_NOSUID, "size=64k")
        return refused, os.listdir(source), os.statvfs(target).f_blocks * os.statvfs(target).f_frsize

    result = alone(body, str(tmp_path / "from"), str(tmp_path / "to"))
    assert result == ["Read-only file system", ["a"], 65536]


@needs.layers_one_by_one
@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (
            lambda: mounts.mount("/nowhere", "/neither", flags=mounts.MS_BIND),
            r"mount bind /nowhere on /neither: No such",
        ),
        (lambda: mounts.umount("/etc/passwd"), "umount /etc/passwd: Invalid"),
        (lambda: mounts.FsContext("nosuchfs"), "fsopen nosuchfs: No such device"),
        (lambda: mounts.tmpfs(size="many"), r"tmpfs: size=many \(tmpfs: Bad value for 'size'\): Invalid"),
        (
            lambda: mounts.tmpfs(colour="red"),
            r"tmpfs: colour=red \(tmpfs: Unknown parameter 'colour'\): Inv",
        ),
        (lambda: mounts.erofs("/etc/passwd"), "erofs: mount: "),
        (lambda: mounts.erofs("/nowhere"), "erofs: mount: No such file"),
        (lambda: mounts.overlay(["/nowhere", "/etc"]), r"overlay: lowerdir\+=/nowhere: No such file"),
        (
            lambda: mounts.overlay(["/usr", "/etc"], options=["redirect_dir=maybe"]),
            r"overlay: redirect_dir=maybe \(overlay: Bad value",
        ),
        (lambda: mounts.overlay(["/etc"]), "overlay: mount: Invalid argument"),
        (lambda: mounts.open_tree("/nowhere"), "open_tree /nowhere: No such file"),
        (lambda: mounts.attach(0, "/tmp"), "move_mount to /tmp: "),
        (lambda: mounts.set_attributes(0, mounts.MOUNT_ATTR_RDONLY), "mount_setattr: "),
        (lambda: mounts.pivot_root("/nowhere", "/"), "pivot_root /nowhere: No such file"),
        (lambda: mounts.umount("/tmp\0/x"), "umount /tmp"),
        (lambda: mounts.erofs("/tmp/a\0b"), "null byte in a path"),
    ],
)
def test_a_refusal_says_what_and_why_and_leaves_nothing_open(attempt: Callable[[], object], message: str) -> None:
    before = opened()
    with pytest.raises(OSError, match=message):
        attempt()
    assert opened() == before


def test_attributes(alone: Alone, tmp_path: Path) -> None:
    def body(directory):
        top = mounts.tmpfs()
        mounts.attach(top, directory)
        os.mkdir(f"{directory}/below")
        mounts.mount("none", f"{directory}/below", "tmpfs")

        def read_only(path):
            return bool(os.statvfs(path).f_flag & os.ST_RDONLY)

        found = []
        for recursive in (False, True):
            clone = mounts.open_tree(directory, recursive=True)
            mounts.set_attributes(clone, mounts.MOUNT_ATTR_RDONLY, recursive=recursive)
            found.append([read_only(f"/proc/self/fd/{clone}"), read_only(f"/proc/self/fd/{clone}/below")])
            mounts.set_attributes(clone, 0, mounts.MOUNT_ATTR_RDONLY, recursive=True)
            found.append([read_only(f"/proc/self/fd/{clone}"), read_only(f"/proc/self/fd/{clone}/below")])
        flat = mounts.open_tree(directory)
        open(f"{directory}/below/file", "w").close()
        return found, os.listdir(f"/proc/self/fd/{flat}/below"), os.listdir(f"/proc/self/fd/{clone}/below")

    found, flat, recursive = alone(body, str(tmp_path))
    assert found == [[True, False], [False, False], [True, True], [False, False]]
    assert flat == []
    assert recursive == ["file"]


def test_propagation(alone: Alone, tmp_path: Path) -> None:
    def body(directory):
        fd = mounts.tmpfs()
        mounts.attach(fd, directory)

        def kind():
            fields = next(line.split() for line in open("/proc/self/mountinfo") if line.split()[4] == directory)
            return [field.split(":")[0] for field in fields[6 : fields.index("-")]]

        found = [kind()]
        for propagation in (mounts.MS_SHARED, mounts.MS_SLAVE, mounts.MS_SHARED, mounts.MS_PRIVATE):
            mounts.set_attributes(fd, propagation=propagation)
            found.append(kind())
        return found

    # A slave of a group without other members has no master.
    assert alone(body, str(tmp_path)) == [[], ["shared"], [], ["shared"], []]


def test_pivot_root(alone: Alone, tmp_path: Path) -> None:
    def body(directory):
        mounts.attach(mounts.tmpfs(), directory)
        os.mkdir(f"{directory}/inside")
        os.chdir(directory)
        mounts.pivot_root(".", ".")
        mounts.umount(".", mounts.MNT_DETACH)
        os.chdir("/")
        return os.listdir("/")

    assert alone(body, str(tmp_path)) == ["inside"]


def fill(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_text(content)
    return directory


def read(fd: int, name: str) -> str:
    with open(os.open(name, os.O_RDONLY, dir_fd=fd)) as file:
        return file.read()


@needs.layers_one_by_one
def test_overlay_the_topmost_is_first(tmp_path: Path) -> None:
    top, bottom = fill(tmp_path / "top", a="top"), fill(tmp_path / "bottom", a="bottom", b="bottom")
    upper, work = fill(tmp_path / "upper"), fill(tmp_path / "work")
    before = table()
    fd = mounts.overlay([str(top), str(bottom)], str(upper), str(work), ["volatile", "index=off"])
    try:
        assert table() == before
        assert (read(fd, "a"), read(fd, "b")) == ("top", "bottom")
        os.unlink("a", dir_fd=fd)
        assert (upper / "a").is_char_device()
        assert os.listdir(f"/proc/self/fd/{fd}") == ["b"]
    finally:
        os.close(fd)


@needs.layers_one_by_one
def test_overlay_without_an_upper_is_read_only(tmp_path: Path) -> None:
    fd = mounts.overlay([str(fill(tmp_path / "one", a="1")), str(fill(tmp_path / "two", b="2"))])
    try:
        assert sorted(os.listdir(f"/proc/self/fd/{fd}")) == ["a", "b"]
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("c", dir_fd=fd)
    finally:
        os.close(fd)


def test_overlay_over_descriptors(tmp_path: Path) -> None:
    """Of directories and of detached mounts; a full bind mount of a directory is a detached mount too."""
    if not next(f for f in features.probe(str(tmp_path)) if f.name == "overlay over detached mounts").works:
        pytest.skip("needs overlay over detached mounts (Linux 6.15)")
    directory = os.open(fill(tmp_path / "directory", a="directory"), os.O_PATH)
    detached = mounts.open_tree(str(fill(tmp_path / "tree", a="tree", b="tree")))
    upper, work = (os.open(fill(tmp_path / name), os.O_PATH) for name in ("upper", "work"))
    fd = mounts.overlay([directory, detached], upper, work)
    for layer in (directory, detached, upper, work):
        os.close(layer)
    try:
        assert (read(fd, "a"), read(fd, "b")) == ("directory", "tree")
        os.mkdir("c", dir_fd=fd)
        assert (tmp_path / "upper/c").is_dir()
    finally:
        os.close(fd)


@needs.layers_one_by_one
def test_overlay_where_the_kernel_takes_no_descriptors(alone: Alone, tmp_path: Path) -> None:
    """As before 6.13: fsconfig(FSCONFIG_SET_FD) is refused, here by a system call filter."""
    for name in ("one", "two", "upper", "work"):
        fill(tmp_path / name, **({name: name} if name in ("one", "two") else {}))

    def body(directory):
        from limpet.kernel import seccomp

        condition = {"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}
        rule = {"names": ["fsconfig"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": [condition]}
        seccomp.install(seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
        fds = [os.open(f"{directory}/{name}", os.O_PATH) for name in ("one", "two", "upper", "work")]
        fd = mounts.overlay(fds[:2], fds[2], fds[3])
        os.mkdir("new", dir_fd=fd)
        with mounts.FsContext("overlay") as context:
            try:
                context.set_fd("lowerdir+", fds[0])
            except OSError as e:
                return sorted(os.listdir(f"/proc/self/fd/{fd}")), os.listdir(f"{directory}/upper"), str(e)

    names, upper, refusal = alone(body, str(tmp_path))
    assert names == ["new", "one", "two"]
    assert upper == ["new"]
    assert "lowerdir+ by descriptor" in refusal


@needs.layers_one_by_one
def test_paths_longer_than_fsconfig_takes(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 200) / ("e" * 200) / ("f" * 200)
    for name in ("one", "two", "upper", "work"):
        fill(deep / name, **{name: name} if name in ("one", "two") else {})
    before = opened()
    fd = mounts.overlay([str(deep / "one"), str(deep / "two")], str(deep / "upper"), str(deep / "work"))
    try:
        assert opened() == before + 1
        assert sorted(os.listdir(f"/proc/self/fd/{fd}")) == ["one", "two"]
        os.mkdir("made", dir_fd=fd)
        assert (deep / "upper/made").is_dir()
    finally:
        os.close(fd)


@needs.layers_one_by_one
@pytest.mark.parametrize("length", range(250, 262))
def test_paths_around_the_limit(tmp_path: Path, length: int) -> None:
    base = f"{tmp_path}/"
    path = base + "x" * (length - len(base))
    os.mkdir(path)
    os.close(mounts.overlay([path, "/usr"]))


def test_erofs(tmp_path: Path) -> None:
    if not next(f for f in features.probe(str(tmp_path)) if f.name == "erofs on plain files").works:
        pytest.skip("needs EROFS on plain files (Linux 6.12)")
    for path in (tmp_path / "short", tmp_path / ("d" * 200) / "long"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(features._erofs_image())
        fd = mounts.erofs(str(path))
        try:
            assert os.stat(fd).st_mode == features._EROFS_MODE
            assert os.listdir(f"/proc/self/fd/{fd}") == []
            assert os.statvfs(fd).f_flag & os.ST_RDONLY
        finally:
            os.close(fd)


@needs.layers_one_by_one
def test_a_mount_outlives_the_descriptors_of_its_layers(tmp_path: Path) -> None:
    layers = [mounts.open_tree(str(fill(tmp_path / name, **{name: name}))) for name in ("one", "two")]
    fd = mounts.overlay(layers)
    for layer in layers:
        os.close(layer)
    try:
        assert (read(fd, "one"), read(fd, "two")) == ("one", "two")
    finally:
        os.close(fd)
