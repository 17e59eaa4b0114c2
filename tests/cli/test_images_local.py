"""images, image inspect, tag, rmi, history, image prune, capture, import as a user types them: Docker's output."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_images(limpet: Any, busybox: str) -> None:
    limpet("tag", busybox, "localhost:5000/other")
    header, *lines = limpet("images").stdout.splitlines()
    assert header.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert [re.split(r" {3,}", line)[:2] for line in lines] == [
        ["busybox", "test"],
        ["localhost:5000/other", "latest"],
    ]
    assert re.fullmatch(r"busybox {15,}test +[0-9a-f]{12}   .* ago +2\.\d+MB", lines[0])
    assert limpet("image", "ls", "-q", "busybox").stdout.split() == [lines[0].split()[2]]
    assert "<none>" in limpet("images", "--digests").stdout
    (whole,) = set(limpet("images", "-q", "--no-trunc").stdout.split())
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", whole)


def test_images_formats(limpet: Any, busybox: str) -> None:
    assert limpet("images", "--format", "{{.Repository}}:{{.Tag}}").stdout == f"{busybox}\n"
    assert limpet("images", "--format", "table {{.Tag}}\\t{{.Repository}}").stdout == (
        "TAG       REPOSITORY\ntest      busybox\n"
    )
    (row,) = map(json.loads, limpet("images", "--format", "json").stdout.splitlines())
    assert (row["Repository"], row["Tag"], row["Containers"]) == ("busybox", "test", "N/A")
    assert limpet("images", "nothing").stdout.splitlines() == ["REPOSITORY   TAG       IMAGE ID   CREATED   SIZE"]
    assert limpet("images", "-q", "--filter", "dangling=true").stdout == ""
    result = limpet("images", "--filter", "nonsense=1", check=False)
    assert (result.returncode, result.stderr.splitlines()[0]) == (1, "limpet: invalid filter 'nonsense'")


def test_inspect(limpet: Any, busybox: str) -> None:
    (found,) = json.loads(limpet("image", "inspect", busybox).stdout)
    assert found["RepoTags"] == [busybox]
    assert found["RootFS"]["Type"] == "layers"
    assert found["Config"]["User"] == ""
    assert limpet("image", "inspect", "-f", "{{.Os}} {{.RootFS.Type}}", busybox).stdout == "linux layers\n"
    result = limpet("image", "inspect", "nothing", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("[]\n", "limpet: No such image: nothing\n", 1)


def test_tag_and_rmi(limpet: Any, busybox: str) -> None:
    image_id = limpet("images", "-q", "--no-trunc").stdout.strip()
    assert limpet("tag", busybox, "other:1").stdout == ""
    assert limpet("rmi", "other:1").stdout == "Untagged: other:1\n"
    result = limpet("tag", "bussybox:test", "x", check=False)
    assert result.returncode == 1
    assert "did you mean busybox:test?" in result.stderr
    result = limpet("rmi", "nothing", busybox, check=False)
    assert (result.returncode, result.stderr) == (1, "limpet: No such image: nothing\n")
    assert result.stdout.splitlines()[:2] == ["Untagged: busybox:test", f"Deleted: {image_id}"]
    assert limpet("rmi", "-f", "nothing").stderr == "limpet: No such image: nothing\n"


def test_rmi_of_an_image_in_use(limpet: Any, busybox: str) -> None:
    limpet("create", "--name", "one", busybox, "true")
    result = limpet("rmi", busybox, check=False)
    assert result.returncode == 1
    assert "(must force) - container" in result.stderr
    assert limpet("rmi", "-f", busybox).stdout.startswith("Untagged: busybox:test\nDeleted: sha256:")
    assert limpet("start", "-a", "one").returncode == 0  # its layers are still there


def test_history(limpet: Any, busybox: str, busybox_tar: Path) -> None:
    limpet("import", "-m", "a" * 60, busybox_tar, "commented")
    header, line = limpet("history", "commented").stdout.splitlines()
    assert header.split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert line.endswith("a" * 60)
    assert limpet("history", "-q", "--no-trunc", busybox).stdout.startswith("sha256:")
    assert limpet("history", "--human=false", "--format", "{{.Size}}", busybox).stdout == (
        f"{busybox_tar.stat().st_size}\n"
    )


def test_image_prune_shows_before_it_takes(limpet: Any, busybox: str) -> None:
    limpet("rmi", "-f", busybox)
    assert limpet("image", "prune").stdout == "Total reclaimed space: 0B\n"
    limpet("capture", "-q", "loose:1", "true")
    result = limpet("image", "prune", "-a", input="n\n")
    assert "loose:1" in result.stdout
    assert re.search(r"freeing [\d.]+MB\.\nAre you sure you want to continue\? \[y/N\]", result.stdout)
    assert limpet("images", "-q").stdout
    result = limpet("image", "prune", "-a", input="y\n")
    assert re.search(r"Deleted Images:\nuntagged: loose:1\ndeleted: sha256:", result.stdout)
    assert re.search(r"Total reclaimed space: [\d.]+MB\n$", result.stdout)


def test_import_from_standard_input_with_changes(limpet: Any, busybox_tar: Path) -> None:
    with open(busybox_tar, "rb") as file:
        result = limpet(
            "import", "-c", 'CMD ["echo", "hi"]', "-c", "ENV A=b", "--platform", "linux/amd64", "-", "x:1", stdin=file
        )
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", result.stdout)
    assert limpet("image", "inspect", "-f", "{{json .Config.Cmd}} {{.Config.Env}}", "x:1").stdout == (
        '["echo","hi"] [A=b]\n'
    )
    result = limpet("import", "/nonexistent", check=False)
    assert (result.returncode, result.stderr) == (1, "limpet: /nonexistent: no such file or directory\n")


def test_a_captured_image_runs(limpet: Any) -> None:
    limpet("capture", "-q", "limpet/host")
    code = "import ssl, sqlite3, http.server, json, ctypes; print('works')"
    assert limpet("run", "--rm", "limpet/host", "python3", "-c", code).stdout == "works\n"
    assert limpet("run", "--rm", "limpet/host", "sh", "-c", "ps -e -o args=").stdout.count("ps -e") == 2
