"""login and logout, and the files and programs that logins are kept in: shared with docker, podman and skopeo."""

from __future__ import annotations

import base64
import json
import os
import pty
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.registry import server
from tests.registry.server import PASSWORD, USER, send

from limpet.errors import Invalid, LimpetError, Refused
from limpet.registry import authfile, credentials, keychain, login
from limpet.registry.authfile import AuthFile
from limpet.registry.credentials import Credentials

IMAGE = server.make_image([server.tar_of({"a": b"1"})])

PROGRAM = """#!/usr/bin/python3
import json, os, sys
store = os.path.dirname(os.path.abspath(__file__)) + "/secrets"
kept = json.load(open(store)) if os.path.exists(store) else {}
open(store + ".arguments", "a").write(" ".join(sys.argv[1:]) + "\\n")
action, given = sys.argv[1], sys.stdin.read().strip()
if action == "store":
    entry = json.loads(given)
    kept[entry.pop("ServerURL")] = entry
elif action == "list":
    print(json.dumps({key: entry["Username"] for key, entry in kept.items()}))
elif given not in kept:
    print("credentials not found in native keychain")
    sys.exit(1)
elif action == "get":
    print(json.dumps({"ServerURL": given, **kept[given]}))
else:
    del kept[given]
json.dump(kept, open(store, "w"))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of one's own, with no logins."""
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    (home / "run").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    with server.docker_registry(tmp_path / "registry", login=True) as real:
        yield real


def program(home: Path, name: str, text: str = PROGRAM) -> Path:
    path = home / "bin" / f"docker-credential-{name}"
    path.write_text(text)
    path.chmod(0o755)
    return path


def config(home: Path) -> Path:
    (home / ".docker").mkdir(exist_ok=True)
    return home / ".docker/config.json"


def auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def tool(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    if shutil.which(words[0]) is None:
        pytest.skip(f"needs {words[0]}")
    return subprocess.run(words, capture_output=True, text=True, timeout=60, **options)


# --- the command line -------------------------------------------------------------------------------------------------


def test_login_is_verified_then_kept(limpet: Any, registry: server.Registry, home: Path) -> None:
    words = ("login", "-u", USER, "--password-stdin", registry.domain)
    refused = limpet(*words, input="wrong-password\n", check=False)
    assert refused.returncode == 1
    assert f"{registry.domain} does not accept this login" in refused.stderr
    assert "wrong-password" not in refused.stderr + refused.stdout
    assert not config(home).exists()

    done = limpet(*words, input=f"{PASSWORD}\n")
    assert done.stdout == "Login Succeeded\n"
    assert "stored unencrypted" in done.stderr
    assert json.loads(config(home).read_text()) == {"auths": {registry.domain: {"auth": auth(USER, PASSWORD)}}}
    assert config(home).stat().st_mode & 0o777 == 0o600
    assert "unencrypted" not in limpet(*words, input=PASSWORD).stderr  # once is enough

    again = limpet("login", registry.domain)
    assert again.stdout == "Login Succeeded\n"
    assert f"existing credentials... [Username: {USER}]" in again.stderr

    assert limpet("logout", registry.domain).stdout == f"Removing login credentials for {registry.domain}\n"
    assert json.loads(config(home).read_text()) == {"auths": {}}
    assert limpet("logout", registry.domain).stdout == f"Not logged in to {registry.domain}\n"


def test_what_limpet_writes_docker_podman_and_skopeo_read(
    limpet: Any, registry: server.Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limpet("login", "-u", USER, "--password-stdin", registry.domain, input=PASSWORD)
    listed = tool("skopeo", "list-tags", "--tls-verify=false", f"docker://{registry.domain}/app")
    assert "404 (Not Found)" in listed.stderr  # let in, but there is no such repository
    assert tool("podman", "login", "--get-login", registry.domain).stdout == f"{USER}\n"
    assert tool("docker", "logout", registry.domain).stdout == f"Removing login credentials for {registry.domain}\n"
    assert credentials.find(registry.domain) is None

    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "auth.json"))
    limpet.environment["REGISTRY_AUTH_FILE"] = str(home / "auth.json")
    limpet("login", "-u", USER, "--password-stdin", f"{registry.domain}/team", input=PASSWORD)
    assert tool("podman", "login", "--get-login", f"{registry.domain}/team/app").stdout == f"{USER}\n"
    assert credentials.find(registry.domain, "other") is None
    assert credentials.find(registry.domain, "team/app") is not None


def test_what_podman_and_skopeo_write_limpet_reads(registry: server.Registry, home: Path) -> None:
    words = ("login", "--tls-verify=false", "-u", USER, "--password-stdin", registry.domain)
    assert tool("podman", *words, input=PASSWORD).returncode == 0
    assert (home / "run/containers/auth.json").exists()
    found = credentials.find(registry.domain)
    assert found is not None
    assert (found.username, found.password) == (USER, PASSWORD)
    assert found.source == f"{home}/run/containers/auth.json"
    assert tool("skopeo", "logout", registry.domain).returncode == 0
    assert credentials.find(registry.domain) is None


def test_a_program_keeps_it(limpet: Any, registry: server.Registry, home: Path) -> None:
    program(home, "test")
    config(home).write_text('{"credsStore": "test", "HttpHeaders": {"X": "1"}}')
    done = limpet("login", "-u", USER, "--password-stdin", registry.domain, input=PASSWORD)
    assert done.stderr == ""
    assert json.loads(config(home).read_text()) == {
        "credsStore": "test",
        "HttpHeaders": {"X": "1"},
        "auths": {registry.domain: {}},
    }
    assert auth(USER, PASSWORD) not in config(home).read_text()
    assert json.loads((home / "bin/secrets").read_text()) == {registry.domain: {"Username": USER, "Secret": PASSWORD}}
    assert PASSWORD not in (home / "bin/secrets.arguments").read_text()
    found = credentials.find(registry.domain)
    assert found is not None
    assert found.password == PASSWORD
    assert "docker-credential-test" in found.source
    assert limpet("login", registry.domain).stdout == "Login Succeeded\n"
    assert limpet("logout", "--all").stdout == f"Removing login credentials for {registry.domain}\n"
    assert credentials.find(registry.domain) is None


def test_the_password_is_typed_unseen(limpet: Any, registry: server.Registry, home: Path) -> None:
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(
            limpet.command[0],
            [*limpet.command, "login", registry.domain],
            limpet.environment,
        )
    shown = b""
    try:
        for prompt, typed in ((b"Username: ", USER), (b"Password: ", PASSWORD)):
            while prompt not in shown:
                shown += os.read(fd, 1000)
            os.write(fd, f"{typed}\n".encode())
        try:
            while piece := os.read(fd, 1000):
                shown += piece
        except OSError:
            pass  # the other end of a terminal that is gone
    finally:
        os.close(fd)
        status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 0, shown
    assert b"Login Succeeded" in shown
    assert PASSWORD.encode() not in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["login", "-p", "secret", "registry.example"], "--password-stdin"),
        (["login", "--password-stdin", "registry.example"], "needs a user name"),
        (["login", "registry.example"], "not a terminal"),
        (["login", "-u", "me", "registry.example"], "not a terminal"),
        (["login", "-u", "me", "--password-stdin", "registry.example"], "is empty"),
        (["login", "-u", "a:b", "--password-stdin", "localhost:1"], "no colon"),
        (["login", "word"], "is not a registry"),
        (["login", "https://"], "is not a registry"),
        (["logout", "--all", "registry.example"], "takes no registry"),
    ],
)
def test_mistakes(limpet: Any, words: list[str], said: str) -> None:
    given = {"input": "p"} if "a:b" in words else {}
    result = limpet(*words, check=False, **given)
    assert result.returncode in (1, 125)
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("docker.io", "")),
        ("https://index.docker.io/v1/", ("docker.io", "")),
        ("docker.io", ("docker.io", "")),
        ("registry.example:5000", ("registry.example:5000", "")),
        ("https://registry.example/", ("registry.example", "")),
        ("registry.example/team/app", ("registry.example", "team/app")),
        ("localhost", ("localhost", "")),
    ],
)
def test_names_of_servers(text: str, expected: tuple[str, str]) -> None:
    assert login.server(text) == expected


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_longest_key_decides(tmp_path: Path) -> None:
    names = ["registry.example", "registry.example/team", "registry.example/team/app", "registry.example/te"]
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {name: {"auth": auth(name, "password")} for name in names}}))

    def user(repository: str) -> str:
        found = AuthFile(str(path)).find("registry.example", repository)
        assert found is not None
        return found.username

    assert user("") == user("other") == user("team2/app") == "registry.example"
    assert user("team") == user("team/x") == "registry.example/team"
    assert user("team/app") == user("team/app/deep") == "registry.example/team/app"
    assert AuthFile(str(path)).find("registry.example:5000") is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io"])
def test_keys_of_docker_hub(tmp_path: Path, key: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {key: {"auth": auth("me", "password")}}}))
    found = AuthFile(str(path)).find("docker.io", "library/debian")
    assert found is not None
    assert found.username == "me"


def test_another_spelling_of_the_same_registry(home: Path) -> None:
    old = {"https://registry.example/v1/": {"auth": auth("old", "password")}, "b.example": {}}
    config(home).write_text(json.dumps({"auths": {**old, "registry.example": {"auth": auth("new", "password")}}}))
    file = AuthFile(credentials.target())
    found = file.find("registry.example")
    assert found is not None
    assert found.username == "new"
    file.store("registry.example", Credentials("newer", "password"))
    assert list(json.loads(config(home).read_text())["auths"]) == ["b.example", "registry.example"]


def test_docker_hub_is_written_as_docker_does(home: Path) -> None:
    file = AuthFile(credentials.target())
    file.store("docker.io", Credentials("me", "password"))
    assert list(json.loads(config(home).read_text())["auths"]) == [authfile.HUB_KEY]
    assert file.keys() == ["docker.io"]
    assert file.erase("docker.io")
    assert file.keys() == []


def test_entries_of_other_forms_are_passed_over(home: Path) -> None:
    forms = [1, [], {}, {"auth": 1}, {"auth": ""}, {"auth": None, "username": "me"}, {"identitytoken": 1}]
    for form in forms:
        config(home).write_text(json.dumps({"auths": {"registry.example": form}, "credHelpers": {"b.example": 1}}))
        assert credentials.find("registry.example") is None
    config(home).write_text(json.dumps({"auths": {"registry.example": {"username": "me", "password": "pw"}}}))
    found = credentials.find("registry.example")
    assert found is not None
    assert (found.username, found.password) == ("me", "pw")


def test_all_logins_of_programs_too(home: Path) -> None:
    program(home, "one")
    (home / "bin/secrets").write_text('{"a.example": {"Username": "u", "Secret": "s"}}')
    config(home).write_text(
        json.dumps(
            {
                "credHelpers": {"a.example": "one", "b.example": "one"},
                "auths": {"c.example": {"auth": auth("me", "password")}},
            }
        )
    )
    file = AuthFile(credentials.target())
    assert file.keys() == ["a.example", "c.example"]
    assert file.erase("a.example")
    assert file.erase("c.example")
    assert file.keys() == []


def test_the_order_of_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "run/containers").mkdir()
    (home / ".config/containers").mkdir(parents=True)
    places = [config(home), home / "run/containers/auth.json", home / ".config/containers/auth.json"]
    for place in places:
        place.write_text(json.dumps({"auths": {"registry.example": {"auth": auth(place.parent.parent.name, "pw")}}}))
    for place in places:
        found = credentials.find("registry.example")
        assert found is not None
        assert found.source == str(place)
        place.unlink()
    assert credentials.find("registry.example") is None
    config(home).write_text(json.dumps({"auths": {"registry.example": {"auth": auth("me", "pw")}}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "none"))
    assert credentials.find("registry.example") is None  # then no other file is read


def test_where_the_files_are(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert credentials.paths() == [
        f"{home}/.docker/config.json",
        f"/run/containers/{os.getuid()}/auth.json",  # podman's, for root
        f"{home}/.config/containers/auth.json",
    ]
    monkeypatch.setenv("DOCKER_CONFIG", "/elsewhere")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/runtime")
    assert credentials.paths() == [
        "/elsewhere/config.json",
        "/runtime/containers/auth.json",
        "/config/containers/auth.json",
    ]
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/only")
    assert credentials.paths() == ["/only"]
    assert credentials.target() == "/only"


def test_an_identity_token_is_kept_and_found(home: Path) -> None:
    AuthFile(credentials.target()).store("registry.example", Credentials("me", "", "an-identity-token"))
    found = credentials.find("registry.example")
    assert found is not None
    assert (found.password, found.identity_token) == ("", "an-identity-token")
    assert "an-identity-token" not in repr(found)
    program(home, "test")
    config(home).write_text('{"credHelpers": {"registry.example": "test"}}')
    AuthFile(credentials.target()).store("registry.example", Credentials("me", "", "an-identity-token"))
    again = credentials.find("registry.example")
    assert again is not None
    assert again.identity_token == "an-identity-token"


def test_logins_at_the_same_time(home: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from limpet.registry.authfile import AuthFile; "
        "from limpet.registry.credentials import Credentials, target; "
        "[AuthFile(target()).store(f'{sys.argv[2]}{i}.example', Credentials('me', 'password')) for i in range(20)]"
    )
    source = str(Path(__file__).resolve().parent.parent.parent / "src")
    started = [subprocess.Popen(["python3", "-c", code, source, letter]) for letter in "abc"]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert len(json.loads(config(home).read_text())["auths"]) == 60
    assert os.listdir(home / ".docker") == ["config.json"]


def test_a_link_stays_a_link(home: Path) -> None:
    real = home / "real.json"
    real.write_text("{}")
    config(home).symlink_to(real)
    AuthFile(credentials.target()).store("registry.example", Credentials("me", "password"))
    assert config(home).is_symlink()
    assert "registry.example" in real.read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": [1]}', "[" * 100_000, " " * (1 << 21), '{"credHelpers": 1}'])
def test_a_broken_file_is_named_and_kept(home: Path, text: str) -> None:
    config(home).write_text(text)
    with pytest.raises(Invalid, match=r"config\.json: not the JSON"):
        credentials.find("registry.example")
    with pytest.raises(Invalid, match=r"config\.json: not the JSON"):
        AuthFile(credentials.target()).store("registry.example", Credentials("me", "password"))
    assert config(home).read_text() == text


def test_a_directory_is_no_file(home: Path) -> None:
    config(home).mkdir()
    with pytest.raises(Invalid, match="Is a directory"):
        credentials.find("registry.example")


# --- programs ---------------------------------------------------------------------------------------------------------


def test_the_program_of_one_registry(home: Path) -> None:
    program(home, "one")
    config(home).write_text(
        json.dumps(
            {
                "credHelpers": {"registry.example": "one"},
                "auths": {"registry.example": {"auth": auth("file", "pw")}, "b.example": {"auth": auth("file", "pw")}},
            }
        )
    )
    (home / "bin/secrets").write_text('{"registry.example": {"Username": "program", "Secret": "pw"}}')
    for domain, user in (("registry.example", "program"), ("b.example", "file")):
        found = credentials.find(domain)
        assert found is not None
        assert found.username == user


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x", None, "no such program"),
        ("../x", None, "not the name of a credential program"),
        ("x", "#!/bin/sh\necho not-json", "not the JSON"),
        ("x", "#!/bin/sh\necho '{}'", "not the JSON"),
        ("x", "#!/bin/sh\necho 'locked: try later'\nexit 2", "get: locked: try later"),
        ("x", "#!/bin/sh\nexit 3", "exit code 3"),
        ("x", "#!/bin/sh\necho no keyring >&2\nexit 2", "get: no keyring"),
        ("x", "#!/bin/sh\nkill -9 $$", "killed by signal 9"),
        ("x", "not a program", "Exec format"),
    ],
)
def test_programs_that_fail(home: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        program(home, name, text)
    config(home).write_text(json.dumps({"credsStore": name}))
    with pytest.raises(LimpetError, match=said) as error:
        credentials.find("registry.example")
    assert "config.json" in str(error.value) or "docker-credential-x" in str(error.value)


def test_a_program_with_words_of_its_own(home: Path) -> None:
    """docker-credential-pass says this when it shall erase what it does not have."""
    text = (
        '#!/bin/sh\n[ $1 = erase ] && echo "exit status 1: Error: x is not in the password store." && exit 1\n'
        "echo credentials not found in native keychain; exit 1\n"
    )
    program(home, "pass", text)
    config(home).write_text('{"credsStore": "pass"}')
    assert not AuthFile(credentials.target()).erase("registry.example")
    assert credentials.find("registry.example") is None


def test_a_program_that_can_not_forget(home: Path) -> None:
    """It still has the login: that is no success."""
    text = '#!/bin/sh\n[ $1 = erase ] && echo locked && exit 1\necho \'{"Username": "u", "Secret": "s"}\'\n'
    program(home, "sure", text)
    config(home).write_text('{"credsStore": "sure"}')
    with pytest.raises(Refused, match="docker-credential-sure erase: locked"):
        AuthFile(credentials.target()).erase("registry.example")


def test_a_program_that_does_not_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(home, "slow", "#!/bin/sh\nexec sleep 1000")
    config(home).write_text('{"credsStore": "slow"}')
    monkeypatch.setattr(keychain, "TIME_LIMIT", 0.3)
    begin = time.monotonic()
    with pytest.raises(Refused, match="no answer in"):
        credentials.find("registry.example")
    assert time.monotonic() - begin < 20


def test_a_program_that_repeats_the_secret(home: Path) -> None:
    program(home, "loud", "#!/bin/sh\ncat\nexit 1")
    config(home).write_text('{"credsStore": "loud"}')
    with pytest.raises(Refused) as error:
        AuthFile(credentials.target()).store("registry.example", Credentials("me", "hunter22"))
    assert "hunter22" not in str(error.value)


# --- what a registry may do with a login ------------------------------------------------------------------------------


def test_a_token_is_kept_instead_of_the_password(limpet: Any, home: Path) -> None:
    asked: list[str] = []
    with server.scripted() as fake:

        def answer(handler: Any) -> bool:
            if handler.path.startswith("/token"):
                asked.append(handler.path)
                assert handler.headers["Authorization"] == f"Basic {auth('me', 'hunter22')}"
                send(handler, 200, b'{"token": "T123", "refresh_token": "an-identity-token"}')
            elif handler.headers.get("Authorization") == "Bearer T123":
                send(handler, 200, b"{}")
            else:
                header = f'Bearer realm="http://{fake.domain}/token",service="s"'
                send(handler, 401, b"{}", {"WWW-Authenticate": header})
            return True

        fake.answer = answer
        limpet("login", "-u", "me", "--password-stdin", fake.domain, input="hunter22")
    assert asked == ["/token?service=s&offline_token=true&client_id=limpet&account=me"]
    assert "hunter22" not in config(home).read_text()
    assert auth("me", "hunter22") not in config(home).read_text()
    assert json.loads(config(home).read_text())["auths"][fake.domain]["identitytoken"] == "an-identity-token"


def test_a_registry_that_repeats_the_secret(limpet: Any, home: Path) -> None:
    """In every form that it was sent in; not in the message, and not with --debug either."""
    with server.scripted() as fake:

        def answer(handler: Any) -> bool:
            got = handler.headers.get("Authorization", "")
            if got:
                said = f"no: {got} hunter22/pw {auth('me', 'hunter22/pw')} hunter22%2Fpw"
                send(handler, 500, json.dumps({"errors": [{"code": "X", "message": said}]}).encode())
            else:
                send(handler, 401, b"{}", {"WWW-Authenticate": "Basic realm=x"})
            return True

        fake.answer = answer
        words = ("login", "-u", "me", "--password-stdin", fake.domain)
        for result in (
            limpet(*words, input="hunter22/pw", check=False),
            limpet("--debug", *words, input="hunter22/pw", check=False),
        ):
            assert result.returncode == 1
            assert "HTTP 500: X no: Basic ***" in result.stderr
            for secret in ("hunter22", auth("me", "hunter22/pw")):
                assert secret not in result.stdout + result.stderr


def test_a_signed_address_is_not_shown(limpet: Any) -> None:
    """Where blobs are kept the permission is in the query: it goes into no message, with --debug neither."""
    image = server.make_image([server.tar_of({"a": b"1"})])
    with server.scripted() as fake, server.scripted() as storage:
        fake.add(image, "1")
        signed = f"http://user:name-word@{storage.domain}/blob?X-Amz-Signature=signed-word"

        def answer(handler: Any) -> bool:
            if "/blobs/" in handler.path:
                send(handler, 307, b"", {"Location": signed})
            return "/blobs/" in handler.path

        def broken(handler: Any) -> bool:
            said = {"errors": [{"code": "X", "message": f"no: {handler.path} {signed}"}]}
            send(handler, 400, json.dumps(said).encode())
            return True

        fake.answer, storage.answer = answer, broken
        first = limpet("--debug", "pull", f"{fake.domain}/app:1", check=False)
        assert "redirects to" in first.stderr
        signed = signed.replace("user:name-word@", "")
        second = limpet("--debug", "pull", f"{fake.domain}/app:1", check=False)
        assert "HTTP 400: X no: /blob?***" in second.stderr
        for result in (first, second):
            assert result.returncode == 1
            assert "signed-word" not in result.stdout + result.stderr
            assert "name-word" not in result.stdout + result.stderr


def test_a_server_that_asks_for_no_login(limpet: Any) -> None:
    with server.scripted() as fake:

        def answer(handler: Any) -> bool:
            send(handler, 200, b"{}")
            return True

        fake.answer = answer
        result = limpet("login", "-u", "me", "--password-stdin", fake.domain, input="password")
    assert "without being verified" in result.stderr


def test_a_server_that_is_no_registry(limpet: Any, home: Path) -> None:
    with server.scripted() as fake:
        result = limpet("login", "-u", "me", "--password-stdin", fake.domain, input="password", check=False)
    assert "not a registry" in result.stderr
    assert not config(home).exists()
