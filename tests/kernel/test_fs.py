"""openat2 keeps hostile paths where they belong; the renames and the sync that `os` lacks."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from limpet.kernel import fs

Alone = Callable[..., Any]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A tree whose links all lead out, next to a file that nobody may read."""
    (tmp_path / "outside").write_text("outside")
    inside = tmp_path / "inside"
    (inside / "etc").mkdir(parents=True)
    (inside / "etc/passwd").write_text("inside")
    (inside / "outside").write_text("inside")
    for name, target in {
        "absolute": "/etc/passwd",
        "up": "../outside",
        "far": "../../../../../../../../etc/passwd",
        "directory": "/etc",
        "real": f"{tmp_path}/outside",
        "loop": "loop",
        "magic": "/proc/self/root",
    }.items():
        (inside / name).symlink_to(target)
    fd = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def content(path: str, root: int, resolve: int) -> str:
    with open(fs.openat2(path, os.O_RDONLY, dirfd=root, resolve=resolve)) as file:
        return file.read()


@pytest.mark.parametrize(
    "path", ["absolute", "up", "far", "directory/passwd", "../outside", "/etc/passwd", "etc/../outside"]
)
def test_in_root_every_path_stays_inside(root: int, path: str) -> None:
    assert content(path, root, fs.RESOLVE_IN_ROOT) == "inside"


@pytest.mark.parametrize("path", ["real", "magic/etc/passwd", "nowhere"])
def test_in_root_what_is_outside_is_not_there(root: int, path: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        content(path, root, fs.RESOLVE_IN_ROOT)
    assert caught.value.filename == path


@pytest.mark.parametrize("path", ["absolute", "up", "far", "directory/passwd", "../outside", "/etc/passwd"])
def test_beneath_refuses_to_leave(root: int, path: str) -> None:
    with pytest.raises(OSError, match="Invalid cross-device link") as caught:
        content(path, root, fs.RESOLVE_BENEATH)
    assert caught.value.errno == errno.EXDEV
    assert content("etc/../etc/passwd", root, fs.RESOLVE_BENEATH) == "inside"


def test_other_rules(root: int) -> None:
    for path, resolve, number in (
        ("directory/passwd", fs.RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ("loop", fs.RESOLVE_IN_ROOT, errno.ELOOP),
        ("/proc/self/exe", fs.RESOLVE_NO_MAGICLINKS, errno.ELOOP),
        ("/proc/version", fs.RESOLVE_NO_XDEV, errno.EXDEV),
        ("etc", 1 << 40, errno.EINVAL),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            fs.openat2(path, os.O_RDONLY, dirfd=root, resolve=resolve)
        assert caught.value.errno == number, path


def test_a_null_byte_is_no_end(root: int) -> None:
    with pytest.raises(OSError, match="null byte"):
        fs.openat2("etc/passwd\0.txt", os.O_RDONLY, dirfd=root)
    with pytest.raises(OSError, match="null byte"):
        fs.openat2(b"etc/passwd\0", os.O_RDONLY, dirfd=root)
    with pytest.raises(OSError, match="null byte"):
        fs.renameat2("outside\0", "new", old_dirfd=root, new_dirfd=root)


def test_files_are_made_with_their_mode_and_close_on_exec(root: int) -> None:
    old = os.umask(0)
    try:
        fd = fs.openat2("new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o6751, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
    finally:
        os.umask(old)
    try:
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o6751
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="Invalid argument"):
        fs.openat2("x", os.O_RDONLY, 0o600, dirfd=root)  # unlike open(2), a mode without O_CREAT is refused


def test_names_that_are_no_text(root: int) -> None:
    os.close(fs.openat2(b"\xff\xfe", os.O_CREAT | os.O_WRONLY, 0o600, dirfd=root))
    os.close(fs.openat2("\udcff\udcfe", os.O_RDONLY, dirfd=root))


def test_renames_elsewhere_do_not_disturb(root: int) -> None:
    """A path with `..` gives EAGAIN whenever anything is renamed meanwhile (openat2(2), ERRORS)."""
    os.mkdir("a", dir_fd=root)
    done = threading.Event()

    def rename() -> None:
        while not done.is_set():
            os.rename("a", "b", src_dir_fd=root, dst_dir_fd=root)
            os.rename("b", "a", src_dir_fd=root, dst_dir_fd=root)

    thread = threading.Thread(target=rename)
    thread.start()
    try:
        for _ in range(3000):
            os.close(fs.openat2("etc/../etc/../outside", os.O_PATH, dirfd=root, resolve=fs.RESOLVE_IN_ROOT))
    finally:
        done.set()
        thread.join()


def test_a_signal_does_not_end_a_waiting_open(alone: Alone, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    def body(path):
        import signal
        import threading

        from limpet.kernel import fs

        came = threading.Event()
        signal.signal(signal.SIGALRM, lambda *_: came.set())
        signal.setitimer(signal.ITIMER_REAL, 0.02)

        def write_end():
            came.wait()
            os.close(os.open(path, os.O_WRONLY))

        thread = threading.Thread(target=write_end)
        thread.start()
        os.close(fs.openat2(path, os.O_RDONLY))
        thread.join()
        return came.is_set()

    assert alone(body, str(tmp_path / "fifo")) is True


def test_renames(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("a")
    b.write_text("b")
    with pytest.raises(FileExistsError) as caught:
        fs.renameat2(str(a), str(b), fs.RENAME_NOREPLACE)
    assert (caught.value.filename, caught.value.filename2) == (str(a), str(b))
    fs.renameat2(str(a), str(b), fs.RENAME_EXCHANGE)
    assert (a.read_text(), b.read_text()) == ("b", "a")
    fs.renameat2(str(a), str(b))
    assert sorted(os.listdir(tmp_path)) == ["b"]
    directory = os.open(tmp_path, os.O_PATH)
    try:
        fs.renameat2("b", "c", fs.RENAME_WHITEOUT, old_dirfd=directory, new_dirfd=directory)
    finally:
        os.close(directory)
    assert os.lstat(b).st_rdev == 0
    assert b.is_char_device()
    assert (tmp_path / "c").read_text() == "b"


def test_syncfs(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    fs.syncfs(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fs.syncfs(fd)
