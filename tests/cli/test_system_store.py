"""system df, prune and check as a user types them."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def sizes(text: str) -> float:
    """The sum of the SIZE column, in bytes, as far as three digits go."""
    units = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    found = re.findall(
        r"^(?:Images|Containers|Local Volumes|Build Cache|Leftovers|Database) +\d+ +\d+ +(\S+)", text, re.M
    )
    assert len(found) == 6
    return sum(float(s.rstrip("kMGB")) * units[s.lstrip("0123456789.")] for s in found)


def test_df_adds_up_to_du(limpet: Any, busybox: str) -> None:
    limpet("create", "-v", "named:/data", "--name", "one", busybox, "true")
    output = limpet("system", "df").stdout
    du = subprocess.run(["du", "-sB1", limpet.root], capture_output=True, text=True, check=True).stdout
    assert abs(sizes(output) - int(du.split()[0])) < 40_000  # three digits of 2.5 MB and of some kB
    assert re.search(r"^Images +1 +1 +2\.\d+MB +0B \(0%\)$", output, re.M)
    assert re.search(r"^Containers +1 +0 ", output, re.M)
    assert re.search(r"^Local Volumes +1 +1 ", output, re.M)
    verbose = limpet("system", "df", "-v").stdout
    for title in ("Images space usage:", "Containers space usage:", "Local Volumes space usage:", "named", "busybox"):
        assert title in verbose
    rows = [json.loads(line) for line in limpet("system", "df", "--format", "json").stdout.splitlines()]
    assert [row["Type"] for row in rows][:4] == ["Images", "Containers", "Local Volumes", "Build Cache"]


def test_prune_shows_before_it_takes_and_takes_just_that(limpet: Any, busybox: str) -> None:
    limpet("create", "-v", "named:/data", "-v", "/anonymous", "--name", "stopped", busybox, "true")
    limpet("run", "-d", "--name", "running", busybox, "sleep", "1000")
    junk: Path = limpet.root / "blobs/sha256/junk"
    junk.write_bytes(bytes(10_000))
    shown = limpet("system", "prune", "-a", "--volumes", input="n\n").stdout
    assert "container stopped (busybox:test)" in shown
    assert str(junk) in shown
    assert "volume " in shown
    assert "named" not in shown
    assert "running" not in shown
    assert "image busybox" not in shown
    assert re.search(r"freeing [\d.]+kB\.\nAre you sure you want to continue\? \[y/N\]", shown)
    assert limpet("ps", "-aq").stdout.count("\n") == 2
    taken = limpet("system", "prune", "-af", "--volumes").stdout
    assert "deleted container: " in taken
    assert "deleted volume: " in taken
    assert f"deleted leftover: {junk}" in taken
    assert limpet("ps", "-a", "--format", "{{.Names}}").stdout == "running\n"
    assert limpet("volume", "ls", "-q").stdout == "named\n"
    assert limpet("images", "-q").stdout
    limpet("rm", "-f", "running")
    assert "untagged: busybox:test" in limpet("system", "prune", "-af").stdout
    assert limpet("system", "prune").stdout == "Total reclaimed space: 0B\n"


def test_prune_of_one_kind(limpet: Any, busybox: str) -> None:
    limpet("create", "--name", "stopped", busybox, "true")
    limpet("system", "prune", "-f", "images", "garbage")
    assert limpet("ps", "-aq").stdout
    result = limpet("system", "prune", "-f", "everything", check=False)
    assert (result.returncode, result.stderr.splitlines()[0]) == (1, "limpet: unknown kind 'everything'")


def test_check(limpet: Any, busybox: str) -> None:
    assert limpet("system", "check").stdout == "nothing is wrong\n"
    junk: Path = limpet.root / "layers/junk"
    junk.mkdir()
    result = limpet("system", "check")
    assert result.stdout == f"garbage: {junk}: a layer that no row names: `limpet system prune` takes it\n"
    limpet("system", "prune", "-f")
    image_id = limpet("images", "-q", "--no-trunc").stdout.strip()
    blob: Path = limpet.root / "blobs" / image_id.replace(":", "/")
    blob.unlink()
    result = limpet("system", "check", check=False)
    assert (result.stdout, result.returncode) == (f"damaged: blob {image_id}: the file is missing\n", 1)
    result = limpet("system", "check", "--repair")
    assert "(repaired: written again from the image's row)" in result.stdout
    assert limpet("system", "check").stdout == "nothing is wrong\n"


def test_a_database_that_is_none(limpet: Any, busybox: str) -> None:
    for name in ("state.db-wal", "state.db-shm"):
        (limpet.root / name).unlink(missing_ok=True)
    (limpet.root / "state.db").write_bytes(b"no database at all" * 100)
    result = limpet("system", "check", check=False)
    assert result.returncode == 1
    assert "state.db" in result.stderr
    assert "Traceback" not in result.stderr


def test_df_has_a_part_for_each_byte(limpet: Any, busybox: str, tmp_path: Path) -> None:
    """Real content of each kind: two images that share a layer, a running container with a log, a snapshot, volumes, a
    build with a cache mount, a download that was cut off, and rubbish. Their sum is du's, to the byte."""
    limpet(
        "run",
        "-d",
        "--name",
        "web",
        "-v",
        "data:/d",
        busybox,
        "sh",
        "-c",
        "head -c 300000 /dev/urandom >/f; cp /f /d; yes | head -c 20000; sleep 60",
    )
    limpet("run", "--name", "done", busybox, "sh", "-c", "head -c 50000 /dev/urandom >/g")
    limpet("commit", "done", "second:1")
    limpet("snapshot", "done")
    limpet("volume", "snapshot", "data")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {busybox} AS one\nRUN head -c 70000 /dev/urandom >/made\n"
        "RUN --mount=type=cache,target=/c head -c 60000 /dev/urandom >/c/f\n"
        f"FROM {busybox}\nCOPY --from=one /made /other\n"
    )
    limpet("build", "-t", "built:1", tmp_path)
    root: Path = limpet.root
    (root / "partial").mkdir(exist_ok=True)
    (root / "partial" / f"sha256-{'0' * 64}").write_bytes(bytes(40_000))
    (root / "blobs/sha256/junk").write_bytes(bytes(10_000))
    while limpet("logs", "web").stdout.count("\n") < 10_000:
        pass

    def look() -> tuple[int, int, dict[str, int]]:
        found = json.loads(limpet("system", "df", "-v", "--format", "json").stdout)["Parts"]
        du = subprocess.run(["du", "-sxB1", root], capture_output=True, text=True, check=True).stdout
        sizes = {part["What"]: part["Bytes"] for part in found}
        return int(du.split()[0]), sizes.pop("total"), sizes

    limpet("pause", "web")
    du, total, sizes = look()
    assert du == total == sum(sizes.values())
    for what, least in (
        ("images, layers and manifests of one each", 50_000),
        ("images, what several share", 2_000_000),
        ("build cache, layers of steps", 70_000),
        ("containers, what they wrote", 350_000),
        ("containers, logs", 200_000),
        ("containers, snapshots", 50_000),
        ("volumes", 300_000),
        ("volumes, snapshots", 300_000),
        ("build cache, mounts and what was fetched", 60_000),
        ("downloads that were cut off", 40_000),
        ("database", 1_000_000),
        ("leftovers that no row names", 10_000),
    ):
        assert least <= sizes[what] < least + 3_000_000, f"{what}: {sizes[what]}"
    shown = limpet("system", "df", "-v").stdout
    for word in ("Build cache usage:", "SNAPSHOTS", "FREED BY", "total", "volume snapshot --rm"):
        assert word in shown
    limpet("unpause", "web")
    limpet("rm", "-f", "web", "done")
    limpet("volume", "rm", "data")
    limpet("cache", "prune", "-af")
    limpet("system", "prune", "-af")
    du, total, sizes = look()
    assert du == total == sum(sizes.values())
    kept = {"database", "directories, locks, records", "log of events", "downloads that were cut off", "logs of builds"}
    assert {what for what, size in sizes.items() if size > 8192} <= kept  # an empty room is a block or two
