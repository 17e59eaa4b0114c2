"""The command line as a whole: help for everything, mistakes, exit codes."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import Any

import pytest

from limpet.cli import main
from limpet.cli.commands import ALIASES, COMMANDS, GROUPS, visible


@pytest.mark.parametrize("name", visible())
def test_every_command_explains_itself(name: str) -> None:
    command = main.load(name)
    assert command.examples
    assert all("limpet " in example for example in command.examples)
    assert command.summary
    for option in command.options:
        assert option.help, f"limpet {name} --{option.name}"
        assert option.kind in ("bool", "string", "int", "list", "optional")
    shorts = [option.short for option in command.options if option.short]
    names = [option.name for option in command.options]
    assert len(set(shorts)) == len(shorts)
    assert len(set(names)) == len(names)


def test_aliases_lead_to_commands_and_groups_have_some() -> None:
    assert set(ALIASES.values()) <= set(COMMANDS)
    for group in GROUPS:
        assert any(name.startswith(f"{group} ") for name in [*COMMANDS, *ALIASES])


def test_help_is_the_same_by_every_way(limpet: Any) -> None:
    text = limpet("run", "--help").stdout
    assert text.startswith("Usage:  limpet run [OPTIONS] IMAGE [COMMAND] [ARG...]\n")
    assert limpet("help", "run").stdout == text
    assert "limpet container run" in text
    assert limpet("--help").stdout == limpet().stdout == limpet("help").stdout
    assert "prune" in limpet("system").stdout


@pytest.mark.parametrize(
    ("words", "code", "lines"),
    [
        (["rnu"], 1, ["limpet: 'rnu' is not a limpet command", "did you mean `limpet run`? See 'limpet --help'."]),
        (
            ["image", "sl"],
            1,
            [
                "limpet: 'image sl' is not a limpet command",
                "did you mean `limpet image ls`? See 'limpet image --help'.",
            ],
        ),
        (["--hepl"], 125, ["limpet: unknown flag: --hepl", "See 'limpet --help'."]),
        (
            ["rm"],
            1,
            [
                'limpet: "limpet rm" requires at least 1 argument.',
                "Usage: limpet rm [OPTIONS] CONTAINER [CONTAINER...]. See 'limpet rm --help'.",
            ],
        ),
        (["ps", "x"], 1, ['limpet: "limpet ps" accepts no arguments.', None]),
        (["run", "--rmm", "x"], 125, ["limpet: unknown flag: --rmm", "did you mean --rm? See 'limpet run --help'."]),
        (["run", "Foo/Bar:x y"], 125, None),
        (["ps", "--format", "{{.Nope"], 64, ["limpet: template parsing error: template: :1:1: unclosed action"]),
    ],
)
def test_mistakes_are_one_line_and_a_way_out(limpet: Any, words: list[str], code: int, lines: Any) -> None:
    result = limpet(*words, check=False)
    assert result.returncode == code
    assert result.stdout == ""
    found = result.stderr.splitlines()
    assert len(found) <= 2
    for line, expected in zip(found, lines or [], strict=False):
        assert expected is None or line == expected


def test_options_before_the_command(limpet: Any, tmp_path: Any) -> None:
    other = tmp_path / "other"
    assert limpet("--root", other, "ps").stdout.startswith("CONTAINER ID")
    assert (other / "state.db").exists()
    assert limpet("-v").stdout == limpet("--version").stdout


def test_a_reader_that_goes_away_is_no_error(limpet: Any) -> None:
    line = shlex.join(limpet.command) + " --help | head -n 1"
    result = subprocess.run(["bash", "-c", line], env=limpet.environment, capture_output=True, text=True)
    assert result.stdout == "Usage:  limpet [OPTIONS] COMMAND\n"
    assert result.stderr == ""


def test_a_full_disk_behind_standard_output_is_said(limpet: Any) -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run([*limpet.command, "--help"], env=limpet.environment, stdout=full, stderr=-1, text=True)
    assert result.returncode == 1
    assert result.stderr == "limpet: standard output: No space left on device\n"


def test_a_store_that_cannot_be_made_is_one_line(limpet: Any, tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    result = limpet("--root", tmp_path / "file/x", "ps", check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == f"limpet: {tmp_path}/file/x: Not a directory"


def test_debug_shows_where_an_error_comes_from(limpet: Any) -> None:
    assert "Traceback" in limpet("--debug", "inspect-nothing", check=False).stderr


def test_no_colour_unless_on_a_terminal(limpet: Any) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"LIMPET_ROOT": str(limpet.root)}
    result = subprocess.run([*limpet.command, "info"], env=environment, capture_output=True, text=True)
    assert "\x1b" not in result.stdout + result.stderr
