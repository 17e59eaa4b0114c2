"""Compiled Python files stay valid in a layer whose times are set back, and are the same each time."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from limpet.layers.diff import write_tar

NOW = 1_700_000_000


def upper(path: Path, time: int) -> Path:
    for name in ("pkg/mod.py", "flat.py", "checked.py", "other.py"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(f"value = {name!r}\n")
        os.utime(path / name, (time, time))
    compiled = {"dfile": "/x.py", "doraise": True}
    py_compile.compile(str(path / "pkg/mod.py"), **compiled)  # type: ignore[arg-type]
    py_compile.compile(str(path / "pkg/mod.py"), optimize=1, **compiled)  # type: ignore[arg-type]
    py_compile.compile(str(path / "flat.py"), cfile=str(path / "flat.pyc"), **compiled)  # type: ignore[arg-type]
    hashed = py_compile.PycInvalidationMode.CHECKED_HASH
    py_compile.compile(str(path / "checked.py"), invalidation_mode=hashed, **compiled)  # type: ignore[arg-type]
    py_compile.compile(str(path / "other.py"), cfile=str(path / "lower.pyc"), **compiled)  # type: ignore[arg-type]
    (path / "short.pyc").write_bytes(b"\xa7\r\r\n")
    (path / "link.pyc").symlink_to("flat.pyc")
    return path


def layer(path: Path, epoch: int | None) -> bytes:
    written: list[bytes] = []
    write_tar(str(path), written.append, max_mtime=epoch)
    return b"".join(written)


@pytest.mark.parametrize("epoch", [0, NOW - 5])
def test_they_fit_their_sources(tmp_path: Path, epoch: int) -> None:
    (tmp_path / "layer.tar").write_bytes(layer(upper(tmp_path / "upper", NOW), epoch))
    root = tmp_path / "root"
    with tarfile.open(tmp_path / "layer.tar") as tar:
        tar.extraction_filter = tarfile.fully_trusted_filter if hasattr(tarfile, "data_filter") else None
        tar.extractall(root)
    script = f"import sys; sys.path = [{str(root / 'pkg')!r}]; import mod"
    for options in ([], ["-O"]):
        told = subprocess.run(
            [sys.executable, "-I", "-B", "-v", *options, "-c", script],
            capture_output=True, text=True, check=True,
        ).stderr  # fmt: skip
        assert f"matches {root}/pkg/mod.py" in told
        assert "stale" not in told
    # What has no time of a source, or whose source is not here, stays as it is.
    for name in ("lower.pyc", "short.pyc"):
        assert (root / name).read_bytes() == (tmp_path / "upper" / name).read_bytes()
    (checked,) = (root / "__pycache__").glob("checked.*")
    assert checked.read_bytes() == (tmp_path / "upper/__pycache__" / checked.name).read_bytes()
    assert (root / "flat.pyc").read_bytes()[8:12] == epoch.to_bytes(4, "little")
    assert (root / "flat.pyc").read_bytes()[12:] == (tmp_path / "upper/flat.pyc").read_bytes()[12:]


def test_the_same_bytes_at_another_time(tmp_path: Path) -> None:
    one, two = upper(tmp_path / "one", NOW), upper(tmp_path / "two", NOW + 100)
    for path in (one, two):  # the time of a source that is not here is what it was
        (path / "lower.pyc").unlink()
    assert layer(one, 0) == layer(two, 0)
    assert layer(one, None) != layer(two, None)


def test_one_that_was_stale_before_stays_so(tmp_path: Path) -> None:
    path = upper(tmp_path / "upper", NOW)
    os.utime(path / "flat.py", (NOW + 1, NOW + 1))
    before = (path / "flat.pyc").read_bytes()
    assert before in layer(path, 0)
