"""Health checks of real containers: what is found, what is done about it, and that the monitor sleeps in between."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from limpet.containers import state
from limpet.containers.monitor import healthcheck, hibernation
from limpet.errors import Invalid
from limpet.store.store import Store

pytestmark = pytest.mark.slow

OK = "test -e /dev/shm/ok"
FAST = ("--health-interval", "100ms", "--health-retries", "2")


def inspected(limpet: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(limpet("inspect", name).stdout)[0]
    return found


def health(limpet: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = inspected(limpet, name)["State"].get("Health") or {}
    return found


def wait_for(check: Any, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.02)


def actions(limpet: Any, name: str) -> list[str]:
    args = ("--since", "1h", "--until", "0s", "-f", f"container={name}", "--format", "{{.Action}}")
    return limpet("events", *args).stdout.splitlines()


@pytest.mark.parametrize("runtime", ["limpet", "runc"])
def test_it_fails_and_recovers(limpet: Any, busybox: str, runtime: str) -> None:
    if runtime == "runc" and not os.path.exists("/usr/sbin/runc"):
        pytest.skip("needs runc")
    command = f"echo looked as $(id -u); {OK}"
    options = ("--runtime", runtime, "--health-cmd", command, *FAST, "-u", "user")
    limpet("run", "-d", "--name", "web", *options, busybox, "sleep", "1000")
    wait_for(lambda: health(limpet, "web")["Status"] == "unhealthy")
    assert limpet("ps", "--format", "{{.Status}}").stdout.endswith(" (unhealthy)\n")
    assert limpet("ps", "-f", "health=unhealthy", "--format", "{{.Names}}").stdout == "web\n"
    found = health(limpet, "web")
    assert found["FailingStreak"] >= 2
    assert (found["Log"][-1]["ExitCode"], found["Log"][-1]["Output"]) == (1, "looked as 1000\n")
    limpet("exec", "web", "touch", "/dev/shm/ok")
    wait_for(lambda: health(limpet, "web")["Status"] == "healthy")
    assert limpet("ps", "--format", "{{.Status}}").stdout.endswith(" (healthy)\n")
    assert health(limpet, "web")["FailingStreak"] == 0
    wait_for(lambda: len(health(limpet, "web")["Log"]) == 5)
    wanted = ["health_status: unhealthy", "health_status: healthy"]
    assert [action for action in actions(limpet, "web") if action.startswith("health")] == wanted
    assert not any(action.startswith("exec_create: /bin/sh") for action in actions(limpet, "web"))


def test_a_start_period_forgives(limpet: Any, busybox: str) -> None:
    options = ("--health-cmd", OK, *FAST, "--health-start-period", "1h", "--health-start-interval", "50ms")
    limpet("run", "-d", "--name", "web", *options, busybox, "sleep", "1000")
    wait_for(lambda: len(health(limpet, "web")["Log"]) >= 4)
    assert health(limpet, "web")["Status"] == "starting"
    assert health(limpet, "web")["FailingStreak"] == 0
    assert limpet("ps", "--format", "{{.Status}}").stdout.endswith(" (health: starting)\n")
    limpet("exec", "web", "touch", "/dev/shm/ok")
    wait_for(lambda: health(limpet, "web")["Status"] == "healthy")
    limpet("exec", "web", "rm", "/dev/shm/ok")
    wait_for(lambda: health(limpet, "web")["Status"] == "unhealthy")  # it was healthy: from then on failures count


def test_a_check_that_takes_too_long_is_ended(limpet: Any, busybox: str) -> None:
    options = ("--health-cmd", "sleep 1234", "--health-timeout", "200ms", *FAST)
    limpet("run", "-d", "--name", "web", *options, busybox, "sleep", "1000")
    wait_for(lambda: health(limpet, "web")["Status"] == "unhealthy")
    entry = health(limpet, "web")["Log"][0]
    assert (entry["ExitCode"], entry["Output"]) == (-1, "Health check exceeded timeout (0.2s)")
    limpet("exec", "web", "touch", "/dev/shm/x")
    assert limpet("top", "web").stdout.count("sleep 1234") <= 2  # sh and sleep of the one that goes on


def test_much_output_and_no_program(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", "--health-cmd", "yes | head -c 100000", *FAST, busybox, "sleep", "1000")
    wait_for(lambda: health(limpet, "web")["Status"] == "healthy")
    output = health(limpet, "web")["Log"][0]["Output"]
    assert output == "y\n" * 2048 + "..."
    limpet("run", "-d", "--name", "bad", "--health-cmd", "no-such-program", *FAST, busybox, "sleep", "1000")
    wait_for(lambda: health(limpet, "bad")["Status"] == "unhealthy")
    assert "not found" in health(limpet, "bad")["Log"][0]["Output"]


def test_on_failure_restart_whatever_the_policy(limpet: Any, busybox: str) -> None:
    options = ("--health-cmd", "test ! -e /bad", *FAST, "--health-on-failure", "restart", "--stop-timeout", "3")
    script = "rm -f /bad; sleep 1000"
    limpet("run", "-d", "--name", "web", *options, busybox, "sh", "-c", script)
    wait_for(lambda: health(limpet, "web")["Status"] == "healthy")
    for count in (1, 2):
        limpet("exec", "web", "touch", "/bad")
        wait_for(lambda count=count: inspected(limpet, "web")["RestartCount"] == count)
        wait_for(lambda: health(limpet, "web")["Status"] == "healthy")
    assert inspected(limpet, "web")["State"]["Running"] is True
    limpet("stop", "-t", "3", "web")
    assert inspected(limpet, "web")["State"]["Running"] is False


@pytest.mark.parametrize(("action", "code"), [("stop", 143), ("kill", 137)])
def test_on_failure_stop_and_kill(limpet: Any, busybox: str, action: str, code: int) -> None:
    options = ("--health-cmd", "false", *FAST, "--health-on-failure", action)
    policy = ("--restart", "always") if action == "stop" else ()
    limpet("run", "-d", "--name", "web", *options, *policy, busybox, "sleep", "1000")
    wait_for(lambda: inspected(limpet, "web")["State"]["Status"] == "exited")
    found = inspected(limpet, "web")["State"]
    assert (found["ExitCode"], found["Health"]["Status"]) == (code, "unhealthy")
    assert limpet("ps", "-a", "--format", "{{.Status}}").stdout.startswith(f"Exited ({code}) ")


def test_a_paused_container_is_not_checked(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", "--health-cmd", "true", *FAST, busybox, "sleep", "1000")
    wait_for(lambda: health(limpet, "web")["Status"] == "healthy")
    limpet("pause", "web")
    before = health(limpet, "web")["Log"]
    time.sleep(0.5)  # five intervals: nothing tells that nothing happens
    after = health(limpet, "web")["Log"]
    assert all(entry["ExitCode"] == 0 for entry in after if entry["Start"] > before[-1]["Start"]) or after == before
    assert health(limpet, "web")["Status"] == "healthy"
    limpet("unpause", "web")
    wait_for(lambda: health(limpet, "web")["Log"][-1]["Start"] > after[-1]["Start"])


def test_the_image_says_how_and_the_user_changes_it(limpet: Any, busybox: str, tmp_path: Path) -> None:
    check = "HEALTHCHECK --interval=100ms --retries=1 CMD test -e /dev/shm/ok"
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox}\n{check}\n")
    limpet("build", "-t", "checked:1", tmp_path)
    limpet("run", "-d", "--name", "one", "checked:1", "sleep", "1000")
    wait_for(lambda: health(limpet, "one")["Status"] == "unhealthy")
    limpet("run", "-d", "--name", "two", "--health-cmd", "true", "checked:1", "sleep", "1000")
    wait_for(lambda: health(limpet, "two")["Status"] == "healthy")
    assert inspected(limpet, "two")["Config"]["Healthcheck"] == {
        "Test": ["CMD-SHELL", "true"],
        "Interval": 10**8,
        "Retries": 1,
    }
    limpet("run", "-d", "--name", "three", "--no-healthcheck", "checked:1", "sleep", "1000")
    assert "Health" not in inspected(limpet, "three")["State"]
    assert limpet("ps", "-f", "health=none", "--format", "{{.Names}}").stdout == "three\n"


@pytest.mark.skipif(not hibernation.possible(), reason="no machine code for this machine")
def test_the_monitor_sleeps_between_two_checks(limpet: Any, busybox: str) -> None:
    options = ("--health-cmd", OK, "--health-interval", "10s", "--health-retries", "1")
    limpet("run", "-d", "--name", "web", *options, busybox, "sleep", "1000")
    store = Store(str(limpet.root), f"{limpet.root}/run")
    monitor = state.status(store, state.find(store, "web")).monitor

    def asleep() -> bool:
        return "limpet-monitor" in os.readlink(f"/proc/{monitor}/exe")

    wait_for(asleep)
    assert health(limpet, "web")["Status"] == "starting"
    wait_for(lambda: health(limpet, "web")["Status"] == "unhealthy")
    wait_for(asleep)
    assert limpet("stop", "-t", "2", "web").returncode == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--health-interval", "5us"), "Interval in Healthcheck cannot be less than 1ms"),
        (("--health-timeout", "-5s"), "--health-timeout cannot be negative"),
        (("--health-retries", "-1"), "--health-retries cannot be negative"),
        (("--health-interval", "soon"), 'invalid argument "soon" for "--health-interval" flag'),
        (("--no-healthcheck", "--health-cmd", "true"), "--no-healthcheck conflicts with --health-* options"),
        (("--health-on-failure", "explode"), 'invalid argument "explode" for "--health-on-failure" flag'),
    ],
)
def test_what_is_refused(limpet: Any, busybox: str, options: tuple[str, ...], words: str) -> None:
    result = limpet("create", *options, busybox, "true", check=False)
    assert (result.returncode, result.stderr.startswith(f"limpet: {words}")) == (125, True), result.stderr


def test_merging() -> None:
    image = {"config": {"Healthcheck": {"Test": ["CMD", "a", "b"], "Interval": 7 * 10**9}, "Shell": ["/bin/x", "-y"]}}
    assert healthcheck.merged({}, {}) is None
    assert healthcheck.merged({"Interval": 5}, {}) is None
    assert healthcheck.merged({"Test": ["NONE"]}, image) is None
    found = healthcheck.merged({"Retries": 9}, image)
    assert found == {**healthcheck.DEFAULTS, "Test": ["CMD", "a", "b"], "Interval": 7 * 10**9, "Retries": 9}
    assert healthcheck.command(found, image) == ["a", "b"]
    assert healthcheck.command({"Test": ["CMD-SHELL", "a b"]}, image) == ["/bin/x", "-y", "a b"]
    assert healthcheck.command({"Test": ["CMD-SHELL", "a b"]}, {}) == ["/bin/sh", "-c", "a b"]
    hostile: dict[str, Any] = {"config": {"Healthcheck": {"Test": "text", "Interval": "x"}}}
    assert healthcheck.merged({}, hostile) is None
    with pytest.raises(Invalid):
        healthcheck.validate({"OnFailure": "explode"})
