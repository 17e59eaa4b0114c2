"""Volumes that are mounted: the local driver's options, and plugins in Docker's protocol, served by the test."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socketserver
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from limpet.containers.mounts import volumemounts, volumes
from limpet.containers.mounts.volumedrivers import local, plugin
from limpet.errors import Conflict, Invalid, LimpetError, NotFound
from limpet.kernel import mounts
from limpet.store.files import remove_tree
from limpet.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

Limpet = Any
TMPFS = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=1777")


def mounted(limpet: Limpet) -> list[str]:
    return mounts.below(f"{limpet.root}/volumes")


@pytest.mark.slow
def test_a_tmpfs_is_shared_while_it_is_used(limpet: Limpet, busybox: str) -> None:
    limpet("volume", "create", *TMPFS, "shared")
    assert mounted(limpet) == []
    limpet("run", "-d", "--name", "one", "-v", "shared:/v", busybox, "sh", "-c", "echo x >/v/f; sleep 60")
    limpet("run", "-d", "--name", "two", "-v", "shared:/w", busybox, "sleep", "60")
    while limpet("exec", "two", "cat", "/w/f", check=False).stdout != "x\n":
        pass
    assert "size=1024k" in limpet("exec", "two", "grep", " /w ", "/proc/mounts").stdout
    place = f"{limpet.root}/volumes/shared/_data"
    assert mounted(limpet) == [place]
    limpet("rm", "-f", "one")
    assert limpet("exec", "two", "cat", "/w/f").stdout == "x\n"
    assert "in use" in limpet("volume", "rm", "shared", check=False).stderr
    limpet("restart", "-t", "0", "two")
    # A monitor that is killed unmounts nothing: whoever looks next does.
    status = json.loads(limpet("inspect", "two").stdout)[0]["State"]
    os.kill(int(Path(f"/proc/{status['Pid']}/stat").read_text().split()[3]), 9)
    while limpet("inspect", "-f", "{{.State.Status}}", "two").stdout != "exited\n":
        pass
    assert mounted(limpet) == [place]
    limpet("system", "recover")
    assert mounted(limpet) == []
    limpet("cp", "-q", "two:/w/.", "-")  # a stopped one
    limpet("start", "two")
    assert limpet("exec", "two", "ls", "/w").stdout == ""
    limpet("stop", "-t", "0", "two")
    assert mounted(limpet) == []
    limpet("rm", "two")
    limpet("volume", "rm", "shared")
    assert os.listdir(limpet.root / "volumes") == []


@pytest.mark.slow
def test_a_directory_of_the_host_as_a_volume(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """And nothing that limpet removes takes what is in it."""
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/kept").write_text("kept")
    options = ("-o", "type=none", "-o", f"device={tmp_path}/srv", "-o", "o=bind,ro")
    limpet("volume", "create", *options, "srv")
    refused = limpet("run", "--rm", "-v", "srv:/v", busybox, "touch", "/v/x", check=False)
    assert "Read-only" in refused.stderr
    assert limpet("volume", "inspect", "-f", "{{.Options.device}}", "srv").stdout == f"{tmp_path}/srv\n"
    assert limpet("volume", "export", "srv", "-o", tmp_path / "srv.tar").returncode == 0
    assert "is /" in limpet("volume", "snapshot", "srv", check=False).stderr
    assert mounted(limpet) == []
    other = limpet("volume", "create", *TMPFS, "srv", check=False)
    assert (other.returncode, "already" in other.stderr) == (1, True)
    options = "volume-opt=type=none,volume-opt=o=bind,volume-label=a=b"
    mount = f"type=volume,dst=/v,{options},volume-opt=device={tmp_path}/srv"
    assert limpet("run", "--rm", "--mount", mount, busybox, "ls", "/v").stdout == "kept\n"  # an anonymous one
    limpet("run", "-d", "--name", "web", "-v", "srv:/v", busybox, "sleep", "60")
    # As bad as it gets: the row is gone, the directory is still mounted.
    store = Store(str(limpet.root), f"{limpet.root}/run")
    store.db.run("DELETE FROM container_volume")
    store.db.run("DELETE FROM volume")
    store.close()
    with pytest.raises(OSError, match="cross-device"):
        remove_tree(f"{limpet.root}/volumes/srv")
    assert "a volume that no row names" in limpet("system", "check").stdout
    limpet("system", "prune", "-f", "garbage")
    assert os.listdir(limpet.root / "volumes") == []
    limpet("rm", "-f", "web")
    assert (tmp_path / "srv/kept").read_text() == "kept"


@pytest.mark.slow
def test_a_file_with_a_file_system(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with open(image, "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    limpet("volume", "create", "-o", "type=ext4", "-o", f"device={image}", "disk")
    script = "dd if=/dev/zero of=/v/big bs=1M count=20 2>/dev/null; echo $?; rm /v/big; echo x >/v/f"
    assert limpet("run", "--rm", "-v", "disk:/v", busybox, "sh", "-c", script).stdout == "1\n"
    assert limpet("run", "--rm", "-v", "disk:/v:ro", busybox, "cat", "/v/f").stdout == "x\n"
    assert str(image) not in subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
    wrong = limpet("volume", "create", "-o", "type=nosuchfs", "-o", "device=/dev/null", "wrong", check=False)
    assert wrong.returncode == 0
    failed = limpet("run", "--rm", "-v", "wrong:/v", busybox, "true", check=False)
    assert failed.returncode == 125
    assert "volume wrong: mounting /dev/null (nosuchfs): this kernel knows no file system nosuchfs" in failed.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "x"}, "invalid"),
        ({"frob": "1"}, "invalid option 'frob'"),
        ({"type": "tmpfs"}, "needs a device"),
        ({"device": "/dev/x"}, "needs a type"),
        ({"o": "ro"}, "needs device and type"),
        ({"type": "none", "o": "bind", "device": "srv"}, "whole path"),
    ],
)
def test_options_that_can_not_be(options: dict[str, str], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        local.check(options)


class Served(socketserver.ThreadingUnixStreamServer):
    """A volume plugin that keeps its volumes in a directory, and what it was asked. `answer` replaces its answers."""

    daemon_threads = True

    def __init__(self, path: str, home: Path) -> None:
        super().__init__(path, _Handler)
        self.home = home
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answer: bytes | None = None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Served

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method = self.path.rpartition(".")[2]
        self.server.asked.append((method, body))
        place = self.server.home / body.get("Name", "")
        answer: dict[str, Any] = {"Err": ""}
        if method == "Activate":
            answer = {"Implements": ["VolumeDriver"]}
        elif method == "Create" and "bad" in body["Opts"]:
            answer = {"Err": "no such option: bad"}
        elif method == "Create":
            place.mkdir(exist_ok=True)
        elif method == "Mount":
            answer = {"Mountpoint": str(place), "Err": ""}
        elif method == "Remove":
            remove_tree(str(place))
        data = json.dumps(answer).encode() if self.server.answer is None else self.server.answer
        self.send_response(500 if answer.get("Err") else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass

    def address_string(self) -> str:
        return ""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = not os.path.isdir(plugin.SOCKETS)
    os.makedirs(plugin.SOCKETS, exist_ok=True)
    path = f"{plugin.SOCKETS}/limpet-test-{os.getpid()}.sock"
    (tmp_path / "plugin").mkdir()
    server = Served(path, tmp_path / "plugin")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    os.unlink(path)
    if made:
        with contextlib.suppress(OSError):
            os.removedirs(plugin.SOCKETS)


NAME = f"limpet-test-{os.getpid()}"


@pytest.mark.slow
def test_a_plugin_has_the_volume(limpet: Limpet, busybox: str, served: Served) -> None:
    limpet("volume", "create", "-d", NAME, "-o", "a=b", "far")
    assert served.asked == [("Activate", {}), ("Create", {"Name": "far", "Opts": {"a": "b"}})]
    assert NAME in limpet("volume", "ls").stdout
    limpet("run", "--name", "web", "-v", "far:/v", busybox, "sh", "-c", "echo x >/v/f; mkdir /v/sub; echo y >/v/sub/g")
    assert (served.home / "far/f").read_text() == "x\n"
    calls = [(method, body) for method, body in served.asked[2:] if method != "Activate"]
    assert [method for method, _ in calls] == ["Mount", "Unmount"]
    assert calls[0][1] == calls[1][1]
    assert limpet("cp", "web:/v/f", "-").returncode == 0
    mount = "source=far,target=/d,volume-subpath=sub,ro"
    assert limpet("run", "--rm", "--mount", mount, busybox, "cat", "/d/g").stdout == "y\n"
    served.asked.clear()
    served.answer = b'{"Err": "the disk is on fire\\nreally"}'
    failed = limpet("start", "web", check=False)
    assert failed.returncode == 1
    assert f"the volume plugin {NAME}: the disk is on fire\n" in failed.stderr
    limpet("rm", "web")
    assert "on fire" in limpet("volume", "rm", "far", check=False).stderr
    assert limpet("volume", "ls", "-q").stdout == "far\n"  # it stays, since the plugin kept it
    served.answer = None
    limpet("volume", "rm", "far")
    assert not (served.home / "far").exists()
    refused = limpet("volume", "create", "-d", NAME, "-o", "bad=1", "far", check=False)
    assert (refused.returncode, "no such option: bad" in refused.stderr) == (1, True)
    assert limpet("volume", "ls", "-q").stdout == ""
    limpet("run", "--rm", "--volume-driver", NAME, "-v", "/v", busybox, "touch", "/v/x")  # gone with its container
    assert os.listdir(served.home) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"\xff\xfe", "no JSON"),
        (b"[]", "no JSON"),
        (b'{"Implements": ["NetworkDriver"]}', "no volume driver"),
        (b'{"Implements": 3}', "no volume driver"),
        (b"[" * 100_000, "no JSON"),
        (b'"' + b"x" * (2 << 20) + b'"', "no JSON"),
    ],
)
def test_a_plugin_that_lies(served: Served, answer: bytes, message: str) -> None:
    served.answer = answer
    with pytest.raises(LimpetError, match=message):
        plugin.Plugin(NAME).create("x1", {})


def test_where_a_plugin_would_be(tmp_path: Path, served: Served) -> None:
    served.answer = b'{"Implements": ["VolumeDriver"], "Mountpoint": "../../etc"}'
    with pytest.raises(LimpetError, match="no path"):
        plugin.Plugin(NAME).mount("x1", {}, "user")
    for name in ("nosuch", "../x", "", "."):
        with pytest.raises(NotFound, match="no such plugin") as caught:
            plugin.Plugin(name)
        assert NAME in caught.value.hint or "local" in caught.value.hint


def test_users_that_died_count_no_more(store: Store) -> None:
    volume = volumes.create(store, "data", driver="local", options={"type": "tmpfs", "device": "tmpfs"})
    with volumemounts.Using(store, volume) as path:
        assert mounts.below(path) == [path]
        with volumemounts.Using(store, volume) as again:
            assert again == path
        assert volumemounts.recover(store) == []
        assert mounts.below(path) == [path]
    assert mounts.below(path) == []
    place = Path(store.run) / "volumes/data"
    (place / f"command-{os.getpid()}-1-1").write_text('["local", {"type": "tmpfs", "device": "tmpfs"}]')
    (place / ("f" * 64)).write_text("broken")
    mounts.mount("tmpfs", f"{store.volume_path('data')}/_data", "tmpfs")
    volumemounts.recover(store)
    assert mounts.below(store.root) == []
    with pytest.raises(Conflict):
        volumes.create(store, "data", driver="other")
    volumes.remove(store, "data")
    assert not place.exists()
