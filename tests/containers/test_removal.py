"""What a removal takes, and what it leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from limpet.containers import removal, state
from limpet.containers.mounts import volumes
from limpet.store.files import remove_tree
from limpet.store.store import Store


@pytest.fixture
def mine(limpet: Any, busybox: str) -> Store:
    return Store(str(limpet.root), f"{limpet.root}/run")


def names_of(store: Store) -> list[str]:
    return [volume.name for volume in volumes.all_volumes(store)]


def test_anonymous_volumes_go_with_v_and_named_ones_stay(limpet: Any, mine: Store, busybox: str) -> None:
    for name in ("one", "two"):
        limpet("create", "--name", name, "-v", "/anonymous", "-v", "named:/data", busybox, "true")
    assert len(names_of(mine)) == 3
    limpet("rm", "one")
    assert len(names_of(mine)) == 3
    limpet("rm", "-v", "two")
    assert len(names_of(mine)) == 2
    assert "named" in names_of(mine)
    assert sorted(os.listdir(f"{mine.root}/volumes")) == names_of(mine)


def test_an_anonymous_volume_that_another_mounts_stays(limpet: Any, mine: Store, busybox: str) -> None:
    limpet("create", "--name", "one", "-v", "/anonymous", busybox, "true")
    (volume,) = names_of(mine)
    limpet("create", "--name", "two", "-v", f"{volume}:/data", busybox, "true")
    limpet("rm", "-v", "one")
    assert names_of(mine) == [volume]
    limpet("rm", "-v", "two")
    assert names_of(mine) == []


def test_run_rm_takes_its_volumes_along(limpet: Any, mine: Store, busybox: str) -> None:
    limpet("run", "--rm", "-v", "/anonymous", busybox, "touch", "/anonymous/x")
    assert names_of(mine) == []
    assert os.listdir(f"{mine.root}/containers") == []
    assert os.listdir(f"{mine.root}/tmp") == []


def test_what_is_gone_already_is_fine(limpet: Any, mine: Store, busybox: str) -> None:
    limpet("create", "--name", "web", busybox, "true")
    container = state.find(mine, "web")
    for _ in range(2):
        removal.remove_container(mine, container.id, with_volumes=True)
    assert state.all_containers(mine) == []


def test_a_row_without_files(limpet: Any, mine: Store, busybox: str) -> None:
    limpet("create", "--name", "web", busybox, "true")
    remove_tree(mine.container_path(state.find(mine, "web").id))
    assert limpet("ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout == "web Created\n"
    assert limpet("start", "web", check=False).returncode == 1
    assert limpet("inspect", "-f", "{{.Name}}", "web").stdout == "/web\n"
    assert limpet("rm", "web").stdout == "web\n"
    assert state.all_containers(mine) == []
    assert os.listdir(mine.run) == []


def test_a_tree_that_resists(limpet: Any, mine: Store, busybox: str, tmp_path: Path) -> None:
    """Directories without permissions, and links to what must stay."""
    (tmp_path / "precious").write_text("x")
    script = f"mkdir -p /a/b/c; touch /a/b/c/d; chmod 0 /a/b /a; ln -s {tmp_path} /link; ln -s {tmp_path} /a/link"
    limpet("run", "--name", "web", busybox, "sh", "-c", script)
    limpet("rm", "web")
    assert os.listdir(f"{mine.root}/containers") == []
    assert os.listdir(f"{mine.root}/tmp") == []
    assert (tmp_path / "precious").read_text() == "x"
