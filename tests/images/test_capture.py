"""A capture holds what is needed to run what it holds, and the same files give the same image."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING, ClassVar

import pytest
from tests import needs

from limpet.errors import Invalid, NotFound
from limpet.images import capture, catalog
from limpet.images.selection import Selection
from limpet.kernel import mounts
from limpet.layers.driver import driver
from limpet.progress import Progress
from limpet.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from limpet.images.catalog import Image


def run_in(store: Store, image: Image, place: Path, *command: str) -> subprocess.CompletedProcess[str]:
    fd = driver(store).mount(catalog.layers(store, image.id))
    place.mkdir(exist_ok=True)
    mounts.attach(fd, str(place))
    os.close(fd)
    try:
        environment = dict(text.split("=", 1) for text in image.config["config"]["Env"])
        return subprocess.run(["chroot", place, *command], capture_output=True, text=True, env=environment)
    finally:
        mounts.umount(str(place))


def names_in(store: Store, image: Image) -> dict[str, tarfile.TarInfo]:
    (layer,) = catalog.layers(store, image.id)
    with driver(store).open_tar(layer) as file, tarfile.open(fileobj=file) as tar:
        return {member.name: member for member in tar}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Image]]:
    store = Store(str(tmp_path_factory.mktemp("captured") / "store"))
    return store, capture.capture(store, "limpet/host")


def test_python_works_in_it(whole: tuple[Store, Image], tmp_path: Path) -> None:
    code = (
        "import ssl, sqlite3, http.server, json, ctypes, lzma, bz2, zlib, hashlib, threading, subprocess\n"
        "assert sqlite3.connect(':memory:').execute('select 6*7').fetchone() == (42,)\n"
        "ssl.create_default_context(); ctypes.CDLL(None).getpid()\n"
        "thread = threading.Thread(target=print, args=('thread',)); thread.start(); thread.join()\n"
        "print(subprocess.run(['sh', '-c', 'echo $0 child'], capture_output=True, text=True).stdout.strip())"
    )
    result = run_in(*whole, tmp_path / "root", "python3", "-c", code)
    assert (result.stdout, result.stderr, result.returncode) == ("thread\nsh child\n", "", 0)


def test_the_shell_and_common_commands_work_in_it(whole: tuple[Store, Image], tmp_path: Path) -> None:
    # /dev is empty and the root read-only here: what needs them is left to a container
    result = run_in(
        *whole, tmp_path / "root", "/bin/sh", "-c", "echo a b | awk '{print $2}' | sed s/b/c/; id -un; ls /"
    )
    assert result.stdout.startswith("c\nroot\nbin\n")
    assert result.returncode == 0, result.stderr


def test_every_program_finds_its_libraries(whole: tuple[Store, Image], tmp_path: Path) -> None:
    loader = next((m.name for m in names_in(*whole).values() if "/ld-linux" in m.name), "")
    script = f"""
        for f in /usr/bin/*; do
            /{loader} --verify "$f" 2>&1 || continue
            /{loader} --list "$f" 2>&1 || echo BAD
        done"""
    result = run_in(*whole, tmp_path / "root", "/bin/sh", "-c", script)
    assert "not found" not in result.stdout + result.stderr
    assert "libc.so.6" in result.stdout
    assert "BAD" not in result.stdout


@needs.real_time
def test_it_is_small_and_quick(whole: tuple[Store, Image], store: Store) -> None:
    (size,) = whole[0].db.row("SELECT sum(size) FROM layer")
    assert size < 60_000_000
    start = time.monotonic()
    capture.capture(store, "again")
    assert time.monotonic() - start < 5  # 0.4 s on a quiet machine


def test_what_is_not_wanted_is_not_in_it(whole: tuple[Store, Image]) -> None:
    names = names_in(*whole)
    for name, member in names.items():
        parts = name.split("/")
        assert not {"__pycache__", "idlelib", "tkinter", "site-packages", "dist-packages"} & set(parts), name
        assert "test" not in parts or name.endswith("/bin/test"), name
        assert (member.uid, member.gid, member.mtime, member.uname) == (0, 0, 0, ""), name
    assert {"etc/passwd", "etc/group", "tmp", "proc", "dev", "sys", "run", "root"} <= names.keys()
    assert names["tmp"].mode == 0o1777
    assert os.path.islink("/bin") == names["bin"].issym()


def test_the_same_files_give_the_same_image(whole: tuple[Store, Image], store: Store, tmp_path: Path) -> None:
    assert capture.capture(store, "other").id == whole[1].id
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho hi\n")
    tool.chmod(0o755)
    first = capture.capture(store, "a", [str(tool)])
    os.utime(tool, (1, 1))
    assert capture.capture(store, "b", [str(tool)]).id == first.id
    tool.write_text("#!/bin/sh\necho ho\n")
    assert capture.capture(store, "c", [str(tool)]).id != first.id


def test_source_date_epoch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    image = capture.capture(store, "a", ["true"])
    assert image.config["created"] == "2001-09-09T01:46:40Z"
    assert {member.mtime for member in names_in(store, image).values()} == {1_000_000_000}


def test_given_paths_come_with_what_they_need(store: Store, tmp_path: Path) -> None:
    (tmp_path / "app/data").mkdir(parents=True)
    (tmp_path / "app/data/file").write_text("content")
    (tmp_path / "app/run").write_text("#!/usr/bin/env sed -f\ns/a/b/\n")
    (tmp_path / "app/run").chmod(0o755)
    (tmp_path / "link").symlink_to("app/data")
    image = capture.capture(store, "mine", [str(tmp_path / "app"), str(tmp_path / "link"), "sort"])
    names = names_in(store, image)
    inside = str(tmp_path).lstrip("/")
    assert names[f"{inside}/link"].linkname == "app/data"
    assert {f"{inside}/app/data/file", "usr/bin/sort", "usr/bin/sed", "usr/bin/env"} <= names.keys()
    assert not any("python3" in name for name in names)
    result = run_in(store, image, tmp_path / "root", "sh", "-c", f"read x < {tmp_path}/link/file; echo $x | sort")
    assert result.stdout == "content\n", result.stderr
    result = run_in(store, image, tmp_path / "root", "sh", "-c", "echo hello | sed s/h/j/")
    assert result.stdout == "jello\n", result.stderr


@pytest.mark.parametrize("how", ["itself", "of a script"])
def test_a_python_comes_with_its_standard_library(store: Store, tmp_path: Path, how: str) -> None:
    if not capture._library_of("/usr/bin/python3"):
        pytest.skip("needs the distribution's Python, whole")
    path = tmp_path / "script"
    path.write_text("#!/usr/bin/python3\nimport json, ssl, sqlite3; print(json.dumps([1]))\n")
    path.chmod(0o755)
    image = capture.capture(store, "mine", ["/usr/bin/python3" if how == "itself" else str(path)])
    command = ["/usr/bin/python3", "-c", "import json, ssl; print([1])"] if how == "itself" else [str(path)]
    result = run_in(store, image, tmp_path / "root", *command)
    assert (result.stdout, result.stderr) == ("[1]\n", "")
    assert not any("site-packages" in name or "__pycache__" in name for name in names_in(store, image))


def test_a_python_without_a_library_is_said(store: Store, tmp_path: Path) -> None:
    class Notes(Progress):
        lines: ClassVar[list[str]] = []

        def note(self, line: str) -> None:
            self.lines.append(line)

    (tmp_path / "bin").mkdir()
    shutil.copy("/bin/true", tmp_path / "bin/python3.99")
    capture.capture(store, "mine", [str(tmp_path / "bin/python3.99")], Notes())
    assert Notes.lines == [f"{tmp_path}/bin/python3.99: its standard library is not beside it and is left out"]


def test_a_python_elsewhere_is_linked_to_where_it_is_found(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.base_prefix == "/usr":
        pytest.skip("needs a Python that is not the distribution's (pyenv's, say) to run the tests")
    real = capture._library_of
    monkeypatch.setattr(capture, "_library_of", lambda path, *_: "" if path.startswith("/usr/bin/") else real(path))
    image = capture.capture(store, "elsewhere")
    names = names_in(store, image)
    assert names["usr/local/bin/python3"].linkname.startswith(sys.base_prefix)
    code = "import ssl, sqlite3, http.server, json, ctypes, sys; print(sys.prefix)"
    result = run_in(store, image, tmp_path / "root", "python3", "-c", code)
    assert (result.stdout, result.stderr) == (f"{sys.base_prefix}\n", "")


def test_what_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"/nonexistent/tool: no such file"):
        capture.capture(store, "a", ["/nonexistent/tool"])
    with pytest.raises(Invalid, match="neither a file"):
        capture.capture(store, "a", ["/dev/null"])
    with pytest.raises(Invalid):
        capture.capture(store, "UPPER", [])
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Invalid, match="too many levels"):
        capture.capture(store, "a", [str(tmp_path / "loop")])
    assert os.listdir(f"{store.root}/tmp") == os.listdir(f"{store.root}/layers") == []


def test_links_on_the_way_are_kept(tmp_path: Path) -> None:
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "real/deep/file").write_text("x")
    (tmp_path / "alias").symlink_to("real")
    (tmp_path / "real/up").symlink_to("../alias/deep")
    chosen = Selection()
    assert chosen.add(str(tmp_path / "alias/up/file")) == str(tmp_path / "real/deep/file")
    kinds = {path.removeprefix(str(tmp_path)): entry.kind for path, entry in chosen.entries.items()}
    assert {"/alias": "link", "/real": "dir", "/real/up": "link", "/real/deep/file": "file"}.items() <= kinds.items()


def test_the_config_says_how_it_came_about(store: Store) -> None:
    image = capture.capture(store, "a", ["true"])
    assert image.config["history"][0]["created_by"] == "limpet capture true"
    assert image.config["config"]["Cmd"] == ["/bin/sh"]
    assert json.dumps(image.config).find(os.uname().nodename) < 0
