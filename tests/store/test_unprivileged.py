"""Where a user's store is, and the ranges of ids that a file gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from limpet.errors import LimpetError, Refused
from limpet.store import unprivileged


def test_ranges_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text(
        "other:1:2\nme:100000:65536\n\n# me:7:7\n1234:300000:10\nme:x:1\nme:1:0\nme:4294967290:65536\nme:5\n"
    )
    assert unprivileged.ranges(str(tmp_path / "subuid"), 1234, ("me",)) == [(100000, 65536), (300000, 10)]
    assert unprivileged.ranges(str(tmp_path / "subuid"), 9) == []
    assert unprivileged.ranges(str(tmp_path / "nosuch"), 1234, ("me",)) == []


def test_places_are_those_of_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIMPET_ROOT", "LIMPET_RUN", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert unprivileged.places("", "") == (f"{tmp_path}/home/.local/share/limpet", f"{tmp_path}/limpet")
    assert (tmp_path / "home/.local/share").stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # "should be ignored"
    assert unprivileged.places("", "")[0] == f"{tmp_path}/home/.local/share/limpet"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert unprivileged.places("", "")[0] == f"{tmp_path}/data/limpet"
    assert unprivileged.places(str(tmp_path / "there"), "") == (f"{tmp_path}/there", f"{tmp_path}/there/run")
    monkeypatch.setenv("LIMPET_ROOT", str(tmp_path / "else"))
    assert unprivileged.places("", str(tmp_path / "run")) == (f"{tmp_path}/else", f"{tmp_path}/run")


def test_a_home_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LIMPET_ROOT", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "nowhere")
    with pytest.raises(LimpetError, match="HOME is not set"):
        unprivileged.places("", "")
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(LimpetError, match="Not a directory"):
        unprivileged.places("", "")


def test_somebody_elses_directory_is_not_taken_for_a_run_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """/tmp is everybody's: the name may be there already."""
    uid = 3_000_000_000 - os.getpid()
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    place = Path(f"/tmp/limpet-user-{uid}")
    place.mkdir(mode=0o700)  # root's
    try:
        with pytest.raises(Refused, match="not a directory of yours alone"):
            unprivileged._runtime_directory(uid)
    finally:
        place.rmdir()


def test_a_store_of_roots_is_none_of_a_users(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    with pytest.raises(Refused, match="is not a store of a user without root"):
        unprivileged._kind(str(tmp_path), 1, make=True)
    (tmp_path / "ids").write_text("many\n")
    with pytest.raises(LimpetError, match="'many' is not known"):
        unprivileged._kind(str(tmp_path), 1, make=True)
