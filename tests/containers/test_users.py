"""Users and groups by the image's own files, with Docker's rules; the files are hostile."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.descriptors import opened

from limpet.containers.plan.users import MAX_FILE, MAX_ID, resolve
from limpet.errors import Invalid

if TYPE_CHECKING:
    from pathlib import Path

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment: it has colons
user:x:1000:1001:User:/home/user:/bin/sh

twin:x:1000:7:again:/twin:/bin/sh
nohome:x:5:5::
broken:x:none:5:not a number:/broken:/bin/sh
emptygid:x:6::no group:/e:/bin/sh
short
huge:x:4294967295:0::/:/bin/sh
4242:x:12:12:a number as name:/n:/bin/sh
"""
GROUP = """\
root:x:0:root
bin:x:1:root,user
# more:x:9:user
user:x:1001:
extra:x:2000:user
extra:x:2002:
other:x:2001:twin,someone
bad:x:none:user
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "image/etc").mkdir(parents=True)
    (tmp_path / "image/etc/passwd").write_text(PASSWD)
    (tmp_path / "image/etc/group").write_text(GROUP)
    return tmp_path / "image"


@pytest.mark.parametrize(
    ("spec", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0, 1), "/root"),
        ("root", 0, 0, (0, 1), "/root"),
        ("user", 1000, 1001, (1001, 1, 2000), "/home/user"),
        ("1000", 1000, 1001, (1001, 1, 2000), "/home/user"),  # a number with an entry takes all of it
        ("+1000", 1000, 1001, (1001, 1, 2000), "/home/user"),
        ("01000", 1000, 1001, (1001, 1, 2000), "/home/user"),
        ("twin", 1000, 7, (7, 2001), "/twin"),
        ("user:extra", 1000, 2000, (2000,), "/home/user"),  # a written group: no others, and the first entry wins
        ("user:2000", 1000, 2000, (2000,), "/home/user"),
        ("user:77", 1000, 77, (77,), "/home/user"),
        ("user:", 1000, 1001, (1001, 1, 2000), "/home/user"),
        (":extra", 0, 2000, (2000,), "/root"),
        ("nohome", 5, 5, (5,), "/"),
        ("777", 777, 0, (0,), "/"),
        ("777:888", 777, 888, (888,), "/"),
        (str(MAX_ID), MAX_ID, 0, (0,), "/"),
        ("4242", 4242, 0, (0,), "/"),  # a number is never a name
    ],
)
def test_rules(root: Path, spec: str, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
    user = resolve(str(root), spec)
    assert (user.uid, user.gid, user.groups, user.home) == (uid, gid, groups, home)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        assert repr(resolve(fd, spec)) == repr(user)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("spec", "words", "hint"),
    [
        ("usr", "unable to find user usr: no matching entries in passwd file", "did you mean user?"),
        ("broken", "unable to find user broken: no matching entries in passwd file", ""),
        ("emptygid", "unable to find user emptygid: ", ""),
        ("user:extr", "unable to find group extr: no matching entries in group file", "did you mean extra"),
        ("-1", "must be in range 0-2147483647", ""),
        ("2147483648", "must be in range 0-2147483647", ""),
        ("9" * 5000, "must be in range 0-2147483647", ""),
        ("user:4294967295", "must be in range", ""),
        ("huge", "must be in range", ""),
        ("user:extra:more", "invalid user 'user:extra:more'", "USER:GROUP"),
        ("١٢", "unable to find user ١٢", ""),
        ("1_0", "unable to find user 1_0", ""),
    ],
)
def test_errors(root: Path, spec: str, words: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        resolve(str(root), spec)
    assert words in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_added_groups(root: Path) -> None:
    assert resolve(str(root), "user:extra", ["bin", "55", "2000", "bin"]).groups == (2000, 1, 55)
    assert resolve(str(root), "user", ["other"]).groups == (1001, 1, 2000, 2001)
    with pytest.raises(Invalid, match="unable to find group to add nix: no matching entries in group file"):
        resolve(str(root), "user", ["nix"])
    with pytest.raises(Invalid, match="range"):
        resolve(str(root), "user", ["-3"])


def test_no_files(tmp_path: Path) -> None:
    assert repr(resolve(str(tmp_path), "")) == "User(uid=0, gid=0, groups=(0,), home='/')"
    assert resolve(str(tmp_path), "5:6").groups == (6,)
    with pytest.raises(Invalid, match="unable to find user nobody: no matching entries") as caught:
        resolve(str(tmp_path), "nobody")
    assert "use a number" in caught.value.hint
    (tmp_path / "etc").write_text("a file, not a directory")
    assert resolve(str(tmp_path), "5").uid == 5


def test_links_stay_beneath_the_root(root: Path) -> None:
    (root / "etc/passwd").unlink()
    (root / "data").write_text("me:x:7:8::/me:/bin/sh\n")
    for target in ("/data", "../../../../../../data"):  # both are the image's /data
        (root / "etc/passwd").symlink_to(target)
        assert resolve(str(root), "me").gid == 8
        (root / "etc/passwd").unlink()
    secret = root.parent / "secret"
    secret.write_text("me:x:0:0::/:/bin/sh\n")
    (root / "etc/passwd").symlink_to(secret)
    with pytest.raises(Invalid, match="unable to find user me"):
        resolve(str(root), "me")
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("/proc/self/fd/0")
    with pytest.raises(Invalid):
        resolve(str(root), "me")
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to("passwd")
    with pytest.raises(Invalid, match="/etc/passwd of the image: Too many levels of symbolic links"):
        resolve(str(root), "me")


def test_what_is_not_a_file(root: Path) -> None:
    passwd = root / "etc/passwd"
    passwd.unlink()
    os.mkfifo(passwd)  # opening it would wait for ever
    with pytest.raises(Invalid, match="not a regular file"):
        resolve(str(root), "me")
    passwd.unlink()
    os.mknod(passwd, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero never ends
    with pytest.raises(Invalid, match="not a regular file"):
        resolve(str(root), "")
    passwd.unlink()
    with open(passwd, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Invalid, match="limit"):
        resolve(str(root), "")
    passwd.write_bytes(b"x" * MAX_FILE)
    assert resolve(str(root), "3").uid == 3


def test_no_descriptor_is_left(root: Path) -> None:
    before = opened()
    resolve(str(root), "user")
    with pytest.raises(Invalid):
        resolve(str(root), "nix")
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").mkdir()
    with pytest.raises(Invalid):
        resolve(str(root), "user")
    assert opened() == before


@given(passwd=st.binary(max_size=300), group=st.binary(max_size=300), spec=st.text(max_size=20))
def test_any_bytes_give_a_user_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, passwd: bytes, group: bytes, spec: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "hostile"
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_bytes(passwd)
    (root / "etc/group").write_bytes(group)
    try:
        user = resolve(str(root), spec)
    except Invalid:
        return
    assert 0 <= user.uid <= MAX_ID
    assert all(0 <= gid <= MAX_ID for gid in user.groups)
