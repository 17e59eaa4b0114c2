"""docs/reference.md is what the tables say, and what is missing is what Docker has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from limpet.cli import main, missing, reference
from limpet.cli.commands import ALIASES, COMMANDS, GROUPS, visible

PAGE = Path(__file__).resolve().parents[2] / "docs/reference.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference.page(), "python -m limpet.cli.reference > docs/reference.md"


def test_no_option_is_both_there_and_missing() -> None:
    for name in visible():
        for names, _ in missing.listed(name):
            assert not set(names) & {option.name for option in main.load(name).options}


@pytest.mark.parametrize(("word", "instead"), [("--link", "on one network know each other"), ("--cpu-count", "--cpus")])
def test_what_docker_has_is_refused_with_what_to_do(limpet: Any, word: str, instead: str) -> None:
    result = limpet("run", word, "1", "busybox", check=False)
    assert result.returncode == 125
    assert instead in result.stderr.splitlines()[1]


def docker_help(*words: str) -> str:
    """What a docker client that is not newer than what was compared says."""
    if shutil.which("docker") is None:
        pytest.skip("needs a docker client, whose --help is compared")
    version = subprocess.run(["docker", "--version"], capture_output=True, text=True).stdout
    if int(re.findall(r"\d+", version)[0]) > 28:
        pytest.skip("needs a docker client of version 28 or older: a newer one has options that nobody looked at yet")
    return subprocess.run(["docker", *words, "--help"], capture_output=True, text=True).stdout


@pytest.mark.parametrize("group", ["", "container", "image", "system", "volume"])
def test_every_command_of_dockers_is_known(group: str) -> None:
    _, _, lists = docker_help(*group.split()).partition("Commands:\n")
    theirs = {f"{group} {name}".strip() for name in re.findall(r"^  ([a-z-]+)\*? ", lists, re.MULTILINE)}
    known = {*COMMANDS, *ALIASES, *GROUPS, *missing.commands()}
    assert theirs - known == set()


def test_nothing_is_both_there_and_missing() -> None:
    assert set(missing.commands()) & {*COMMANDS, *ALIASES, *GROUPS} == set()


def test_a_command_that_is_not_here_says_what_is_instead(limpet: Any) -> None:
    result = limpet("compose", "up", check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == "limpet: 'compose' is not a limpet command"
    assert "limpet up" in result.stderr.splitlines()[1]


@pytest.mark.parametrize("name", visible())
def test_every_option_of_dockers_is_known(name: str) -> None:
    shown = docker_help(*name.split())
    if f"docker {name}" not in shown or name == "build":  # an own command; and buildx takes the place of `build`
        return
    known = {name for option in main.load(name).options for name in (option.name, *option.aliases)} | {"help"}
    known |= {name for names, _ in missing.listed(name) for name in names}
    theirs = set(re.findall(r"^ +(?:-\w, +)?--([a-z][a-z0-9-]+)", shown, re.MULTILINE))
    assert theirs - known == set()
