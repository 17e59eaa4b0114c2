"""ADD of a URL: what comes into the image, when it is asked for again, and what is refused."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.build.sources.web import File, Web
from tests.build.sources.web import web as web_server
from tests.registry import authority

TEXT = b"some words\n"
pytestmark = pytest.mark.slow
SHA256 = hashlib.sha256(TEXT).hexdigest()


def archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("inner/file")
        info.size = len(TEXT)
        tar.addfile(info, io.BytesIO(TEXT))
    return out.getvalue()


def test_name_mode_and_time(build: Any, web: Web) -> None:
    url = web.put("/a/some%20file?version=1", TEXT, modified="Wed, 01 Jan 2020 00:00:00 GMT")
    build("FROM scratch", f"ADD {url} /opt/")
    assert build.listing()[-1] == "-rw------- 0/0 11 1970-01-01 00:00:00 opt/some file"
    build(
        "FROM scratch",
        f"ADD --chown=7:8 --chmod=644 {url} /opt",
        options=("--build-arg", "SOURCE_DATE_EPOCH=1700000000"),
    )
    assert build.listing() == ["-rw-r--r-- 7/8 11 2020-01-01 00:00:00 opt"]


def test_it_is_asked_for_again_and_sent_only_if_it_changed(build: Any, web: Web) -> None:
    url = web.put("/file", TEXT)
    lines = ("FROM scratch", f"ADD {url} /")
    build(*lines)
    first = build.id
    assert web.statuses() == [200]
    assert "cached" in build(*lines).stderr
    assert (build.id, web.statuses()) == (first, [304])
    assert "cached" not in build(*lines, options=("--no-cache",)).stderr
    assert (build.id, web.statuses()) == (first, [304])
    web.put("/file", "other words\n")
    build(*lines)
    assert build.id != first
    assert web.statuses() == [200]
    web.put("/file", TEXT, etag=False, modified="Wed, 01 Jan 2020 00:00:00 GMT")
    build(*lines)
    assert (build.id, web.statuses()) == (first, [200])
    build(*lines)
    assert web.statuses() == [304]


def test_a_checksum_needs_no_question(build: Any, web: Web) -> None:
    url = web.put("/file", TEXT)
    lines = ("FROM scratch", f"ADD --checksum=sha256:{SHA256} {url} /")
    build(*lines)
    assert web.statuses() == [200]
    web.files.clear()
    build(*lines)
    build(*lines, options=("--no-cache",))
    build("FROM scratch", f"ADD --checksum=sha256:{SHA256} {url} /elsewhere/")
    assert web.statuses() == []
    web.put("/file", "other words\n")
    build.limpet("cache", "prune", "-f")
    error = build.error("FROM scratch", f"ADD --checksum=sha256:{SHA256} {url} /third/")
    assert f"digest mismatch for {url}: sha256:" in error
    assert f"(expected: sha256:{SHA256}) >>> ADD" in error
    error = build.error("FROM scratch", f"ADD --checksum=md5:12 {url} /")
    assert "Dockerfile:2:5: invalid checksum md5:12 >>>" in error


def test_archives_are_unpacked_on_demand(build: Any, web: Web) -> None:
    url = web.put("/a.tar.gz", archive())
    build("FROM scratch", f"ADD {url} /opt/")
    assert [line.split()[-1] for line in build.listing()] == ["opt/", "opt/a.tar.gz"]
    build("FROM scratch", f"ADD --unpack {url} /opt/")
    assert [line.split()[-1] for line in build.listing()] == ["opt/", "opt/inner/", "opt/inner/file"]
    build("FROM scratch", f"ADD --unpack {web.put('/plain', TEXT)} /opt/")
    assert [line.split()[-1] for line in build.listing()] == ["opt/", "opt/plain"]


def test_the_name_may_come_from_the_server(build: Any, web: Web) -> None:
    url = web.put("/", TEXT, headers={"Content-Disposition": 'attachment; filename="../../etc/note"'})
    build("FROM scratch", f"ADD {url} /opt/")
    assert build.listing()[-1].endswith(" opt/note")
    web.put("/", "other words\n")
    assert "the address says no file name" in build.error("FROM scratch", f"ADD {url} /srv/")
    build("FROM scratch", f"ADD {url} /srv/name")
    assert build.listing()[-1].endswith(" srv/name")


def test_a_broken_download_goes_on_where_it_ended(build: Any, web: Web) -> None:
    data = bytes(range(256)) * 2000
    url = web.put("/big", data, cut=300_000)
    build("FROM scratch", f"ADD --checksum=sha256:{hashlib.sha256(data).hexdigest()} {url} /")
    assert web.statuses() == [200, 206]
    web.put("/other", data[1:], cut=300_000, etag=False)
    build("FROM scratch", f"ADD {web.base}/other /")
    assert web.statuses() == [200, 200]


def test_redirects(build: Any, web: Web) -> None:
    target = web.put("/real", TEXT)
    url = web.put("/moved", b"", status=302, headers={"Location": "/real"})
    build("FROM scratch", f"ADD {url} /")
    assert build.listing()[-1].endswith(" moved")
    web.put("/a", b"", status=307, headers={"Location": "/b"})
    web.put("/b", b"", status=307, headers={"Location": f"{web.base}/a"})
    assert "redirected to itself, in a circle" in build.error("FROM scratch", f"ADD {web.base}/a /")
    for number in range(12):
        web.put(f"/{number}", b"", status=301, headers={"Location": f"/{number + 1}"})
    assert "more than 10 redirects" in build.error("FROM scratch", f"ADD {web.base}/0 /")
    web.put("/file", b"", status=302, headers={"Location": "file:///etc/passwd"})
    assert "redirected to what is no address" in build.error("FROM scratch", f"ADD {web.base}/file /")
    assert target.endswith("/real")


def test_a_login_goes_to_its_host_only_and_is_seen_nowhere(build: Any, web: Web, tmp_path: Any) -> None:
    with_login = web.base.replace("//", "//me:verysecretword@")
    with web_elsewhere() as other:
        address = other.put("/file", TEXT)
        web.put("/file", b"", status=302, headers={"Location": address})
        result = build("FROM scratch", f"ADD {with_login}/file /")
        assert web.sent[-1]["Authorization"].startswith("Basic ")
        assert "Authorization" not in other.sent[-1]
        history = build.limpet("history", "--no-trunc", "made").stdout
        config = build.limpet("image", "inspect", "made").stdout
        assert "verysecretword" not in result.stderr + history + config
        assert "ADD http://me:***@127.0.0.1" in history
        (tmp_path / "token").write_text("anothersecret\n")
        secret = ("--secret", f"id=HTTP_AUTH_TOKEN_127.0.0.1,src={tmp_path}/token", "--no-cache")
        build("FROM scratch", f"ADD {web.base}/file /", options=secret)
        assert web.sent[-1]["Authorization"] == "Bearer anothersecret"
        assert "Authorization" not in other.sent[-1]
    script = f"grep -rlaF -e verysecretword -e anothersecret {build.limpet.root}"
    assert subprocess.run(script, shell=True, capture_output=True).stdout == b""
    web.put("/private", b"", status=401)
    error = build.error("FROM scratch", f"ADD {with_login}/private /")
    assert "HTTP 401: access denied" in error
    assert "--secret id=HTTP_AUTH_TOKEN_127.0.0.1" in error
    assert "verysecretword" not in error


def web_elsewhere() -> Any:
    return web_server("127.0.0.2")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{base}/missing", "HTTP 404: not found"),
        ("http://127.0.0.1:1/x", "cannot connect to 127.0.0.1:1: Connection refused"),
        ("http://no.such.host.invalid/x", "the name cannot be resolved"),
        ("http://127.0.0.1:99999/x", "is not an address"),
        ("https://{host}/x", "no TLS there"),
    ],
)
def test_what_fails_says_why(build: Any, web: Web, source: str, message: str) -> None:
    url = source.format(base=web.base, host=web.base.partition("//")[2])
    error = build.error("FROM scratch", f"ADD {url} /")
    assert message in error
    assert "Dockerfile:2:1: " in error
    assert "regist" not in error


def test_limits(build: Any, web: Web) -> None:
    url = web.put("/big", bytes(2_000_000))
    build.limpet.environment["LIMPET_MAX_LAYER_SIZE"] = "1000000"
    assert "more than 1000000 bytes" in build.error("FROM scratch", f"ADD {url} /")
    assert web.files["/big"] == File(bytes(2_000_000))
    root = build.limpet.root
    assert list((root / "tmp").iterdir()) == []


def test_what_was_fetched_is_listed_and_removed(build: Any, web: Web) -> None:
    url = web.put("/file", TEXT)
    build("FROM scratch", f"ADD {url} /")
    assert build.limpet("cache", "ls", "--filter", "type=fetched", "-q").stdout == f"{url}\n"
    assert build.limpet("cache", "ls", "--filter", "type=mount", "-q").stdout == ""
    assert "no such cache" in build.limpet("cache", "export", url, "-", check=False).stderr
    build.limpet("cache", "rm", url)
    assert url not in build.limpet("cache", "ls", "--format", "{{.Name}}").stdout.split("\n")
    build("FROM scratch", f"ADD {url} /")
    assert web.statuses() == [200, 200]


def test_tls(build: Any, web: Web, tmp_path: Path) -> None:
    made = authority.make(tmp_path / "authority")
    with web_server("127.0.0.1", made.server()) as safe:
        url = safe.put("/file", TEXT)
        assert "its certificate is not trusted" in build.error("FROM scratch", f"ADD {url} /")
        build.limpet.environment["SSL_CERT_FILE"] = str(made.ca)
        build("FROM scratch", f"ADD {url} /")
        plain = web.put("/file", TEXT)
        downgrade = safe.put("/down", b"", status=302, headers={"Location": plain})
        error = build.error("FROM scratch", f"ADD {downgrade} /")
        assert f"{downgrade}: it is redirected to {plain}, without TLS" in error
        assert "--checksum=sha256:" in error
        build("FROM scratch", f"ADD --checksum=sha256:{SHA256} {downgrade} /")
        build("FROM scratch", f"ADD {web.put('/up', b'', status=302, headers={'Location': url})} /")
        assert build.listing()[-1].endswith(" up")


def test_by_a_proxy(build: Any, web: Web) -> None:
    """The proxy is asked with the whole address; this machine's own addresses never go by it."""
    web.put("http://files.example/file", TEXT)
    build.limpet.environment["HTTP_PROXY"] = web.base
    build("FROM scratch", "ADD http://files.example/file /")
    assert web.asked == [("GET", "http://files.example/file", 200)]


def test_two_builds_at_once_fetch_once(build: Any, web: Web) -> None:
    url = web.put("/file", bytes(3_000_000))
    (build.directory / "Dockerfile").write_text(f"FROM scratch\nADD {url} /\n")
    command = [*build.limpet.command, "build", "-q", str(build.directory)]
    running = [
        subprocess.Popen(command, env=build.limpet.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    assert sorted(web.statuses()) == [200, 304, 304]
