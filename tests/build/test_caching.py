"""The build cache on its way: written to a registry, a directory, an image; read in another store."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.registry import server

from limpet.build.caching import records
from limpet.oci import media

pytestmark = pytest.mark.slow

FILE = """\
FROM busybox:test AS tools
RUN mkdir /out && echo tool >/out/tool
FROM busybox:test
COPY file /srv/
COPY --from=tools /out/ /opt/
RUN tr a-z A-Z </srv/file >/LOUD
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "file").write_text("hello\n")
    (directory / "Dockerfile").write_text(FILE)
    return directory


@pytest.fixture
def other(limpet: Any, busybox: str, tmp_path: Path) -> Any:
    """A second store, with the same base image and nothing else."""
    runner = type(limpet)(tmp_path / "other")
    limpet("save", "-o", tmp_path / "base.tar", busybox)
    runner("load", "-q", "-i", tmp_path / "base.tar")
    return runner


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[server.Registry]:
    with server.docker_registry(tmp_path / "registry") as running:
        yield running


def build(limpet: Any, context: Path, *options: str, check: bool = True) -> Any:
    return limpet("build", "-t", "made", *options, context, check=check)


def cached(result: Any) -> int:
    return int(result.stderr.count(": cached\n"))


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


@pytest.mark.usefixtures("busybox")
@pytest.mark.parametrize("form", ["", ",image-manifest=false", ",oci-mediatypes=false", ",compression=zstd"])
def test_a_registry_carries_the_cache(
    limpet: Any, other: Any, registry: server.Registry, context: Path, tmp_path: Path, form: str
) -> None:
    name = f"{registry.domain}/team/cache:main"
    first = build(limpet, context, "--cache-to", f"type=registry,ref={name},mode=max{form}")
    assert f"Cache of 4 steps written to {name}" in first.stderr
    second = build(other, context, "--cache-from", f"type=registry,ref={name}")
    assert cached(second) == 4
    assert "ran in" not in second.stderr
    assert second.stdout == first.stdout
    assert other("run", "--rm", "made", "cat", "/LOUD", "/opt/tool").stdout == "HELLO\ntool\n"
    # The registry's other clients can carry it.
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    document = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if "manifests" in document:
        assert document["manifests"][-1]["mediaType"] == records.MEDIA_TYPE
        assert document["mediaType"] == (media.DOCKER_LIST if "oci-mediatypes" in form else media.OCI_INDEX)
    else:
        assert document["config"]["mediaType"] == records.MEDIA_TYPE
        copied = f"oci:{tmp_path}/copied:main"
        subprocess.run(["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", copied], check=True)
        other("rmi", "made")
        assert cached(build(other, context, "--cache-from", f"type=local,src={tmp_path}/copied,tag=main")) == 4


@pytest.mark.usefixtures("busybox")
def test_min_has_the_images_own_steps(limpet: Any, other: Any, context: Path, tmp_path: Path) -> None:
    layout = tmp_path / "cache"
    build(limpet, context, "--cache-to", f"type=local,dest={layout}")
    result = build(other, context, "--cache-from", f"type=local,src={layout}")
    assert cached(result) == 3
    assert "tools: ran in" in result.stderr


@pytest.mark.usefixtures("busybox")
def test_the_layout_is_what_buildkits_importer_reads(limpet: Any, context: Path, tmp_path: Path) -> None:
    """Field by field what cache/remotecache/import.go and v1/parse.go look at."""
    layout = tmp_path / "cache"
    build(limpet, context, "--cache-to", f"type=local,dest={layout},mode=max,tag=one")
    index = json.loads((layout / "index.json").read_text())
    assert [each["annotations"]["org.opencontainers.image.ref.name"] for each in index["manifests"]] == ["one"]
    manifest = json.loads(blob(layout, index["manifests"][0]["digest"]))
    config = json.loads(blob(layout, manifest["config"]["digest"]))
    known = {each["digest"]: each for each in manifest["layers"]}
    assert len(config["layers"]) == len(config["records"]) == 4
    for number, layer in enumerate(config["layers"]):
        described = known[layer["blob"]]
        assert -1 <= layer["parent"] < number
        data = blob(layout, layer["blob"])
        assert len(data) == described["size"]
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == layer["blob"]
        plain = subprocess.run(["gzip", "-dc"], input=data, check=True, capture_output=True).stdout
        diff_id = described["annotations"]["containerd.io/uncompressed"]
        assert f"sha256:{hashlib.sha256(plain).hexdigest()}" == diff_id
    for record in config["records"]:
        assert record["digest"].startswith("sha256:")
        assert len(record["digest"]) == 71
        assert [0 <= each["layer"] < 4 and each["createdAt"] for each in record["layers"]]
    again = tmp_path / "again"
    build(limpet, context, "--cache-to", f"type=local,dest={again},mode=max,tag=one")
    assert (again / "index.json").read_bytes() == (layout / "index.json").read_bytes()


@pytest.mark.usefixtures("busybox")
def test_stages_at_once_write_the_same_cache_and_read_it(
    limpet: Any, other: Any, context: Path, tmp_path: Path
) -> None:
    stages = [f"FROM busybox:test AS s{n}\nRUN echo {n} >/{n} && sleep 0.0{n}\nRUN echo {n} >>/{n}" for n in range(5)]
    copies = [f"COPY --from=s{n} /{n} /{n}" for n in range(5)]
    (context / "Dockerfile").write_text("\n".join([*stages, "FROM busybox:test", *copies]))
    build(limpet, context, "--cache-to", f"type=local,dest={tmp_path}/one,mode=max")
    build(other, context, "--cache-to", f"type=local,dest={tmp_path}/two,mode=max")
    assert (tmp_path / "one/index.json").read_bytes() == (tmp_path / "two/index.json").read_bytes()
    third = type(limpet)(tmp_path / "third")
    third("load", "-q", "-i", tmp_path / "base.tar")
    result = build(third, context, "--cache-from", f"type=local,src={tmp_path}/one")
    assert cached(result) == 15
    assert third("run", "--rm", "made", "cat", "/4").stdout == "4\n4\n"


@pytest.mark.usefixtures("busybox")
def test_a_directory_keeps_other_tags_and_resets(limpet: Any, context: Path, tmp_path: Path) -> None:
    layout = tmp_path / "cache"
    build(limpet, context, "--cache-to", f"type=local,dest={layout},tag=one")
    (context / "file").write_text("other\n")
    build(limpet, context, "--cache-to", f"type=local,dest={layout},tag=two")
    assert len(json.loads((layout / "index.json").read_text())["manifests"]) == 2
    before = len(list((layout / "blobs/sha256").iterdir()))
    build(limpet, context, "--cache-to", f"type=local,dest={layout},tag=one,reset=true")
    assert len(json.loads((layout / "index.json").read_text())["manifests"]) == 2
    assert len(list((layout / "blobs/sha256").iterdir())) < before


@pytest.mark.usefixtures("busybox")
def test_an_image_carries_its_own_cache(limpet: Any, other: Any, registry: server.Registry, context: Path) -> None:
    name = f"{registry.domain}/team/app:1"
    result = limpet("build", "-t", name, "--cache-to", "type=inline,mode=max", context, check=False)
    assert "an image has the steps of its own layers, mode=min\nleave mode out" in result.stderr
    result = limpet("build", "-t", name, "--push", "--cache-to", f"type=registry,ref={name}", context, check=False)
    assert "it would replace the image, which is pushed under this name" in result.stderr
    assert limpet("registry", "inspect", name, check=False).returncode
    limpet("build", "-t", name, "--cache-to", "type=inline,mode=min", context)
    limpet("push", name)
    result = build(other, context, "--cache-to", "inline", "--cache-from", name)
    assert cached(result) == 3
    assert result.stdout.strip() == limpet("image", "inspect", "-f", "{{.Id}}", name).stdout.strip()


@pytest.mark.usefixtures("busybox")
def test_a_cache_that_fails_is_a_warning(limpet: Any, registry: server.Registry, context: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = build(
        limpet,
        context,
        f"--cache-from=type=registry,ref={registry.domain}/team/none:1",
        f"--cache-from=type=local,src={tmp_path}/nowhere",
        f"--cache-from=type=local,src={tmp_path}/empty",
        "--cache-from=127.0.0.1:1/team/none:1",
        "--cache-from=type=gha,scope=x",
    )
    assert result.stderr.count("warning: --cache-from") == 5, result.stderr
    assert cached(result) == 0
    assert result.stderr.count("ran in") == 4


@pytest.mark.usefixtures("busybox")
def test_a_lie_of_a_cache_costs_a_step(limpet: Any, other: Any, context: Path, tmp_path: Path) -> None:
    """Layers with other bytes than the manifest says, and tars with another digest: the step runs."""
    layout = tmp_path / "cache"
    build(limpet, context, "--cache-to", f"type=local,dest={layout},mode=max")
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(blob(layout, index["manifests"][0]["digest"]))
    damaged, swapped = tmp_path / "damaged", tmp_path / "swapped"
    shutil.copytree(layout, damaged)
    for layer in manifest["layers"]:
        path = damaged / "blobs" / layer["digest"].replace(":", "/")
        path.write_bytes(bytes(len(path.read_bytes())))
    result = build(other, context, "--cache-from", f"type=local,src={damaged}")
    assert "warning: --cache-from" in result.stderr
    assert cached(result) == 0
    # A manifest whose layers are there, but which says that each is another one's tar.
    other("rmi", "made")
    shutil.copytree(layout, swapped)
    diff_ids = [layer["annotations"]["containerd.io/uncompressed"] for layer in manifest["layers"]]
    for layer, diff_id in zip(manifest["layers"], [*diff_ids[1:], diff_ids[0]], strict=True):
        layer["annotations"]["containerd.io/uncompressed"] = diff_id
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    (swapped / "blobs/sha256" / digest).write_bytes(data)
    index["manifests"][0] |= {"digest": f"sha256:{digest}", "size": len(data)}
    (swapped / "index.json").write_text(json.dumps(index))
    result = build(other, context, "--cache-from", f"type=local,src={swapped}")
    assert "warning: --cache-from" in result.stderr
    assert cached(result) == 0
    assert other("run", "--rm", "made", "cat", "/LOUD", "/opt/tool").stdout == "HELLO\ntool\n"


@pytest.mark.usefixtures("busybox")
def test_what_a_cache_gave_counts_for_those_who_name_it(limpet: Any, other: Any, context: Path, tmp_path: Path) -> None:
    layout = tmp_path / "cache"
    build(limpet, context, "--cache-to", f"type=local,dest={layout},mode=max")
    assert cached(build(other, context, "--cache-from", f"type=local,src={layout}")) == 4
    shutil.rmtree(layout)  # it is not needed twice
    assert cached(build(other, context, "--cache-from", f"type=local,src={layout}")) == 4
    assert cached(build(other, context)) == 0


@pytest.mark.usefixtures("busybox")
def test_layers_of_other_stages_stay_with_the_image(limpet: Any, context: Path) -> None:
    build(limpet, context)
    limpet("system", "prune", "-f")
    assert cached(build(limpet, context)) == 4
    limpet("rmi", "made")
    again = build(limpet, context)
    assert cached(again) == 0


@pytest.mark.usefixtures("busybox")
def test_no_cache_filter_runs_a_stage_again(limpet: Any, context: Path) -> None:
    build(limpet, context)
    result = build(limpet, context, "--no-cache-filter", "Tools")
    assert "tools: ran in" in result.stderr
    assert cached(result) == 3
    result = build(limpet, context, "--no-cache-filter", "tools,1")
    assert cached(result) == 0
    assert cached(build(limpet, context, "--no-cache")) == 0
    assert cached(build(limpet, context)) == 4


@pytest.mark.usefixtures("busybox")
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--cache-to=type=gha", "a cache of type gha can't be written"),
        ("--cache-to=type=local", "dest= is missing"),
        ("--cache-to=type=registry,ref=a:1,mode=most", "unknown mode 'most'"),
        ("--cache-to=type=registry,ref=a:1,oci-mediatypes=false,image-manifest=true", "needs oci-mediatypes=true"),
        ("--cache-from=type=registry,reff=x", "unknown key 'reff'"),
        ("--cache-from=type=tape,ref=x", "unknown type 'tape'"),
        ("--cache-from=type=local,src", "'src' has no value"),
    ],
)
def test_what_is_wrong_with_an_option(limpet: Any, context: Path, option: str, said: str) -> None:
    result = build(limpet, context, option, check=False)
    assert result.returncode == 1
    assert said in result.stderr
    assert result.stderr.count("\n") <= 2


@pytest.mark.usefixtures("busybox")
def test_a_layer_is_never_put_on_another_one_than_it_was_made_on(limpet: Any, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox:test AS random\nRUN head -c 8 /dev/urandom | od -x >/r\nFROM random\nRUN cp /r /copy\n"
    )
    for _ in range(2):
        result = build(limpet, context, "--no-cache-filter", "random")
        assert cached(result) == 0
        assert limpet("run", "--rm", "made", "cmp", "/r", "/copy").returncode == 0
    assert cached(build(limpet, context)) == 2


@pytest.mark.usefixtures("busybox")
def test_a_step_that_made_the_same_again_leaves_the_rest_cached(limpet: Any, context: Path) -> None:
    text = "FROM busybox:test\nRUN {} echo same >/f\nRUN echo {{}} >/g\n"
    (context / "Dockerfile").write_text(text.format("true 1 &&"))
    build(limpet, context)
    (context / "Dockerfile").write_text(text.format("true 2 &&"))
    result = build(limpet, context)
    assert result.stderr.count(": ran in") + result.stderr.count("] ran in") == 1
    assert cached(result) == 1
