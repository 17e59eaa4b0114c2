"""diff and commit: what a container changed, as Docker lists it and as an image keeps it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from limpet import SOURCE
from limpet.containers import state
from limpet.containers.files import changes
from limpet.errors import Invalid
from limpet.images import catalog
from limpet.kernel import cgroup
from limpet.store.store import Store


@pytest.fixture
def mine(limpet: Any, busybox: str) -> Store:
    return Store(str(limpet.root), f"{limpet.root}/run")


def test_diff(limpet: Any, busybox: str) -> None:
    limpet("run", "--name", "none", busybox, "true")
    assert limpet("diff", "none").stdout == ""
    script = "echo x > /etc/new; echo y >> /etc/passwd; rm /etc/group; mkdir /srv; touch /srv/file; rm -r /home/user"
    limpet("run", "--name", "web", busybox, "sh", "-c", script)
    assert limpet("diff", "web").stdout.splitlines() == [
        "C /etc",
        "D /etc/group",
        "A /etc/new",
        "C /etc/passwd",
        "C /home",
        "D /home/user",
        "A /srv",
        "A /srv/file",
    ]


def test_what_the_engine_makes_is_no_change(limpet: Any, tmp_path: Path, busybox: str) -> None:
    """Mount points, /etc/hosts, /proc: also for an image that has none of them."""
    (tmp_path / "root/bin").mkdir(parents=True)
    (tmp_path / "root/bin/sh").write_bytes(Path("/bin/busybox").read_bytes())
    (tmp_path / "root/bin/sh").chmod(0o755)
    limpet("import", tmp_path / "root", "bare:1")
    limpet("run", "--name", "web", "-v", "/deep/in/side", "--tmpfs", "/scratch", "bare:1", "/bin/sh", "-c", "true")
    assert limpet("diff", "web").stdout == ""
    limpet("commit", "web", "same:1")
    layers = [
        json.loads(limpet("image", "inspect", name).stdout)[0]["RootFS"]["Layers"] for name in ("bare:1", "same:1")
    ]
    assert layers[0] == layers[1]


def test_a_directory_made_anew(limpet: Any, busybox: str) -> None:
    limpet("run", "--name", "web", busybox, "sh", "-c", "rm -r /etc; mkdir /etc; touch /etc/group /etc/only")
    assert limpet("diff", "web").stdout.splitlines() == ["C /etc", "C /etc/group", "A /etc/only", "D /etc/passwd"]
    limpet("commit", "web", "saved:1")
    assert limpet("run", "--rm", "saved:1", "ls", "/etc").stdout.split() == [
        "group",
        "hostname",
        "hosts",
        "mtab",
        "only",
        "resolv.conf",
    ]


def test_commit(limpet: Any, mine: Store, busybox: str) -> None:
    limpet(
        "run", "--name", "web", "-e", "A=1", "-w", "/tmp", "--label", "mine=yes", busybox,
        "sh", "-c", "echo kept > /root/file; rm /etc/group; chown 7:8 /root/file; mkfifo /root/fifo",
    )  # fmt: skip
    printed = limpet("commit", "-a", "Me <me@example.org>", "-m", "a message", "web", "saved:1").stdout
    assert printed.startswith("sha256:")
    image = catalog.find(mine, "saved:1")
    assert printed == f"{image.id}\n"
    assert image.config["author"] == "Me <me@example.org>"
    assert image.config["history"][-1]["comment"] == "a message"
    assert image.config["history"][-1]["created_by"].startswith("sh -c echo kept")
    assert image.config["config"]["WorkingDir"] == "/tmp"
    assert image.config["config"]["Labels"] == {"mine": "yes"}
    assert image.config["config"]["Env"] == ["A=1"]
    layers = catalog.layers(mine, image.id)
    assert layers[:-1] == catalog.layers(mine, catalog.find(mine, busybox).id)
    script = "cat /root/file; stat -c '%u %g %F' /root/file /root/fifo; ls /etc/group; echo $A; pwd"
    result = limpet("run", "--rm", "saved:1", "sh", "-c", script)
    assert result.stdout.splitlines() == ["kept", "7 8 regular file", "0 0 fifo", "1", "/tmp"]
    assert "/etc/group" in result.stderr


def test_commit_changes(limpet: Any, mine: Store, busybox: str) -> None:
    limpet("create", "--name", "web", "-e", "A=1", "-e", "GONE=1", "--entrypoint", "/bin/echo", busybox, "words")
    limpet("commit", "-c", 'CMD ["other"]', "-c", "ENV B=2", "-c", "EXPOSE 80", "-c", "USER 33", "web", "one:1")
    config = catalog.find(mine, "one:1").config["config"]
    assert (config["Entrypoint"], config["Cmd"], config["User"]) == (["/bin/echo"], ["other"], "33")
    assert config["Env"] == ["A=1", "GONE=1", "B=2"]
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert limpet("run", "--rm", "one:1").stdout == "other\n"
    with pytest.raises(Invalid, match="--change 'RUN x'"):
        changes.commit(mine, state.find(mine, "web"), change=["RUN x"])
    with pytest.raises(Invalid):
        changes.commit(mine, state.find(mine, "web"), "Not A Name")


def test_the_same_container_gives_the_same_image(limpet: Any, mine: Store, busybox: str) -> None:
    limpet("run", "--name", "web", busybox, "sh", "-c", "echo x > /a; ln /a /b; mkdir /c; rm /etc/group")
    environment = {**limpet.environment, "SOURCE_DATE_EPOCH": "1700000000"}
    ids = {
        subprocess.run([*limpet.command, "commit", "web"], env=environment, capture_output=True, text=True).stdout
        for _ in range(2)
    }
    assert len(ids) == 1
    assert catalog.find(mine, ids.pop().strip()).config["created"] == "2023-11-14T22:13:20Z"


def frozen(store: Store, name: str) -> bool:
    place = cgroup.path(state.find(store, name).id)
    assert place is not None
    return "frozen 1" in Path(place, "cgroup.events").read_text()


def test_a_running_container_stands_still_meanwhile(limpet: Any, mine: Store, busybox: str) -> None:
    """The first file is never more than one turn ahead of the second in what was committed."""
    script = "i=0; while :; do i=$((i+1)); echo $i > /t; mv /t /one; echo $i > /t; mv /t /two; done"
    limpet("run", "-d", "--name", "web", busybox, "sh", "-c", script)
    for _ in range(3):
        image = limpet("commit", "web").stdout.strip()
        one, two = (int(text or 0) for text in read_both(limpet, image))
        assert one - two in (0, 1)
        assert not frozen(mine, "web")
    limpet("commit", "--pause=false", "web")
    assert state.status(mine, state.find(mine, "web")).running


def read_both(limpet: Any, image: str) -> list[str]:
    return limpet("run", "--rm", image, "sh", "-c", "echo $(cat /one); echo $(cat /two)").stdout.splitlines()  # type: ignore[no-any-return]


def test_a_killed_commit_leaves_nothing_frozen(limpet: Any, mine: Store, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sh", "-c", "while :; do sleep 0.01; done")
    script = (
        "import os, sys, signal; sys.path.insert(0, sys.argv[1]);"
        " from limpet.containers import state; from limpet.containers.files import changes;"
        " from limpet.store.store import Store; store = Store(sys.argv[2], sys.argv[3]);"
        " frozen = changes.Frozen(store, state.find(store, 'web'), wanted=True); frozen.__enter__();"
        " print('frozen', flush=True); signal.pause()"
    )
    source = SOURCE
    with subprocess.Popen(
        [*limpet.command[:2], "-c", script, source, mine.root, mine.run], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "frozen\n"
        assert frozen(mine, "web")
        watcher = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())
        pidfd = os.pidfd_open(watcher)
        holder.send_signal(signal.SIGKILL)
    select.select([pidfd], [], [], 10)
    os.close(pidfd)
    assert not frozen(mine, "web")
