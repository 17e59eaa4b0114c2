"""Commands that run at the same time: none is refused for the other's sake, nothing is lost, nothing dead-locks."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from limpet.containers.create import create
from limpet.containers.options import Options
from limpet.errors import NotFound
from limpet.images import catalog
from limpet.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

ROUNDS = 4


def at_once(limpet: Any, *scripts: str) -> list[str]:
    """Runs shell scripts side by side, in which `limpet` is the runner's. All succeed; what each printed."""
    command = shlex.join(limpet.command)
    environment = limpet.environment
    running = [
        subprocess.Popen(
            ["sh", "-c", f'set -e; limpet() {{ {command} "$@"; }}\n{script}'],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for script in scripts
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    for process, script, output in zip(running, scripts, outputs, strict=True):
        assert process.returncode == 0, f"{script}: {output}"
    return outputs


def test_images_come_and_go_while_others_are_collected(limpet: Any, busybox_tar: Path) -> None:
    loop = f"for i in $(seq {ROUNDS}); do"
    at_once(
        limpet,
        f"{loop} limpet import -q {busybox_tar} a:1; limpet rmi -f a:1; done",
        f"{loop} limpet import -q {busybox_tar} b:1; limpet rmi -f b:1; done",
        f"{loop} limpet capture -q c:$i true; done",
        f"{loop} limpet image prune -f; limpet system prune -f garbage; limpet system df; limpet images -q; done",
    )
    names = limpet("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert sorted(name for name in names if name != "<none>:<none>") == [f"c:{i}" for i in range(1, ROUNDS + 1)]
    limpet("system", "prune", "-f")
    assert limpet("system", "check").stdout == "nothing is wrong\n"


def test_containers_come_and_go_while_images_are_collected(limpet: Any, busybox: str) -> None:
    loop = f"for i in $(seq {ROUNDS}); do"
    outputs = at_once(
        limpet,
        f"{loop} limpet run --rm -v /data {busybox} echo one; done",
        f"{loop} limpet run --rm {busybox} echo two; done",
        f"{loop} limpet create --name x$i {busybox} true; limpet start -a x$i; limpet rm x$i; done",
        f"{loop} limpet system prune -f garbage; limpet ps -a; limpet system check; done",
    )
    assert outputs[0].count("one") == outputs[1].count("two") == ROUNDS
    limpet("system", "prune", "-f", "garbage")
    assert limpet("system", "check").stdout == "nothing is wrong\n"
    assert limpet("ps", "-aq").stdout == limpet("volume", "ls", "-q").stdout == ""


def test_one_name_is_given_once(limpet: Any, busybox: str) -> None:
    tries = [
        subprocess.Popen(
            [*limpet.command, "create", "--name", "same", busybox, "true"],
            env=limpet.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    errors = [process.communicate(timeout=60)[1] for process in tries]
    assert sorted(process.returncode for process in tries) == [0, 125, 125, 125]
    assert sum("already in use" in error for error in errors) == 3
    assert limpet("ps", "-aq").stdout.count("\n") == 1


def test_the_same_image_is_brought_twice_at_once(limpet: Any, busybox_tar: Path) -> None:
    limpet.environment["SOURCE_DATE_EPOCH"] = "1"
    outputs = at_once(limpet, *[f"limpet import -q {busybox_tar} same:1" for _ in range(4)])
    assert len(set(outputs)) == 1
    assert limpet("system", "check").stdout == "nothing is wrong\n"
    assert limpet("images", "-q").stdout.count("\n") == 1


def test_an_image_that_is_removed_while_a_container_is_made_of_it(limpet: Any, busybox: str) -> None:
    store = Store(str(limpet.root), f"{limpet.root}/run")
    image = catalog.find(store, busybox)
    limpet("rmi", busybox)
    with pytest.raises(NotFound, match="No such image: busybox:test"):
        create(store, image, Options(image=busybox, command=["true"]))
    store.close()
    assert limpet("ps", "-aq").stdout == ""
    assert limpet("system", "check").stdout == "nothing is wrong\n"
