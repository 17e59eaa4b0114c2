"""What a registry refuses: quotas, rates, writes to one that only serves, and clients that go away."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.registry.ours import serving
from tests.registry.server import digest_of
from tests.registry.test_server_protocol import image_of, push, push_blob, put_manifest

from limpet.oci import media

pytestmark = pytest.mark.slow


def test_a_repository_over_its_quota(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--quota", "1m") as ours:
        push_blob(ours, "a", os.urandom(900_000))
        data = os.urandom(200_000)
        answer = ours("POST", f"/v2/a/blobs/uploads/?digest={digest_of(data)}", data)
        assert (answer.status, answer.code) == (403, "DENIED")
        assert "quota of 1MiB" in answer.json()["errors"][0]["message"]
        location = ours("POST", "/v2/a/blobs/uploads/").headers["Location"]
        assert ours("PATCH", location, data).code == "DENIED"
        push_blob(ours, "a", b"small enough")
        push_blob(ours, "b", data)  # each repository has its own
        assert ours("GET", location).headers["Range"] == "0-0"


def test_a_quota_holds_for_bodies_of_no_announced_length(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--quota", "1m") as ours:
        location = ours("POST", "/v2/a/blobs/uploads/").headers["Location"]
        host, _, port = ours.domain.partition(":")
        with socket.create_connection((host, int(port))) as raw:
            raw.settimeout(20)
            raw.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            try:
                for _ in range(200):
                    raw.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            except OSError:
                pass
            answer = raw.recv(1000)
            assert answer == b"" or b" 403 " in answer
        upload = next((ours.directory / "uploads").iterdir())
        assert (upload / "data").stat().st_size < 4 << 20


def test_read_only(tmp_path: Path) -> None:
    image = image_of("served")
    with serving(tmp_path / "data") as ours:
        push(ours, "a", "x", image)
    with serving(tmp_path / "data", "--read-only") as ours:
        assert ours("GET", "/v2/a/manifests/x").body == image.manifest
        assert ours("GET", f"/v2/a/blobs/{next(iter(image.blobs))}").status == 200
        for method, path in (
            ("POST", "/v2/a/blobs/uploads/"),
            ("PUT", "/v2/a/manifests/y"),
            ("DELETE", "/v2/a/manifests/x"),
            ("DELETE", f"/v2/a/blobs/{next(iter(image.blobs))}"),
        ):
            answer = ours(method, path)
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")
            assert answer.headers["Allow"] == "GET, HEAD"
    with serving(tmp_path / "data", "--no-delete") as ours:
        assert ours("DELETE", "/v2/a/manifests/x").status == 405
        assert put_manifest(ours, "a", "y", image.manifest).status == 201


def test_the_rate_of_a_client(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--rate-limit", "3") as ours:
        answers = [ours("GET", "/v2/") for _ in range(12)]
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.code == "TOOMANYREQUESTS"
        assert int(refused.headers["Retry-After"]) >= 1
        assert sum(answer.status == 200 for answer in answers) >= 6


def test_a_wrong_length_stores_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as ours:
        host, _, port = ours.domain.partition(":")
        digest = digest_of(b"0123456789")
        with socket.create_connection((host, int(port))) as raw:
            head = f"POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"
            raw.sendall(head.encode() + b"0123456789")
            raw.shutdown(socket.SHUT_WR)
            raw.settimeout(20)
            assert b" 400 " in raw.recv(1000)[:20] or raw.recv(1000) == b""
        assert ours("HEAD", f"/v2/a/blobs/{digest}").status == 404
        deadline = time.monotonic() + 10
        while list((ours.directory / "uploads").iterdir()):
            assert time.monotonic() < deadline


def test_memory_does_not_grow_with_a_blob(tmp_path: Path) -> None:
    """100 MB up and down, and the worker never had 40 MB more than at its start."""

    def peak() -> int:
        with open(f"/proc/{ours.process.pid}/status") as file:
            return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) << 10

    with serving(tmp_path / "data") as ours:
        push_blob(ours, "a", b"warm")
        before = peak()
        data = os.urandom(1 << 20) * 100
        digest = push_blob(ours, "a", data)
        assert ours("GET", f"/v2/a/blobs/{digest}").body == data
        assert peak() - before < 40 << 20


def test_a_directory_of_something_else(tmp_path: Path, limpet: Any) -> None:
    (tmp_path / "file").write_text("mine")
    result = limpet("registry", "serve", "--storage", tmp_path, "--addr", "127.0.0.1:0", check=False)
    assert result.returncode == 1
    assert "is not empty and not a registry's directory" in result.stderr
    result = limpet("registry", "serve", "--storage", tmp_path / "file/x", "--addr", "127.0.0.1:0", check=False)
    assert result.stderr.count("\n") == 2
    assert "Traceback" not in result.stderr


def test_an_open_address_is_warned_of(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--addr", "0.0.0.0:0") as ours:
        assert any("can be reached from other machines" in line for line in ours.log)


def test_a_unix_socket(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/x.sock"
    with serving(tmp_path / "data", "--addr", address, "--workers", "2"), socket.socket(socket.AF_UNIX) as raw:
        raw.connect(f"{tmp_path}/x.sock")
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b'{"status":"ok"}' in raw.recv(1000)
    assert not (tmp_path / "x.sock").exists()


def test_the_access_log(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--access-log", str(tmp_path / "log")) as ours:
        image = image_of("logged")
        push(ours, "a", "x", image)
        digest = next(iter(image.blobs))
        assert ours("GET", f"/v2/a/blobs/{digest}", headers={"User-Agent": "test/1"}).status == 200
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    last = lines[-1]
    assert (last["method"], last["target"], last["status"]) == ("GET", f"/v2/a/blobs/{digest}", 200)
    assert (last["bytes"], last["agent"], last["client"]) == (len(image.blobs[digest]), "test/1", "127.0.0.1")
    assert [line["method"] for line in lines] == ["POST", "POST", "PUT", "GET"]


def test_a_kill_leaves_nothing_half(tmp_path: Path) -> None:
    """Killed again and again in the middle of pushes: what can be pulled is whole, and the next push succeeds."""
    image = image_of("killed")
    for turn in range(4):
        with serving(tmp_path / "data") as ours:
            for digest, data in image.blobs.items():
                begun = ours("POST", "/v2/a/blobs/uploads/").headers["Location"]
                ours("PATCH", begun, data)
                if turn % 2:
                    ours("PUT", f"{begun}?digest={digest}")
            if turn == 2:
                push(ours, "a", "x", image)
            ours.process.kill()
            ours.process.wait()
    with serving(tmp_path / "data") as ours:
        for digest, data in image.blobs.items():
            assert ours("GET", f"/v2/a/blobs/{digest}").body == data
        assert ours("GET", "/v2/a/manifests/x").body == image.manifest
        assert ours("GET", "/v2/a/manifests/x").headers["Content-Type"] == media.OCI_MANIFEST


def test_a_full_disk(tmp_path: Path) -> None:
    """It is said, nothing half is kept, and what is smaller still fits."""
    directory = tmp_path / "small"
    directory.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", directory], capture_output=True).returncode:
        pytest.skip("needs to mount a tmpfs")
    try:
        with serving(directory / "data") as ours:
            data = os.urandom(5 << 20)
            answer = ours("POST", f"/v2/a/blobs/uploads/?digest={digest_of(data)}", data)
            assert (answer.status, answer.code) == (507, "UNAVAILABLE")
            assert "No space left on device" in answer.json()["errors"][0]["message"]
            assert list((ours.directory / "uploads").iterdir()) == []
            place = ours("POST", "/v2/a/blobs/uploads/").headers["Location"]
            assert ours("PATCH", place, data).status == 507
            (upload,) = (ours.directory / "uploads").iterdir()
            assert (upload / "data").stat().st_size == 0  # what does not fit is not kept: others need the space
            filler = ours.directory / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            assert ours("GET", "/healthz").status == 503
            filler.unlink()
            image = image_of("small")
            push(ours, "a", "x", image)
            assert ours("GET", "/v2/a/manifests/x").body == image.manifest
            assert ours("GET", "/healthz").status == 200
    finally:
        subprocess.run(["umount", directory], check=True)


def test_a_storage_that_cannot_be_written(tmp_path: Path) -> None:
    """Read-only serves it, from a medium that is; the other way round is said by /healthz."""
    image = image_of("burnt")
    with serving(tmp_path / "data") as ours:
        push(ours, "a", "x", image)
    mounts = ["mount", "--bind", "-o", "ro", str(tmp_path / "data"), str(tmp_path / "data")]
    if subprocess.run(mounts, capture_output=True).returncode:
        pytest.skip("needs to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path / "data"], check=True)
        with serving(tmp_path / "data", "--read-only") as ours:
            assert ours("GET", "/v2/a/manifests/x").body == image.manifest
            for digest, data in image.blobs.items():
                assert ours("GET", f"/v2/a/blobs/{digest}").body == data
            assert ours("GET", "/healthz").status == 200
        with serving(tmp_path / "data") as ours:
            assert ours("GET", "/healthz").json() == {"status": "failing", "reason": "Read-only file system"}
            answer = ours("POST", "/v2/a/blobs/uploads/")
            assert answer.status == 500
            assert "Read-only file system" in answer.json()["errors"][0]["message"]
    finally:
        subprocess.run(["umount", tmp_path / "data"], check=True)
