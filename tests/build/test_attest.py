"""Statements about an image: in the form that BuildKit's clients read, and nothing secret in them."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.registry import server

from limpet.build.attest import packages, rpm
from limpet.build.attest.request import Attests, Provenance, attests
from limpet.build.attest.sbom import document
from limpet.errors import Invalid

STATUS = """Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b7
Source: bash (5.2.15-2)
Maintainer: Matthias Klose <doko@debian.org>
Description: a shell
 Version: not this one

Package: gone
Status: deinstall ok config-files
Version: 1
"""
APK = "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nm:Timo <t@alpine>\n\nP:busybox\nV:1.36.1-r5\n"
METADATA = (
    "Metadata-Version: 2.4\nName: Foo_Bar\nVersion: 1.0+local\nLicense-Expression: MIT OR Apache-2.0\n\nName: x\n"
)


@pytest.fixture
def context(tmp_path: Path, busybox: str) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "status").write_text(STATUS)
    (directory / "METADATA").write_text(METADATA)
    (directory / "Dockerfile").write_text(
        f"FROM {busybox} AS made\nARG TOKEN\nARG V=1\nENV API_KEY=s3cr3t-env\n"
        "RUN --mount=type=secret,id=login cat /run/secrets/login >/dev/null; echo $V > /v\n"
        "FROM scratch\nCOPY status /var/lib/dpkg/status\nCOPY METADATA /usr/lib/python3/foo.dist-info/METADATA\n"
        "COPY --from=made /v /v\n"
    )
    (directory / "login").write_text("s3cr3t-file")
    return directory


GIVEN = ("--build-arg", "TOKEN=s3cr3t-argument", "--build-arg", "V=2")


def build(limpet: Any, context: Path, *options: str | Path) -> str:
    result = limpet("build", "-q", *GIVEN, "--secret", f"id=login,src={context}/login", *options, context)
    return str(result.stdout.strip())


def statements(blob: Any, index: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the image's descriptor, its statements by type) of an index with one image."""
    image, about = index["manifests"]
    assert about["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert about["annotations"] == {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    manifest = json.loads(blob(about["digest"]))
    found = {}
    for layer in manifest["layers"]:
        assert layer["mediaType"] == "application/vnd.in-toto+json"
        data = blob(layer["digest"])
        assert len(data) == layer["size"]
        said = json.loads(data)
        assert said["predicateType"] == layer["annotations"]["in-toto.io/predicate-type"]
        assert {"sha256": image["digest"].removeprefix("sha256:")} in [one["digest"] for one in said["subject"]]
        found[said["predicateType"]] = said
        assert b"s3cr3t" not in data
    config = json.loads(blob(manifest["config"]["digest"]))
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    return image, found


@pytest.mark.slow
def test_what_other_programs_see(limpet: Any, registry: server.Registry, context: Path, tmp_path: Path) -> None:
    plain = build(limpet, context, "-t", "plain:1")
    name = f"{registry.domain}/team/app:1"
    attested = build(limpet, context, "--sbom", "--provenance=mode=max", "--push", "--load", "-t", name)
    assert attested == plain  # the image itself is the same
    work = tmp_path / "copy"
    subprocess.run(
        ["skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{name}", f"dir:{work}"],
        check=True, capture_output=True,
    )  # fmt: skip

    def blob(digest: str) -> bytes:
        path = work / digest.removeprefix("sha256:")
        return path.read_bytes() if path.exists() else (work / f"{path.name}.manifest.json").read_bytes()

    index = json.loads((work / "manifest.json").read_text())
    image, found = statements(blob, index)
    assert json.loads(blob(image["digest"]))["config"]["digest"] == plain
    assert set(found) == {"https://spdx.dev/Document", "https://slsa.dev/provenance/v1"}
    named = [one["versionInfo"] for one in found["https://spdx.dev/Document"]["predicate"]["packages"][1:]]
    assert named == ["5.2.15-2+b7", "1.0+local"]
    built = found["https://slsa.dev/provenance/v1"]["predicate"]["buildDefinition"]
    assert built["externalParameters"]["request"]["args"] == {"build-arg:TOKEN": "***", "build-arg:V": "2"}
    assert built["externalParameters"]["request"]["secrets"] == [{"id": "login", "optional": True}]
    assert built["externalParameters"]["configSource"] == {"path": "Dockerfile"}
    assert [one["uri"].partition("?")[0] for one in built["resolvedDependencies"]] == ["pkg:docker/busybox@test"]
    (run,) = [one["op"]["Op"]["exec"] for one in built["internalParameters"]["buildConfig"]["llbDefinition"]
              if "exec" in one["op"]["Op"]]  # fmt: skip
    assert "API_KEY=***" in run["meta"]["env"]
    assert "V=2" in run["meta"]["env"]
    details = found["https://slsa.dev/provenance/v1"]["predicate"]["runDetails"]
    assert details["metadata"]["startedOn"] <= details["metadata"]["finishedOn"]
    (info,) = details["metadata"]["buildkit_metadata"]["source"]["infos"]
    # The Dockerfile is as it was written: what is a secret does not belong there.
    assert base64.b64decode(info["data"]).decode() == (context / "Dockerfile").read_text()

    # From the store: a push to another place and a save carry them, and the image runs, here and pulled.
    other = f"{registry.domain}/else/where:1"
    limpet("tag", name, other)
    limpet("push", other)
    raw = [
        subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{one}"], check=True, capture_output=True
        ).stdout
        for one in (name, other)
    ]
    assert raw[0] == raw[1]
    limpet("save", "--format", "oci-archive", "-o", tmp_path / "saved.tar", name)
    with tarfile.open(tmp_path / "saved.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]
    (top,) = json.loads(members["index.json"])["manifests"]
    saved = json.loads(members[f"blobs/sha256/{top['digest'].removeprefix('sha256:')}"])
    statements(lambda digest: members[f"blobs/sha256/{digest.removeprefix('sha256:')}"], saved)
    limpet("rmi", "-f", name, other, "plain:1")
    limpet("pull", "-q", name)
    assert limpet("image", "inspect", "--format", "{{.Id}}", name).stdout.strip() == plain
    assert limpet("system", "check").returncode == 0


@pytest.mark.slow
def test_files_archives_and_the_same_bytes_each_time(limpet: Any, context: Path, tmp_path: Path) -> None:
    asked = ("--sbom", "--provenance=reproducible=true,version=v0.2")
    for name in ("one", "two"):
        build(limpet, context, *asked, "-o", f"type=oci,dest={tmp_path}/{name}.tar", "-t", "app:1")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]

    def blob(digest: str) -> bytes:
        return members[f"blobs/sha256/{digest.removeprefix('sha256:')}"]

    (top,) = json.loads(members["index.json"])["manifests"]
    _, found = statements(blob, json.loads(blob(top["digest"])))
    predicate = found["https://slsa.dev/provenance/v0.2"]["predicate"]
    assert found["https://slsa.dev/provenance/v0.2"]["_type"] == "https://in-toto.io/Statement/v0.1"
    assert predicate["metadata"]["reproducible"] is True
    assert predicate["metadata"]["buildStartedOn"] == "1970-01-01T00:00:00Z"
    assert predicate["invocation"]["configSource"] == {"entryPoint": "Dockerfile"}

    build(limpet, context, "--sbom", "--provenance=mode=min", "-o", tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["provenance.json", "sbom.spdx.json", "usr", "v", "var"]
    said = json.loads((tmp_path / "out/provenance.json").read_text())
    assert said["predicate"]["buildDefinition"]["externalParameters"]["request"]["args"] == {}
    assert "buildConfig" not in said["predicate"]["buildDefinition"]["internalParameters"]
    build(limpet, context, "--attest", "type=provenance,inline-only=true", "-o", f"type=tar,dest={tmp_path}/out.tar")
    build(limpet, context, "--attest", "type=sbom", "-o", f"type=tar,dest={tmp_path}/with.tar")
    for archive, expected in (("out.tar", False), ("with.tar", True)):
        with tarfile.open(tmp_path / archive) as tar:
            names = tar.getnames()
        assert ("sbom.spdx.json" in names) is expected
        assert "provenance.json" not in names
    # One image in the store without a name has them nowhere, and is as it would be.
    assert build(limpet, context, "--sbom") == build(limpet, context)
    assert limpet("system", "check").returncode == 0


@pytest.mark.parametrize(
    ("texts", "sbom", "provenance", "expected"),
    [
        ([], None, None, Attests()),
        ([], "", "", Attests(True, Provenance())),
        ([], "false", "true", Attests(False, Provenance())),
        (["type=sbom", "type=provenance,mode=min"], None, None, Attests(True, Provenance("min"))),
        (["type=sbom,disabled=true"], None, "mode=min,version=v0.2", Attests(False, Provenance("min", version="v0.2"))),
        (
            ["type=provenance,builder-id=https://ci/1"],
            None,
            None,
            Attests(False, Provenance(builder_id="https://ci/1")),
        ),
        (["type=provenance"], None, "0", Attests()),
    ],
)
def test_grammar(texts: list[str], sbom: str | None, provenance: str | None, expected: Attests) -> None:
    assert attests(texts, sbom, provenance) == expected
    assert bool(expected) == (expected.sbom or expected.provenance is not None)


@pytest.mark.parametrize(
    ("texts", "provenance", "message"),
    [
        (["sbom"], None, "'sbom' is not KEY=VALUE"),
        (["type=other"], None, "unknown type 'other'"),
        (["mode=max"], None, "a type is needed"),
        (["type=sbom,generator=x"], None, "another generator can't be run"),
        (["type=sbom,mode=x"], None, "unknown key 'mode'"),
        ([], "mode=most", "mode=most"),
        ([], "version=v2", "version=v2"),
        ([], "filename=../x", "filename=../x"),
        ([], "reproducible=maybe", "neither true nor false"),
    ],
)
def test_what_is_no_request(texts: list[str], provenance: str | None, message: str) -> None:
    with pytest.raises(Invalid, match=message.replace("..", "[.][.]")):
        attests(texts, None, provenance)


def find(root: Path) -> list[packages.Package]:
    fd = os.open(root, os.O_PATH)
    try:
        return packages.find(fd)
    finally:
        os.close(fd)


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_packages_of_every_kind(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/os-release", 'ID=debian\nVERSION_ID="12"\n')
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").symlink_to("/usr/lib/os-release")
    put(tmp_path, "var/lib/dpkg/status", STATUS)
    put(tmp_path, "var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2024a\nArchitecture: all\n")
    put(tmp_path, "lib/apk/db/installed", APK)
    put(tmp_path, "opt/venv/lib/foo.dist-info/METADATA", METADATA)
    put(tmp_path, "usr/lib/python3/dist-packages/old.egg-info", "Name: old\nVersion: 0.1\n")
    put(
        tmp_path,
        "app/node_modules/@scope/name/package.json",
        '{"name":"@scope/name","version":"3.0.0","license":"ISC"}',
    )
    put(tmp_path, "app/node_modules/a/package.json", '{"name":"a","version":"1.0.0"}')
    put(tmp_path, "app/package.json", '{"name":"app","version":"1.0.0"}')
    put(tmp_path, "proc/x/node_modules/b/package.json", '{"name":"b","version":"1.0.0"}')
    found = {each.purl: each for each in find(tmp_path)}
    assert list(found) == [
        "pkg:apk/debian/busybox@1.36.1-r5?distro=debian-12",
        "pkg:apk/debian/musl@1.2.4-r2?arch=x86_64&distro=debian-12&upstream=musl",
        "pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64&distro=debian-12&upstream=bash",
        "pkg:deb/debian/tzdata@2024a?arch=all&distro=debian-12",
        "pkg:npm/%40scope/name@3.0.0",
        "pkg:npm/a@1.0.0",
        "pkg:pypi/foo-bar@1.0%2Blocal",
        "pkg:pypi/old@0.1",
    ]
    assert found["pkg:pypi/foo-bar@1.0%2Blocal"].license == "MIT OR Apache-2.0"
    assert found["pkg:npm/%40scope/name@3.0.0"].license == "ISC"
    whole = document(list(found.values()), "x", 0)
    assert len({one["SPDXID"] for one in whole["packages"]}) == 9
    assert len(whole["relationships"]) == 9


def header(**values: str | int) -> bytes:
    """As rpm's rpmdb has it: NAME, VERSION, RELEASE, EPOCH, ARCH."""
    tags = {"name": 1000, "version": 1001, "release": 1002, "epoch": 1003, "license": 1014, "arch": 1022}
    entries, data = [], b""
    for key, value in values.items():
        data += bytes(-len(data) % 4)
        entries.append((tags[key], 4 if isinstance(value, int) else 6, len(data), 1))
        data += struct.pack(">I", value) if isinstance(value, int) else value.encode() + b"\0"
    packed = b"".join(struct.pack(">IIII", *entry) for entry in entries)
    return struct.pack(">II", len(entries), len(data)) + packed + data


def test_rpm(tmp_path: Path) -> None:
    put(tmp_path, "etc/os-release", "ID=fedora\nVERSION_ID=40\n")
    place = tmp_path / "usr/lib/sysimage/rpm"
    place.mkdir(parents=True)
    with sqlite3.connect(place / "rpmdb.sqlite") as database:
        database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        for blob in (
            header(name="bash", version="5.2", release="3.fc40", epoch=1, arch="x86_64", license="GPL-3.0-or-later"),
            header(name="gpg-pubkey", version="1", release="2"),
            header(name="torn", version="1")[:-4],
            struct.pack(">II", 1 << 31, 1 << 31),
            b"",
        ):
            database.execute("INSERT INTO Packages (blob) VALUES (?)", (blob,))
    database.close()
    (found,) = find(tmp_path)
    assert found.purl == "pkg:rpm/fedora/bash@5.2-3.fc40?arch=x86_64&distro=fedora-40&epoch=1"
    assert found.license == "GPL-3.0-or-later"


def test_a_hostile_root(tmp_path: Path) -> None:
    """Links lead nowhere out, a database that works for ever is ended, what is broken is left out."""
    put(tmp_path, "outside", STATUS)
    root = tmp_path / "root"
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").symlink_to(tmp_path / "outside")
    (root / "var/lib/dpkg/status.d").symlink_to("../../../../../..")
    os.mkfifo(root / "etc")
    (root / "lib/apk/db").mkdir(parents=True)
    os.mkfifo(root / "lib/apk/db/installed")
    put(root, "node_modules/a/package.json", "[" * 100_000)
    put(root, "node_modules/b/package.json", '{"name": 1, "version": []}')
    put(root, "x.dist-info/METADATA", "\x00\xff\nName:\n")
    place = root / "var/lib/rpm"
    place.mkdir(parents=True)
    with sqlite3.connect(place / "rpmdb.sqlite") as database:
        database.execute(
            "CREATE VIEW Packages AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
            " SELECT x AS blob FROM n"
        )
    database.close()
    assert find(root) == []
    (place / "rpmdb.sqlite").write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    assert find(root) == []
    assert rpm.parse(os.urandom(200)) is None


def test_a_docker_archive_alone_can_not_hold_it(limpet: Any, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    archive = f"type=docker,dest={tmp_path}/x.tar"
    result = limpet("build", "--sbom", "-o", archive, tmp_path, check=False)
    assert "has no place for what --sbom and --provenance say" in result.stderr
    limpet("build", "--sbom", "-o", archive, "-o", f"type=oci,dest={tmp_path}/y.tar", tmp_path)
    assert (tmp_path / "x.tar").exists()
