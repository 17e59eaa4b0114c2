"""--userns auto: root in the container is nobody on the host, files on disk and in volumes keep their owners."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from limpet.containers.options import Options
from limpet.containers.plan import idrange
from limpet.containers.plan.sharing import check
from limpet.errors import Invalid
from limpet.kernel import features
from limpet.store.store import Store

pytestmark = pytest.mark.slow

AUTO = ("--userns", "auto")


@pytest.fixture(autouse=True, scope="module")
def mappable(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = {each.name: each for each in features.probe(str(tmp_path_factory.mktemp("probe")))}
    if not found["overlay over detached mounts"].works:
        pytest.skip("needs Linux 6.15")


@pytest.fixture(params=["erofs", "dir"])
def either(limpet: Any, busybox: str, request: pytest.FixtureRequest) -> Any:
    limpet.environment["LIMPET_DRIVER"] = request.param
    return limpet


def test_root_is_nobody_on_the_host(either: Any, busybox: str, tmp_path: Path) -> None:
    limpet = either
    limpet("run", "-d", "--name", "own", *AUTO, busybox, "sh", "-c", "touch /made; id -u; sleep 60")
    pid = limpet("inspect", "-f", "{{.State.Pid}}", "own").stdout.strip()
    first = int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])
    assert first >= idrange.FIRST
    assert os.stat(f"/proc/{pid}/root/made").st_uid == first
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{first}\t{first}" in status
    upper = next(Path(limpet.environment["LIMPET_ROOT"]).glob("containers/*/upper/made"))
    assert upper.stat().st_uid == 0  # so that it can be committed, and started with another range
    assert limpet("logs", "own").stdout == "0\n"
    assert limpet("exec", "own", "stat", "-c", "%u", "/made").stdout == "0\n"
    assert limpet("exec", "-u", "33", "own", "id", "-u").stdout == "33\n"
    limpet("commit", "own", "made:1")
    assert limpet("run", "--rm", "made:1", "stat", "-c", "%u", "/made").stdout == "0\n"
    limpet("restart", "-t", "0", "own")
    assert limpet("exec", "own", "stat", "-c", "%u", "/made").stdout == "0\n"


def test_two_have_different_ids(limpet: Any, busybox: str) -> None:
    maps = [limpet("run", "--rm", *AUTO, busybox, "cat", "/proc/self/uid_map").stdout.split() for _ in range(2)]
    assert maps[0][0] == maps[1][0] == "0"
    assert maps[0][1] != maps[1][1]


def test_ranges_that_are_taken_are_passed_over(store: Store) -> None:
    ids = ["00000001" + 56 * "0", "00000001" + 56 * "1"]
    for each in ids:
        Path(store.run_path(each)).mkdir(parents=True)
    claimed = [idrange.claim(store, each) for each in ids]
    assert claimed[1] == claimed[0] + idrange.SIZE
    assert [idrange.claim(store, each) for each in ids] == claimed


def test_files_of_the_host_and_volumes(limpet: Any, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "secret").write_text("root's\n")
    (tmp_path / "shared" / "secret").chmod(0o600)
    script = "cat /b/secret; echo new >/b/new; chown 33:44 /b/new; touch /data/kept; chown 5:5 /data/kept"
    limpet("run", "--rm", *AUTO, "-v", f"{tmp_path}/shared:/b", "-v", "kept:/data", busybox, "sh", "-c", script)
    made = (tmp_path / "shared" / "new").stat()
    assert (made.st_uid, made.st_gid) == (33, 44)
    assert limpet("run", "--rm", "-v", "kept:/data", busybox, "stat", "-c", "%u", "/data/kept").stdout == "5\n"
    assert limpet("run", "--rm", *AUTO, "-v", "kept:/data", busybox, "stat", "-c", "%u", "/data/kept").stdout == "5\n"


def test_copies_both_ways_keep_the_numbers(limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet("run", "-d", "--name", "own", *AUTO, busybox, "sleep", "60")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("x")
    os.chown(tmp_path / "in" / "file", 33, 44)
    limpet("cp", tmp_path / "in", "own:/tmp/in")
    assert limpet("exec", "own", "stat", "-c", "%u:%g", "/tmp/in", "/tmp/in/file").stdout == "0:0\n33:44\n"
    limpet("cp", "own:/tmp/in", tmp_path / "out")
    info = (tmp_path / "out" / "file").stat()
    assert (info.st_uid, info.st_gid) == (33, 44)


def test_what_it_can_not_do(limpet: Any, busybox: str) -> None:
    script = (
        "chown 70000 /tmp; echo 1 >/proc/sys/kernel/printk; mknod /tmp/disk b 7 0; cat /proc/1/environ >/dev/null; :"
    )
    said = limpet("run", "--rm", *AUTO, "--cap-add", "ALL", busybox, "sh", "-c", script).stderr.splitlines()
    assert [line.rpartition(": ")[2] for line in said] == [
        "Invalid argument", "Read-only file system", "Operation not permitted",
    ]  # fmt: skip


def test_devices_limits_and_a_network_of_its_own(limpet: Any, busybox: str) -> None:
    options = ["--device", "/dev/null:/dev/other", "--ulimit", "nofile=50:100", "--oom-score-adj", "100"]
    script = "stat -c %u:%t:%T /dev/other; echo x >/dev/other; ulimit -n; cat /proc/self/oom_score_adj"
    assert limpet("run", "--rm", *AUTO, *options, busybox, "sh", "-c", script).stdout == "0:1:3\n50\n100\n"
    options = ["--network", "none", "--sysctl", "net.ipv4.ip_forward=1", "--read-only"]
    script = "ls /sys/class/net; cat /proc/sys/net/ipv4/ip_forward"
    assert limpet("run", "--rm", *AUTO, *options, busybox, "sh", "-c", script).stdout == "lo\n1\n"


def test_what_does_not_go_together(limpet: Any, busybox: str, tmp_path: Path) -> None:
    for wanted in (
        Options(userns="auto", privileged=True),
        Options(userns="auto", runtime="runc"),
        Options(userns="x"),
    ):
        with pytest.raises(Invalid):
            check(wanted)
    for options in (["-u", "70000"], ["-v", "/proc:/p"]):
        result = limpet("run", "--rm", *AUTO, *options, busybox, "true", check=False)
        assert result.returncode == 125
        assert "--userns host" in result.stderr
