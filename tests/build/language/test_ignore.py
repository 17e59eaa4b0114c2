""".dockerignore: patterns, their order, exceptions, and which directories must be entered."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.build.language import ignore
from limpet.errors import Invalid


@pytest.mark.parametrize(
    ("text", "path", "ignored"),
    [
        ("*.log", "a.log", True),
        ("*.log", "d/a.log", False),
        ("**/*.log", "d/e/a.log", True),
        ("**/*.log", "a.log", True),
        ("node_modules", "node_modules/x/y", True),
        ("node_modules/", "node_modules/x", True),
        ("/node_modules", "node_modules/x", True),
        ("./a/../b", "b", True),
        ("node_modules", "d/node_modules", False),
        ("**/node_modules", "d/node_modules/x", True),
        ("dir/**", "dir", False),
        ("dir/**", "dir/x", True),
        ("**", "x/y", True),
        ("**.tmp", "d/x.tmp", True),
        ("a**/b", "a/x/y/b", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        (r"\!x", "!x", True),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        ("# x\n \n  y  ", "y", True),
        ("#x", "#x", False),
        ("README", "readme", False),
        ("*\n!keep", "keep", False),
        ("*\n!keep", "keep/below", False),
        ("*\n!keep\nkeep/not", "keep/not", True),
        ("!keep\n*", "keep", True),
        ("docs\n!docs/a.md", "docs/a.md", False),
        ("docs\n!docs/a.md", "docs/b.md", True),
        ("*\n! /src/x", "src/x", False),
        ("*a*b*c", "xaxbxc", True),
        ("*a?b*", "xaabab", True),
        ("*[^a]x*", "bx/x", True),
        ("日本*", "日本語", True),
        ("*", "a\nb", True),
    ],
)
def test_patterns(text: str, path: str, ignored: bool) -> None:
    assert ignore.parse(text).ignores(path) == ignored


@pytest.mark.parametrize("text", ["!", "a\n!\n", "[", "[]", "[a", "[a-]", "x\\", "[^]x"])
def test_bad_patterns_name_their_line(text: str) -> None:
    number = 2 if "\n" in text else 1
    with pytest.raises(Invalid, match=rf"^\.dockerignore:{number}: "):
        ignore.parse(text)


def test_which_ignored_directories_must_be_entered() -> None:
    found = ignore.parse("*\n!a/b/c.txt\n!x*/y\n!**/deep")
    assert found.reaches("a")
    assert found.reaches("anything/at/all")
    narrow = ignore.parse("*\n!a/b/c.txt\n!x*/y")
    assert narrow.reaches("a")
    assert narrow.reaches("a/b")
    assert narrow.reaches("x1")
    assert not narrow.reaches("b")
    assert not narrow.reaches("a/c")
    assert not ignore.parse("*").reaches("a")


def test_the_file_beside_the_dockerfile_wins(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("general")
    assert ignore.read(str(tmp_path)).ignores("general")
    (tmp_path / "web.dockerfile.dockerignore").write_text("special")
    found = ignore.read(str(tmp_path), str(tmp_path / "web.dockerfile"))
    assert (found.ignores("special"), found.ignores("general")) == (True, False)
    assert not ignore.read(str(tmp_path / "none")).patterns


def test_a_hostile_pattern_costs_little() -> None:
    begin = time.monotonic()
    assert not ignore.parse("*a" * 30 + "b").ignores("a" * 2000)
    assert not ignore.parse("**/x/" * 3 + "y").ignores("/".join("x" * 100))
    assert time.monotonic() - begin < 5


@given(st.text("ab*?[]\\/!.#- ", max_size=12), st.text("ab/.", min_size=1, max_size=8))
def test_any_pattern_matches_or_is_refused_and_no_directory_is_missed(text: str, path: str) -> None:
    path = ignore.clean(path).strip("/")
    try:
        found = ignore.parse(f"*\n!{text}\n")
    except Invalid:
        return
    parts = path.split("/")
    if not found.ignores(path) and path not in (".", ".."):
        tops = ["/".join(parts[:end]) for end in range(1, len(parts))]
        assert all(found.reaches(top) for top in tops if found.ignores(top))
