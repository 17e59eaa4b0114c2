"""A user of the tests' own, who can be taken away without a trace.

The account and its ranges are in copies of /etc/passwd, /etc/group, /etc/subuid and /etc/subgid, mounted over these in
a mount namespace for each command. There the user also finds what pytest keeps in root's directories: the checkout,
the interpreter and its packages.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import SOURCE

from limpet.kernel import idmap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UID = 54_321
FIRST, COUNT = 1_500_000_000, 65536

_ENTER = """
set -e
home=$1 python=$2 source=$3 packages=$4; shift 4
for file in passwd group subuid subgid; do mount --bind "$home/etc/$file" "/etc/$file"; done
mount --rbind "$python" "$home/python"
mount --bind "$source" "$home/source"
mount --bind "$packages" "$home/packages"
cd "$home/work"
exec setpriv --reuid={uid} --regid={uid} --clear-groups "$@"
"""
_START = """
import sys
sys.path.insert(0, sys.argv[1] + "/source")
sys.path.append(sys.argv[1] + "/packages")
del sys.argv[1]
from limpet.cli.main import entry
entry()
"""


class User:
    """`user("ps", "-a")` is what `limpet ps -a` does for the user; `user.run(...)` any other program.

    `kind`: "ranges" or "single". `home`: his, where the store is too. `work`: below it, where commands start.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.home = Path(tempfile.mkdtemp(prefix="limpet-user-"))
        self.work = self.home / "work"
        for name in ("etc", "python", "source", "packages", "work", "run"):
            (self.home / name).mkdir()
        ids = f"{UID}:{FIRST}:{COUNT}\n" if kind == "ranges" else ""
        for name, more in (
            ("passwd", f"tester:x:{UID}:{UID}::{self.home}:/bin/sh\n"),
            ("group", f"tester:x:{UID}:\n"),
            ("subuid", ids),
            ("subgid", ids),
        ):
            there = Path("/etc", name).read_text() if name in ("passwd", "group") else ""
            (self.home / "etc" / name).write_text(there + more)
        for path in (self.home, self.work, self.home / "run"):
            os.chown(path, UID, UID)
            path.chmod(0o700)
        interpreter = Path(sys.executable).resolve()
        self._python = f"python/{interpreter.relative_to(Path(sys.base_prefix).resolve())}"
        self.environment = {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LD_LIBRARY_PATH": f"{self.home}/python/lib",  # a Python of root's may have its library there
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "LIMPET_SETTLE": "off",  # a process that nobody waits for would outlive the test
            **{name: value for name, value in os.environ.items() if name.startswith("LIMPET_TEST_")},
        }

    def command(self, *words: str | Path) -> list[str]:
        """What root executes, so that the user executes `words`."""
        packages = sysconfig.get_path("purelib")
        places = [str(self.home), str(Path(sys.base_prefix).resolve()), str(SOURCE), packages]
        return ["unshare", "-m", "sh", "-c", _ENTER.replace("{uid}", str(UID)), "sh", *places, *map(str, words)]

    @property
    def program(self) -> str:
        """What a shell of the user's executes as limpet."""
        return shlex.join(self._words())

    def limpet(self, *words: str | Path) -> list[str]:
        return self.command(*self._words(), *words)

    def _words(self) -> list[str]:
        return [f"{self.home}/{self._python}", "-S", "-I", "-c", _START, str(self.home)]

    def run(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return self._run(self.command(*words), **options)

    def __call__(self, *words: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """As the fixture `limpet`, which is root's."""
        result = self._run(self.limpet(*words), **options)
        if check:
            assert result.returncode == 0, f"limpet {words}: exit {result.returncode}\n{result.stdout}{result.stderr}"
        return result

    def _run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        options.setdefault("timeout", 120)
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, **options)

    @property
    def root(self) -> Path:
        """The store."""
        return self.home / ".local/share/limpet"

    def holders(self) -> int:
        """A process that is in the user's namespace; 0 if there is none."""
        try:
            fd = os.open(self.home / f"run/limpet/userns-{self.kind}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            return idmap.holder(fd)
        finally:
            os.close(fd)

    def remove(self) -> None:
        try:
            ids = self("ps", "-aq", check=False).stdout.split()
            if ids:
                self("rm", "-f", "-v", *ids)
            while pid := self.holders():
                end(pid)
        finally:
            shutil.rmtree(self.home)


def end(pid: int) -> None:
    """SIGKILL; returns when the process is gone."""
    handle = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], 10)[0]
    finally:
        os.close(handle)


@pytest.fixture(scope="session")
def allowed() -> None:
    """Skips where this machine lets nobody without root have a user namespace."""
    if os.geteuid():
        pytest.skip("needs root, to become somebody else")
    if not (os.path.exists("/etc/subuid") and os.path.exists("/etc/subgid")):
        pytest.skip("needs /etc/subuid and /etc/subgid, to be covered (Debian's passwd has them)")
    command = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "unshare", "-U", "true"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine lets users without root have no user namespace")


@pytest.fixture(scope="module")
def person(allowed: None, busybox_tar: Path) -> Iterator[Callable[[str], User]]:
    """A user by his kind, who has the image busybox:test."""
    found: dict[str, User] = {}

    def get(kind: str) -> User:
        if kind not in found:
            if kind == "ranges" and shutil.which("newuidmap") is None:
                pytest.skip("needs Debian's uidmap")
            found[kind] = User(kind)
            with open(busybox_tar, "rb") as tar:
                found[kind]("import", "-", "busybox:test", stdin=tar)
        return found[kind]

    yield get
    for each in found.values():
        each.remove()


@pytest.fixture(params=["ranges", "single"])
def user(request: pytest.FixtureRequest, person: Callable[[str], User]) -> User:
    return person(request.param)


@pytest.fixture
def ranges(person: Callable[[str], User]) -> User:
    return person("ranges")


@pytest.fixture
def single(person: Callable[[str], User]) -> User:
    return person("single")
