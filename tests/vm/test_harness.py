"""The harness itself, without a guest: what is in its initrd, what becomes of reports, when a guest is made anew."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.vm import guest, initrd, machine, run
from tests.vm.recipe import GUESTS


def test_the_initrd_has_what_a_module_needs_before_it(tmp_path: Path) -> None:
    modules = tmp_path / "usr/lib/modules/6.1"
    (modules / "fs").mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir()
    (tmp_path / "usr/bin/busybox").write_bytes(b"a program")
    for name in ("top", "middle", "deep", "other"):
        (modules / f"fs/{name}.ko").write_text(name)
    (modules / "modules.dep").write_text(
        "fs/top.ko: fs/middle.ko fs/deep.ko\nfs/middle.ko: fs/deep.ko\nfs/deep.ko:\nfs/other.ko:\n"
    )
    (modules / "modules.builtin").write_text("kernel/in-there.ko\n")
    archive = gzip.decompress(initrd.build(tmp_path, "6.1", ["in_there", "top"]))
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["busybox", "cpio", "-id"], input=archive, cwd=out, check=True, capture_output=True)
    assert (out / "modules/order").read_text().split() == ["deep.ko", "middle.ko", "top.ko"]
    assert (out / "modules/middle.ko").read_text() == "middle"
    assert sorted(os.listdir(out)) == ["bin", "dev", "init", "modules", "proc", "root"]
    assert os.access(out / "init", os.X_OK)
    with pytest.raises(KeyError, match="absent"):
        initrd.build(tmp_path, "6.1", ["absent"])


def test_reports_are_merged_and_a_broken_one_counts() -> None:
    suites = ElementTree.Element("testsuites")
    good = (
        b'<testsuites><testsuite name="pytest" tests="2" errors="0" failures="1" skipped="0"><testcase classname="a.b"'
    )
    good += b' name="one"/><testcase classname="a.b" name="two"><failure/></testcase></testsuite></testsuites>'
    run.merge(suites, "trixie", [good, good[:60], None])
    assert [case.get("classname") for case in suites.iter("testcase")] == ["trixie.a.b", "trixie.a.b", "trixie"]
    counts = [(suite.get("tests"), suite.get("failures", "0"), suite.get("errors")) for suite in suites]
    assert counts == [("2", "1", "0"), ("1", "0", "1")]


def test_what_is_said_of_a_guest_that_did_not_get_to_its_end() -> None:
    console = "\n".join(f"line {n}" for n in range(100))
    hung = machine.Outcome(codes=[0], console=console, hung=True, seconds=61).problem(1)
    assert hung.startswith("the guest was ended by its time limit, after 61 s")
    assert hung.endswith("line 98\nline 99")
    assert "line 70" not in hung
    assert machine.Outcome(codes=[0], console=console).problem(2).startswith("the guest ended before its stages did")
    assert machine.Outcome(codes=[1, 0], console=console).problem(2) == ""


def test_an_unknown_guest_is_named_with_those_that_there_are() -> None:
    command = [sys.executable, "-m", "tests.vm.run", "sid"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=machine.ROOT)
    assert result.returncode == 2
    assert result.stderr.endswith("sid: there is no such guest; there are: trixie, bookworm\n")


def test_old_guests_go_unless_somebody_uses_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMPET_VM_CACHE", str(tmp_path))
    trixie = GUESTS["trixie"]
    digests = [trixie.digest()[:12], "half.new", "recent", "old", "used"]
    for name in digests:
        (tmp_path / f"trixie-{name}").mkdir()
        if name != "half.new":
            (tmp_path / f"trixie-{name}/used").touch()
        if name in ("old", "used"):
            os.utime(tmp_path / f"trixie-{name}/used", (0, time.time() - 30 * 86400))
    holding = subprocess.Popen(["flock", "-s", tmp_path / "trixie-used/used", "cat"], stdin=subprocess.PIPE)
    try:
        while subprocess.run(["flock", "-n", tmp_path / "trixie-used/used", "true"]).returncode == 0:
            pass  # it has not got its lock yet
        guest.prune(trixie)
        with guest.made(trixie) as made:  # in the cache: it is not made again
            assert made.disk.parent == tmp_path / f"trixie-{digests[0]}"
            assert subprocess.run(["flock", "-n", made.disk.parent / "used", "true"]).returncode == 1
        assert guest.cached(trixie)
    finally:
        holding.communicate()
    left = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert left == sorted(f"trixie-{name}" for name in (digests[0], "recent", "used"))
