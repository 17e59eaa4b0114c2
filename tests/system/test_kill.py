"""A SIGKILL at every step leaves the old or the new state, and garbage at most.

Each command is first traced for the fault points that it passes (`limpet.store.faults`), then killed at every one of
them, each time with a fresh copy of the same store. Afterwards `system check` may find garbage and nothing else, the
command done again succeeds, and prune leaves a store with which nothing is wrong. `test_killed_at_system_calls` does
the same at a sample of the system calls that change files, counted by strace, without the product's help.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from limpet.containers import recovery
from limpet.images import catalog, check, collect
from limpet.oci import reference
from limpet.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Case:
    """`prepare` makes the store to begin with, `command` is killed, `again` (if not itself) is its repetition."""

    command: list[str]
    prepare: tuple[list[str], ...] = ()
    again: list[str] | None = None
    expected: str = ""  # the images there must be in the end, by `images --format`


BUSYBOX = ["import", "{tar}", "busybox:test"]
TAG = ["tag", "busybox:test", "other:1"]

CASES: dict[str, Case] = {
    "import": Case(BUSYBOX, expected="busybox:test"),
    "capture": Case(["capture", "-q", "captured:1", "true"], expected="captured:1"),
    "tag": Case(TAG, prepare=(BUSYBOX,), expected="busybox:test other:1"),
    "rmi": Case(["rmi", "-f", "busybox:test"], prepare=(BUSYBOX,)),
    "rmi of one of two": Case(["rmi", "-f", "other:1"], prepare=(BUSYBOX, TAG), expected="busybox:test"),
    "image prune": Case(["image", "prune", "-af"], prepare=(BUSYBOX, ["capture", "-q", "captured:1", "true"])),
    "system prune": Case(
        ["system", "prune", "-af"],
        prepare=(BUSYBOX, ["create", "--name", "one", "busybox:test", "true"]),
    ),
    "create": Case(
        ["create", "--name", "one", "busybox:test", "true"],
        prepare=(BUSYBOX,),
        again=["create", "--name", "two", "busybox:test", "true"],
        expected="busybox:test",
    ),
    "rm": Case(
        ["rm", "-fv", "one"],
        prepare=(BUSYBOX, ["create", "--name", "one", "-v", "/data", "busybox:test", "true"]),
        expected="busybox:test",
    ),
    "run": Case(
        ["run", "--name", "one", "busybox:test", "true"],
        prepare=(BUSYBOX,),
        again=["run", "--name", "two", "busybox:test", "true"],
        expected="busybox:test",
    ),
    "run --rm": Case(
        ["run", "--rm", "--name", "one", "-v", "/data", "busybox:test", "true"],
        prepare=(BUSYBOX,),
        again=["run", "--rm", "--name", "two", "-v", "/data", "busybox:test", "true"],
        expected="busybox:test",
    ),
    "commit": Case(
        ["commit", "one", "made:1"],
        prepare=(BUSYBOX, ["run", "--name", "one", "busybox:test", "touch", "/new"]),
        expected="busybox:test made:1",
    ),
    "build": Case(
        ["build", "-q", "-t", "made:1", "{context}"],
        prepare=(BUSYBOX,),
        expected="busybox:test made:1",
    ),
    "load": Case(["load", "-q", "-i", "{archive}"], expected="busybox:test"),
    "pull": Case(["pull", "-q", "{registry}/busybox:test"], expected="{registry}/busybox:test"),
}


class Bench:
    """One prepared store; `fresh()` puts a copy of it in the place where `limpet` looks."""

    def __init__(self, limpet: Any, case: Case, words: dict[str, str], tmp_path: Path) -> None:
        self.limpet = limpet
        self.case = case
        self.words = words
        self.prepared = tmp_path / "prepared"
        limpet.environment["SOURCE_DATE_EPOCH"] = "1000000000"  # what is made again is the same again
        for command in case.prepare:
            limpet(*self.fill(command))
        self.root: Path = limpet.root
        with closing(self.store()) as store:
            assert store.db  # there is one, whatever the case needs
        shutil.copytree(self.root, self.prepared, symlinks=True, ignore=shutil.ignore_patterns("run"))

    def fill(self, command: list[str]) -> list[str]:
        return [word.format(**self.words) for word in command]

    def fresh(self) -> None:
        self.end_containers()
        shutil.rmtree(self.root)
        subprocess.run(["cp", "-a", "--sparse=always", self.prepared, self.root], check=True)

    def end_containers(self) -> None:
        if self.ids():
            self.limpet("rm", "-fv", *self.ids())

    def ids(self) -> list[str]:
        with closing(self.store()) as store:
            return [container_id for (container_id,) in store.db.rows("SELECT id FROM container")]

    def store(self) -> Store:
        """In this process: asking the command line each time would double the time of all this."""
        return Store(str(self.root), f"{self.root}/run")

    def settle(self) -> None:
        """Until every container that a killed client left behind has come to its end."""
        if self.ids():
            for container in self.limpet("ps", "-q").stdout.split():
                self.limpet("wait", container, check=False)

    def afterwards(self, where: str, *, prune_first: bool) -> None:
        self.settle()
        with closing(self.store()) as store:
            damage = [finding for finding in check.check(store) if not finding.garbage]
        assert damage == [], f"killed at {where}"
        if prune_first:
            self.prune(where)
        again = self.limpet(*self.fill(self.case.again or self.case.command), check=False)
        assert again.returncode == 0, f"killed at {where}, then again: {again.stdout}{again.stderr}"
        self.settle()
        self.prune(where)
        with closing(self.store()) as store:
            names = [name or "none" for image in catalog.all_images(store) for name in image.names or [""]]
        found = sorted(reference.parse(name).familiar for name in names)
        assert found == sorted(self.fill([self.case.expected])[0].split()), f"killed at {where}"

    def prune(self, where: str) -> None:
        with closing(self.store()) as store:
            assert not collect.sweep(store).waiting
            recovery.collect_groups(store)
            assert check.check(store) == [], f"killed at {where}"


@pytest.fixture
def words(busybox_tar: Path, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    found = {"tar": str(busybox_tar)}
    if "build" in request.node.name:
        found["context"] = str(tmp_path / "context")
        (tmp_path / "context").mkdir()
        (tmp_path / "context/file").write_text("content\n")
        (tmp_path / "context/Dockerfile").write_text(
            "FROM busybox:test AS one\nRUN echo 1 >/1\nFROM busybox:test AS two\nRUN echo 2 >/2; mkdir /d; rm -r /tmp\n"
            "FROM one\nCOPY --link file /\nCOPY --from=two /2 /\n"
            "RUN --mount=type=cache,target=/c touch /c/x; cat /2 >/3\n"
        )
    if "load" in request.node.name or "pull" in request.node.name:
        found["archive"] = str(request.getfixturevalue("archive"))
    if "pull" in request.node.name:
        found["registry"] = request.getfixturevalue("registry_with_busybox")
    return found


@pytest.fixture
def archive(limpet: Any, busybox_tar: Path, tmp_path: Path) -> Path:
    """`busybox:test` as an archive, made in a store of its own."""
    limpet("--root", tmp_path / "other", "import", busybox_tar, "busybox:test")
    limpet("--root", tmp_path / "other", "save", "-o", tmp_path / "archive.tar", "busybox:test")
    return tmp_path / "archive.tar"


@pytest.fixture
def registry_with_busybox(archive: Path, tmp_path: Path) -> Iterator[str]:
    """`127.0.0.1:PORT` of a registry that has busybox:test."""
    if not (shutil.which("docker-registry") and shutil.which("skopeo")):
        pytest.skip("needs docker-registry and skopeo")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\n"
        f"http: {{addr: '{address}'}}\n"
    )
    with subprocess.Popen(["docker-registry", "serve", config], stderr=subprocess.DEVNULL) as process:
        try:
            copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", "--retry-times=10"]
            source = f"docker-archive:{archive}:busybox:test"
            subprocess.run([*copy, source, f"docker://{address}/busybox:test"], check=True, capture_output=True)
            yield address
        finally:
            process.kill()


@pytest.fixture
def bench(limpet: Any, words: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(limpet, request.param, words, tmp_path)


every_case = pytest.mark.parametrize("bench", list(CASES.values()), ids=list(CASES), indirect=True)


@pytest.mark.slow
@every_case
def test_killed_at_every_fault_point(bench: Bench, tmp_path: Path) -> None:
    environment = bench.limpet.environment
    command = bench.fill(bench.case.command)
    traced = tmp_path / "trace"
    environment["LIMPET_FAULT"] = f"trace:{traced}"
    bench.limpet(*command)
    del environment["LIMPET_FAULT"]
    bench.settle()
    points = traced.read_text().split()
    assert points, "the command passes no fault point"
    killed = 0
    for number, point in enumerate(points, 1):
        bench.fresh()
        environment["LIMPET_FAULT"] = f"kill:{number}"
        result = bench.limpet(*command, check=False)
        del environment["LIMPET_FAULT"]
        killed += result.returncode != 0
        bench.afterwards(f"point {number} ({point})", prune_first=number % 2 == 0)
    assert killed, "nothing was killed"


SAMPLES = int(os.environ.get("LIMPET_KILL_SAMPLES", "12"))  # of some hundred system calls
SYSTEM_CALLS = (
    "openat,rename,renameat,renameat2,unlink,unlinkat,fsync,fdatasync,mkdir,mkdirat,rmdir,pwrite64,write,ftruncate"
)


@pytest.mark.slow
@every_case
def test_killed_at_system_calls(bench: Bench, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    command = [*bench.limpet.command, *bench.fill(bench.case.command)]
    log = tmp_path / "strace"

    def traced(*more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [strace, "-f", "-qq", "-o", log, "-e", f"trace={SYSTEM_CALLS}", *more, *command],
            env=bench.limpet.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
        )

    assert traced().returncode == 0
    bench.settle()
    # strace counts each system call of each process by itself
    counts: dict[tuple[str, str], int] = {}
    calls: list[tuple[str, int]] = []
    opened = False
    for line in log.read_text().splitlines():
        process, _, rest = line.partition(" ")
        name = rest.strip().partition("(")[0]
        if name.isidentifier():
            counts[process, name] = counts.get((process, name), 0) + 1
            opened = opened or str(bench.root) in rest
            if opened:
                calls.append((name, counts[process, name]))
    killed = 0
    samples = sorted({len(calls) * i // SAMPLES for i in range(SAMPLES)})
    for i in samples:
        name, number = calls[i]
        bench.fresh()
        killed += traced("-e", f"inject={name}:signal=KILL:when={number}").returncode != 0
        bench.afterwards(f"{name} number {number}", prune_first=bool(i % 2))
    assert killed >= len(samples) // 2
