"""Files about registries: limpet's own, Podman's, all kinds of mistakes in them, and what they say together."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.errors import Invalid, Refused
from limpet.registry import endpoints, settings, shortnames
from limpet.registry.registries import Registries

OWN = """\
search = ["docker.io", "registry.example"]

[aliases]
web = "registry.example/team/web"
"team/db" = "docker.io/postgres"

[registry."docker.io"]
mirrors = [
    "mirror.example/hub",
    {location = "localhost:5000", pull = "digest"},
    {location = "10.0.0.1", plain-http = true, pull = "tag"},
]

[registry."registry.example"]
ca = "ca.crt"
cert = "/etc/client.cert"
key = "/etc/client.key"

[registry."registry.example/old"]
blocked = true

[registry."registry.example/new"]
location = "other.example:444/path"
insecure = true

[registry."*.lab.example"]
plain-http = true

[[policy]]
match = "registry.example/prod"
require = "digest"
"""

PODMAN = """\
unqualified-search-registries = ["registry.example", "docker.io"]
short-name-mode = "enforcing"
credential-helpers = ["containers-auth.json"]

[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.example/hub"
[[registry.mirror]]
location = "localhost:5000"
pull-from-mirror = "digest-only"
insecure = true

[[registry]]
prefix = "registry.example/new"
location = "other.example:444/path"
insecure = true

[[registry]]
prefix = "*.lab.example"
blocked = true

[[registry]]
location = "registry.example/old"
blocked = true
mirror-by-digest-only = true
[[registry.mirror]]
location = "mirror.example/old"

[aliases]
"web" = "registry.example/team/web"
"""


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`system` stands for /etc/limpet, `containers` for /etc/containers, `user` for ~/.config."""
    for name in ("LIMPET_REGISTRIES", "CONTAINERS_REGISTRIES_CONF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(settings, "SYSTEM", str(tmp_path / "system/registries.toml"))
    monkeypatch.setattr(settings, "PODMAN", str(tmp_path / "containers"))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def where(known: Registries, domain: str, repository: str, *, by_digest: bool = False) -> list[tuple[str, str]]:
    """(host, repository) in the order in which they are asked."""
    found = endpoints.targets(known, domain, repository, mirrors=True, by_digest=by_digest)
    return [(target.endpoint.netloc, target.repository) for target in found]


def names(known: Registries, text: str) -> list[str]:
    return [candidate.name.canonical for candidate in shortnames.candidates(known, text)]


def test_no_file_is_what_docker_does() -> None:
    known = settings.load()
    assert known == Registries()
    assert names(known, "debian:12") == ["docker.io/library/debian:12"]
    (target,) = endpoints.targets(known, "docker.io", "library/debian", mirrors=True, by_digest=False)
    assert (target.endpoint.netloc, target.endpoint.schemes) == ("registry-1.docker.io", ("https",))
    (target,) = endpoints.targets(known, "127.0.0.1:5000", "app", mirrors=True, by_digest=False)
    assert target.endpoint.schemes == ("http", "https")


def test_own_file(places: Path) -> None:
    file = write(places / "user/limpet/registries.toml", OWN)
    known = settings.load()
    assert known.files == (str(file),)
    hub = [("mirror.example", "hub/library/debian"), ("registry-1.docker.io", "library/debian")]
    assert where(known, "docker.io", "library/debian") == [hub[0], ("10.0.0.1", "library/debian"), hub[1]]
    assert where(known, "docker.io", "library/debian", by_digest=True) == [
        hub[0],
        ("localhost:5000", "library/debian"),
        hub[1],
    ]
    assert where(known, "registry.example", "new/app") == [("other.example:444", "path/app")]
    assert where(known, "registry.example", "new") == [("other.example:444", "path")]
    assert where(known, "registry.example", "newer/app") == [("registry.example", "newer/app")]
    with pytest.raises(Refused, match=r"registry\.example/old/app is blocked.*toml:19"):
        where(known, "registry.example", "old/app")


def test_tls_of_an_own_file(places: Path) -> None:
    file = write(places / "user/limpet/registries.toml", OWN)
    known = settings.load()

    def endpoint(domain: str, repository: str) -> endpoints.Endpoint:
        return endpoints.targets(known, domain, repository, mirrors=False, by_digest=False)[-1].endpoint

    found = endpoint("registry.example", "app")
    assert found.schemes == ("https",)
    assert found.tls is not None
    assert found.tls.authorities == (f"{file.parent}/ca.crt",)  # beside the file
    assert (found.tls.certificate, found.tls.key) == ("/etc/client.cert", "/etc/client.key")
    insecure = endpoint("registry.example", "new/app")
    assert insecure.schemes == ("https", "http")
    assert insecure.tls is not None
    assert not insecure.tls.verify
    assert endpoint("a.lab.example", "app").schemes == ("http",)
    assert endpoint("a.b.lab.example", "app").schemes == ("http",)
    assert endpoint("lab.example", "app").schemes == ("https",)
    assert endpoint("evil-lab.example", "app").schemes == ("https",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", ["registry.example/team/web:latest"]),
        ("web:1", ["registry.example/team/web:1"]),
        ("web@sha256:" + "0" * 64, ["registry.example/team/web@sha256:" + "0" * 64]),
        ("team/db:15", ["docker.io/library/postgres:15"]),
        ("debian", ["docker.io/library/debian:latest", "registry.example/debian:latest"]),
        ("team/web", ["docker.io/team/web:latest", "registry.example/team/web:latest"]),
        ("localhost/web", ["localhost/web:latest"]),
        ("registry.example/web", ["registry.example/web:latest"]),
        ("docker.io/web", ["docker.io/library/web:latest"]),
    ],
)
def test_short_names(places: Path, text: str, expected: list[str]) -> None:
    write(places / "user/limpet/registries.toml", OWN)
    assert names(settings.load(), text) == expected


def test_a_short_name_says_where_it_comes_from(places: Path) -> None:
    file = write(places / "user/limpet/registries.toml", OWN)
    known = settings.load()
    assert shortnames.candidates(known, "web")[0].why == f"an alias in {file}:4"
    assert f"{file}:1" in shortnames.candidates(known, "debian")[0].why
    assert shortnames.candidates(known, "docker.io/debian")[0].why == ""


def test_a_user_over_the_system(places: Path) -> None:
    write(
        places / "system/registries.toml",
        'search = ["a.example"]\n[aliases]\none = "a.example/one"\ntwo = "a.example/two"\n'
        '[registry."a.example"]\nblocked = true\n[registry."b.example"]\nblocked = true\n'
        '[[policy]]\nmatch = "*"\nrequire = "digest"\n',
    )
    write(
        places / "user/limpet/registries.toml",
        '[aliases]\ntwo = "u.example/two"\n[registry."a.example"]\nmirrors = ["m.example"]\n'
        '[[policy]]\nmatch = "*"\nrequire = "nothing"\n',
    )
    known = settings.load()
    assert names(known, "one") == ["a.example/one:latest"]
    assert names(known, "two") == ["u.example/two:latest"]
    assert names(known, "three") == ["a.example/three:latest"]
    assert where(known, "a.example", "x") == [("m.example", "x"), ("a.example", "x")]
    with pytest.raises(Refused, match="is blocked"):
        where(known, "b.example", "x")
    assert [one.require for one in known.requirements] == ["digest", "nothing"]


# --- Podman's ---------------------------------------------------------------------------------------------------------


def test_podmans_file(places: Path) -> None:
    file = write(places / "containers/registries.conf", PODMAN)
    known = settings.load()
    assert known.files == (str(file),)
    hub = [("mirror.example", "hub/library/debian"), ("registry-1.docker.io", "library/debian")]
    assert where(known, "docker.io", "library/debian") == hub
    assert where(known, "docker.io", "library/debian", by_digest=True) == [
        hub[0],
        ("localhost:5000", "library/debian"),
        hub[1],
    ]
    assert where(known, "registry.example", "new/app") == [("other.example:444", "path/app")]
    for domain, repository in (("a.lab.example", "x"), ("registry.example", "old/x")):
        with pytest.raises(Refused, match="is blocked"):
            where(known, domain, repository)
    assert names(known, "web") == ["registry.example/team/web:latest"]
    assert names(known, "debian") == ["registry.example/debian:latest", "docker.io/library/debian:latest"]
    target = endpoints.targets(known, "docker.io", "x", mirrors=True, by_digest=True)[1]
    assert target.endpoint.schemes == ("https", "http")  # `insecure` of a mirror on this machine


def test_podmans_files_together(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(places / "containers/registries.conf", 'unqualified-search-registries = ["a.example"]\n')
    write(places / "containers/registries.conf.d/10.conf", '[aliases]\none = "a.example/one"\ntwo = "a.example/two"\n')
    write(places / "user/containers/registries.conf.d/20.conf", '[aliases]\none = ""\ntwo = "u.example/two"\n')
    write(places / "user/containers/registries.conf.d/README", "not a configuration")
    known = settings.load()
    assert names(known, "one") == ["a.example/one:latest"]  # the alias is taken away, the search has it
    assert "alias" not in shortnames.candidates(known, "one")[0].why
    assert names(known, "two") == ["u.example/two:latest"]
    write(places / "user/containers/registries.conf", 'unqualified-search-registries = ["u.example"]\n')
    assert names(settings.load(), "x") == ["u.example/x:latest"]
    monkeypatch.setenv(
        "CONTAINERS_REGISTRIES_CONF", str(write(places / "c", 'unqualified-search-registries = ["c.example"]'))
    )
    assert names(settings.load(), "x") == ["c.example/x:latest"]


def test_an_own_file_takes_the_place_of_podmans(places: Path) -> None:
    write(places / "containers/registries.conf", PODMAN)
    own = write(places / "system/registries.toml", "")
    assert settings.load().files == (str(own),)
    assert names(settings.load(), "debian") == ["docker.io/library/debian:latest"]


def test_the_file_that_is_named(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(places / "system/registries.toml", 'search = ["a.example"]')
    monkeypatch.setenv("LIMPET_REGISTRIES", str(write(places / "named", PODMAN)))
    assert names(settings.load(), "web") == ["registry.example/team/web:latest"]  # either form will do
    monkeypatch.setenv("LIMPET_REGISTRIES", str(places / "none"))
    with pytest.raises(Invalid, match=r"none: No such file"):
        settings.load()


def test_debians_own_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Debian's podman brings along."""
    monkeypatch.setattr(settings, "PODMAN", "/etc/containers")
    if not Path("/etc/containers/registries.conf.d/shortnames.conf").exists():
        pytest.skip("needs Debian's containers-common")
    known = settings.load()
    assert names(known, "hello-world") == ["docker.io/library/hello-world:latest"]
    assert names(known, "fedora:40") == ["registry.fedoraproject.org/fedora:40"]


def test_version_1_of_podmans(places: Path) -> None:
    write(places / "containers/registries.conf", '[registries.search]\nregistries = ["a.example"]\n')
    with pytest.raises(Invalid, match=r"registries\.conf:1: registries: the form of version 1"):
        settings.load()


# --- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES = [
    ('serach = ["a.example"]', 1, "unknown key serach; did you mean search?"),
    ("\n\nfrobnicate = 1", 3, "unknown key frobnicate; there are: search, aliases, registry, policy"),
    ("search = 1", 1, "search: not a list of strings"),
    ('search = ["https://a.example"]', 1, "search: 'https://a.example' is not a registry; write HOST"),
    ('[registry."a.example"]\nmirors = []', 2, 'unknown key registry."a.example".mirors; did you mean mirrors?'),
    ('[registry."a.example"]\ninsecure = "yes"', 2, 'registry."a.example".insecure: neither true nor false'),
    ('[registry."a.example"]\nblocked = true\nmirrors = [3]', 3, "mirrors: not a list of tables"),
    ('[registry."a.example"]\nmirrors = [{location = "b", pul = 1}]', 2, "did you mean pull?"),
    ('[registry."a.example"]\nmirrors = [{location = "b", pull = "digset"}]', 2, "did you mean digest?"),
    ('[registry."a.example"]\nmirrors = [{pull = "all"}]', 2, "location: '' is not a registry"),
    ('[registry."a.example"]\nmirrors = [\n  "b",\n  "c/UPPER",\n]', 2, "'c/UPPER' is not a registry"),
    ('[registry."https://a.example"]', 1, "not a registry; write HOST"),
    ('[registry."a.example/../b"]', 1, "not a registry; write HOST"),
    ('[registry."*.a.example/b"]', 1, "not a registry; write HOST"),
    ('[registry."*.a.example"]\nlocation = "b.example"', 2, "not for a pattern"),
    ('[registry."a.example"]\nkey = "k"', 2, "a key without its cert"),
    ('[registry."a.example"]\nplain-http = true\nca = "x"', 3, "there is no TLS with plain-http"),
    ("[registry.a.example]\nblocked = true", 1, 'a name with dots is written in quotes; write [registry."a.example"]'),
    ("[registry.a.b.c.mirrors]\n", 1, 'write [registry."a.b.c"]'),
    ("[registry.localhost:5000]\nplain-http = true", 1, 'write [registry."localhost:5000"]'),
    ("search = []\n[registry.*.a.example]", 2, 'write [registry."*.a.example"]'),
    ('registry = ["a"]', 1, "registry: not a table; write [registry]"),
    ('[aliases]\nweb = "web"', 2, "aliases.web: 'web' is not the full name of a repository; write HOST/PATH"),
    ('[aliases]\nweb = "a.example/web:1"', 2, "aliases.web: 'a.example/web:1' is not a registry"),
    ('[aliases]\n"a.example/web" = "b.example/web"', 2, "a short name has no registry"),
    ('[aliases]\n"web:1" = "b.example/web"', 2, "a short name has no registry, no tag"),
    ("[aliases]\nweb = 1", 2, "aliases.web: not a string"),
    ('[[policy]]\nmatch = "*"', 1, "policy.require is missing; there are: digest, signature, nothing"),
    ('[[policy]]\nmatch = "*"\nrequire = "digest"\n[[policy]]\nmatch = "*"\nrequire = "sig"', 6, "'sig' is none of"),
    ('[[policy]]\nrequire = "digest"', 1, "policy.match: '' is not a registry"),
    ('[policy]\nmatch = "*"', 1, "policy: not a list of tables; write [[policy]]"),
    ("search = [", 1, "not TOML"),
    ("a = 1\nb = \n", 2, "not TOML: Invalid value"),
    ("a = 1\na = 2", 2, "not TOML: Cannot overwrite a value"),
]


@pytest.mark.parametrize(("text", "line", "said"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes(places: Path, text: str, line: int, said: str) -> None:
    file = write(places / "system/registries.toml", text)
    with pytest.raises(Invalid) as error:
        settings.load()
    assert str(error.value).startswith(f"{file}:{line}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"# \xff", ":1: not UTF-8"),
        (b"#" * (2 << 20), "larger than"),
        (b"a = " + b"[" * 100_000, ": nested too deeply"),
    ],
)
def test_bytes_that_are_no_text(places: Path, data: bytes, said: str) -> None:
    (places / "system").mkdir()
    (places / "system/registries.toml").write_bytes(data)
    with pytest.raises(Invalid, match=said):
        settings.load()


LINES = """
[registry]
[registry."a.example"]
[[policy]]
[aliases]
match = "*"
search = [
"a"
]
location = "b.example/c"
blocked = true
mirrors = [
{location = "x"},
x = 1
'''
=
require = "digest"
[[registry]]
[[registry.mirror]]
prefix = "a.example"
# [x]
a.b.c = {}
""".splitlines()
TOML = st.lists(st.sampled_from(LINES), max_size=12).map("\n".join)


@given(TOML)
@hypothesis.settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_with_its_place(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = write(Path(directory) / "registries.toml", text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LIMPET_REGISTRIES", str(file))
            try:
                known = settings.load()
            except Invalid as e:
                said = str(e)
                assert said.startswith(f"{file}:")
                assert 1 <= int(said.removeprefix(f"{file}:").partition(":")[0]) <= text.count("\n") + 1
            else:
                assert known.files == (str(file),)


def test_a_directory_is_no_file(places: Path) -> None:
    (places / "system/registries.toml").mkdir(parents=True)
    with pytest.raises(Invalid, match="Is a directory"):
        settings.load()
