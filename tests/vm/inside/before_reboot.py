"""A machine with containers, and limpet installed as its service; then it is rebooted."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.vm.inside.machine_limpet import NAMES, SCRIPT, limpet, systemctl


def test_the_service_is_installed_and_containers_run(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy("/bin/busybox", tmp_path / "bin/busybox")
    for applet in ("sh", "sleep", "echo"):
        (tmp_path / "bin" / applet).symlink_to("busybox")
    limpet("import", str(tmp_path), "busybox:test")
    policies = {"unless": "unless-stopped", "once": "no"}
    for name in NAMES:
        limits = ["--memory", "64m", "--cpus", "0.5"] if name == "limited" else []
        policy = policies.get(name, "always")
        limpet("run", "-d", "--name", name, "--restart", policy, *limits, "busybox:test", "sh", "-c", SCRIPT)
    limpet("stop", "by-hand")
    limpet("system", "install")
    assert systemctl("is-enabled", "limpet.service", "limpet-recover.timer").split() == ["enabled", "enabled"]
    assert systemctl("is-active", "limpet.service", "limpet-recover.timer").split() == ["active", "active"]
    assert sorted(limpet("ps", "--format", "{{.Names}}").split()) == ["always", "limited", "once", "unless"]
