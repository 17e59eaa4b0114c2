"""Which image `run` takes, and what it says when there is none."""

from __future__ import annotations

import os
from typing import Any

from limpet.oci.platform import host

OTHER = "linux/s390x"
NOWHERE = "localhost:1/busybox:test"
"""Port 1 refuses at once: what is not here can't be pulled."""


def test_a_near_name_is_offered_when_the_registry_has_none(limpet: Any, busybox: str) -> None:
    limpet("tag", busybox, NOWHERE)
    result = limpet("run", NOWHERE.replace("box", "bxo"), "true", check=False)
    lines = result.stderr.splitlines()
    assert result.returncode == 125
    assert lines[0] == "Unable to find image 'localhost:1/busybxo:test' locally"
    assert lines[-2] == "limpet: cannot connect to localhost:1: Connection refused"
    assert lines[-1].startswith("did you mean localhost:1/busybox:test?")


def test_the_image_for_another_platform_is_not_the_wanted_one(limpet: Any, busybox: str) -> None:
    limpet("tag", busybox, NOWHERE)
    result = limpet("run", "--platform", OTHER, NOWHERE, "true", check=False)
    assert result.returncode == 125
    assert result.stderr.splitlines()[0] == f"Unable to find image '{NOWHERE}' for {OTHER} locally"
    result = limpet("run", "--pull", "never", "--platform", OTHER, NOWHERE, "true", check=False)
    assert (result.returncode, result.stderr) == (125, f"limpet: {NOWHERE}: the image here is not for {OTHER}\n")
    assert limpet("ps", "-aq").stdout == ""


def test_the_hosts_own_image_is_for_no_other_platform(limpet: Any) -> None:
    for command in (["run", "--rm"], ["create"]):
        result = limpet(*command, "--platform", OTHER, "limpet/host", "true", check=False)
        assert (
            f"limpet/host is this machine's own, linux/{host().architecture}: there is none for {OTHER}"
            in result.stderr
        )
        assert result.returncode == 125
    assert limpet("images", "-q").stdout == ""


def test_the_platform_of_this_machine_is_here(limpet: Any, busybox: str) -> None:
    for platform in ("linux", os.uname().machine, f"linux/{os.uname().machine}"):
        limpet("run", "--rm", "--platform", platform, busybox, "true")


def test_never_pulled(limpet: Any) -> None:
    result = limpet("run", "--pull", "never", NOWHERE, "true", check=False)
    assert (result.returncode, result.stderr) == (125, f"limpet: No such image: {NOWHERE}\n")
