"""A signed image with an SBOM: attached by curl as oras and cosign do it, listed, copied, verified after the copy."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.registry.ours import serving
from tests.registry.server import Image, digest_of, docker_registry, write_layout
from tests.registry.test_server_clients import run, sample

from limpet.oci import media

pytestmark = pytest.mark.slow

SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
SPDX = "application/spdx+json"
SBOM = json.dumps({"spdxVersion": "SPDX-2.3", "name": "app", "packages": [{"name": "busybox"}]}).encode()


@dataclass
class Attached:
    """Digests of what was attached: a signature and an SBOM that have a subject, a signature under cosign's tag."""

    signature: str
    sbom: str
    tagged: str


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Two registries of ours and one of docker's: their addresses."""
    with ExitStack() as stack:
        yield {
            "source": stack.enter_context(serving(tmp_path / "source")).domain,
            "ours": stack.enter_context(serving(tmp_path / "ours")).domain,
            "docker": stack.enter_context(docker_registry(tmp_path / "docker")).domain,
        }


def curl(*words: str | Path) -> str:
    return run("curl", "-sSf", *words)


class Attacher:
    def __init__(self, base: str, directory: Path) -> None:
        self._base, self._directory = base, directory

    def blob(self, kind: str, data: bytes) -> dict[str, Any]:
        path = self._directory / "blob"
        path.write_bytes(data)
        curl("--data-binary", f"@{path}", f"{self._base}/blobs/uploads/?digest={digest_of(data)}")
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    def manifest(self, reference: str = "", **fields: Any) -> str:
        """Its digest, under which it goes if it has no tag."""
        whole = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, **fields}
        data = json.dumps(whole).encode()
        path = self._directory / "manifest"
        path.write_bytes(data)
        where = f"{self._base}/manifests/{reference or digest_of(data)}"
        curl("-T", path, "-H", f"Content-Type: {media.OCI_MANIFEST}", where)
        return digest_of(data)


def attach(domain: str, image: Image, directory: Path) -> Attached:
    """The signature is made by openssl over cosign's "simple signing" payload, with a key made here."""
    key, payload, signed = directory / "key.pem", directory / "payload", directory / "signed"
    run("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key)
    run("openssl", "ec", "-in", key, "-pubout", "-out", directory / "public.pem")
    claim = {
        "critical": {
            "identity": {"docker-reference": f"{domain}/app"},
            "image": {"docker-manifest-digest": image.digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    payload.write_text(json.dumps(claim))
    run("openssl", "dgst", "-sha256", "-sign", key, "-out", signed, payload)
    to = Attacher(f"http://{domain}/v2/app", directory)
    empty = to.blob("application/vnd.oci.empty.v1+json", b"{}")
    subject = {"mediaType": media.OCI_MANIFEST, "digest": image.digest, "size": len(image.manifest)}
    layer = to.blob(SIMPLE, payload.read_bytes())
    layer["annotations"] = {ANNOTATION: base64.b64encode(signed.read_bytes()).decode()}
    signature = to.manifest(artifactType=SIGNATURE, config=empty, layers=[layer], subject=subject)
    sbom = to.manifest(artifactType=SPDX, config=empty, layers=[to.blob(SPDX, SBOM)], subject=subject)
    config = to.blob(media.OCI_CONFIG, b'{"architecture": "", "os": "", "config": {}, "rootfs": {}}')
    tagged = to.manifest(f"{image.digest.replace(':', '-')}.sig", config=config, layers=[layer])
    return Attached(signature, sbom, tagged)


def verified(base: str, digest: str, image: Image, directory: Path) -> bool:
    """As cosign does: the signature is over the payload, and the payload is about the image."""
    manifest = json.loads(curl("-H", f"Accept: {media.OCI_MANIFEST}", f"{base}/manifests/{digest}"))
    (layer,) = manifest["layers"]
    (directory / "payload").write_text(curl(f"{base}/blobs/{layer['digest']}"))
    (directory / "signed").write_bytes(base64.b64decode(layer["annotations"][ANNOTATION]))
    said = run("openssl", "dgst", "-sha256", "-verify", directory / "public.pem",
               "-signature", directory / "signed", directory / "payload")  # fmt: skip
    claim = json.loads((directory / "payload").read_text())["critical"]
    return said == "Verified OK\n" and claim["image"]["docker-manifest-digest"] == image.digest


@pytest.mark.parametrize("target", ["ours", "docker"])
def test_signature_and_sbom_go_along(places: dict[str, str], target: str, tmp_path: Path, limpet: Any) -> None:
    image = sample("signed")
    layout = write_layout(tmp_path / "layout", {"x": image})
    source, there = f"{places['source']}/app", f"{places[target]}/copied/app"
    run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:x", f"docker://{source}:1")
    attached = attach(places["source"], image, tmp_path)
    assert verified(f"http://{places['source']}/v2/app", attached.signature, image, tmp_path)

    listed = [line.split() for line in limpet("registry", "referrers", f"{source}:1").stdout.splitlines()]
    assert {(row[0], row[1]) for row in listed[1:]} == {(attached.signature, SIGNATURE), (attached.sbom, SPDX)}
    only = limpet("registry", "referrers", "-q", "--artifact-type", SPDX, f"{source}:1")
    assert only.stdout == f"{attached.sbom}\n"

    result = limpet("registry", "copy", "--referrers", f"{source}:1", f"{there}:1")
    assert f"digest: {image.digest}" in result.stdout
    assert "referrers: 3" in result.stdout
    base = f"http://{places[target]}/v2/copied/app"
    shown = json.loads(limpet("registry", "referrers", "--format", "json", f"{there}:1").stdout)
    assert {one["digest"] for one in shown} == {attached.signature, attached.sbom}
    assert verified(base, attached.signature, image, tmp_path)
    assert verified(base, f"{image.digest.replace(':', '-')}.sig", image, tmp_path)
    assert curl(f"{base}/blobs/{digest_of(SBOM)}").encode() == SBOM
    again = limpet("registry", "copy", "--referrers", f"{source}:1", f"{there}:1")
    assert "referrers: 3" in again.stdout

    limpet("registry", "copy", f"{source}:1", f"{places[target]}/bare:1")  # without being asked nothing goes along
    assert limpet("registry", "referrers", "-q", f"{places[target]}/bare:1").stdout == ""
