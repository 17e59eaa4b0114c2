"""Short names, policies and mirrors as a user meets them: pull, run, build, info."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.registry import server

from limpet.errors import NotFound, Refused
from limpet.images.pull import pull
from limpet.store.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def image(busybox_tar: Path) -> server.Image:
    return server.make_image([busybox_tar.read_bytes()])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, image: server.Image) -> Iterator[server.Registry]:
    with server.docker_registry(tmp_path_factory.mktemp("registry")) as real:
        real.push(image, "team/tool:1")
        real.push(image, "many:1", server.make_index({"linux/amd64": image, "linux/arm64": image}))
        yield real


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made before the fixture `limpet`, which takes the environment over."""
    path = tmp_path / "registries.toml"
    path.write_text("")
    monkeypatch.setenv("LIMPET_REGISTRIES", str(path))
    return path


def test_an_alias(settings: Path, registry: server.Registry, limpet: Any) -> None:
    settings.write_text(f'[aliases]\nit = "{registry.domain}/team/tool"\n')
    full = f"{registry.domain}/team/tool:1"
    pulled = limpet("pull", "it:1").stdout.splitlines()
    assert pulled[0] == f"it:1 is {full}: an alias in {settings}:2"
    assert pulled[-1] == full
    ran = limpet("run", "--rm", "--pull", "never", "it:1", "echo", "hello")
    assert ran.stdout == "hello\n"
    assert limpet("images", "--format", "{{.Repository}}").stdout == f"{registry.domain}/team/tool\n"


def test_run_pulls_by_an_alias(settings: Path, registry: server.Registry, limpet: Any, tmp_path: Path) -> None:
    settings.write_text(f'[aliases]\nit = "{registry.domain}/team/tool"\n')
    assert limpet("run", "--rm", "it:1", "echo", "hello").stdout == "hello\n"
    assert "Unable to find" not in limpet("run", "--rm", "it:1", "true").stderr
    (tmp_path / "Dockerfile").write_text("FROM it:1\nENV A=1\n")
    limpet("build", "-t", "built", tmp_path)
    assert limpet("run", "--rm", "built", "sh", "-c", "echo $A").stdout == "1\n"


def test_registries_are_searched_in_order(settings: Path, registry: server.Registry, limpet: Any) -> None:
    """Only where one does not have it the next one is asked."""
    with server.scripted() as first:
        settings.write_text(f'search = ["{first.domain}", "{registry.domain}"]\n')
        shown = limpet("pull", "team/tool:1")
        assert shown.stdout.splitlines()[-1] == f"{registry.domain}/team/tool:1"
        assert f"team/tool:1 is {registry.domain}/team/tool:1: a short name, searched for as {settings}:1 says" in (
            shown.stdout
        )
        missing = limpet("pull", "team/none", check=False)
        assert missing.returncode == 1
        assert f"(nor: {first.domain}/team/none)" in missing.stderr

    limpet("rmi", f"{registry.domain}/team/tool:1")
    gone = limpet("pull", "team/tool:1", check=False)  # the first one is down: nobody else may stand in for it
    assert gone.returncode == 1
    assert f"cannot connect to {first.domain}" in gone.stderr


@pytest.mark.parametrize("kind", ["config", "layers"])
def test_a_mirror_with_other_bytes(settings: Path, limpet: Any, kind: str) -> None:
    """As many, and not those: what it sent is thrown away, and the registry itself is asked."""
    image = server.make_image([server.tar_of({f"{n}": bytes([n]) * 300_000}) for n in range(3)])
    with server.scripted() as own, server.scripted() as mirror:
        own.add(image, "1")
        mirror.add(image, "1")
        for data in image.layers if kind == "layers" else [image.config]:
            mirror.documents[server.digest_of(data)] = ("application/octet-stream", data[:-1] + b"?")
        settings.write_text(f'[registry."{own.domain}"]\nmirrors = ["{mirror.domain}"]\n')
        result = limpet("pull", f"{own.domain}/app:1")
        assert ("fetched from the registry itself" in result.stderr) == (kind == "layers")
        assert json.loads(limpet("image", "inspect", f"{own.domain}/app:1").stdout)[0]["Id"] == image.id
        assert limpet("system", "check").returncode == 0
        own.documents.update(mirror.documents)
        limpet("rmi", f"{own.domain}/app:1")
        assert limpet("pull", f"{own.domain}/app:1", check=False).returncode == 1  # the registry lies as well


@pytest.mark.parametrize("form", ['location = "{}/hub"', 'mirrors = ["{}/hub"]'])
def test_docker_hub_from_elsewhere(
    settings: Path, registry: server.Registry, limpet: Any, image: server.Image, form: str
) -> None:
    """Its images keep their names, wherever they come from."""
    registry.push(image, "hub/library/hubtool:1")
    settings.write_text(f'[registry."docker.io"]\n{form.format(registry.domain)}\n')
    shown = limpet("pull", "hubtool:1").stdout.splitlines()
    assert shown[0] == "1: Pulling from library/hubtool"
    assert shown[-1] == "docker.io/library/hubtool:1"
    assert limpet("run", "--rm", "hubtool:1", "echo", "hello").stdout == "hello\n"
    again = limpet("pull", "docker.io/library/hubtool:1").stdout
    assert "Status: Image is up to date for hubtool:1" in again


def test_a_full_name_is_what_it_says(settings: Path, registry: server.Registry, limpet: Any) -> None:
    settings.write_text('search = ["registry.invalid"]\n[aliases]\n"team/tool" = "registry.invalid/x"\n')
    assert limpet("pull", "-q", f"{registry.domain}/team/tool:1").stdout == f"{registry.domain}/team/tool:1\n"


def test_a_digest_is_required(settings: Path, registry: server.Registry, limpet: Any, image: server.Image) -> None:
    settings.write_text(
        f'[[policy]]\nmatch = "{registry.domain}/team"\nrequire = "digest"\n[[policy]]\nmatch = "*"\n'
        'require = "nothing"\n'
    )
    refused = limpet("pull", f"{registry.domain}/team/tool:1", check=False)
    assert refused.returncode == 1
    assert f"refused by the policy for {registry.domain}/team: a digest is required" in refused.stderr
    assert f"{settings}:1 has the rule" in refused.stderr
    limpet("pull", f"{registry.domain}/team/tool@{image.digest}")
    limpet("pull", f"{registry.domain}/many:1")
    for words in (("run", "--rm"), ("create",)):
        again = limpet(*words, f"{registry.domain}/team/tool:1", "true", check=False)
        assert "a digest is required" in again.stderr


def test_a_signature_is_required(settings: Path, registry: server.Registry, store: Store, image: server.Image) -> None:
    settings.write_text('[[policy]]\nmatch = "*"\nrequire = "signature"\n')
    with pytest.raises(Refused, match=r"policy for \*: a signature is required, and this release checks none"):
        pull(store, f"{registry.domain}/team/tool@{image.digest}")


@pytest.mark.parametrize(
    ("match", "name", "refused"),
    [
        ("a.invalid", "a.invalid/x", True),
        ("a.invalid", "a.invalid:1/x", False),
        ("a.invalid/x", "a.invalid/x/y", True),
        ("a.invalid/x", "a.invalid/xy", False),
        ("*.invalid", "a.invalid/x", True),
        ("*.invalid", "invalid.example/x", False),
        ("docker.io/library", "debian", True),
        ("docker.io/library", "team/debian", False),
    ],
)
def test_matches(settings: Path, store: Store, match: str, name: str, refused: bool) -> None:
    """What isn't refused is not there either: nothing here leads to a network."""
    settings.write_text(
        f'[[policy]]\nmatch = "{match}"\nrequire = "digest"\n'
        + "".join(
            f'[registry."{place}"]\nblocked = true\n'
            for place in ("a.invalid", "a.invalid:1", "invalid.example", "docker.io")
        )
    )
    with pytest.raises(Refused, match="a digest is required" if refused else "is blocked"):
        pull(store, name)


def test_a_mistake_is_told(settings: Path, limpet: Any) -> None:
    settings.write_text('[registry."docker.io"]\nmirors = ["localhost:5000"]\n')
    result = limpet("pull", "debian", check=False)
    assert result.returncode == 1
    said = f'{settings}:2: unknown key registry."docker.io".mirors'
    assert result.stderr == f"limpet: {said}\ndid you mean mirrors?\n"
    assert f"Registries: {said}; did you mean mirrors?" in limpet("info").stdout.splitlines()


def test_info(settings: Path, limpet: Any, tmp_path: Path) -> None:
    settings.write_text('search = ["a.example"]\n[registry."docker.io"]\nmirrors = ["localhost:5000/hub"]\n')
    assert f"Registries: {settings}" in limpet("info").stdout.splitlines()
    config = json.loads(limpet("info", "-f", "json").stdout)["RegistryConfig"]
    assert config["Files"] == [str(settings)]
    assert (config["Mirrors"], config["Search"]) == (["localhost:5000/hub"], ["a.example"])
    other = tmp_path / "other.toml"
    other.write_text("")
    shown = limpet("--registries-conf", other, "info").stdout
    assert f"Registries: {other}" in shown.splitlines()


def test_raw_is_what_was_fetched(settings: Path, registry: server.Registry, limpet: Any, image: server.Image) -> None:
    """The bytes of the manifest or the index that the name stands for; `sha256sum` of them is the digest."""
    for name, digest in ((f"{registry.domain}/team/tool:1", image.digest), (f"{registry.domain}/many:1", "")):
        limpet("pull", name)
        raw = limpet("image", "inspect", "--raw", name, encoding="utf-8").stdout
        found = f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"
        shown = json.loads(limpet("image", "inspect", name).stdout)[0]["RepoDigests"]
        assert f"{name.rpartition(':')[0]}@{found}" in shown
        assert digest in ("", found)
    raw = limpet("image", "inspect", "--raw", f"{registry.domain}/many@{image.digest}").stdout
    assert raw.encode() == image.manifest  # of an index the part that is in use


def test_raw_of_what_was_never_fetched(limpet: Any, busybox: str) -> None:
    result = limpet("image", "inspect", "--raw", busybox, check=False)
    assert result.returncode == 1
    assert "has no manifest: it was made here" in result.stderr


def test_a_short_name_that_nobody_has(settings: Path, limpet: Any, store: Store) -> None:
    with server.scripted() as empty:
        settings.write_text(f'search = ["{empty.domain}"]\n')
        result = limpet("run", "--rm", "nothing", check=False)
        assert result.returncode == 125
        assert f"{empty.domain}/nothing:latest not found" in result.stderr
        with pytest.raises(NotFound):
            pull(store, f"{empty.domain}/nothing")
