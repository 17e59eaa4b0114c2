"""`limpet events`: what is told of real containers, images and volumes, in Docker's order, shapes and filters."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.containers.observe import eventstream
from limpet.errors import Invalid
from limpet.store import eventlog
from limpet.store.store import Store

pytestmark = pytest.mark.slow


def told(limpet: Any, *args: str) -> list[dict[str, Any]]:
    text = limpet("events", "--since", "1h", "--until", "0s", "--format", "json", *args).stdout
    return [json.loads(line) for line in text.splitlines()]


def actions(limpet: Any, *args: str) -> list[str]:
    return [event["Action"] for event in told(limpet, *args)]


def test_the_life_of_a_container(limpet: Any, busybox: str) -> None:
    limpet("run", "--name", "job", "--label", "a=1", busybox, "sh", "-c", "exit 3", check=False)
    limpet("rename", "job", "done")
    limpet("rm", "done")
    found = told(limpet, "-f", "type=container")
    names = [event["Action"] for event in found]
    assert sorted(names) == sorted(["create", "start", "attach", "die", "rename", "destroy"])
    assert [name for name in names if name != "attach"] == ["create", "start", "die", "rename", "destroy"]
    assert len({event["id"] for event in found}) == 1
    die = next(event for event in found if event["Action"] == "die")
    assert die == {
        "status": "die",
        "id": die["Actor"]["ID"],
        "from": busybox,
        "Type": "container",
        "Action": "die",
        "Actor": {
            "ID": die["id"],
            "Attributes": {"a": "1", "image": busybox, "name": "job", "exitCode": "3", "execDuration": "0"},
        },
        "scope": "local",
        "time": die["timeNano"] // 10**9,
        "timeNano": die["timeNano"],
    }
    assert next(e for e in found if e["Action"] == "rename")["Actor"]["Attributes"]["oldName"] == "/job"


def test_rm_is_told_too(limpet: Any, busybox: str) -> None:
    limpet("run", "--rm", busybox, "true")
    assert [name for name in actions(limpet, "-f", "type=container") if name != "attach"] == [
        "create",
        "start",
        "die",
        "destroy",
    ]


def test_what_is_done_to_a_running_container(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", "-v", "data:/data", busybox, "sleep", "1000")
    limpet("pause", "web")
    limpet("unpause", "web")
    limpet("exec", "web", "sh", "-c", "exit 4", check=False)
    limpet("update", "--pids-limit", "50", "web")
    limpet("restart", "-t", "2", "web")
    limpet("kill", "web")
    limpet("wait", "web")
    limpet("rm", "-f", "web")
    limpet("volume", "rm", "data")
    found = told(limpet, "-f", "type=container", "-f", "type=volume")
    names = [event["Action"] for event in found]
    assert names == [
        *("create", "create", "start", "pause", "unpause"),
        *("exec_create: sh -c exit 4", "exec_start: sh -c exit 4", "exec_die", "update"),
        *("kill", "die", "stop", "start", "restart", "kill", "die", "destroy", "destroy"),
    ]
    assert (found[0]["Type"], found[0]["Actor"]) == ("volume", {"ID": "data", "Attributes": {"driver": "local"}})
    assert found[7]["Actor"]["Attributes"]["exitCode"] == "4"
    assert [e["Actor"]["Attributes"]["signal"] for e in found if e["Action"] == "kill"] == ["15", "9"]
    exec_ids = {e["Actor"]["Attributes"]["execID"] for e in found if e["Action"].startswith("exec")}
    assert len(exec_ids) == 1


def test_what_the_kernel_killed_for_memory_is_named(limpet: Any, busybox: str) -> None:
    limpet("run", "-m", "20m", "--name", "hog", busybox, "sh", "-c", "tail /dev/zero", check=False)
    (event,) = told(limpet, "-f", "event=oom")
    if os.path.exists("/dev/kmsg"):
        assert event["Actor"]["Attributes"]["process"] == "tail"


def test_images(limpet: Any, busybox: str, tmp_path: Path) -> None:
    limpet("tag", busybox, "two:1")
    limpet("save", "-o", tmp_path / "a.tar", "two:1")
    limpet("rmi", busybox, "two:1")
    limpet("load", "-i", tmp_path / "a.tar")
    found = told(limpet, "-f", "type=image")
    assert [event["Action"] for event in found] == "tag import tag save untag untag delete load".split()
    assert found[0]["Actor"]["Attributes"] == {"name": "busybox:test"}
    assert found[0]["id"].startswith("sha256:")
    assert found[-1]["Actor"]["ID"] == found[0]["id"]


def test_a_container_whose_monitor_was_killed_dies_when_it_is_noticed(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    store = Store(str(limpet.root), f"{limpet.root}/run")
    from limpet.containers import state

    container = state.find(store, "web")
    os.kill(state.status(store, container).monitor, 9)
    while state.monitored(store, container.id):
        time.sleep(0.01)
    limpet("rm", "web")
    assert actions(limpet, "-f", "container=web")[-2:] == ["die", "destroy"]


def test_the_text_and_templates(limpet: Any, busybox: str) -> None:
    limpet("create", "--name", "web", busybox, "true")
    line = limpet("events", "--since", "1h", "--until", "0s", "-f", "container=web").stdout
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d)"
    assert re.fullmatch(rf"{moment} container create [0-9a-f]{{64}} \(image=busybox:test, name=web\)\n", line)
    template = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Status}} {{.From}}"
    args = ("--since", "1h", "--until", "0s", "-f", "event=create", "--format", template)
    assert limpet("system", "events", *args).stdout == "container create web create busybox:test\n"
    result = limpet("events", "-f", "colour=red", "--until", "0s", check=False)
    assert (result.returncode, result.stderr.splitlines()[0]) == (1, "limpet: invalid filter 'colour=red'")


def test_it_follows_and_ends_at_its_time(limpet: Any, busybox: str) -> None:
    command = [*limpet.command, "events", "-f", "event=die", "--format", "{{.Actor.Attributes.exitCode}}"]
    limpet("run", "--rm", busybox, "true")  # before: not shown
    follower = subprocess.Popen(command, env=limpet.environment, stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    with follower:
        while not inotify_watches(follower.pid):
            time.sleep(0.01)
        for code in (5, 6):
            limpet("run", "--rm", busybox, "sh", "-c", f"exit {code}", check=False)
            assert follower.stdout.readline() == f"{code}\n"
        follower.terminate()
    begin = time.monotonic()
    limpet("events", "--until", str(time.time() + 0.5))
    assert 0.3 < time.monotonic() - begin < 10


def inotify_watches(pid: int) -> bool:
    """It follows as soon as it waits; before that it may still be loading modules."""
    try:
        return any("inotify" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def test_a_follower_sees_all_over_rotations(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "LIMIT", 2_000)
    seen: list[str] = []
    follower = eventstream.Follower(eventlog.directory(store), from_end=True)
    for number in range(300):
        eventlog.write(store, "test", "count", str(number), {"filling": "x" * 50})
        if number % 7 == 0:
            seen += [event.id for event in follower.read()]
    seen += [event.id for event in follower.read()]
    follower.close()
    assert seen == [str(number) for number in range(300)]


def test_lines_of_others_and_halves_of_lines_are_skipped(store: Store) -> None:
    eventlog.write(store, "test", "one", "1", {})
    with open(f"{eventlog.directory(store)}/log", "ab") as file:
        file.write(b'garbage\n[1]\n{"a": 1}\n[1, "a", "b", "c", [1]]\n')
    eventlog.write(store, "test", "two", "2", {})
    with open(f"{eventlog.directory(store)}/log", "ab") as file:
        file.write(b'[123, "half')
    found = eventstream.stream(store, since=1, until=time.time() + 0.01)
    assert [event.id for event in found] == ["1", "2"]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ((), "abcd"),
        (("type=image",), "c"),
        (("type=image", "type=volume"), "cd"),
        (("container=web",), "a"),
        (("container=we",), "a"),  # as moby: a pattern from the beginning
        (("container=id-b",), "b"),
        (("event=exec_start",), "b"),
        (("event=start",), "a"),
        (("image=debian",), "abc"),
        (("image=debian:12", "type=container"), "a"),
        (("label=x",), "a"),
        (("label=x=1", "label=y=2"), "a"),
        (("label=x=2",), ""),
        (("volume=data",), "d"),
        (("scope=swarm",), ""),
        (("daemon=x",), ""),
    ],
)
def test_filters(filters: tuple[str, ...], wanted: str) -> None:
    matches = eventstream._filter(filters)
    events = (
        eventstream.Event(1, "container", "start", "id-a", {"name": "web", "image": "debian:12", "x": "1", "y": "2"}),
        eventstream.Event(2, "container", "exec_start: ls", "id-b", {"name": "db", "image": "debian:13"}),
        eventstream.Event(3, "image", "tag", "sha256:c", {"name": "debian:12"}),
        eventstream.Event(4, "volume", "create", "data", {"driver": "local"}),
    )
    assert "".join(letter for letter, event in zip("abcd", events, strict=True) if matches(event)) == wanted


def test_a_filter_that_is_none() -> None:
    for text in ("event", "colour=red"):
        with pytest.raises(Invalid):
            eventstream._filter([text])


def test_a_rename_while_it_runs_is_known_to_its_monitor(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "old", busybox, "sleep", "1000")
    limpet("rename", "old", "new")
    limpet("kill", "new")
    limpet("wait", "new")
    (event,) = told(limpet, "-f", "event=die")
    assert event["Actor"]["Attributes"]["name"] == "new"


def test_who_hears_of_an_end_may_remove_the_container(limpet: Any, busybox: str) -> None:
    """The event comes when the end is on record."""
    command = [*limpet.command, "events", "-f", "event=die", "--format", "{{.ID}}"]
    with subprocess.Popen(command, env=limpet.environment, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        while not inotify_watches(follower.pid):
            time.sleep(0.01)
        for _ in range(3):
            limpet("run", "-d", busybox, "sleep", "0.1")
            name = follower.stdout.readline().strip()
            assert limpet("inspect", "-f", "{{.State.Status}}", name).stdout == "exited\n"
        follower.terminate()
