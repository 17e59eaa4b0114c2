"""limpet manifest: a list of images for several platforms, put together and pushed to a real registry."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from tests.registry import server

from limpet.registry.client import Registry

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.slow


def _images(registry: server.Registry, *names: str, docker: bool = False) -> list[server.Image]:
    found = []
    for name in names:
        tar = server.tar_of({name: os.urandom(5000)})
        image = server.make_image([tar], architecture=name.rpartition("-")[2], docker=docker)
        registry.push(image, name)
        found.append(image)
    return found


def test_a_list_is_made_and_pushed(limpet: Any, registry: server.Registry) -> None:
    """One image lies in another repository of the registry: it is mounted there."""
    name = f"{registry.domain}/list:1"
    amd, arm = _images(registry, "list:1-amd64", "list-other:1-arm64")
    names = [f"{registry.domain}/list:1-amd64", f"{registry.domain}/list-other:1-arm64"]
    assert limpet("manifest", "create", name, names[0]).stdout == f"Created manifest list {name}\n"
    again = limpet("manifest", "create", name, names[1], check=False)
    assert again.returncode == 1
    assert "--amend" in again.stderr
    limpet("manifest", "create", "--amend", name, names[1])
    limpet("manifest", "annotate", "--variant", "v9", "--os-features", "a,b", name, names[1])
    shown = json.loads(limpet("manifest", "inspect", name).stdout)
    assert [entry["digest"] for entry in shown["manifests"]] == [amd.digest, arm.digest]
    assert shown["manifests"][0]["platform"] == {"os": "linux", "architecture": "amd64"}
    assert shown["manifests"][1]["platform"] == {
        "os": "linux", "architecture": "arm64", "variant": "v9", "os.features": ["a", "b"],
    }  # fmt: skip
    # A variant is passed on as it was written, though v8 is what arm64 means without one.
    limpet("manifest", "annotate", "--variant", "v8", name, names[1])
    shown = json.loads(limpet("manifest", "inspect", name).stdout)
    assert shown["manifests"][1]["platform"]["variant"] == "v8"
    limpet("manifest", "annotate", "--arch", "riscv64", name, names[1])
    assert "variant" not in json.loads(limpet("manifest", "inspect", name).stdout)["manifests"][1]["platform"]
    limpet("manifest", "annotate", "--arch", "arm64", "--variant", "v8", name, names[1])
    shown = json.loads(limpet("manifest", "inspect", name).stdout)
    digest = limpet("manifest", "push", "-p", name).stdout.strip()
    data, media_type, found = Registry(registry.domain).manifest("list", "1")
    assert (found, media_type) == (digest, "application/vnd.oci.image.index.v1+json")
    assert json.loads(data) == shown
    assert Registry(registry.domain).manifest("list", arm.digest)[0] == arm.manifest
    assert limpet("pull", "-q", "--platform", "linux/amd64", name).stdout == f"{name}\n"
    gone = limpet("manifest", "push", name, check=False)
    assert f"there is no list {name}" in gone.stderr
    assert json.loads(limpet("manifest", "inspect", name).stdout) == shown  # from the registry now
    verbose = json.loads(limpet("manifest", "inspect", "-v", name).stdout)
    assert [entry["OCIManifest"]["config"]["digest"] for entry in verbose] == [amd.id, arm.id]


def test_dockers_images_make_dockers_list(limpet: Any, registry: server.Registry) -> None:
    name = f"{registry.domain}/docker:1"
    _images(registry, "docker:1-amd64", "docker:1-s390x", docker=True)
    limpet("manifest", "create", name, f"{registry.domain}/docker:1-amd64", f"{registry.domain}/docker:1-s390x")
    limpet("manifest", "push", name)
    assert Registry(registry.domain).manifest("docker", "1")[1].endswith("manifest.list.v2+json")
    limpet("manifest", "create", f"{name}-more", name)  # an index stands for its images
    assert len(json.loads(limpet("manifest", "inspect", f"{name}-more").stdout)["manifests"]) == 2
    limpet("manifest", "rm", name, f"{name}-more")
    assert os.listdir(limpet.root / "indexes") == []


def test_what_is_refused(limpet: Any, registry: server.Registry, busybox: str) -> None:
    name = f"{registry.domain}/refused:1"
    (image,) = _images(registry, "refused:1-amd64")
    missing = limpet("manifest", "create", name, f"{registry.domain}/refused:never", check=False)
    assert f"limpet push {registry.domain}/refused:never" in missing.stderr
    limpet("manifest", "create", name, f"{registry.domain}/refused:1-amd64")
    other = limpet("manifest", "annotate", "--os", "linux", name, f"{registry.domain}/refused:2", check=False)
    assert f"in it are: {registry.domain}/refused:1-amd64" in other.stderr
    nothing = limpet("manifest", "annotate", name, f"{registry.domain}/refused:1-amd64", check=False)
    assert "nothing to change" in nothing.stderr
    for option, word, said in (
        ("--arch", "arm65", "'arm65' is not an architecture; did you mean arm64?"),
        ("--arch", "quantum", "'quantum' is not an architecture; there are: 386, "),
        ("--os", "linus", "'linus' is not an operating system; did you mean linux?"),
    ):
        wrong = limpet("manifest", "annotate", option, word, name, f"{registry.domain}/refused:1-amd64", check=False)
        assert wrong.returncode == 1
        assert said in wrong.stderr.replace("\n        ", "; ").replace("\n", "; ")
    digest = limpet("manifest", "create", f"{registry.domain}/x@{image.digest}", name, check=False)
    assert "a list has a name and a tag" in digest.stderr
