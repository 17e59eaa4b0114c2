"""`--chmod`, held against chmod(1); ports; which sources are fetched."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from limpet.build.copying import modes
from limpet.build.language import ports
from limpet.build.sources.reference import remote_kind

TEXTS = (
    "755", "0", "4711", "u+x", "a-w", "go=", "u=rwX,go=rX", "+x", "u=g", "g=u,o-rwx", "ug+rw-x", "u+s", "g+s,o+t", "=r",
    "o=u-x", "a+X", "u+rw,u-x+s",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("start", [0o644, 0o755, 0o700, 0o640])
@pytest.mark.parametrize("is_directory", [False, True])
def test_modes_are_those_of_chmod(text: str, start: int, is_directory: bool, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.mkdir() if is_directory else path.touch()
    path.chmod(start)
    subprocess.run(["chmod", text, path], check=True, umask=0)
    wanted = stat.S_IMODE(path.stat().st_mode)
    assert oct(modes.changed(start, text, is_directory=is_directory)) == oct(wanted)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("80", (["80/tcp"], False, False)),
        ("53/udp", (["53/udp"], False, False)),
        ("90-92/SCTP", (["90/sctp", "91/sctp", "92/sctp"], False, True)),
        ("8080:80", (["80/tcp"], True, False)),
        ("1-3:5-7", (["5/tcp", "6/tcp", "7/tcp"], True, False)),
        ("[::1]:80:81/udp", (["81/udp"], True, False)),
        ("2001:db8::1::81", (["81/tcp"], True, False)),
        ("0", (["0/tcp"], False, False)),
    ],
)
def test_ports(text: str, result: tuple[list[str], bool, bool]) -> None:
    assert ports.parse(text) == result


@pytest.mark.parametrize("text", ["", "/tcp", "x", "70000", "-1", "1-", "2-1", "80/http", "1:2:3", "٣", "1_0"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(ports.PortError):
        ports.parse(text)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("a/b", ""),
        ("./http://x", ""),
        ("https://example.org/a.tar", "http"),
        ("HTTP://example.org/a", "http"),
        ("https://example.org/r.git", "git"),
        ("https://example.org/r.git#main:sub", "git"),
        ("https://example.org/r.gitx", "http"),
        ("git://example.org/r", "git"),
        ("ssh://git@example.org/r", "git"),
        ("git@github.com:owner/r.git", "git"),
        ("github.com/owner/repo", ""),
    ],
)
def test_what_is_fetched(source: str, kind: str) -> None:
    assert remote_kind(source) == kind
