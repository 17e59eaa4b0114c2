"""search: Docker Hub's own interface, catalogues, and what stands in for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from tests.registry import server
from tests.registry.server import PASSWORD, USER, send

from limpet.errors import Invalid, LimpetError, NotFound
from limpet.registry import connection, search

IMAGE = server.make_image([server.tar_of({"a": b"1"})])
HUB = [
    {
        "name": "debian",
        "description": "Debian is a Linux distribution\nthat is composed entirely of free software.",
        "star_count": 5000,
        "is_official": True,
        "is_automated": False,
    },
    {"name": "me/debian", "description": "mine", "star_count": 2, "is_official": False, "is_automated": True},
    *({"name": f"other/{i}", "description": "", "star_count": 0, "is_official": False} for i in range(120)),
]


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "registries.toml"
    path.write_text("")
    monkeypatch.setenv("LIMPET_REGISTRIES", str(path))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.0)
    return path


@pytest.fixture
def hub(settings: Path) -> Iterator[server.Scripted]:
    """Stands in for Docker Hub's index."""
    with server.scripted() as fake:

        def answer(handler: Any) -> bool:
            query = dict(parse_qsl(urlsplit(handler.path).query))
            begin = (int(query["page"]) - 1) * int(query["n"])
            results = HUB[begin : begin + int(query["n"])]
            send(handler, 200, json.dumps({"num_results": len(HUB), "results": results}).encode())
            return True

        fake.answer = answer
        settings.write_text(f'[registry."index.docker.io"]\nlocation = "{fake.domain}"\n')
        yield fake


def catalogue(fake: server.Scripted, names: list[str], page: int = 3, link: str = "") -> None:
    """A registry that shows `page` names at a time."""

    def answer(handler: Any) -> bool:
        parts = urlsplit(handler.path)
        if parts.path != "/v2/_catalog":
            return False
        last = dict(parse_qsl(parts.query)).get("last", "")
        shown = [name for name in names if name > last][:page]
        headers = {}
        if shown and shown[-1] != names[-1]:
            headers["Link"] = link or f'</v2/_catalog?last={shown[-1].replace("/", "%2F")}&n={page}>; rel="next"'
        send(handler, 200, json.dumps({"repositories": shown}).encode(), headers)
        return True

    fake.answer = answer


def test_docker_hub(hub: server.Scripted, limpet: Any) -> None:
    lines = limpet("search", "--limit", "2", "debian").stdout.splitlines()
    assert lines[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert lines[1] == "debian      Debian is a Linux distribution that is compo…   5000      [OK]"
    assert lines[2] == "me/debian   mine                                            2"
    assert len(lines) == 3
    assert hub.requests[0][0] == "/v1/search?q=debian&n=2&page=1"
    whole = limpet("search", "--limit", "2", "--no-trunc", "docker.io/debian").stdout
    assert "Debian is a Linux distribution that is composed entirely of free software." in whole


def test_docker_hub_page_by_page(hub: server.Scripted) -> None:
    assert len(search.search("docker.io", "x", 110)) == 110
    assert len(search.search("docker.io", "x", 1000)) == len(HUB)
    assert [path.rpartition("&")[2] for path, _ in hub.requests] == ["page=1", "page=2"] * 2


def test_filters_and_formats(hub: server.Scripted, limpet: Any) -> None:
    words = ("search", "--format", "{{.Name}} {{.StarCount}} {{.IsAutomated}}")
    assert limpet(*words, "-f", "is-official=true", "x").stdout == "debian 5000 \n"
    assert limpet(*words, "-f", "stars=1", "-f", "is-automated=true", "x").stdout == "me/debian 2 [OK]\n"
    (first, *_) = limpet("search", "--format", "json", "x").stdout.splitlines()
    assert json.loads(first)["IsOfficial"] == "[OK]"


def test_a_real_registry(limpet: Any, tmp_path: Path) -> None:
    with server.docker_registry(tmp_path / "registry") as real:
        for name in ("team/web", "team/db", "web"):
            real.push(IMAGE, f"{name}:1")
        found = limpet("search", "--format", "{{.Name}}", f"{real.domain}/web").stdout.split()
        assert sorted(found) == [f"{real.domain}/team/web", f"{real.domain}/web"]
        assert len(limpet("search", f"{real.domain}/").stdout.splitlines()) == 4
        assert limpet("search", f"{real.domain}/none").stdout.split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
        limpet("pull", f"{found[0]}:1")  # what is shown is what `pull` takes


def test_a_real_registry_with_a_login(limpet: Any, tmp_path: Path) -> None:
    with server.docker_registry(tmp_path / "registry", login=True) as real:
        result = limpet("search", f"{real.domain}/x", check=False)
        assert result.returncode == 1
        assert f"does not show its catalogue\nlog in: limpet login {real.domain}" in result.stderr
        limpet("login", "-u", USER, "--password-stdin", real.domain, input=PASSWORD)
        limpet("search", f"{real.domain}/x")


def test_a_catalogue_page_by_page() -> None:
    names = [f"team/{i:03d}" for i in range(20)]
    with server.scripted() as fake:
        catalogue(fake, names)
        assert [one.name for one in search.search(fake.domain, "", 1000)] == [f"{fake.domain}/{n}" for n in names]
        fake.requests.clear()
        assert len(search.search(fake.domain, "team", 4)) == 4
        assert len(fake.requests) == 2  # and no more than needed


@pytest.mark.parametrize(
    "link",
    [
        '</v2/_catalog?n=1000>; rel="next"',
        '<http://registry.invalid/v2/_catalog?n=1000>; rel="next"',
        '</v2/secret>; rel="next"',
        "nonsense",
        '<//>; rel="next"',
    ],
)
def test_links_that_lead_astray(link: str) -> None:
    with server.scripted() as fake:
        catalogue(fake, ["a", "b", "c", "d"], link=link)
        assert len(search.search(fake.domain, "", 1000)) <= 4
        assert {urlsplit(path).path for path, _ in fake.requests} == {"/v2/_catalog"}


def test_a_catalogue_without_end() -> None:
    """Bounded by what was asked for."""
    with server.scripted() as fake:
        count = 0

        def answer(handler: Any) -> bool:
            nonlocal count
            count += 1
            send(handler, 200, b'{"repositories": ["a"]}', {"Link": f'</v2/_catalog?last={count}>; rel="next"'})
            return True

        fake.answer = answer
        assert len(search.search(fake.domain, "a", 10)) == 10
        assert count == 10


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"repositories": [1]}', b'{"repositories": ["a\\u001b[2J"]}', b"[" * 9999]
)
def test_answers_that_are_none(body: bytes) -> None:
    with server.scripted() as fake:

        def answer(handler: Any) -> bool:
            send(handler, 200, body)
            return True

        fake.answer = answer
        with pytest.raises(LimpetError, match="not the JSON it should be"):
            search.search(fake.domain, "", 10)


def test_no_catalogue() -> None:
    with server.scripted() as fake, pytest.raises(NotFound, match="has no catalogue"):
        search.search(fake.domain, "x", 10)


def test_the_registries_for_short_names(settings: Path, limpet: Any) -> None:
    """One that fails keeps nothing back of what the others have."""
    with server.scripted() as one, server.scripted() as other:
        catalogue(one, ["team/web"])
        settings.write_text(f'search = ["{one.domain}", "{other.domain}"]\n')
        result = limpet("search", "--format", "{{.Name}}", "web", check=False)
        assert result.returncode == 1
        assert result.stdout == f"{one.domain}/team/web\n"
        assert f"{other.domain} has no catalogue" in result.stderr


def test_what_is_blocked(settings: Path, limpet: Any) -> None:
    settings.write_text('[registry."docker.io"]\nblocked = true\n')
    assert "docker.io is blocked" in limpet("search", "debian", check=False).stderr


def test_a_registry_alone_means_all_of_it(limpet: Any) -> None:
    with server.scripted() as fake:
        catalogue(fake, ["a", "b/c"])
        assert limpet("search", "--format", "{{.Name}}", fake.domain).stdout == f"{fake.domain}/a\n{fake.domain}/b/c\n"
    assert search.registries("[::1]:5000") == [("[::1]:5000", "")]
    assert search.registries("node.js") == [("docker.io", "node.js")]


def test_mistakes(limpet: Any) -> None:
    for words, said in (
        (["--limit", "0", "x"], "is not between"),
        (["-f", "stars=many", "x"], "invalid filter 'stars=many'"),
        (["docker.io/"], "give a word"),
    ):
        result = limpet("search", *words, check=False)
        assert result.returncode == 1
        assert said in result.stderr
    with pytest.raises(Invalid):
        search.search("docker.io", "", 10)
