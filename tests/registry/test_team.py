"""A team's registry of our own, over TLS and with users, as its people use it: login, push, pull, search, logout."""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from tests.registry.ours import Ours, serving

pytestmark = pytest.mark.slow

ACCESS = """
[[rule]]
repositories = "team/**"
users = "anna"
allow = ["pull", "push", "delete"]
[[rule]]
repositories = "team/**"
users = "carl"
allow = "pull"
[[rule]]
repositories = "public/**"
users = "anonymous"
allow = "pull"
[[rule]]
repositories = "public/**"
users = "anna"
allow = ["pull", "push"]
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made before the fixture `limpet`, which takes the environment over."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HTTPS_PROXY", "https_proxy", "LIMPET_REGISTRIES", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    return home


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Ours]:
    users = tmp_path / "users"
    users.write_text(
        "".join(f"{n}:{bcrypt.hashpw(f'{n}-word'.encode(), bcrypt.gensalt(4)).decode()}\n" for n in ("anna", "carl"))
    )
    (tmp_path / "access").write_text(ACCESS)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with serving(
        tmp_path / "data", "--tls", "--auth", str(users), "--access", str(tmp_path / "access"), context=context
    ) as registry:
        yield registry


def test_a_day_of_a_team(ours: Ours, limpet: Any, busybox: str, home: Path) -> None:
    name = f"{ours.domain}/team/app:1"
    limpet("tag", busybox, name)
    words = ("login", "--password-stdin", ours.domain, "-u")
    strange = limpet(*words, "anna", input="anna-word", check=False)
    assert f"put its authority into /etc/limpet/certs.d/{ours.domain}/ca.crt" in strange.stderr
    trusted = home / "config/limpet/certs.d" / ours.domain
    trusted.mkdir(parents=True)
    shutil.copy(ours.directory / "tls/cert.pem", trusted / "ca.crt")

    denied = limpet("push", name, check=False)
    assert denied.returncode == 1
    assert f"limpet login {ours.domain}" in denied.stderr

    assert "does not accept this login" in limpet(*words, "anna", input="wrong", check=False).stderr
    limpet(*words, "anna", input="anna-word")
    limpet("push", name)
    limpet("tag", busybox, f"{ours.domain}/public/app:1")
    limpet("push", f"{ours.domain}/public/app:1")
    assert limpet("search", "--format", "{{.Name}}", f"{ours.domain}/app").stdout.split() == [
        f"{ours.domain}/public/app",
        f"{ours.domain}/team/app",
    ]

    limpet(*words, "carl", input="carl-word")  # one login for a registry: the new one takes the old one's place
    limpet("rmi", name, f"{ours.domain}/public/app:1")
    limpet("pull", name)
    assert limpet("run", "--rm", name, "echo", "hello").stdout == "hello\n"
    refused = limpet("push", name, check=False)
    assert refused.returncode == 1
    assert "carl-word" not in refused.stderr
    assert f"push access denied for {ours.domain}/" in refused.stderr
    assert "logged in as carl (from " in refused.stderr

    assert limpet("logout", ours.domain).stdout == f"Removing login credentials for {ours.domain}\n"
    limpet("rmi", name)
    gone = limpet("pull", name, check=False)
    assert f"{ours.domain}/team/app not found or no access: not logged in" in gone.stderr
    limpet("pull", f"{ours.domain}/public/app:1")  # as anybody may
    config = json.loads((home / ".docker/config.json").read_text())
    assert config == {"auths": {}}


def test_users_of_parts(ours: Ours, limpet: Any, busybox: str, home: Path) -> None:
    """Two logins at one registry: who pushes to the public part is another than who reads the rest."""
    trusted = home / "config/limpet/certs.d" / ours.domain
    trusted.mkdir(parents=True)
    shutil.copy(ours.directory / "tls/cert.pem", trusted / "ca.crt")
    limpet("login", "--password-stdin", "-u", "carl", ours.domain, input="carl-word")
    limpet("login", "--password-stdin", "-u", "anna", f"{ours.domain}/public", input="anna-word")
    for part, works in (("team", False), ("public", True)):
        name = f"{ours.domain}/{part}/app:1"
        limpet("tag", busybox, name)
        assert (limpet("push", name, check=False).returncode == 0) == works
