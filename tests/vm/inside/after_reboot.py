"""After the reboot that followed `before_reboot`: nobody has called limpet by hand."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.vm.inside.machine_limpet import limpet, systemctl


def test_who_has_a_restart_policy_is_up_and_the_others_are_not() -> None:
    assert systemctl("is-active", "limpet.service") == "active", systemctl("status", "limpet.service")
    assert sorted(limpet("ps", "--format", "{{.Names}}").split()) == ["always", "limited", "unless"]


def test_they_were_stopped_gently() -> None:
    """Twice begun, and at the machine's end between them told to stop: systemd killed no container and no monitor."""
    for name in ("always", "limited", "unless"):
        assert limpet("logs", name).split() == ["began", "gently", "began"], name
    assert limpet("logs", "once").split() == ["began", "gently"]
    assert json.loads(limpet("inspect", "once"))[0]["State"]["ExitCode"] == 0


def test_limits_hold_after_the_boot_too() -> None:
    found = json.loads(limpet("inspect", "limited"))[0]
    line = Path(f"/proc/{found['State']['Pid']}/cgroup").read_text().strip()
    group = "/sys/fs/cgroup" + line.partition("::")[2]
    assert Path(group, "memory.max").read_text().strip() == str(64 << 20)
    assert Path(group, "cpu.max").read_text().split() == ["50000", "100000"]


def test_a_restart_of_the_service_is_one_of_the_containers() -> None:
    """It stops those that run and starts those with a restart policy."""
    before = json.loads(limpet("inspect", "always"))[0]["State"]["Pid"]
    assert systemctl("restart", "limpet.service") == ""
    after = json.loads(limpet("inspect", "always"))[0]["State"]["Pid"]
    assert after != before
    assert not os.path.exists(f"/proc/{before}")
    assert sorted(limpet("ps", "--format", "{{.Names}}").split()) == ["always", "limited", "unless"]


def test_a_killed_monitor_is_made_good_by_the_timer_s_service() -> None:
    found = json.loads(limpet("inspect", "unless"))[0]["State"]["Pid"]
    status = Path(f"/proc/{found}/status").read_text()
    parent = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
    subprocess.run(["kill", "-KILL", parent], check=True)
    systemctl("start", "limpet-recover.service")
    assert sorted(limpet("ps", "--format", "{{.Names}}").split()) == ["always", "limited", "unless"]


def test_the_service_can_be_taken_away() -> None:
    limpet("system", "install", "--remove")
    assert not os.path.exists("/etc/systemd/system/limpet.service")
    limpet("rm", "-f", "always", "limited", "unless", "once", "by-hand")
    assert limpet("ps", "-aq") == ""
