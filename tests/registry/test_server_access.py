"""Users, groups, rules, tokens, TLS, the audit log and the metrics, with real clients where they matter."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from tests.registry.ours import Answer, Ours, serving
from tests.registry.server import digest_of, write_layout
from tests.registry.test_server_clients import run
from tests.registry.test_server_protocol import image_of

from limpet.errors import Invalid
from limpet.registry.server.tokens import Tokens
from limpet.registry.server.users import Users
from limpet.serving import tls

pytestmark = pytest.mark.slow

ACCESS = """
[groups]
team = ["anna", "bert"]

[[rule]]
repositories = ["team/*", "base"]
users = ["@team"]
allow = ["pull", "push"]

[[rule]]
repositories = "team/**"
users = "anna"
allow = "delete"

[[rule]]
repositories = "public/**"
users = "anonymous"
allow = "pull"

[[rule]]
repositories = "**"
users = "root"
allow = ["pull", "push", "delete"]
"""


def password_file(path: Path, *names: str) -> Path:
    """Each user's password is the name twice, with a colon between."""
    lines = []
    for name in names:
        stored = bcrypt.hashpw(f"{name}:{name}".encode(), bcrypt.gensalt(4)).decode()
        lines.append(f"{name}:{stored.replace('$2b$', '$2y$')}\n")  # as htpasswd writes it
    path.write_text("# users\n" + "".join(lines))
    return path


def basic(name: str, password: str | None = None) -> dict[str, str]:
    text = f"{name}:{name + ':' + name if password is None else password}"
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def bearer(ours: Ours, scope: str, name: str = "") -> dict[str, str]:
    answer = ours("GET", f"/token?service=limpet-registry&scope={scope}", headers=basic(name) if name else {})
    assert answer.status == 200, answer.body
    return {"Authorization": f"Bearer {answer.json()['token']}"}


@pytest.fixture
def ours(tmp_path: Path) -> Any:
    passwords = password_file(tmp_path / "users", "anna", "bert", "carl", "root")
    (tmp_path / "access").write_text(ACCESS)
    with serving(
        tmp_path / "data", "--auth", str(passwords), "--access", str(tmp_path / "access"), "--workers", "2",
        "--audit-log", str(tmp_path / "audit"),
    ) as registry:  # fmt: skip
        yield registry


def push(ours: Ours, repository: str, who: dict[str, str]) -> Answer:
    data = b"{}"
    return ours("POST", f"/v2/{repository}/blobs/uploads/?digest={digest_of(data)}", data, who)


def test_who_shows_nothing_is_told_where_to_go(ours: Ours) -> None:
    answer = ours("GET", "/v2/")
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert answer.headers["Www-Authenticate"] == f'Bearer realm="http://{ours.domain}/token",service="limpet-registry"'
    answer = ours("PUT", "/v2/team/app/manifests/x", b"{}")
    assert 'scope="repository:team/app:pull,push"' in answer.headers["Www-Authenticate"]
    assert ours("GET", "/v2/", headers=basic("anna")).status == 200
    assert ours("GET", "/v2/", headers=basic("anna", "wrong")).status == 401
    assert ours("GET", "/v2/", headers=basic("nobody")).status == 401
    assert ours("GET", "/v2/", headers={"Authorization": "Basic !"}).status == 401
    assert ours("GET", "/v2/", headers={"Authorization": "Digest x"}).status == 401
    assert ours("GET", "/healthz").status == 200


def test_rules(ours: Ours) -> None:
    for repository, name, status in (
        ("team/app", "anna", 201),
        ("team/app", "bert", 201),
        ("team/app", "carl", 403),
        ("team/app/deep", "bert", 403),
        ("base", "bert", 201),
        ("base2", "bert", 403),
        ("any/thing", "root", 201),
    ):
        assert push(ours, repository, basic(name)).status == status, (repository, name)
    digest = digest_of(b"{}")
    assert ours("DELETE", f"/v2/team/app/blobs/{digest}", headers=basic("bert")).code == "DENIED"
    assert ours("DELETE", f"/v2/team/app/blobs/{digest}", headers=basic("anna")).status == 202
    assert ours("DELETE", f"/v2/base/blobs/{digest}", headers=basic("anna")).status == 403


def test_tokens(ours: Ours) -> None:
    token = bearer(ours, "repository:team/app:pull,push", "bert")
    assert push(ours, "team/app", token).status == 201
    assert ours("GET", f"/v2/team/app/blobs/{digest_of(b'{}')}", headers=token).status == 200
    answer = push(ours, "base", token)  # not in this token
    assert (answer.status, 'error="insufficient_scope"' in answer.headers["Www-Authenticate"]) == (401, True)
    less = bearer(ours, "repository:team/app:pull,push,delete", "bert")
    assert ours("DELETE", f"/v2/team/app/blobs/{digest_of(b'{}')}", headers=less).status == 401
    assert push(ours, "team/app", bearer(ours, "repository:team/app:pull,push", "carl")).status == 401
    assert push(ours, "team/app", bearer(ours, "repository:team/app:pull", "bert")).status == 401
    both = bearer(ours, "repository:base:pull,push%20repository:team/app:pull", "bert")
    answer = ours("POST", f"/v2/base/blobs/uploads/?mount={digest_of(b'{}')}&from=team/app", headers=both)
    assert answer.status == 201
    form = b"grant_type=password&username=bert&password=bert%3Abert&service=x&scope=repository:base:pull"
    assert "access_token" in ours("POST", "/token", form).json()
    assert ours("POST", "/token", form.replace(b"bert%3Abert", b"wrong")).status == 401
    assert ours("POST", "/token", b"grant_type=refresh_token").status == 400


def test_a_mount_needs_both_repositories(ours: Ours) -> None:
    assert push(ours, "any/secret", basic("root")).status == 201
    digest = digest_of(b"{}")
    for origin in ("&from=any/secret", ""):
        answer = ours("POST", f"/v2/team/app/blobs/uploads/?mount={digest}{origin}", headers=basic("bert"))
        assert answer.status == 202  # to be uploaded, as if it were not there
    assert ours("HEAD", f"/v2/team/app/blobs/{digest}", headers=basic("bert")).status == 404


def test_tokens_that_are_not_ours(ours: Ours) -> None:
    token = bearer(ours, "repository:team/app:pull", "bert")["Authorization"].split()[1]
    payload, _, signature = token.partition(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["sub"] = "root"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    for wrong in (f"{forged}.{signature}", payload, f"{payload}.", ".", "", "é.x", f"{token}x"):
        headers = {"Authorization": f"Bearer {wrong}".encode().decode("latin-1")}
        answer = ours("GET", "/v2/", headers=headers)
        assert answer.status == 401, wrong
    old = Tokens(b"key").issue("bert", [], users_of())
    assert Tokens(b"key").read(old) is not None
    assert Tokens(b"other").read(old) is None


def users_of() -> Users:
    path = Path(os.devnull)
    return Users(str(path))


def test_a_token_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(b"key")
    token = tokens.issue("x", [], users_of())
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 301)
    assert tokens.read(token) is None


def test_what_is_open_to_all(ours: Ours) -> None:
    assert push(ours, "public/app", basic("root")).status == 201
    path = f"/v2/public/app/blobs/{digest_of(b'{}')}"
    assert ours("GET", path).status == 200
    assert ours("GET", path, headers=bearer(ours, "repository:public/app:pull")).status == 200
    assert ours("GET", path, headers=basic("carl")).status == 200
    assert push(ours, "public/app", {}).status == 401


def test_the_catalogue_shows_what_one_may_pull(ours: Ours) -> None:
    for repository in ("team/app", "public/app", "other"):
        assert push(ours, repository, basic("root")).status == 201
        empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
        manifest = json.dumps({"schemaVersion": 2, "config": empty, "layers": []}).encode()
        assert ours("PUT", f"/v2/{repository}/manifests/x", manifest, basic("root")).status == 201

    def seen(headers: dict[str, str]) -> Any:
        return ours("GET", "/v2/_catalog", headers=headers).json()["repositories"]

    assert seen({}) == ["public/app"]
    assert seen(basic("bert")) == ["public/app", "team/app"]
    assert seen(basic("root")) == ["other", "public/app", "team/app"]
    assert seen(bearer(ours, "registry:catalog:*", "bert")) == ["public/app", "team/app"]
    assert seen(bearer(ours, "registry:catalog:*")) == ["public/app"]
    assert seen(bearer(ours, "repository:team/app:pull", "bert")) == ["team/app"]


def test_an_upload_of_somebody_else(ours: Ours) -> None:
    location = ours("POST", "/v2/team/app/blobs/uploads/", headers=basic("anna")).headers["Location"]
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = ours(method, f"{location}?digest={digest_of(b'')}", headers=basic("bert"))
        assert answer.code == "BLOB_UPLOAD_UNKNOWN"
    assert ours("GET", location, headers=basic("anna")).status == 204


def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    passwords = password_file(tmp_path / "users", "anna")
    with serving(tmp_path / "data", "--auth", str(passwords)) as ours:
        statuses = [ours("GET", "/v2/", headers=basic("anna", str(number))).status for number in range(8)]
        assert statuses == [401] * 5 + [429] * 3
        refused = ours("GET", "/v2/", headers=basic("anna"))  # the right one too, or it would be found
        assert refused.status == 429
        assert f"wait {refused.headers['Retry-After']} s" in refused.json()["errors"][0]["message"]


def test_a_right_password_makes_up_for_ones_own_mistakes(tmp_path: Path) -> None:
    passwords = password_file(tmp_path / "users", "anna", "bert")
    with serving(tmp_path / "data", "--auth", str(passwords)) as ours:

        def tried(name: str, *words: str) -> list[int]:
            return [ours("GET", "/v2/", headers=basic(name, word)).status for word in words]

        for _ in range(3):
            assert tried("anna", "1", "2", "3") == [401] * 3
            assert ours("GET", "/v2/", headers=basic("anna")).status == 200
        # But a user of one's own gives no more tries at somebody else's.
        found = []
        for number in range(8):
            found += tried("anna", str(number))
            ours("GET", "/v2/", headers=basic("bert"))
        assert found[:5] == [401] * 5
        assert found[-1] == 429


def test_users_without_rules_may_do_everything(tmp_path: Path) -> None:
    """And the file is read again when it changes; one that got wrong changes nothing."""
    passwords = password_file(tmp_path / "users", "anna")
    with serving(tmp_path / "data", "--auth", str(passwords)) as ours:
        assert push(ours, "x/y", basic("anna")).status == 201
        assert ours("GET", f"/v2/x/y/blobs/{digest_of(b'{}')}").status == 401
        assert ours("GET", "/v2/", headers=basic("bert")).status == 401
        password_file(passwords, "anna", "bert")
        assert ours("GET", "/v2/", headers=basic("bert")).status == 200
        passwords.write_text("rubbish")
        assert ours("GET", "/v2/", headers=basic("bert")).status == 200
        password_file(passwords, "bert")
        assert ours("GET", "/v2/", headers=basic("anna")).status == 401


def test_htpasswd_makes_the_file(tmp_path: Path) -> None:
    run("htpasswd", "-Bbc", tmp_path / "users", "anna", "anna:anna")
    with serving(tmp_path / "data", "--auth", str(tmp_path / "users")) as ours:
        assert ours("GET", "/v2/", headers=basic("anna")).status == 200


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[rule]]\nusers = 'x'\nallow = 'pull'", "rule 1 needs repositories, users and allow"),
        ("[[rule]]\nrepositories = 'x'\nusers = 'x'\nallow = 'fly'", "allow has only pull, push, delete"),
        ("[[rule]]\nrepositories = 'x'\nusers = '@x'\nallow = 'pull'", "there is no group x"),
        ("[[rule]]\nrepositories = 1\nusers = 'x'\nallow = 'pull'", "repositories is not a list of texts"),
        ("rule = 1", "rules are written as"),
        ("groups = 1", "groups is not a table"),
        ("other = 1", "only [groups] and [[rule]] are known"),
        ("[[rule", "access: "),
    ],
)
def test_access_files_that_are_wrong(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "access").write_text(text)
    with pytest.raises(Invalid, match=re.escape(problem)):
        Users(str(password_file(tmp_path / "users", "anna")), str(tmp_path / "access"))


def test_password_files_that_are_wrong(tmp_path: Path, limpet: Any) -> None:
    (tmp_path / "users").write_text("anna:{SHA}abc\n")
    result = limpet("registry", "serve", "--storage", tmp_path / "d", "--auth", tmp_path / "users", check=False)
    assert result.returncode == 1
    assert "line 1 is not NAME:BCRYPT" in result.stderr
    assert "htpasswd -B" in result.stderr
    result = limpet("registry", "serve", "--storage", tmp_path / "d", "--auth", tmp_path / "none", check=False)
    assert "No such file" in result.stderr


def test_clients_log_in(ours: Ours, tmp_path: Path, limpet: Any) -> None:
    layout = write_layout(tmp_path / "layout", {"x": image_of("login")})
    name = f"{ours.domain}/team/app:1"
    run("skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", "bert:bert:bert",
        f"oci:{layout}:x", f"docker://{name}")  # fmt: skip
    auth_file = tmp_path / "auth.json"
    run("podman", "login", "--authfile", auth_file, "--tls-verify=false", "-u", "bert", "-p", "bert:bert", ours.domain)
    run("skopeo", "copy", "-q", "--src-tls-verify=false", "--authfile", auth_file,
        f"docker://{name}", f"oci:{tmp_path}/back")  # fmt: skip
    limpet.environment["DOCKER_CONFIG"] = str(tmp_path / "docker")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").write_text(auth_file.read_text())
    limpet("pull", name)
    assert limpet("pull", f"{ours.domain}/any/thing", check=False).returncode == 1


def test_the_audit_log(ours: Ours, tmp_path: Path) -> None:
    push(ours, "team/app", basic("anna"))
    push(ours, "team/app", basic("carl"))
    digest = digest_of(b"{}")
    ours("GET", f"/v2/team/app/blobs/{digest}", headers=basic("anna"))
    ours("DELETE", f"/v2/team/app/blobs/{digest}", headers=basic("anna"))
    push(ours, "team/app", {})
    push(ours, "team/app", basic("anna", "wrong"))
    push(ours, "team/app", bearer(ours, "repository:team/app:pull,push", "carl"))
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    said = [(line["user"], line["action"], line["status"], line["outcome"]) for line in lines]
    assert said == [
        ("anna", "push", 201, "done"),
        ("carl", "push", 403, "refused"),
        ("anna", "delete", 202, "done"),
        ("", "push", 401, "challenged"),
        ("", "push", 401, "refused"),
        ("carl", "push", 401, "refused"),
    ]
    assert {(line["kind"], line["repository"]) for line in lines} == {("blob", "team/app")}
    assert lines[0]["digest"] == digest
    assert lines[2]["reference"] == digest


def test_metrics(ours: Ours) -> None:
    assert ours("GET", "/metrics").headers["Www-Authenticate"] == 'Basic realm="limpet"'
    for _ in range(20):  # two workers
        ours("GET", "/v2/", headers=basic("anna"))
    text = ours("GET", "/metrics", headers=basic("anna")).body.decode()
    assert re.search(r'^limpet_registry_requests_total\{kind="base",method="GET",status="200"\} 20\.0$', text, re.M)
    assert re.search(r"^limpet_registry_storage_free_bytes \d+$", text, re.M)


def test_metrics_of_one_worker(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as ours:
        push(ours, "a", {})
        ours("GET", f"/v2/a/blobs/{digest_of(b'{}')}")
        text = ours("GET", "/metrics").body.decode()
        assert re.search(r'^limpet_registry_sent_bytes_total\{kind="blob"\} 2\.0$', text, re.M)
        assert re.search(r'^limpet_registry_request_seconds_count\{kind="uploads"\} 1\.0$', text, re.M)


def test_tls_of_our_own(tmp_path: Path) -> None:
    context = ssl.create_default_context()
    with serving(tmp_path / "data", "--tls", context=context) as ours:
        certificate = tmp_path / "data/tls/cert.pem"
        context.load_verify_locations(certificate)
        assert ours("GET", "/v2/").status == 200
        data = os.urandom(3 << 20)
        assert ours("POST", f"/v2/a/blobs/uploads/?digest={digest_of(data)}", data).status == 201
        assert ours("GET", f"/v2/a/blobs/{digest_of(data)}").body == data
        made = certificate.read_bytes()
        fingerprint = next(line for line in ours.log if "SHA-256" in line).split()[-1]
        shown = subprocess.run(
            ["openssl", "x509", "-in", certificate, "-noout", "-fingerprint", "-sha256"], capture_output=True, text=True
        ).stdout
        assert fingerprint.upper() in shown
        assert (tmp_path / "data/tls/key.pem").stat().st_mode & 0o777 == 0o600
        (tmp_path / "certs" / ours.domain).mkdir(parents=True)
        (tmp_path / "certs" / ours.domain / "ca.crt").write_bytes(made)
        layout = write_layout(tmp_path / "layout", {"x": image_of("tls")})
        run("skopeo", "copy", "-q", "--dest-cert-dir", tmp_path / "certs" / ours.domain,
            f"oci:{layout}:x", f"docker://{ours.domain}/tls:1")  # fmt: skip
    with serving(tmp_path / "data", "--tls"):
        assert certificate.read_bytes() == made  # clients that trust it go on
    with serving(tmp_path / "data", "--tls", "--tls-name", "registry.example"):
        assert certificate.read_bytes() != made


def test_tls_that_is_given(tmp_path: Path, limpet: Any) -> None:
    certificate, key, _ = tls.self_made(str(tmp_path / "made"), ["127.0.0.1"])
    context = ssl.create_default_context(cafile=certificate)
    with serving(tmp_path / "data", "--tls-cert", certificate, "--tls-key", key, context=context) as ours:
        assert ours("GET", "/v2/").status == 200
    (tmp_path / "other").write_text("no certificate")
    serve = ("registry", "serve", "--storage", tmp_path / "d", "--tls-cert")
    result = limpet(*serve, tmp_path / "other", "--tls-key", key, check=False)
    assert result.returncode == 1
    assert "give a certificate in PEM" in result.stderr
    result = limpet(*serve, certificate, check=False)
    assert "--tls-cert and --tls-key belong together" in result.stderr
