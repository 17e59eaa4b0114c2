"""Fixtures for all rooms: a store of one's own, the command line as a user runs it, a small real image."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import hypothesis
import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"
sys.path[:0] = [str(SOURCE), str(SOURCE.parent)]

from limpet.store.store import Store  # noqa: E402
from tests import host  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.registry.server import Registry

START = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from limpet.cli.main import entry; entry()"


hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no defect
hypothesis.settings.load_profile("untimed")

_HOST: pytest.StashKey[host.Session] = pytest.StashKey()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Not in the workers of pytest-xdist: the session is one."""
    if not hasattr(session.config, "workerinput") and not session.config.option.collectonly:
        session.config.stash[_HOST] = host.Session(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """All fixtures are torn down, and the report is not yet written: what is left becomes a failed test in it."""
    watched = session.config.stash.get(_HOST, None)
    if watched is None:
        return
    left = watched.leftovers()
    watched.close()
    if left:
        name = "what_the_session_left_on_the_host"
        session.config.hook.pytest_runtest_logreport(
            report=pytest.TestReport(
                nodeid=f"tests/conftest.py::{name}",
                location=("tests/conftest.py", None, name),
                keywords={},
                outcome="failed",
                longrepr="\n".join(str(thing) for thing in left),
                when="call",
            )
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class Runner(Protocol):
    """`limpet("ps", "-a")`; the result has returncode, stdout, stderr (text). `check=True` asserts exit code 0."""

    root: Path
    environment: dict[str, str]
    command: list[str]

    def __call__(self, *args: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]: ...


class _Runner:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.command = [sys.executable, "-I", "-c", START]
        self.environment = {**os.environ, "LIMPET_ROOT": str(root), "LIMPET_RUN": f"{root}/run", "NO_COLOR": "1"}
        self.environment["LIMPET_SETTLE"] = "off"  # a process that nobody waits for would outlive the test

    def __call__(self, *args: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        options.setdefault("timeout", 120)
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        result = subprocess.run(
            [*self.command, *map(str, args)], capture_output=True, text=True, env=self.environment, **options
        )
        if check:
            assert result.returncode == 0, f"limpet {args}: exit {result.returncode}\n{result.stdout}{result.stderr}"
        return result


def runner(root: Path) -> Any:
    """A command line with a store at `root`, for who does not want one of each test's own."""
    return _Runner(root)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Debian's docker-registry, empty."""
    from tests.registry import server

    with server.docker_registry(tmp_path_factory.mktemp("registry")) as real:
        yield real


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), str(tmp_path / "run"))


@pytest.fixture
def limpet(tmp_path: Path) -> Any:
    """A command line with a store of its own; its containers are removed at the end."""
    runner = _Runner(tmp_path / "limpet")
    yield runner
    if runner.root.exists():
        ids = runner("ps", "-aq", check=False).stdout.split()
        if ids:
            runner("rm", "-f", "-v", *ids, check=False)


def make_busybox(root: Path) -> None:
    """A root file system of a few files: Debian's static busybox with its applets as links, passwd, group."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs Debian's busybox-static")
    for name in ("bin", "etc", "tmp", "root", "home/user", "var/log", "proc", "dev", "sys"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:User:/home/user:/bin/sh\nwww:x:33:33::/:/bin/false\n"
    )
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\nwww:x:33:\nextra:x:2000:user\nmore:x:2001:user,www\n")


@pytest.fixture(scope="session")
def busybox_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("busybox")
    make_busybox(root)
    return root


@pytest.fixture(scope="session")
def busybox_tar(busybox_rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tar") / "busybox.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(busybox_rootfs, ".")
    return path


@pytest.fixture(scope="session")
def debian_tar() -> Path:
    """Kept in .cache/check, since making it takes half a minute; delete that folder to make it anew."""
    path = SOURCE.parent / ".cache/check/debian.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}.tar")
        command = ["mmdebstrap", "--variant=apt", "--quiet", "bookworm", str(new)]
        subprocess.run(command, check=True, capture_output=True)
        new.rename(path)
    return path


@pytest.fixture
def busybox(limpet: Any, busybox_tar: Path) -> str:
    """The name of an image in the store of `limpet`, made by `limpet import`."""
    limpet("import", busybox_tar, "busybox:test")
    return "busybox:test"


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names of tests that are the same in every worker: no bytes (they may hold a time), no digests of made images."""
    if isinstance(val, bytes):
        return argname
    if isinstance(val, str) and "sha256:" in val:
        return val.partition("sha256:")[0] + "digest"
    return None
