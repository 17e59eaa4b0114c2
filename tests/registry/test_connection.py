"""Which hosts a registry is: TLS by host, proxies, mirrors and places elsewhere."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.registry import authority, server
from tests.registry.ours import serving
from tests.registry.server import send

from limpet.errors import Invalid, LimpetError, NotFound, Refused
from limpet.oci import media
from limpet.oci.manifest import Descriptor
from limpet.registry import certificates, connection, proxies, settings
from limpet.registry.client import Registry
from limpet.registry.connection import Connection

IMAGE = server.make_image([server.tar_of({"a": b"x" * 1000})])
LAYER = Descriptor(media.OCI_LAYER_GZIP, server.digest_of(IMAGE.layers[0]), len(IMAGE.layers[0]))
BIG = bytes(range(256)) * 20_000
BIG_BLOB = Descriptor("", server.digest_of(BIG), len(BIG))
PULL = "repository:app:pull"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's ~/.config, in which nothing is set; nor is there anything of the system's."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "LIMPET_REGISTRIES", "CONTAINERS_REGISTRIES_CONF"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    monkeypatch.setattr(certificates, "PLACES", (str(tmp_path / "limpet"), str(tmp_path / "c"), str(tmp_path / "d")))
    monkeypatch.setattr(settings, "SYSTEM", str(tmp_path / "none"))
    monkeypatch.setattr(settings, "PODMAN", str(tmp_path / "none"))
    monkeypatch.setattr(connection, "FIRST_WAIT", 0.0)
    return tmp_path / "config"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> authority.Authority:
    return authority.make(tmp_path_factory.mktemp("authority") / "made")


@pytest.fixture
def fake() -> Iterator[server.Scripted]:
    with server.scripted() as state:
        state.add(IMAGE, "1")
        yield state


@pytest.fixture
def secure(made: authority.Authority) -> Iterator[server.Scripted]:
    with server.scripted(made.server()) as state:
        state.add(IMAGE, "1")
        yield state


def write(config: Path, text: str) -> None:
    (config / "limpet").mkdir(parents=True, exist_ok=True)
    (config / "limpet/registries.toml").write_text(text)


def digest(domain: str, repository: str = "app") -> str:
    return Registry(domain).manifest(repository, "1")[2]


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_an_unknown_authority(secure: server.Scripted) -> None:
    with pytest.raises(Refused, match=rf"not trusted: .*certs\.d/{secure.domain}/ca\.crt"):
        digest(secure.domain)
    assert not secure.requests


@pytest.mark.parametrize("place", ["config/limpet", "limpet", "config/containers", "c", "d"])
def test_an_authority_of_certs_d(
    secure: server.Scripted, made: authority.Authority, tmp_path: Path, place: str
) -> None:
    """On this machine, where plain HTTP is tried first."""
    made.trust(tmp_path / place, secure.domain)
    assert digest(secure.domain) == IMAGE.digest


def test_the_name_in_the_certificate_counts(
    secure: server.Scripted, made: authority.Authority, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"other.test:{secure.domain.partition(':')[2]}"
    made.trust(config / "limpet", name)
    with authority.proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        with pytest.raises(Refused, match=r"not trusted: .*other\.test"):
            digest(name)
    assert not secure.requests


def test_a_client_certificate(made: authority.Authority, config: Path, tmp_path: Path) -> None:
    with server.scripted(made.server(client=True)) as strict:
        strict.add(IMAGE, "1")
        directory = made.trust(config / "limpet", strict.domain)
        with pytest.raises(LimpetError, match=r"certificate required|connection broke|TLS"):
            digest(strict.domain)
        for name in ("cert", "key"):
            source = made.directory / ("client.crt" if name == "cert" else "client.key")
            (directory / f"client.{name}").write_bytes(source.read_bytes())
        assert digest(strict.domain) == IMAGE.digest


def test_a_client_certificate_of_registries_toml(made: authority.Authority, config: Path) -> None:
    with server.scripted(made.server(client=True)) as strict:
        strict.add(IMAGE, "1")
        files = "".join(
            f'{key} = "{made.directory}/{name}"\n'
            for key, name in (("ca", "ca.crt"), ("cert", "client.crt"), ("key", "client.key"))
        )
        write(config, f'[registry."{strict.domain}"]\n{files}')
        assert digest(strict.domain) == IMAGE.digest


def test_a_redirect_does_not_get_the_client_certificate(made: authority.Authority, config: Path) -> None:
    seen: list[Any] = []
    asking = made.server()
    asking.load_verify_locations(made.ca)
    asking.verify_mode = ssl.CERT_OPTIONAL
    with server.scripted(made.server(client=True)) as strict, server.scripted(asking) as storage:

        def take(handler: Any) -> bool:
            seen.append(handler.connection.getpeercert())
            send(handler, 200, IMAGE.layers[0])
            return True

        def move(handler: Any) -> bool:
            send(handler, 307, b"", {"Location": f"https://{storage.domain}/blob"})
            return True

        storage.answer, strict.answer = take, move
        made.trust(config / "limpet", strict.domain, client=True)
        made.trust(config / "limpet", storage.domain)
        assert b"".join(Registry(strict.domain).blob("app", LAYER)) == IMAGE.layers[0]
    assert seen
    assert not any(seen)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"client.cert": "x"}, "client.cert: its key client.key is missing"),
        ({"client.key": "x"}, "client.key: its certificate client.cert is missing"),
        ({"ca.crt": "x"}, "ca.crt: not a certificate in PEM form"),
        ({"client.cert": "x", "client.key": "x"}, "client.cert: not a certificate in PEM form with its key"),
        ({"a.cert": "x", "a.key": "x", "b.cert": "x", "b.key": "x"}, "several client certificates"),
    ],
)
def test_files_that_are_no_certificates(
    secure: server.Scripted, config: Path, files: dict[str, str], said: str
) -> None:
    directory = config / "limpet/certs.d" / secure.domain
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    with pytest.raises(Invalid, match=said):
        digest(secure.domain)


def test_a_file_of_registries_toml_that_is_missing(secure: server.Scripted, config: Path) -> None:
    write(config, f'[registry."{secure.domain}"]\nca = "none.crt"\n')
    with pytest.raises(Invalid, match=r"limpet/none\.crt: No such file"):
        digest(secure.domain)


def test_insecure_takes_any_certificate_and_none(secure: server.Scripted, fake: server.Scripted, config: Path) -> None:
    write(config, "".join(f'[registry."{one.domain}"]\ninsecure = true\n' for one in (secure, fake)))
    assert digest(secure.domain) == IMAGE.digest
    assert digest(fake.domain) == IMAGE.digest


def test_tls_is_asked_for_where_there_is_none(fake: server.Scripted, config: Path) -> None:
    write(config, f'[registry."{fake.domain}"]\nplain-http = false\n')
    with pytest.raises(Refused, match=f"{fake.domain}: no TLS there"):
        digest(fake.domain)
    assert not fake.requests


@pytest.mark.parametrize("kind", ["python", "go"])
def test_many_threads_find_tls_at_once(
    secure: server.Scripted, made: authority.Authority, config: Path, tmp_path: Path, kind: str
) -> None:
    """Python's server breaks the connection off, Go's answers with 400."""
    with ExitStack() as stack:
        domain = secure.domain
        if kind == "go":
            files = f"certificate: {made.directory}/server.crt, key: {made.directory}/server.key"
            real = stack.enter_context(server.docker_registry(tmp_path / "registry", http=f"tls: {{{files}}}"))
            domain = real.domain
        made.trust(config / "limpet", domain)
        _find_tls(domain, kind == "go")


def _find_tls(domain: str, empty: bool) -> None:
    def ask(client: Registry) -> str:
        try:
            return client.manifest("app", "1")[2]
        except NotFound:
            return ""

    for _ in range(5):
        client = Registry(domain)
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(ask, [client] * 6))
        assert found == ["" if empty else IMAGE.digest] * 6
        assert client.connection.base.startswith("https://")


def test_ssl_cert_file(secure: server.Scripted, made: authority.Authority, config: Path, limpet: Any) -> None:
    """OpenSSL's own variable, as everywhere."""
    secure.documents["1"] = (IMAGE.media_type, IMAGE.manifest)
    write(config, f'[registry."{secure.domain}"]\nplain-http = false\n')
    refused = limpet("pull", f"{secure.domain}/app:1", check=False)
    assert "its certificate is not trusted: unable to get local issuer certificate" in refused.stderr
    limpet.environment["SSL_CERT_FILE"] = str(made.ca)
    limpet("pull", f"{secure.domain}/app:1")


def test_a_real_registry_with_client_certificates(made: authority.Authority, config: Path, tmp_path: Path) -> None:
    """skopeo reads the same directory."""
    files = f"certificate: {made.directory}/server.crt, key: {made.directory}/server.key, clientcas: [{made.ca}]"
    with server.docker_registry(tmp_path / "registry", http=f"tls: {{{files}}}") as real:
        directory = made.trust(config / "limpet", real.domain, client=True)
        with pytest.raises(NotFound, match="manifest unknown"):
            Registry(real.domain).manifest("app", "1")
        result = subprocess.run(
            ["skopeo", "list-tags", "--cert-dir", directory, f"docker://{real.domain}/app"],
            capture_output=True,
            text=True,
        )
        assert "404 (Not Found)" in result.stderr


# --- proxies ----------------------------------------------------------------------------------------------------------


def test_a_proxy_with_a_login(
    secure: server.Scripted, made: authority.Authority, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = "Basic " + base64.b64encode(b"me:p w").decode()
    name = f"registry.test:{secure.domain.partition(':')[2]}"
    made.trust(config / "limpet", name)
    with authority.proxy(login) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:p%20w@{proxy.address}")
        assert digest(name) == IMAGE.digest
        assert proxy.requests == [("CONNECT", name, login)]
        assert "proxy-authorization" not in secure.requests[0][1]
        assert "authorization" not in secure.requests[0][1]

        monkeypatch.setenv("HTTPS_PROXY", f"http://me:not-this-one@{proxy.address}")
        with pytest.raises(Refused, match=r"the proxy: .*407") as error:
            digest(name)
        wrong = base64.b64encode(b"me:not-this-one").decode()
        assert "not-this-one" not in str(error.value)
        assert wrong not in str(error.value)

        count = len(proxy.requests)
        monkeypatch.setenv("NO_PROXY", ".test")
        with pytest.raises(LimpetError, match="cannot be resolved"):
            digest(name)
        assert len(proxy.requests) == count


def test_a_proxy_for_plain_http(fake: server.Scripted, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"registry.test:{fake.domain.partition(':')[2]}"
    write(config, f'[registry."{name}"]\nplain-http = true\n')
    with authority.proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.address)
        assert digest(name) == IMAGE.digest
        assert proxy.requests == [("GET", f"http://{name}/v2/app/manifests/1", "")]


def test_a_proxy_is_not_for_this_machine(fake: server.Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{closed_port()}")
    assert digest(fake.domain) == IMAGE.digest


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret-word@{closed_port()}")
    with pytest.raises(Refused, match=r"registry\.test:443: the proxy: Connection refused; HTTPS_PROXY") as error:
        digest("registry.test")
    assert "secret-word" not in str(error.value)


def test_a_stranger_does_not_lead_to_this_machine(
    secure: server.Scripted,
    fake: server.Scripted,
    made: authority.Authority,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"registry.test:{secure.domain.partition(':')[2]}"
    made.trust(config / "limpet", name)

    def move(handler: Any) -> bool:
        send(handler, 307, b"", {"Location": f"http://{fake.domain}/v2/app/manifests/1"})
        return True

    secure.answer = move
    with authority.proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        with pytest.raises(Refused, match="without TLS"):
            digest(name)
    assert not fake.requests


@pytest.mark.parametrize(
    ("address", "no_proxy", "expected"),
    [
        ("https://registry.example/", "", True),
        ("https://registry.example/", "*", False),
        ("https://registry.example/", "example", False),
        ("https://registry.example/", ".example", False),
        ("https://registry.example/", "*.example", False),
        ("https://example/", ".example", True),
        ("https://notexample/", "example", True),
        ("https://registry.example/", "a, registry.example ,b", False),
        ("https://REGISTRY.example./", "registry.EXAMPLE", False),
        ("https://registry.example:5000/", "registry.example:5000", False),
        ("https://registry.example:5000/", "registry.example:443", True),
        ("https://registry.example/", "registry.example:443", False),
        ("https://10.1.2.3/", "10.0.0.0/8", False),
        ("https://11.1.2.3/", "10.0.0.0/8", True),
        ("https://10.1.2.3:5000/", "10.1.2.3:5000", False),
        ("https://10.1.2.3/", "10.1.2.3", False),
        ("https://10.1.2.3/", "2.3", True),
        ("https://[fd00::1]/", "fd00::/8", False),
        ("https://[fd00::1]:5/", "[fd00::1]:5", False),
        ("https://[fd00::1]/", "10.0.0.0/8,nonsense/99", True),
        ("https://localhost:5000/", "", False),
        ("https://127.1.1.1/", "", False),
        ("https://[::1]:5/", "", False),
        ("http://registry.example/", "", False),
    ],
)
def test_no_proxy(address: str, no_proxy: str, expected: bool) -> None:
    environment = {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": no_proxy}
    assert proxies.proxy_of(address, environment) == ("http://proxy.example:3128" if expected else "")


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1", "http://", "http://h:port", "http://me:pw-word@[", "ftp://a"]
)
def test_proxies_that_are_none(proxy: str) -> None:
    with pytest.raises(Invalid, match=r"HTTPS_PROXY: .*; write http://HOST:PORT") as error:
        proxies.proxy_of("https://registry.example/", {"https_proxy": proxy})
    assert "pw-word" not in str(error.value)


# --- mirrors ----------------------------------------------------------------------------------------------------------


def test_mirrors_in_their_order(fake: server.Scripted, config: Path) -> None:
    """One is not there, one has another image, one has it; the registry itself can't even be resolved."""
    down = closed_port()
    with server.scripted() as empty:
        write(config, f'[registry."registry.invalid"]\nmirrors = ["{down}", "{empty.domain}/hub", "{fake.domain}/m"]\n')
        client = Registry("registry.invalid")
        assert client.manifest("team/app", "1")[2] == IMAGE.digest
        assert b"".join(client.blob("team/app", LAYER)) == IMAGE.layers[0]
        assert [path for path, _ in empty.requests] == [
            "/v2/hub/team/app/manifests/1",
            f"/v2/hub/team/app/blobs/{LAYER.digest}",
        ]
        assert [path for path, _ in fake.requests] == [
            "/v2/m/team/app/manifests/1",
            f"/v2/m/team/app/blobs/{LAYER.digest}",
        ]


def test_a_mirror_has_settings_of_its_own(secure: server.Scripted, made: authority.Authority, config: Path) -> None:
    """Those of its own table; what stands at the mirror itself counts before them."""
    own = closed_port()
    table = f'[registry."{secure.domain}"]\nca = "{made.ca}"\n'
    write(config, f'[registry."{own}"]\nmirrors = ["{secure.domain}"]\n{table}')
    assert digest(own) == IMAGE.digest
    mirror = f'{{location = "{secure.domain}", plain-http = true}}'
    write(config, f'[registry."{own}"]\nmirrors = [{mirror}]\n{table}')
    with pytest.raises(Refused, match=f"cannot connect to {own}"):
        digest(own)


def test_what_no_mirror_has_comes_from_the_registry(fake: server.Scripted, config: Path) -> None:
    with server.scripted() as empty:
        write(config, f'[registry."{fake.domain}"]\nmirrors = ["{empty.domain}"]\n')
        assert digest(fake.domain) == IMAGE.digest
        assert len(empty.requests) == 1
        with pytest.raises(NotFound):
            Registry(fake.domain).manifest("app", "2")


def test_the_error_names_the_mirrors_too(config: Path) -> None:
    down, own = closed_port(), closed_port()
    write(config, f'[registry."{own}"]\nmirrors = ["{down}"]\n')
    with pytest.raises(Refused, match=rf"cannot connect to {own}: .*\(mirrors: cannot connect to {down}: "):
        digest(own)


def test_a_mirror_out_of_reach_is_not_asked_again(fake: server.Scripted, config: Path) -> None:
    with server.scripted() as broken:

        def answer(handler: Any) -> bool:
            handler.close_connection = True
            return True

        broken.answer = answer
        write(config, f'[registry."{fake.domain}"]\nmirrors = [{{location = "{broken.domain}", plain-http = true}}]\n')
        client = Registry(fake.domain)
        for _ in range(3):
            assert client.manifest("app", "1")[2] == IMAGE.digest
        assert len(broken.requests) == 1


def test_what_changes_something_goes_to_the_registry(fake: server.Scripted, config: Path) -> None:
    with server.scripted() as mirror:
        write(config, f'[registry."{fake.domain}"]\nmirrors = ["{mirror.domain}"]\n')
        client = Connection(fake.domain)
        push = "repository:app:pull,push"
        for method, path in (
            ("HEAD", "/v2/app/manifests/1"),
            ("POST", "/v2/app/blobs/uploads/"),
            ("DELETE", "/v2/app/manifests/1"),
        ):
            client.request(method, path, scope=push).close()
        client.request("GET", "/v2/app/tags/list", scope=PULL).close()
        client.request("POST", "/v2/app/blobs/uploads/", scope=PULL).close()
        assert not mirror.requests
        assert len(fake.requests) == 5


def test_a_login_is_for_the_registry_that_it_names(fake: server.Scripted, config: Path, tmp_path: Path) -> None:
    """Not for a mirror, which has one of its own."""
    auths = {"registry.invalid": "own", fake.domain: "mirror"}
    (tmp_path / "auth.json").write_text(
        json.dumps({"auths": {key: {"username": user, "password": "password"} for key, user in auths.items()}})
    )
    wanted = "Basic " + base64.b64encode(b"mirror:password").decode()

    def answer(handler: Any) -> bool:
        if handler.headers.get("Authorization") == wanted:
            return False
        send(handler, 401, b"", {"WWW-Authenticate": "Basic realm=x"})
        return True

    fake.answer = answer
    write(config, f'[registry."registry.invalid"]\nmirrors = ["{fake.domain}"]\n')
    assert digest("registry.invalid") == IMAGE.digest
    assert {headers.get("authorization") for _, headers in fake.requests} == {None, wanted}


def test_a_mirror_that_dies_half_way(config: Path) -> None:
    """The rest comes from the registry, from where it broke."""
    with server.scripted() as own, server.scripted() as mirror:
        own.documents[BIG_BLOB.digest] = mirror.documents[BIG_BLOB.digest] = ("application/octet-stream", BIG)
        left = [1]

        def die(handler: Any) -> bool:
            if not left:
                handler.close_connection = True
                return True
            left.pop()
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(BIG)))
            handler.end_headers()
            handler.wfile.write(BIG[: 2 << 20])
            handler.close_connection = True
            return True

        mirror.answer = die
        write(config, f'[registry."{own.domain}"]\nmirrors = [{{location = "{mirror.domain}", plain-http = true}}]\n')
        assert b"".join(Registry(own.domain).blob("app", BIG_BLOB)) == BIG
        assert own.requests[0][1]["range"].startswith(f"bytes={2 << 20}-")


def test_a_cache_that_is_a_mirror_of_what_it_caches(config: Path, tmp_path: Path) -> None:
    """By the settings that both read: the cache asks the registry itself, and no circle is made."""
    with server.docker_registry(tmp_path / "registry") as real:
        real.push(IMAGE, "app:1")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            cache = f"127.0.0.1:{probe.getsockname()[1]}"
        write(config, f'[registry."{real.domain}"]\nmirrors = ["{cache}"]\n')
        with serving(tmp_path / "cache", "--addr", cache, "--proxy", f"http://{real.domain}"):
            client = Registry(real.domain)
            assert client.manifest("app", "1")[2] == IMAGE.digest
            assert b"".join(client.blob("app", LAYER)) == IMAGE.layers[0]
            assert Registry(cache).manifest("app", IMAGE.digest)[0] == IMAGE.manifest
            assert client.connection.distrust_mirrors()  # it was the cache that answered


def test_a_mirror_that_lies(config: Path) -> None:
    with server.scripted() as own, server.scripted() as mirror:
        own.add(IMAGE, "1")
        mirror.documents[IMAGE.digest] = (IMAGE.media_type, IMAGE.manifest + b" ")
        write(config, f'[registry."{own.domain}"]\nmirrors = ["{mirror.domain}"]\n')
        client = Registry(own.domain)
        assert client.manifest("app", IMAGE.digest)[0] == IMAGE.manifest
        assert (len(mirror.requests), len(own.requests)) == (1, 1)
        assert b"".join(client.blob("app", LAYER)) == IMAGE.layers[0]
        assert len(mirror.requests) == 1  # and is not asked again soon


def test_a_registry_that_is_elsewhere(fake: server.Scripted, config: Path) -> None:
    """The token is asked for by the name there."""
    scopes: list[str] = []

    def answer(handler: Any) -> bool:
        if handler.path.startswith("/token"):
            scopes.append(handler.path)
            send(handler, 200, b'{"token": "T"}')
        elif handler.headers.get("Authorization") == "Bearer T":
            return False
        else:
            send(handler, 401, b"", {"WWW-Authenticate": f'Bearer realm="http://{fake.domain}/token"'})
        return True

    fake.answer = answer
    write(config, f'[registry."registry.invalid/old"]\nlocation = "{fake.domain}/new"\n')
    assert digest("registry.invalid", "old/app") == IMAGE.digest
    assert scopes == ["/token?service=&scope=repository%3Anew%2Fapp%3Apull"]
    assert fake.requests[-1][0] == "/v2/new/app/manifests/1"


def test_all_of_a_part_is_elsewhere(fake: server.Scripted, config: Path) -> None:
    """Uploads and lists too, an address that an upload got, and a mount from a part that stays where it is."""
    with server.scripted() as rest:
        write(config, f'[registry."{rest.domain}/old"]\nlocation = "{fake.domain}/new"\n')
        client = Connection(rest.domain)
        push = "repository:old/app:pull,push repository:other:pull"
        client.request("POST", "/v2/old/app/blobs/uploads/", scope=push).close()
        client.request("GET", "/v2/old/app/tags/list?n=5", scope="repository:old/app:pull").close()
        client.request("PUT", f"http://{fake.domain}/upload/1?x=y", scope=push).close()
        client.request("GET", "/v2/other/tags/list", scope="repository:other:pull").close()
        assert client.base_of("old/app") == f"http://{fake.domain}"
        assert [path for path, _ in fake.requests] == [
            "/v2/new/app/blobs/uploads/",
            "/v2/new/app/tags/list?n=5",
            "/upload/1?x=y",
        ]
        assert [path for path, _ in rest.requests] == ["/v2/other/tags/list"]


@pytest.mark.parametrize(("pull", "tags", "digests"), [("digest", 0, 1), ("tag", 1, 0), ("all", 1, 1)])
def test_mirrors_of_tags_and_of_digests(
    fake: server.Scripted, config: Path, pull: str, tags: int, digests: int
) -> None:
    with server.scripted() as mirror:
        mirror.add(IMAGE, "1")
        write(config, f'[registry."{fake.domain}"]\nmirrors = [{{location = "{mirror.domain}", pull = "{pull}"}}]\n')
        client = Registry(fake.domain)
        client.manifest("app", "1")
        assert len(mirror.requests) == tags
        client.manifest("app", IMAGE.digest)
        assert len(mirror.requests) == tags + digests


@pytest.mark.parametrize(
    "path", ["/v2/bad/app/blobs/uploads/", "/v2/bad/app/manifests/1", "/v2/bad/app/tags/list", "http://x.invalid/u/1"]
)
def test_nothing_goes_to_what_is_blocked(fake: server.Scripted, config: Path, path: str) -> None:
    write(config, f'[registry."{fake.domain}/bad"]\nblocked = true\n')
    with pytest.raises(Refused, match="is blocked"):
        Connection(fake.domain).request("POST", path, scope="repository:bad/app:pull,push")
    assert not fake.requests


@pytest.mark.parametrize(
    ("netloc", "names"),
    [
        ("registry.example", ["registry.example"]),
        ("registry.example:5000", ["registry.example:5000", "registry.example"]),
        ("[::1]:5000", ["[::1]:5000", "[::1]"]),
        ("[::1]", ["[::1]"]),
    ],
)
def test_directories_of_a_host(netloc: str, names: list[str]) -> None:
    found = certificates.directories(netloc)
    assert [directory.rpartition("/certs.d/")[2] for directory in found[: len(names)]] == names
    assert len(found) == 5 * len(names)


@pytest.mark.parametrize("netloc", ["", "../x", "a/b", ".."])
def test_names_that_lead_out_of_certs_d(netloc: str, config: Path) -> None:
    (config / "limpet/certs.d").mkdir(parents=True)
    assert certificates.find(netloc) is None


def test_what_is_blocked(fake: server.Scripted, config: Path) -> None:
    write(config, f'[registry."{fake.domain}/bad"]\nblocked = true\n')
    assert digest(fake.domain) == IMAGE.digest
    with pytest.raises(Refused, match=rf"{fake.domain}/bad/app is blocked; {config}/limpet/registries\.toml:1 says so"):
        digest(fake.domain, "bad/app")
    assert digest(fake.domain, "badly/app") == IMAGE.digest


def test_skopeo_reads_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman's registries.conf: a mirror, and a place elsewhere."""
    with server.docker_registry(tmp_path / "registry") as real:
        real.push(IMAGE, "mirrored/team/app:1")
        file = tmp_path / "registries.conf"
        file.write_text(
            '[[registry]]\nlocation = "registry.invalid"\n[[registry.mirror]]\n'
            f'location = "{closed_port()}"\ninsecure = true\n[[registry.mirror]]\n'
            f'location = "{real.domain}/mirrored"\ninsecure = true\n'
            f'[[registry]]\nprefix = "elsewhere.invalid"\nlocation = "{real.domain}/mirrored"\ninsecure = true\n'
        )
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(file))
        for domain in ("registry.invalid", "elsewhere.invalid"):
            theirs = subprocess.run(
                ["skopeo", "--registries-conf", file, "inspect", "--raw", f"docker://{domain}/team/app:1"],
                capture_output=True,
            )
            assert theirs.stdout == IMAGE.manifest, theirs.stderr
            assert Registry(domain).manifest("team/app", "1")[0] == theirs.stdout
