"""`up` and `down` on a real service, as a user runs them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

HELLO = Path(__file__).resolve().parent.parent.parent / "examples/hello"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def hello(tmp_path: Path) -> tuple[Path, str]:
    """A copy of the example on a port of its own; (directory, address)."""
    port = free_port()
    directory = tmp_path / "hello"
    shutil.copytree(HELLO, directory)
    dockerfile = directory / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("8080", str(port)))
    return directory, f"http://127.0.0.1:{port}"


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as response:
        return response.read().decode()


def mounts(root: Path) -> list[str]:
    """Of the store, or made by limpet; other tests may mount something at the same time."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(root) in line]


def group_exists(container: str) -> bool:
    found = subprocess.run(["find", "/sys/fs/cgroup", "-name", container], capture_output=True, text=True, check=False)
    return bool(found.stdout)


def files(root: Path) -> set[str]:
    """Names in the store, without the store's own: database, lock, boot, log of events, compiled seccomp filter."""
    own = ("state.db", "lock", "cache", "boot", "events")
    names = (str(path.relative_to(root)) for path in root.rglob("*"))
    return {name for name in names if not name.startswith(own)}


def processes(root: Path) -> list[str]:
    """Command lines and environments that name this store."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(root).encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


def test_up_answers_and_down_leaves_the_host_as_it_was(limpet: Any, hello: tuple[Path, str]) -> None:
    directory, address = hello
    limpet("volume", "create", "begin")  # the store exists from now on
    limpet("volume", "rm", "begin")
    limpet("info")
    before, names = mounts(limpet.root), files(limpet.root)

    result = limpet("up", "-d", directory)
    assert result.stdout.strip() == address
    assert get(address).startswith("Hello from ")
    assert limpet("ps", "--format", "{{.Names}} {{.Image}} {{.State}}").stdout == "hello-app-1 hello-app running\n"
    assert "GET / HTTP/1.1" in limpet("logs", "hello-app-1").stderr

    container = limpet("ps", "-q", "--no-trunc").stdout.strip()
    assert group_exists(container)

    again = limpet("up", "-d", directory)
    assert again.stdout.strip() == address
    assert "ran" not in again.stderr
    assert "running" in again.stderr

    limpet("down", directory)
    assert mounts(limpet.root) == before
    assert not group_exists(container)
    assert files(limpet.root) == names
    assert processes(limpet.root) == []
    assert limpet("images", "-aq").stdout == ""
    with pytest.raises(OSError, match="refused"):
        get(address)
    gone = limpet("down", directory, check=False)
    assert gone.returncode == 1
    assert gone.stderr.splitlines()[0] == "limpet: nothing of project hello is here"


@pytest.mark.slow
def test_a_changed_file_makes_a_new_container_and_down_finds_it(limpet: Any, hello: tuple[Path, str]) -> None:
    directory, address = hello
    limpet("up", "-d", directory)
    first = limpet("ps", "-q").stdout
    source = directory / "server.py"
    source.write_text(source.read_text().replace("Hello from", "Good evening from"))
    result = limpet("up", "-d", directory)
    assert "recreated, its image changed" in result.stderr
    assert get(address).startswith("Good evening from")
    assert limpet("ps", "-q").stdout != first
    assert len(limpet("ps", "-aq").stdout.split()) == 1
    limpet("down", directory)
    assert limpet("images", "-aq").stdout == ""


@pytest.mark.slow
def test_down_keeps_a_base_that_somebody_else_needs(limpet: Any, hello: tuple[Path, str]) -> None:
    directory, _ = hello
    limpet("up", "-d", directory)
    limpet("create", "--name", "other", "limpet/host", "true")
    limpet("down", directory)
    assert limpet("images", "--format", "{{.Repository}}").stdout == "limpet/host\n"
    limpet("start", "-a", "other")


@pytest.mark.slow
def test_up_in_the_foreground_streams_and_cleans_up_at_ctrl_c(limpet: Any, hello: tuple[Path, str]) -> None:
    directory, address = hello
    process = subprocess.Popen(
        [*limpet.command, "up", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**limpet.environment, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("listening on port")
    while address not in process.stderr.readline():
        assert process.poll() is None
    assert get(address).startswith("Hello from ")
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Ctrl-C again to kill it" in err
    assert err.splitlines()[-1] == "Image limpet/host:latest: removed, it was here for this only"
    assert limpet("ps", "-aq").stdout == limpet("images", "-aq").stdout == ""
    assert (
        files(limpet.root) - {"run", "tmp", "blobs", "layers", "containers", "volumes", "blobs/sha256", "driver"}
        == set()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "command", "code"),
    [
        (signal.SIGTERM, "echo ready; exec sleep 1000", 130),
        (signal.SIGHUP, "echo ready; exec sleep 1000", 130),
        (None, "echo ready; exit 7", 7),
        (None, "['nosuch']", 127),
    ],
)
def test_up_in_the_foreground_undoes_itself_however_it_ends(
    limpet: Any, tmp_path: Path, number: int | None, command: str, code: int
) -> None:
    directory = tmp_path / "job"
    directory.mkdir()
    (directory / "Dockerfile").write_text(f"FROM limpet/host\nCMD {command}\n".replace("'", '"'))
    process = subprocess.Popen(
        [*limpet.command, "up", str(directory)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=limpet.environment,
    )  # fmt: skip
    assert process.stdout is not None
    if number is not None:
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert limpet("ps", "-aq").stdout == limpet("images", "-aq").stdout == ""


@pytest.mark.slow
def test_up_in_the_foreground_keeps_an_image_that_was_there(limpet: Any, tmp_path: Path) -> None:
    directory = tmp_path / "job"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM limpet/host\nRUN date > /built\nCMD cat /built\n")
    limpet("up", "-d", directory)
    first = limpet("logs", "job-app-1").stdout
    assert limpet("up", directory, check=False).stdout == first
    assert sorted(limpet("images", "--format", "{{.Repository}}").stdout.split()) == ["job-app", "limpet/host"]
    assert limpet("up", directory, check=False).stdout == first  # from the cache
    limpet("down", directory)
    assert limpet("images", "-aq").stdout == ""


@pytest.mark.slow
def test_a_service_that_dies_says_its_last_words(limpet: Any, hello: tuple[Path, str]) -> None:
    directory, _ = hello
    (directory / "server.py").write_text("raise SystemExit('no database')\n")
    result = limpet("up", "-d", directory, check=False)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last == "limpet: container hello-app-1 ended with exit code 1: no database"
    limpet("down", directory)


@pytest.mark.slow
@pytest.mark.parametrize("code", [3, 0])
def test_a_service_without_a_port_that_ends_at_once(limpet: Any, tmp_path: Path, code: int) -> None:
    directory = tmp_path / "job"
    directory.mkdir()
    (directory / "Dockerfile").write_text(f"FROM limpet/host\nCMD echo no config; sleep 0.2; exit {code}\n")
    result = limpet("up", "-d", directory, check=False)
    last = result.stderr.splitlines()[-1]
    if code:
        assert (result.returncode, last) == (1, "limpet: container job-app-1 ended with exit code 3: no config")
    else:
        assert (result.returncode, last) == (0, "Container job-app-1: ended with exit code 0")
    assert "started" not in result.stderr
    again = limpet("up", "-d", directory, check=False)  # the container is there: it is started again, and watched
    assert (again.returncode, again.stderr.splitlines()[-1]) == (result.returncode, last)
    limpet("down", directory)


@pytest.mark.slow
def test_a_service_without_a_port_that_stays_up(limpet: Any, tmp_path: Path) -> None:
    directory = tmp_path / "job"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM limpet/host\nCMD sleep 1000\n")
    assert limpet("up", "-d", directory).stderr.splitlines()[-1] == "Container job-app-1: started"
    limpet("down", directory)


def test_a_port_in_use_is_said_before_anything_starts(limpet: Any, hello: tuple[Path, str]) -> None:
    directory, address = hello
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        other.listen()
        result = limpet("up", "-d", directory, check=False)
    assert result.returncode == 1
    assert "is in use by another program on this host" in result.stderr
    assert "[1/" not in result.stderr  # nothing was built for it
    assert limpet("ps", "-aq").stdout == ""
    assert "hello-app" not in limpet("images").stdout


def test_directories_that_cannot_be_projects(limpet: Any, tmp_path: Path) -> None:
    missing = limpet("up", "-d", tmp_path / "nope", check=False)
    assert missing.stderr == f"limpet: {tmp_path}/nope: no such directory\n"
    (tmp_path / "empty").mkdir()
    empty = limpet("up", "-d", tmp_path / "empty", check=False)
    assert empty.stderr.splitlines() == [
        f"limpet: {tmp_path}/empty/Dockerfile: no such Dockerfile",
        "`limpet up` starts a directory with a Dockerfile; `limpet build -f` takes one of any name",
    ]
    (tmp_path / "empty/compose.yaml").touch()
    assert "Compose files are to come" in limpet("up", "-d", tmp_path / "empty", check=False).stderr
    bad = limpet("up", "-d", "-p", "Not Good", tmp_path / "empty", check=False)
    assert "can't be a project's name" in bad.stderr


@pytest.mark.slow
def test_a_project_whose_directory_is_gone_is_found_by_its_name(limpet: Any, hello: tuple[Path, str]) -> None:
    directory, _ = hello
    limpet("up", "-d", directory)
    shutil.rmtree(directory)
    limpet("down", "-p", "hello")
    assert limpet("ps", "-aq").stdout == ""
    assert limpet("images", "-aq").stdout == ""


@pytest.mark.slow
def test_two_directories_of_one_name_do_not_take_each_other_s(
    limpet: Any, hello: tuple[Path, str], tmp_path: Path
) -> None:
    directory, _ = hello
    other = tmp_path / "other/hello"
    shutil.copytree(directory, other)
    limpet("up", "-d", directory)
    refused = limpet("up", "-d", other, check=False)
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        f"limpet: the name hello-app-1 belongs to the project in {directory}",
        "choose another with -p",
    ]
    assert len(limpet("images", "-aq").stdout.split()) == 2
    limpet("down", directory)


def together(limpet: Any, *commands: list[str]) -> list[tuple[int, str, str]]:
    """(exit code, output, messages) of commands that begin at the same time."""
    running = [
        subprocess.Popen(
            [*limpet.command, *words], env=limpet.environment, stdout=-1, stderr=-1, stdin=subprocess.DEVNULL, text=True
        )
        for words in commands
    ]
    return [(process.returncode, *texts) for process in running for texts in [process.communicate(timeout=120)]]


@pytest.mark.slow
def test_several_at_once_wait_for_each_other(limpet: Any, hello: tuple[Path, str]) -> None:
    directory, address = hello
    for _ in range(3):
        results = together(limpet, *[["up", "-d", "-q", str(directory)]] * 3)
        assert results == [(0, f"{address}\n", "")] * 3
        assert len(limpet("ps", "-aq").stdout.split()) == 1
        results = together(limpet, *[["down", "-t", "0", str(directory)]] * 2)
        assert [code for code, _, _ in results if code] in ([], [1])  # one that came when all was gone
        for code, _, messages in results:
            assert code == 0 or messages.splitlines()[0] == "limpet: nothing of project hello is here"
        assert limpet("ps", "-aq").stdout == limpet("images", "-aq").stdout == ""
        assert list((limpet.root / "run").iterdir()) == []


@pytest.mark.slow
def test_who_waits_for_a_project_says_so_and_a_killed_one_lets_go(limpet: Any, tmp_path: Path) -> None:
    directory = tmp_path / "slow"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM limpet/host\nRUN sleep 1000\nCMD true\n")
    first = subprocess.Popen(
        [*limpet.command, "up", "-d", str(directory)], env=limpet.environment, stderr=subprocess.PIPE, text=True
    )
    assert first.stderr is not None
    while "sleep 1000" not in first.stderr.readline():
        assert first.poll() is None
    second = subprocess.Popen(
        [*limpet.command, "up", "-d", str(directory)], env=limpet.environment, stderr=subprocess.PIPE, text=True
    )
    assert second.stderr is not None
    assert second.stderr.readline() == "Project slow: another limpet works on it, waiting\n"
    (directory / "Dockerfile").write_text("FROM limpet/host\nCMD true\n")
    first.kill()
    first.communicate()
    _, messages = second.communicate(timeout=60)
    assert (second.returncode, messages.splitlines()[-1]) == (0, "Container slow-app-1: ended with exit code 0")
    limpet("down", directory)


@pytest.mark.slow
@pytest.mark.parametrize("listens", [True, False])
def test_a_port_that_never_answers(limpet: Any, tmp_path: Path, listens: bool) -> None:
    directory = tmp_path / "deaf"
    directory.mkdir()
    exposed, other = free_port(), free_port()
    command = f'["python3", "-m", "http.server", "-b", "127.0.0.1", "{other}"]' if listens else "sleep 1000"
    (directory / "Dockerfile").write_text(f"FROM limpet/host\nEXPOSE {exposed}\nCMD {command}\n")
    result = limpet("up", "-d", "--wait-timeout", "2", directory, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    *_, told, message, hint = result.stderr.splitlines()
    assert told == f"Container deaf-app-1: waiting until port {exposed} answers, 2 s at most"
    assert message == f"limpet: container deaf-app-1 runs, but nothing answers on port {exposed} after 2 s"
    if listens:
        assert hint.startswith(f"it listens on 127.0.0.1:{other}: EXPOSE that port")
    else:
        assert hint == "none of its programs listens; `limpet logs deaf-app-1` shows what they say"
    assert limpet("ps", "--format", "{{.State}}").stdout == "running\n"
    again = limpet("up", "-d", "--wait-timeout", "0", directory)
    assert (again.stdout, "waiting" in again.stderr) == ("", False)
    limpet("down", "-t", "0", directory)


@pytest.mark.slow
def test_what_a_volume_holds_stays_until_it_is_asked_for(limpet: Any, tmp_path: Path, busybox: str) -> None:
    directory = tmp_path / "shop"
    directory.mkdir()
    dockerfile = directory / "Dockerfile"
    program = 'echo "$(cat /version) $(cat /data/of/mine)" >>/data/of/mine; exec sleep 600'
    text = f"FROM {busybox}\nRUN mkdir -p /data/of && echo first >/data/of/mine\nVOLUME /data/of\nSTOPSIGNAL KILL\n"

    def up(version: int) -> list[str]:
        dockerfile.write_text(f"{text}RUN echo {version} >/version\nCMD {program}\n")
        limpet("up", "-d", directory)
        return str(limpet("exec", "shop-app-1", "cat", "/data/of/mine").stdout).splitlines()

    before = files(limpet.root)
    assert up(1) == ["first", "1 first"]
    assert limpet("volume", "ls", "-q").stdout == "shop_data-of\n"
    assert len(up(2)) == 4  # the container is another one, with the volume of the one before
    assert "Volume shop_data-of: kept" in limpet("down", "-t", "0", directory).stderr
    assert len(up(3)) == 8
    last = limpet("down", "-t", "0", "--volumes", directory)
    assert "Volume shop_data-of: removed" in last.stderr
    assert files(limpet.root) == before
    assert limpet("down", directory, check=False).returncode == 1

    limpet("volume", "create", "shop_data-of")
    refused = limpet("up", "-d", directory, check=False)
    assert "the volume shop_data-of is not this project's" in refused.stderr
    limpet("down", directory)
    limpet("volume", "rm", "shop_data-of")
