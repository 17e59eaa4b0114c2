"""The pages, read as a browser without JavaScript reads them, and seen in Debian's Chromium."""

from __future__ import annotations

import html.parser
import io
import json
import os
import re
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.registry.ours import Ours, serving
from tests.registry.server import Image, compressed, digest_of, make_image, make_index, tar_of
from tests.registry.test_server_access import ACCESS, basic, password_file
from tests.registry.test_server_protocol import artifact, push, push_blob, put_manifest
from tests.registry.test_server_proxy import proxying

from limpet.oci import media
from limpet.registry.server.layerlist import Listings

NASTY = '<script>alert("x")</script>&'


class Reader(html.parser.HTMLParser):
    """Words, links and the names of tags; fails on tags that are not closed in order."""

    _VOID = ("meta", "input", "br", "!doctype")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.add(tag)
        if tag not in self._VOID:
            self._open.append(tag)
        if tag == "a":
            self.links.append((dict(attributes)["href"], ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)
        if "a" in self._open:
            where, words = self.links[-1]
            self.links[-1] = (where, words + data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def to(self, words: str) -> str:
        return next(where for where, shown in self.links if shown == words)


def read(ours: Ours, path: str, status: int = 200, headers: dict[str, str] | None = None) -> Reader:
    answer = ours("GET", path, headers=headers)
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    found = Reader(answer.body.decode())
    assert "script" not in found.tags
    return found


def webserver(**config: Any) -> Image:
    """A small image with a history, as a build makes it."""
    stack = [
        tar_of({"etc/os-release": b"ID=debian\n", "bin/sh": b"#!" * 5000}),
        tar_of({"srv/index.html": b"<h1>hello</h1>", "srv/style.css": b"h1 { color: teal }"}),
    ]
    made = make_image(stack)
    whole = json.loads(made.config)
    whole["created"] = "2026-11-24T12:00:00Z"
    whole["config"] = {
        "Cmd": ["python3", "-m", "http.server"],
        "Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"],
        "ExposedPorts": {"8000/tcp": {}},
        "Labels": {"org.opencontainers.image.title": "hello"},
        "WorkingDir": "/srv",
        **config,
    }
    whole["history"] = [
        {"created_by": "ADD rootfs.tar.gz / # debian 12"},
        {"created_by": "ENV LANG=C.UTF-8", "empty_layer": True},
        {"created_by": "COPY site/ /srv/ # limpet"},
        {"created_by": 'CMD ["python3", "-m", "http.server"]', "empty_layer": True},
    ]
    data = json.dumps(whole).encode()
    manifest = json.loads(made.manifest)
    manifest["config"].update(digest=digest_of(data), size=len(data))
    del made.blobs[made.id]
    return Image(data, json.dumps(manifest).encode(), made.layers, {digest_of(data): data, **made.blobs})


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    image = webserver()
    with serving(tmp_path_factory.mktemp("registry") / "data", "--workers", "2") as registry:
        push(registry, "team/web", "1.0", image)
        push(registry, "team/web", "1.1", image)
        push(registry, "base/debian", "12", webserver(Labels={"a": "b"}))
        blobs, manifest = artifact(image, "application/spdx+json", {"org.opencontainers.image.created": "2026-11-24"})
        for data in blobs.values():
            push_blob(registry, "team/web", data)
        assert put_manifest(registry, "team/web", digest_of(manifest), manifest).status == 201
        yield registry


def test_from_the_list_to_a_file_of_a_layer(ours: Ours) -> None:
    page = read(ours, "/")
    assert [words for _, words in page.links if "/" in words] == ["base/debian", "team/web"]
    page = read(ours, page.to("team/web"))
    assert f"limpet pull {ours.domain}/team/web:1.1" in page.text
    assert "image, 2 layers" in page.text
    page = read(ours, page.to("1.0"))
    image = webserver()
    for words in (
        f"limpet pull {ours.domain}/team/web:1.0", image.digest, "amd64", "2026-11-24T12:00:00Z", "8000/tcp", "/srv",
        '["python3", "-m", "http.server"]', "LANG=C.UTF-8", "org.opencontainers.image.title=hello",
        "COPY site/ /srv/ # limpet", "Refers to this", "application/spdx+json",
    ):  # fmt: skip
        assert words in page.text, words
    layer = digest_of(image.layers[1])
    page = read(ours, page.to(f"sha256:{layer[7:19]}"))
    for words in ("/srv/index.html", "/srv/style.css", "-rw-r--r--", "0:0", "14B", "3 entries, 32B of files"):
        assert words in page.text, words
    page = read(ours, f"/web/team/web@{image.digest}")
    page = read(ours, page.to("application/spdx+json"))
    assert page.to(image.digest) == f"/web/team/web@{image.digest}"


def test_search(ours: Ours) -> None:
    assert "base/debian" in read(ours, "/?q=DEB").text
    assert "team/web" not in read(ours, "/?q=DEB").text
    page = read(ours, "/?q=1.1")  # a tag
    assert page.to("1.1") == "/web/team/web:1.1"
    page = read(ours, f"/?q={'%3Cscript%3E'}")
    assert "Nothing has such a name." in page.text
    assert "Repositories with “<script>”" in page.text


def test_an_index_lists_its_platforms(ours: Ours) -> None:
    images = {"linux/amd64": webserver(), "linux/ppc64le": webserver(User="app")}
    for image in images.values():
        push(ours, "multi", "part", image)
    assert put_manifest(ours, "multi", "1", make_index(images), media.OCI_INDEX).status == 201
    page = read(ours, "/web/multi:1")
    assert "linux/amd64" in page.text
    page = read(ours, page.to("linux/ppc64le"))
    assert "User app" in page.text


@pytest.mark.parametrize(
    "path",
    [
        "/web/none", "/web/team/web:none", "/web/team/web:", "/web/../x", "/web/team/web@sha256:x", "/web/",
        "/web/team/web/-/layer/x", "/web/team/web/-/layer/sha256:" + "0" * 64, "/web/%3Cscript%3E", "/web/a%00",
    ],
)  # fmt: skip
def test_what_is_not_there(ours: Ours, path: str) -> None:
    answer = ours("GET", path)
    assert answer.status in (400, 404)
    assert "Not here" in Reader(answer.body.decode()).text


def test_nothing_from_an_image_becomes_markup(ours: Ours) -> None:
    """Every text that a pusher chooses, in every place where it is shown."""
    image = webserver(
        Env=[f"A={NASTY}"], Labels={NASTY: NASTY}, Cmd=[NASTY], User=NASTY, WorkingDir=NASTY, ExposedPorts={NASTY: {}}
    )
    whole = json.loads(image.config)
    whole["author"] = whole["created"] = NASTY
    whole["history"] = [{"created_by": NASTY}, {"comment": NASTY}]
    config = json.dumps(whole).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(NASTY))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, NASTY
        tar.addfile(link)
    layer = compressed(out.getvalue())
    manifest = json.loads(image.manifest)
    manifest["config"].update(digest=digest_of(config), size=len(config))
    manifest["layers"] = [{"mediaType": f"tar{NASTY}", "digest": digest_of(layer), "size": len(layer)}]
    manifest["annotations"] = {NASTY: NASTY}
    data = json.dumps(manifest).encode()
    for blob in (config, layer):
        push_blob(ours, "nasty", blob)
    assert put_manifest(ours, "nasty", "x", data).status == 201
    _, about = artifact(Image(config, data, [], {}), NASTY, {"org.opencontainers.image.created": NASTY})
    described = json.loads(about)
    described["layers"] = []
    push_blob(ours, "nasty", b"{}")
    about = json.dumps(described).encode()
    assert put_manifest(ours, "nasty", digest_of(about), about).status == 201
    for path in (
        "/web/nasty:x",
        "/web/nasty",
        f"/web/nasty/-/layer/{digest_of(layer)}",
        f"/web/nasty@{digest_of(about)}",
    ):
        answer = ours("GET", path)
        assert answer.status == 200, path
        assert b"<script" not in answer.body
        assert NASTY in Reader(answer.body.decode()).text or path == "/web/nasty"


def test_layers_that_cannot_be_listed(tmp_path: Path) -> None:
    def listed(data: bytes) -> str:
        (tmp_path / "blob").write_bytes(data)
        return Listings().of(digest_of(data), os.open(tmp_path / "blob", os.O_RDONLY)).problem

    whole = compressed(tar_of({"a": b"x" * 5000}))
    assert listed(whole) == ""
    assert listed(tar_of({"a": b"x" * 500_000, "b": b""})) == ""
    assert listed(whole[:-20])
    assert listed(b"\x1f\x8b" + os.urandom(500))
    assert listed(os.urandom(5000))
    assert "times" in listed(compressed(bytes(200 << 20)))


def test_pages_of_those_who_may(tmp_path: Path) -> None:
    passwords = password_file(tmp_path / "users", "bert", "root")
    (tmp_path / "access").write_text(ACCESS.replace('"anna"', '"root"'))
    with serving(tmp_path / "data", "--auth", str(passwords), "--access", str(tmp_path / "access")) as ours:
        empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
        manifest = json.dumps({"schemaVersion": 2, "config": empty, "layers": []}).encode()
        for name in ("team/app", "public/app", "secret"):
            ours("POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(b'{}')}", b"{}", basic("root"))
            assert ours("PUT", f"/v2/{name}/manifests/x", manifest, basic("root")).status == 201
        anybody = read(ours, "/")
        assert "public/app" in anybody.text
        assert "team/app" not in anybody.text
        assert anybody.to("Log in") == "/login"
        assert "Without a login only what is open to everybody is shown." in anybody.text
        assert ours("GET", "/login").headers["Www-Authenticate"] == 'Basic realm="limpet"'
        assert ours("GET", "/login", headers=basic("bert")).headers["Location"] == "/"
        bert = read(ours, "/", headers=basic("bert"))
        assert "team/app" in bert.text
        assert "secret" not in bert.text
        assert "Without a login" not in bert.text
        read(ours, "/web/secret", 404, basic("bert"))
        assert "It may be there for those who have a login." in read(ours, "/web/secret:x", 404).text
        read(ours, "/web/secret:x", 200, basic("root"))


def test_pages_of_a_cache(ours: Ours, tmp_path: Path) -> None:
    with proxying(tmp_path / "cache", ours.domain) as cache:
        page = read(cache, "/web/team/web:1.0")  # fetched by being looked at
        layer = digest_of(webserver().layers[1])
        assert "/srv/index.html" in read(cache, page.to(f"sha256:{layer[7:19]}")).text


CHROMIUM = (
    "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-sync --disable-extensions "
    "--disable-background-networking --disable-component-update --disable-dev-shm-usage --force-device-scale-factor=1"
).split()


@pytest.mark.slow
def test_in_a_browser(ours: Ours, tmp_path: Path) -> None:
    """A page as Chromium lays it out. LIMPET_SCREENSHOT=1 writes the picture of docs/."""
    if shutil.which("chromium") is None:
        pytest.skip("needs Debian's chromium")

    def browse(*options: str, path: str = "/web/team/web:1.0") -> str:
        command = ["chromium", *CHROMIUM, f"--user-data-dir={tmp_path}/profile"]
        command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", *options]
        result = subprocess.run(
            [*command, f"http://{ours.domain}{path}"], capture_output=True, text=True, timeout=100, cwd=tmp_path
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    dom = browse("--dump-dom")
    assert "COPY site/ /srv/ # limpet" in dom
    assert "<style>" in dom
    picture = tmp_path / "page.png"
    browse(f"--screenshot={picture}", "--window-size=1000,980")
    data = picture.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (1000, 980)
    assert len(data) > 20_000  # an empty page is a tenth of that
    if os.environ.get("LIMPET_SCREENSHOT"):
        docs = Path(__file__).resolve().parent.parent.parent / "docs"
        (docs / "registry-page.png").write_bytes(data)


def test_the_screenshot_is_in_the_documentation() -> None:
    docs = Path(__file__).resolve().parent.parent.parent / "docs"
    assert re.search(r"!\[[^\]]+\]\(registry-page\.png\)", (docs / "registry-server.md").read_text())
    assert (docs / "registry-page.png").read_bytes().startswith(b"\x89PNG")
