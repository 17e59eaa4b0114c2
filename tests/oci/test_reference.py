"""References as distribution/reference (reference_test.go, normalize_test.go) has them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.errors import Invalid
from limpet.oci import digest, reference

SHA = "sha256:" + "0123456789abcdef" * 4

# what is written → canonical, familiar
VALID = [
    ("debian", "docker.io/library/debian:latest", "debian:latest"),
    ("debian:12", "docker.io/library/debian:12", "debian:12"),
    ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
    ("docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
    ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
    ("library/debian", "docker.io/library/debian:latest", "debian:latest"),
    ("library/foo/bar", "docker.io/library/foo/bar:latest", "library/foo/bar:latest"),
    ("user/app:v1", "docker.io/user/app:v1", "user/app:v1"),
    ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
    ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
    ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
    ("test.com:tag", "docker.io/library/test.com:tag", "test.com:tag"),
    ("test:5000/repo", "test:5000/repo:latest", "test:5000/repo:latest"),
    ("test:5000/repo:tag", "test:5000/repo:tag", "test:5000/repo:tag"),
    (f"test:5000/repo@{SHA}", f"test:5000/repo@{SHA}", f"test:5000/repo@{SHA}"),
    (f"test:5000/repo:tag@{SHA}", "test:5000/repo:tag", "test:5000/repo:tag"),
    (f"debian@{SHA}", f"docker.io/library/debian@{SHA}", f"debian@{SHA}"),
    ("127.0.0.1:5000/docker/docker", "127.0.0.1:5000/docker/docker:latest", "127.0.0.1:5000/docker/docker:latest"),
    ("[2001:db8::1]/repo", "[2001:db8::1]/repo:latest", "[2001:db8::1]/repo:latest"),
    ("[2001:db8:1:2:3:4:5:6]:80/repo:tag", "[2001:db8:1:2:3:4:5:6]:80/repo:tag", "[2001:db8:1:2:3:4:5:6]:80/repo:tag"),
    ("[2001:db8::]:5000/repo", "[2001:db8::]:5000/repo:latest", "[2001:db8::]:5000/repo:latest"),
    ("[::1]/repo", "[::1]/repo:latest", "[::1]/repo:latest"),
    ("sub-dom1.foo.com/bar/baz/quux", "sub-dom1.foo.com/bar/baz/quux:latest", "sub-dom1.foo.com/bar/baz/quux:latest"),
    ("sub-dom1.foo.com/bar/baz/quux:some-long-tag", "sub-dom1.foo.com/bar/baz/quux:some-long-tag", ""),
    ("b.gcr.io/test.example.com/my-app:test.example.com", "b.gcr.io/test.example.com/my-app:test.example.com", ""),
    ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com/myimage:xn--n3h.com", ""),
    ("foo_bar.com:8080", "docker.io/library/foo_bar.com:8080", "foo_bar.com:8080"),
    ("foo/foo_bar.com:8080", "docker.io/foo/foo_bar.com:8080", "foo/foo_bar.com:8080"),
    ("Uppercase/lowercase", "Uppercase/lowercase:latest", "Uppercase/lowercase:latest"),
    ("a.b/foo__bar/foo--bar/fo", "a.b/foo__bar/foo--bar/fo:latest", ""),
    ("a-----------------b/c", "docker.io/a-----------------b/c:latest", ""),
    ("a/" * 126 + "a:tag", "docker.io/" + "a/" * 126 + "a:tag", ""),
    ("docker/docker:_.tag-1", "docker.io/docker/docker:_.tag-1", ""),
    ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, ""),
    ("a" * 247, "docker.io/library/" + "a" * 247 + ":latest", ""),
    ("lowercase:Uppercase", "docker.io/library/lowercase:Uppercase", "lowercase:Uppercase"),
]

INVALID = [
    "",
    ":justtag",
    "@" + SHA,
    "repo@sha256:ffffffffffffffffffffffffffffffffff",
    "validname@invaliddigest:" + "f" * 128,
    "Uppercase:tag",
    "test:5000/Uppercase/lowercase:tag",
    "a/" * 128 + "a:tag",
    "aa/asdf$$^/aa",
    "-foo/bar",
    "foo/bar-",
    "foo/-bar",
    "foo./x",
    "a___b",
    "a..b",
    "a._b",
    "_a",
    "a//b",
    "/a",
    "a/",
    "debian:",
    "debian:-x",
    "debian:.x",
    "x:" + "t" * 129,
    "a" * 256,
    "docker.io/",
    "docker/",
    "https://github.com/docker/docker",
    "[fe80::1%eth0]:5000/repo",
    "[fe80::1%@invalidzone]:5000/repo",
    "[2001:db8::1/repo",
    "0123456789abcdef" * 4,
    "debian:12:13",
    "deb ian",
    "débian",
    "debian\n",
    "debian:12\n",
    "foo.com:http/x",
]


@pytest.mark.parametrize(("text", "canonical", "familiar"), VALID)
def test_what_is_meant(text: str, canonical: str, familiar: str) -> None:
    found = reference.parse(text)
    assert str(found) == found.canonical == canonical
    if familiar:
        assert found.familiar == familiar
    if "@" in text:
        assert found.digest == SHA


@pytest.mark.parametrize("text", INVALID)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        reference.parse(text)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet=string.ascii_lowercase + string.digits + "._-/:@AZ[]é", max_size=40))
def test_parsing_is_stable(text: str) -> None:
    """Whatever is accepted parses to itself from its canonical and its familiar form; all else raises Invalid."""
    try:
        found = reference.parse(text)
    except Invalid:
        return
    assert reference.parse(found.canonical).canonical == found.canonical
    assert reference.parse(found.familiar).canonical == found.canonical


_part = st.from_regex(r"\A[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*\Z").filter(lambda text: len(text) < 60)


@given(
    st.one_of(st.none(), st.from_regex(r"\A[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-z0-9]+)+(:[0-9]{1,5})?\Z")),
    st.lists(_part, min_size=1, max_size=4),
    st.one_of(st.none(), st.from_regex(r"\A[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}\Z")),
)
def test_the_grammar_is_accepted(domain: str | None, parts: list[str], tag: str | None) -> None:
    path = "/".join(parts)
    text = f"{domain}/{path}" if domain else path
    if not domain and (len(parts) > 1 and ("." in parts[0] or parts[0] == "localhost")):
        return  # the first part is a domain then
    if len(path) > 240 or (len(text) == 64 and not tag):
        return
    found = reference.parse(f"{text}:{tag}" if tag else text)
    assert found.tag == (tag or "latest")
    assert found.path.endswith(path)
    if domain and domain != "index.docker.io":
        assert found.domain == domain


def test_with_tag_and_digest() -> None:
    found = reference.parse("debian:12")
    assert found.with_tag("13").canonical == "docker.io/library/debian:13"
    assert found.with_digest(SHA).canonical == f"docker.io/library/debian@{SHA}"
    with pytest.raises(Invalid):
        found.with_tag("a/b")
    with pytest.raises(Invalid):
        found.with_digest("sha256:12")


@pytest.mark.parametrize("text", [SHA, "sha512:" + "a" * 128])
def test_digests(text: str) -> None:
    assert digest.check(text) == text
    assert digest.hex_of(text) == text[7:]
    assert digest.short(text) == text[7:19]


@pytest.mark.parametrize(
    "text", ["", "sha256", "sha256:", SHA[:-1], SHA + "0", SHA.upper(), "md5:" + "a" * 32, "sha256:../" + "a" * 61]
)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(Invalid):
        digest.check(text)
