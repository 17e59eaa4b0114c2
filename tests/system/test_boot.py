"""What runs after a boot: shutdown and boot as the service of systemd calls them, and the service's units."""

from __future__ import annotations

import configparser
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def test_what_ran_comes_back_and_what_was_stopped_does_not(limpet: Any, busybox: str) -> None:
    script = "trap 'echo gently; exit 0' TERM; while sleep 0.1; do :; done"
    for name, policy in (("always", "always"), ("unless", "unless-stopped"), ("once", "no"), ("by-hand", "always")):
        limpet("run", "-d", "--name", name, "--restart", policy, busybox, "sh", "-c", script)
    limpet("stop", "by-hand")
    assert sorted(limpet("system", "shutdown").stdout.split()) == ["always", "once", "unless"]
    assert limpet("ps", "-q").stdout == ""
    assert limpet("logs", "always").stdout == "gently\n"
    assert limpet("system", "shutdown").stdout == ""
    assert sorted(limpet("system", "boot").stdout.splitlines()) == [
        "always: started (--restart always)",
        "unless: started (--restart unless-stopped)",
    ]
    assert sorted(limpet("ps", "--format", "{{.Names}}").stdout.split()) == ["always", "unless"]


def test_the_units_are_printed(limpet: Any) -> None:
    limpet.environment["LIMPET_ROOT"] += " 100%"
    units = limpet("system", "install", "--print").stdout.split("# /etc/systemd/system/")[1:]
    parsed = {}
    for unit in units:
        name, text = unit.split("\n", 1)
        parsed[name] = configparser.ConfigParser(interpolation=None, strict=False)
        parsed[name].optionxform = str  # type: ignore[assignment, method-assign]
        parsed[name].read_string(text)
    assert sorted(parsed) == ["limpet-recover.service", "limpet-recover.timer", "limpet.service"]
    service = parsed["limpet.service"]["Service"]
    assert service["ExecStart"].endswith(" system boot")
    assert service["ExecStop"].endswith(" system shutdown")
    assert parsed["limpet.service"]["Install"]["WantedBy"] == "multi-user.target"
