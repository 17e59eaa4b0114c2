"""The server by the distribution specification's text: pull, push, content discovery, content management."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.registry.ours import Ours, serving
from tests.registry.server import Image, digest_of, make_image, make_index, tar_of

from limpet.oci import media

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    with serving(tmp_path_factory.mktemp("registry") / "data", "--workers", "2") as registry:
        yield registry


def push_blob(ours: Ours, repository: str, data: bytes) -> str:
    digest = digest_of(data)
    answer = ours("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)
    assert answer.status == 201, answer.body
    return digest


def put_manifest(ours: Ours, repository: str, reference: str, data: bytes, kind: str = media.OCI_MANIFEST) -> Any:
    return ours("PUT", f"/v2/{repository}/manifests/{reference}", data, {"Content-Type": kind})


def push(ours: Ours, repository: str, tag: str, image: Image) -> None:
    for data in image.blobs.values():
        push_blob(ours, repository, data)
    answer = put_manifest(ours, repository, tag, image.manifest, image.media_type)
    assert answer.status == 201, answer.body


def image_of(text: str, **config: Any) -> Image:
    return make_image([tar_of({"file": text.encode()})], **config)


def test_the_base_says_that_this_is_a_registry(ours: Ours) -> None:
    answer = ours("GET", "/v2/")
    assert (answer.status, answer.json()) == (200, {})
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_a_manifest_comes_back_as_it_was_sent(ours: Ours) -> None:
    image = image_of("one")
    push(ours, "team/app", "1.0", image)
    for reference in ("1.0", image.digest):
        answer = ours("GET", f"/v2/team/app/manifests/{reference}")
        assert (answer.status, answer.body) == (200, image.manifest)
        assert answer.headers["Content-Type"] == media.OCI_MANIFEST
        assert answer.headers["Docker-Content-Digest"] == image.digest
        head = ours("HEAD", f"/v2/team/app/manifests/{reference}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(image.manifest))
    tag = answer.headers["ETag"]
    assert ours("GET", "/v2/team/app/manifests/1.0", headers={"If-None-Match": tag}).status == 304
    assert ours("GET", "/v2/team/app/manifests/2.0").code == "MANIFEST_UNKNOWN"
    assert ours("GET", "/v2/nobody/here/manifests/2.0").code == "NAME_UNKNOWN"


def test_a_moved_tag_is_seen_by_every_worker(ours: Ours) -> None:
    for number in range(10):
        image = image_of(f"version {number}")
        push(ours, "moving", "latest", image)
        for _ in range(6):  # a connection each: some go to the other worker
            assert ours("HEAD", "/v2/moving/manifests/latest").headers["Docker-Content-Digest"] == image.digest
    assert ours("DELETE", "/v2/moving/manifests/latest").status == 202
    assert {ours("GET", "/v2/moving/manifests/latest").status for _ in range(8)} == {404}


@pytest.mark.parametrize(
    ("wanted", "status", "content_range"),
    [
        ("bytes=0-9", 206, "bytes 0-9/1000"),
        ("bytes=990-", 206, "bytes 990-999/1000"),
        ("bytes=-10", 206, "bytes 990-999/1000"),
        ("bytes=-5000", 206, "bytes 0-999/1000"),
        ("bytes=10-5000", 206, "bytes 10-999/1000"),
        ("bytes=1000-", 416, "bytes */1000"),
        ("bytes=-0", 416, "bytes */1000"),
        ("bytes=5-1", 416, "bytes */1000"),
        ("bytes=0-1,5-6", 200, None),
        ("lines=1-2", 200, None),
        ("bytes=a-b", 200, None),
        ("bytes=٣-", 200, None),
    ],
)
def test_ranges_of_a_blob(ours: Ours, wanted: str, status: int, content_range: str | None) -> None:
    data = bytes(range(250)) * 4
    digest = push_blob(ours, "ranges", data)
    answer = ours("GET", f"/v2/ranges/blobs/{digest}", headers={"Range": wanted.encode().decode("latin-1")})
    assert (answer.status, answer.headers["Content-Range"]) == (status, content_range)
    if status == 206:
        assert content_range is not None
        first, last = content_range.split()[1].partition("/")[0].split("-")
        assert answer.body == data[int(first) : int(last) + 1]
    elif status == 200:
        assert answer.body == data


def test_a_range_of_another_version_is_the_whole(ours: Ours) -> None:
    digest = push_blob(ours, "ranges", b"x" * 100)
    answer = ours("GET", f"/v2/ranges/blobs/{digest}", headers={"Range": "bytes=1-2", "If-Range": '"other"'})
    assert (answer.status, len(answer.body)) == (200, 100)
    answer = ours("GET", f"/v2/ranges/blobs/{digest}", headers={"Range": "bytes=1-2", "If-Range": f'"{digest}"'})
    assert (answer.status, len(answer.body)) == (206, 2)
    assert ours("GET", f"/v2/ranges/blobs/{digest}", headers={"If-None-Match": f'W/"{digest}"'}).status == 304


def test_the_ways_to_push_a_blob(ours: Ours) -> None:
    data = os.urandom(300_000)
    digest = digest_of(data)

    begun = ours("POST", "/v2/ways/blobs/uploads/")
    assert begun.status == 202
    answer = ours("PUT", f"{begun.headers['Location']}?digest={digest}", data)
    assert (answer.status, answer.headers["Location"]) == (201, f"/v2/ways/blobs/{digest}")
    assert ours("GET", answer.headers["Location"]).body == data
    assert ours("GET", begun.headers["Location"]).code == "BLOB_UPLOAD_UNKNOWN"

    assert ours("POST", f"/v2/ways2/blobs/uploads/?digest={digest}", data).status == 201

    location = ours("POST", "/v2/ways3/blobs/uploads/").headers["Location"]
    sent = 0
    while sent < len(data):
        chunk = data[sent : sent + 70_000]
        headers = {"Content-Range": f"{sent}-{sent + len(chunk) - 1}"}
        answer = ours("PATCH", location, chunk, headers)
        sent += len(chunk)
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{sent - 1}")
        location = answer.headers["Location"]
    assert ours("GET", location).headers["Range"] == f"0-{len(data) - 1}"
    assert ours("PUT", f"{location}?digest={digest}").status == 201
    assert ours("GET", f"/v2/ways3/blobs/{digest}").body == data


def test_a_chunk_out_of_order_is_refused_and_the_upload_goes_on(ours: Ours) -> None:
    location = ours("POST", "/v2/order/blobs/uploads/").headers["Location"]
    assert ours("PATCH", location, b"abc", {"Content-Range": "0-2"}).status == 202
    for wrong in ("0-2", "4-6", "2-4"):
        answer = ours("PATCH", location, b"abc", {"Content-Range": wrong})
        assert (answer.status, answer.headers["Range"], answer.headers["Location"]) == (416, "0-2", location)
    assert ours("PATCH", location, b"abc", {"Content-Range": "3-4"}).code == "SIZE_INVALID"
    assert ours("PATCH", location, b"abc", {"Content-Range": "x"}).code == "BLOB_UPLOAD_INVALID"
    answer = ours("PUT", f"{location}?digest={digest_of(b'abcdef')}", b"def", {"Content-Range": "3-5"})
    assert answer.status == 201


def test_a_blob_that_is_not_its_digest_is_not_stored(ours: Ours) -> None:
    wrong = digest_of(b"something else")
    location = ours("POST", "/v2/wrong/blobs/uploads/").headers["Location"]
    assert ours("PUT", f"{location}?digest={wrong}", b"data").code == "DIGEST_INVALID"
    assert ours("GET", location).code == "BLOB_UPLOAD_UNKNOWN"
    assert ours("POST", f"/v2/wrong/blobs/uploads/?digest={wrong}", b"data").code == "DIGEST_INVALID"
    assert ours("HEAD", f"/v2/wrong/blobs/{wrong}").status == 404
    assert not (ours.directory / "blobs/sha256" / wrong[7:]).exists()
    assert list((ours.directory / "new").iterdir()) == []


def test_an_upload_can_be_cancelled(ours: Ours) -> None:
    location = ours("POST", "/v2/cancel/blobs/uploads/").headers["Location"]
    assert ours("DELETE", location).status == 204
    assert ours("DELETE", location).code == "BLOB_UPLOAD_UNKNOWN"
    assert ours("PATCH", location, b"x").code == "BLOB_UPLOAD_UNKNOWN"


def test_an_upload_belongs_to_its_repository(ours: Ours) -> None:
    location = ours("POST", "/v2/mine/blobs/uploads/").headers["Location"]
    assert ours("PATCH", location.replace("/mine/", "/yours/"), b"x").code == "BLOB_UPLOAD_UNKNOWN"


def test_a_broken_upload_is_resumed_where_it_broke(ours: Ours) -> None:
    data = os.urandom(3 << 20)
    location = ours("POST", "/v2/broken/blobs/uploads/").headers["Location"]
    host, _, port = ours.domain.partition(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        raw.sendall(data[: 2 << 20])
    deadline = time.monotonic() + 20
    status = 0
    while status != 202:  # until the server has seen the end of the first connection
        assert time.monotonic() < deadline
        had = int(ours("GET", location).headers["Range"].removeprefix("0-")) + 1
        if had > 1 << 20:
            headers = {"Content-Range": f"{had}-{len(data) - 1}"}
            status = ours("PATCH", location, data[had:], headers).status
    assert ours("PUT", f"{location}?digest={digest_of(data)}").status == 201


def test_mounts(ours: Ours) -> None:
    digest = push_blob(ours, "origin", b"shared")
    answer = ours("POST", f"/v2/target/blobs/uploads/?mount={digest}&from=origin")
    assert (answer.status, answer.headers["Location"]) == (201, f"/v2/target/blobs/{digest}")
    assert ours("GET", f"/v2/target/blobs/{digest}").body == b"shared"
    assert ours("POST", f"/v2/third/blobs/uploads/?mount={digest}").status == 201
    assert ours("POST", f"/v2/fourth/blobs/uploads/?mount={digest}&from=elsewhere").status == 202
    assert ours("POST", f"/v2/fourth/blobs/uploads/?mount={digest_of(b'no')}&from=origin").status == 202
    assert ours("POST", f"/v2/fourth/blobs/uploads/?mount={digest}&from=../origin").code == "NAME_INVALID"


def test_sha512(ours: Ours) -> None:
    digest = f"sha512:{hashlib.sha512(b'long').hexdigest()}"
    location = ours("POST", "/v2/long/blobs/uploads/?digest-algorithm=sha512").headers["Location"]
    assert ours("PUT", f"{location}?digest={digest}", b"long").status == 201
    location = ours("POST", "/v2/long/blobs/uploads/").headers["Location"]  # not announced: hashed again at the end
    assert ours("PUT", f"{location}?digest={digest}", b"long").status == 201
    assert ours("GET", f"/v2/long/blobs/{digest}").body == b"long"
    image = image_of("512")
    for data in image.blobs.values():
        push_blob(ours, "long", data)
    name = f"sha512:{hashlib.sha512(image.manifest).hexdigest()}"
    answer = put_manifest(ours, "long", f"{name}?tag=a&tag=b", image.manifest)
    assert (answer.status, answer.headers["OCI-Tag"]) == (201, "a, b")
    assert ours("HEAD", "/v2/long/manifests/b").headers["Docker-Content-Digest"] == name


def test_a_manifest_without_its_blobs_is_refused(ours: Ours) -> None:
    image = image_of("incomplete")
    answer = put_manifest(ours, "incomplete", "x", image.manifest)
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    index = make_index({"linux/amd64": image})
    assert put_manifest(ours, "incomplete", "x", index, media.OCI_INDEX).code == "MANIFEST_BLOB_UNKNOWN"
    assert ours("GET", "/v2/incomplete/manifests/x").status == 404
    push(ours, "incomplete", "amd64", image)
    assert put_manifest(ours, "incomplete", "x", index, media.OCI_INDEX).status == 201


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", media.OCI_MANIFEST),
        (b"{", media.OCI_MANIFEST),
        (b"[" * 100_000, media.OCI_MANIFEST),
        (b'{"schemaVersion": 1}', media.DOCKER_SCHEMA1),
        (b'{"schemaVersion": 2, "layers": [], "manifests": []}', media.OCI_MANIFEST),
        (b'{"schemaVersion": 2, "config": {"digest": "sha256:../../etc", "size": 1}, "layers": []}', ""),
        (b'{"schemaVersion": 2, "mediaType": "%s", "manifests": []}' % media.OCI_INDEX.encode(), media.OCI_MANIFEST),
        (b"\xff\xfe", "application/json"),
    ],
    ids=["empty", "broken", "deep", "schema1", "both", "traversal", "confused", "bytes"],
)
def test_what_is_no_manifest_is_refused(ours: Ours, data: bytes, kind: str) -> None:
    answer = put_manifest(ours, "bad", "x", data, kind)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
    assert not (ours.directory / "repositories/bad").exists()


def test_a_manifest_that_is_too_large_is_refused(ours: Ours) -> None:
    answer = put_manifest(ours, "bad", "x", b" " * ((4 << 20) + 1))
    assert answer.status == 413


def test_a_manifest_under_a_wrong_digest_is_refused(ours: Ours) -> None:
    image = image_of("digest")
    for data in image.blobs.values():
        push_blob(ours, "digests", data)
    assert put_manifest(ours, "digests", digest_of(b"other"), image.manifest).code == "DIGEST_INVALID"
    assert put_manifest(ours, "digests", "sha256:short", image.manifest).code == "DIGEST_INVALID"
    assert put_manifest(ours, "digests", "md5:" + "0" * 32, image.manifest).code == "DIGEST_INVALID"


def test_conditional_pushes(ours: Ours) -> None:
    """A client that updates a tag after it read it is told when somebody else was faster."""
    first, second = image_of("first"), image_of("second")
    for data in {**first.blobs, **second.blobs}.values():
        push_blob(ours, "conditional", data)

    def put(image: Image, **conditions: str) -> int:
        headers = {"Content-Type": media.OCI_MANIFEST, **{k.replace("_", "-"): v for k, v in conditions.items()}}
        return ours("PUT", "/v2/conditional/manifests/x", image.manifest, headers).status

    assert put(first, If_Match="*") == 412
    assert put(first, If_None_Match="*") == 201
    assert put(second, If_None_Match="*") == 412
    assert put(second, If_Match=f'"{second.digest}"') == 412
    assert put(second, If_Match=f'"{first.digest}"') == 201


def test_tags_by_pages(ours: Ours) -> None:
    image = image_of("tags")
    push(ours, "tags", "b", image)
    for tag in ("a", "c", "Z", "10", "9"):
        assert put_manifest(ours, "tags", tag, image.manifest).status == 201
    wanted = ["10", "9", "Z", "a", "b", "c"]
    assert ours("GET", "/v2/tags/tags/list").json() == {"name": "tags", "tags": wanted}
    found: list[str] = []
    target = "/v2/tags/tags/list?n=4"
    while target:
        answer = ours("GET", target)
        found += answer.json()["tags"]
        link = answer.headers["Link"]
        target = link.partition(">")[0].removeprefix("<") if link else ""
    assert found == wanted
    assert ours("GET", "/v2/tags/tags/list?n=2&last=Z").json()["tags"] == ["a", "b"]
    assert ours("GET", "/v2/tags/tags/list?last=b").json()["tags"] == ["c"]
    answer = ours("GET", "/v2/tags/tags/list?n=0")
    assert (answer.json()["tags"], answer.headers["Link"]) == ([], None)
    assert ours("GET", "/v2/tags/tags/list?n=x").status == 400
    assert ours("GET", "/v2/no/such/tags/list").code == "NAME_UNKNOWN"


def test_the_catalogue(ours: Ours) -> None:
    push(ours, "cat/one", "x", image_of("one"))
    push(ours, "cat/one/nested", "x", image_of("two"))
    push_blob(ours, "cat/only-blobs", b"x")
    found = ours("GET", "/v2/_catalog").json()["repositories"]
    assert [name for name in found if name.startswith("cat/")] == ["cat/one", "cat/one/nested"]
    answer = ours("GET", "/v2/_catalog?n=1&last=cat/one")
    assert answer.json()["repositories"] == ["cat/one/nested"]


def artifact(subject: Image, kind: str, annotations: dict[str, str]) -> tuple[dict[str, bytes], bytes]:
    payload = f"{kind} of {subject.digest}".encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2},
        "layers": [{"mediaType": "text/plain", "digest": digest_of(payload), "size": len(payload)}],
        "subject": {"mediaType": media.OCI_MANIFEST, "digest": subject.digest, "size": len(subject.manifest)},
        "annotations": annotations,
    }
    return {digest_of(b"{}"): b"{}", digest_of(payload): payload}, json.dumps(manifest).encode()


def test_referrers(ours: Ours) -> None:
    image = image_of("subject")
    subject = f"/v2/refs/referrers/{image.digest}"
    assert ours("GET", subject).json()["manifests"] == []  # never 404
    wanted = {}
    for kind in ("application/x.sbom", "application/x.signature"):
        blobs, manifest = artifact(image, kind, {"of": kind})
        for data in blobs.values():
            push_blob(ours, "refs", data)
        answer = put_manifest(ours, "refs", digest_of(manifest), manifest)
        assert (answer.status, answer.headers["OCI-Subject"]) == (201, image.digest)
        wanted[kind] = {
            "mediaType": media.OCI_MANIFEST,
            "digest": digest_of(manifest),
            "size": len(manifest),
            "artifactType": kind,
            "annotations": {"of": kind},
        }
    answer = ours("GET", subject)
    assert answer.headers["Content-Type"] == media.OCI_INDEX
    assert sorted(answer.json()["manifests"], key=lambda one: one["artifactType"]) == list(wanted.values())
    answer = ours("GET", f"{subject}?artifactType=application/x.sbom")
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    assert answer.json()["manifests"] == [wanted["application/x.sbom"]]
    gone = wanted["application/x.sbom"]["digest"]
    assert ours("DELETE", f"/v2/refs/manifests/{gone}").status == 202
    assert ours("GET", subject).json()["manifests"] == [wanted["application/x.signature"]]
    assert ours("GET", "/v2/refs/referrers/sha256:x").code == "DIGEST_INVALID"


def test_referrers_by_pages(ours: Ours) -> None:
    """What does not fit into the 4 MiB that clients read of an index comes in several."""
    image = image_of("popular")
    wanted = set()
    for number in range(5):
        blobs, manifest = artifact(image, "application/x.large", {"text": str(number) * (1 << 20)})
        for data in blobs.values():
            push_blob(ours, "popular", data)
        assert put_manifest(ours, "popular", digest_of(manifest), manifest).status == 201
        wanted.add(digest_of(manifest))
    target = f"/v2/popular/referrers/{image.digest}?artifactType=application/x.large"
    found = []
    pages = 0
    while target:
        answer = ours("GET", target)
        assert len(answer.body) < 4 << 20
        found += [one["digest"] for one in answer.json()["manifests"]]
        link = answer.headers["Link"]
        target = link.partition(">")[0].removeprefix("<") if link else ""
        pages += 1
    assert (pages, len(found), set(found)) == (3, 5, wanted)


def test_deleting(ours: Ours) -> None:
    image = image_of("gone")
    push(ours, "deleting", "a", image)
    put_manifest(ours, "deleting", "b", image.manifest)
    assert ours("DELETE", "/v2/deleting/manifests/a").status == 202
    assert ours("GET", "/v2/deleting/manifests/a").status == 404
    assert ours("GET", "/v2/deleting/manifests/b").status == 200
    assert ours("DELETE", f"/v2/deleting/manifests/{image.digest}").status == 202
    assert ours("GET", "/v2/deleting/manifests/b").status == 404
    assert ours("GET", f"/v2/deleting/manifests/{image.digest}").status == 404
    assert ours("DELETE", f"/v2/deleting/manifests/{image.digest}").code == "MANIFEST_UNKNOWN"
    assert ours("GET", "/v2/deleting/tags/list").json()["tags"] == []
    digest = next(iter(image.blobs))
    assert ours("DELETE", f"/v2/deleting/blobs/{digest}").status == 202
    assert ours("GET", f"/v2/deleting/blobs/{digest}").code == "BLOB_UNKNOWN"
    assert ours("DELETE", f"/v2/deleting/blobs/{digest}").code == "BLOB_UNKNOWN"


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/v2/UPPER/tags/list", "NAME_INVALID"),
        ("/v2/../tags/list", "NAME_INVALID"),
        ("/v2/a/../../etc/manifests/x", "NAME_INVALID"),
        ("/v2/a/%2e%2e/manifests/x", "NAME_INVALID"),
        ("/v2/a%2f..%2fb/manifests/x", "NAME_INVALID"),
        ("/v2//a/tags/list", "NAME_INVALID"),
        ("/v2/_uploads/tags/list", "NAME_INVALID"),
        ("/v2/a/_tags/manifests/x", "NAME_INVALID"),
        (f"/v2/{'a' * 256}/tags/list", "NAME_INVALID"),
        ("/v2/a\n/tags/list".replace("\n", "%0a"), "NAME_INVALID"),
        ("/v2/a/blobs/sha256:" + "0" * 63, "DIGEST_INVALID"),
        ("/v2/a/blobs/sha256:" + "A" * 64, "DIGEST_INVALID"),
        ("/v2/a/blobs/sha256:..%2f" + "0" * 61, "UNSUPPORTED"),
        ("/v2/a/blobs/..:" + "0" * 64, "DIGEST_INVALID"),
        ("/v2/a/blobs/uploads/..", "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/a/manifests/..", "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/" + "t" * 129, "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/x%00", "MANIFEST_UNKNOWN"),
        ("/nothing", "UNSUPPORTED"),
        ("/v2", None),
        ("/v2/a", "UNSUPPORTED"),
    ],
)
def test_hostile_paths(ours: Ours, target: str, code: str | None) -> None:
    answer = ours("GET", target)
    if code is None:
        assert answer.status == 200
    else:
        assert answer.status in (400, 404)
        assert answer.code == code


def test_an_encoded_digest_is_a_digest(ours: Ours) -> None:
    digest = push_blob(ours, "encoded", b"x")
    assert ours("GET", f"/v2/encoded/blobs/{digest.replace(':', '%3A')}").body == b"x"


def test_methods_that_are_not_there(ours: Ours) -> None:
    answer = ours("POST", "/v2/a/manifests/x")
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert answer.headers["Allow"] == "GET, HEAD, PUT, DELETE"


def test_compressed_bodies_are_refused(ours: Ours) -> None:
    headers = {"Content-Encoding": "gzip"}
    location = ours("POST", "/v2/gzip/blobs/uploads/").headers["Location"]
    assert ours("PATCH", location, b"x", headers).status == 415
    assert ours("PUT", "/v2/gzip/manifests/x", b"x", headers).status == 415


def test_the_directory_is_an_image_layout(ours: Ours) -> None:
    assert json.loads((ours.directory / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((ours.directory / "index.json").read_text())["schemaVersion"] == 2


def test_an_index_without_all_its_images(tmp_path: Path) -> None:
    """For those who keep one platform of an image, under the index's own digest."""
    here, elsewhere = image_of("here"), image_of("elsewhere")
    index = make_index({"linux/amd64": here, "linux/arm64": elsewhere})
    with serving(tmp_path / "data", "--sparse") as ours:
        push(ours, "some", "part", here)
        assert put_manifest(ours, "some", "x", index, media.OCI_INDEX).status == 201
        assert ours("GET", "/v2/some/manifests/x").body == index
        assert ours("GET", f"/v2/some/manifests/{elsewhere.digest}").code == "MANIFEST_UNKNOWN"
        assert put_manifest(ours, "some", "y", elsewhere.manifest).code == "MANIFEST_BLOB_UNKNOWN"


def test_what_it_has_is_there_after_a_restart(tmp_path: Path) -> None:
    image = image_of("kept")
    data = os.urandom(2 << 20)
    with serving(tmp_path / "data") as ours:
        push(ours, "kept", "x", image)
        location = ours("POST", "/v2/kept/blobs/uploads/").headers["Location"]
        assert ours("PATCH", location, data[: 1 << 20]).status == 202
        ours.process.kill()
        ours.process.wait()
    with serving(tmp_path / "data") as ours:
        assert ours("GET", "/v2/kept/manifests/x").body == image.manifest
        assert ours("GET", location).headers["Range"] == f"0-{(1 << 20) - 1}"
        assert ours("PUT", f"{location}?digest={digest_of(data)}", data[1 << 20 :]).status == 201
        assert ours("GET", f"/v2/kept/blobs/{digest_of(data)}").body == data
        assert ours.stop() == 0
