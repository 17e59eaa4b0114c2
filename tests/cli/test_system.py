"""info and version."""

from __future__ import annotations

import json
import os
from typing import Any

import limpet as package


def test_version(limpet: Any) -> None:
    assert limpet("--version").stdout == f"limpet version {package.__version__}\n"
    assert limpet("version").stdout.splitlines()[0].split() == ["Version:", package.__version__]
    both = json.loads(limpet("version", "--format", "json").stdout)
    assert both["Client"] == both["Server"]
    asked = "{{.Client.Version}} {{.Server.Version}} {{.Version}} {{.Server.KernelVersion}}"
    answer = limpet("version", "-f", asked).stdout.split()
    assert answer == [package.__version__] * 3 + [os.uname().release]


def test_info_counts_and_names_every_feature(limpet: Any, busybox: str) -> None:
    limpet("run", "-d", "--name", "web", busybox, "sleep", "1000")
    limpet("create", busybox, "true")
    found = json.loads(limpet("info", "--format", "json").stdout)
    assert (found["Containers"], found["ContainersRunning"], found["ContainersStopped"]) == (2, 1, 1)
    assert (found["Images"], found["DockerRootDir"]) == (1, str(limpet.root))
    assert found["Driver"] in ("erofs", "dir")
    assert found["NCPU"] == os.cpu_count()
    for feature in found["Features"]:
        assert feature["State"] in ("used", "unused", "missing")
        assert feature["Cost"] or feature["State"] != "missing"
    shown = limpet("info").stdout
    for line in (f"Root directory: {limpet.root}", " Running: 1", "Images: 1", f"Storage driver: {found['Driver']}"):
        assert line in shown.splitlines()
    assert all(feature["Name"] in shown for feature in found["Features"])
