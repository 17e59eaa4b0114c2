"""The command line as a whole: help for everything, mistakes, exit codes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from limpet.cli import main
from limpet.cli.commands import ALIASES, COMMANDS, GROUPS, visible
from limpet.nearest import nearest

SOURCE = Path(__file__).resolve().parents[2] / "src"


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
        (["PS"], 1, ["limpet: 'PS' is not a limpet command", "did you mean `limpet ps`? See 'limpet --help'."]),
        (
            ["prune"],
            1,
            ["limpet: 'prune' is not a limpet command", "did you mean `limpet system prune`? See 'limpet --help'."],
        ),
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
    limpet("--root", other, "volume", "create", "data")
    assert (other / "state.db").exists()
    assert limpet("--root", other, "ps").stdout.startswith("CONTAINER ID")
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
    result = limpet("--root", tmp_path / "file/x", "volume", "create", check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == f"limpet: {tmp_path}/file/x: {tmp_path}/file is no directory"


def test_debug_shows_where_an_error_comes_from(limpet: Any) -> None:
    assert "Traceback" in limpet("--debug", "inspect-nothing", check=False).stderr


def test_no_colour_unless_on_a_terminal(limpet: Any) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"LIMPET_ROOT": str(limpet.root)}
    result = subprocess.run([*limpet.command, "info"], env=environment, capture_output=True, text=True)
    assert "\x1b" not in result.stdout + result.stderr


def test_debug_and_other_options_stand_before_the_command(limpet: Any) -> None:
    shown = limpet("--log-level", "debug", "-D", "-H", "unix:///x", "rename", "a", "b", check=False)
    lines = shown.stderr.splitlines()
    assert shown.returncode == 1
    assert lines[0] == "limpet: -H is ignored: there is no daemon to talk to"
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "limpet: No such container: a"


def test_an_internal_error_is_one_line_and_says_what_to_do(limpet: Any) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from limpet.cli import main, table;"
        "table.Call.store = property(lambda call: 1 // 0); main.entry()"
    )
    for debug in (False, True):
        words = ["-D", "ps"] if debug else ["ps"]
        result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        lines = result.stderr.splitlines()
        assert result.returncode == 125
        assert "limpet: internal error: ZeroDivisionError: integer division or modulo by zero" in lines
        assert ("Traceback" in result.stderr) == debug
        assert len(lines) == 2 or debug


LOST = ("it is closed", ">&-"), ("No space left on device", "> /dev/full")


@pytest.mark.slow
@pytest.mark.parametrize(("why", "where"), LOST)
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["ps"], 1),
        (["inspect", "box"], 1),
        (["--help"], 1),
        (["volume", "ls", "--format", "{{.Name}}"], 1),
        (["run", "--rm", "busybox:test", "echo", "hi"], 125),
        (["logs", "box"], 1),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else None,
)
def test_output_that_is_lost_is_said(
    limpet: Any, busybox: str, words: list[str], code: int, why: str, where: str
) -> None:
    limpet("run", "--name", "box", "-v", "data:/x", busybox, "echo", "hello")
    result = limpet_in_shell(limpet, words, where)
    assert (result.returncode, result.stderr) == (code, f"limpet: standard output: {why}\n")


@pytest.mark.slow
@pytest.mark.parametrize(("why", "where"), LOST)
def test_an_id_that_is_lost_is_shown_elsewhere(limpet: Any, busybox: str, why: str, where: str) -> None:
    for words, what in ((["run", "-d"], "runs"), (["create"], "was created")):
        result = limpet_in_shell(limpet, [*words, "--name", "box", busybox, "sleep", "1000"], where)
        identity = limpet("inspect", "-f", "{{.Id}}", "box").stdout.strip()
        assert (result.returncode, result.stderr.splitlines()) == (
            125,
            [f"limpet: standard output: {why}", f"container box {what} all the same, its id: {identity}"],
        )
        limpet("rm", "-f", "box")


def test_output_that_nobody_needs_may_be_closed(limpet: Any, busybox: str) -> None:
    result = limpet_in_shell(limpet, ["run", "--rm", busybox, "true"], ">&-")
    assert (result.returncode, result.stderr) == (0, "")


def limpet_in_shell(limpet: Any, words: list[str], redirection: str) -> subprocess.CompletedProcess[str]:
    line = f"{shlex.join([*limpet.command, *words])} {redirection}"
    return subprocess.run(["bash", "-c", line], env=limpet.environment, stderr=-1, text=True, timeout=60)


@pytest.mark.parametrize(
    ("capability", "message", "words"),
    [
        ("sys_admin", "container web: mounting its layers: ", ["run", "--name", "web"]),
        ("sys_admin", "setns: Operation not permitted", ["exec", "box", "true"]),
        ("mknod", "preparing the process: capset: Operation not permitted", ["exec", "box", "true"]),
    ],
)
def test_a_root_that_lacks_a_capability_is_told_which(
    limpet: Any, busybox: str, capability: str, message: str, words: list[str]
) -> None:
    limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
    less = ["setpriv", "--bounding-set", f"-{capability}", "--inh-caps", f"-{capability}"]
    more = [busybox, "true"] if words[0] == "run" else []
    result = subprocess.run(
        [*less, *limpet.command, *words, *more], env=limpet.environment, capture_output=True, text=True
    )
    first, second = result.stderr.splitlines()
    assert first.startswith(f"limpet: {message}")
    assert second == (
        f"this process lacks CAP_{capability.upper()}: start limpet with all of root's rights"
        f" (in a container: --cap-add {capability.upper()}, or --privileged)"
    )
    assert result.returncode == (125 if words[0] == "run" else 1 if "setns" in message else 126)


def test_closed_descriptors_are_no_danger(limpet: Any) -> None:
    """With 2 closed, the database must not be opened as 2 and get the text of an error."""
    limpet("volume", "create", "data")
    line = shlex.join([*limpet.command, "inspect", "nosuch"]) + " <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", line], env=limpet.environment).returncode == 1
    assert limpet("system", "check").returncode == 0


def test_the_store_of_root_is_refused_to_others(limpet: Any) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    limpet("volume", "create", "data")
    code = (
        f"import sys, os; sys.path.insert(0, {str(SOURCE)!r}); from limpet.cli import main, containers;"
        "from limpet.store import unprivileged; from limpet.kernel import idmap; os.setuid(65534); main.entry()"
    )
    result = subprocess.run([sys.executable, "-c", code, "ps"], capture_output=True, text=True, env=limpet.environment)
    assert result.returncode == 1
    assert result.stderr == f"limpet: {limpet.root} is another user's\nuse sudo, or another --root\n"


def test_names_that_are_not_utf8_come_out_as_they_are(limpet: Any, busybox: str) -> None:
    limpet("run", "--name", "web", busybox, "sh", "-c", "touch $(printf '/tmp/\\377')")
    result = subprocess.run([*limpet.command, "diff", "web"], env=limpet.environment, stdout=subprocess.PIPE)
    assert b"A /tmp/\xff\n" in result.stdout


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("rnu", "run"),
        ("imgaes", "images"),
        ("stopp", "stop"),
        ("contaner", "container"),
        ("sytem", "system"),
        ("x", ""),
        ("q", ""),
        ("zzzzzz", ""),
        ("", ""),
    ],
)
def test_suggestions(word: str, meant: str) -> None:
    assert nearest(word, [*visible(), *GROUPS]) == meant


@pytest.mark.parametrize("words", [["--help"], ["image", "--help"], ["rm", "--help"]], ids=lambda words: words[0])
def test_help_texts(limpet: Any, words: list[str]) -> None:
    """tests/cli/help has them; write them anew with LIMPET_GOLDEN=1."""
    path = Path(__file__).parent / "help" / f"{words[0].strip('-')}.txt"
    text = limpet(*words).stdout
    if os.environ.get("LIMPET_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize(
    ("answer", "gone"), [("y\n", True), ("YES\n", True), ("n\n", False), ("", False), ("yy\n", False)]
)
def test_a_prune_shows_what_goes_and_asks(limpet: Any, busybox: str, answer: str, gone: bool) -> None:
    limpet("create", "--name", "old", busybox, "true")
    shown = limpet("container", "prune", input=answer).stdout
    assert "old" in shown
    assert "Are you sure you want to continue? [y/N]" in shown
    assert (limpet("ps", "-aq").stdout == "") == gone
    assert ("Total reclaimed space" in shown) == gone


LOOKING = (
    "attach", "cp", "pause", "push", "unpause", "update",
    "commit", "container inspect", "container prune", "diff", "down", "exec", "history", "image inspect", "image prune",
    "images", "info", "inspect", "kill", "logs", "port", "ps", "rename", "restart", "rm", "rmi", "save", "start",
    "stop",
    "system check", "system df", "system prune", "system recover", "tag", "top", "version", "volume inspect",
    "volume ls", "volume prune", "volume rm", "wait",
)  # fmt: skip


@pytest.mark.parametrize("name", LOOKING)
def test_a_slip_in_root_makes_nothing(limpet: Any, tmp_path: Path, name: str) -> None:
    """Only what brings something in begins a store; to the others one that is not there is empty."""
    arguments = ["-f"] if name.endswith("prune") else ["x"] * main.load(name).min_args
    arguments = {"cp": ["x:/a", "."], "update": ["--pids-limit", "9", "x"]}.get(name, arguments)
    result = limpet("--root", tmp_path / "slip", *name.split(), *arguments, check=False)
    assert result.returncode in (0, 1), result.stderr
    assert "internal" not in result.stderr
    if name != "version":
        assert f"limpet: {tmp_path}/slip: there is no store yet; nothing was made" in result.stderr.splitlines()
    assert not (tmp_path / "slip").exists()


def test_what_brings_something_in_begins_a_store(limpet: Any, tmp_path: Path) -> None:
    assert limpet("--root", tmp_path / "new", "volume", "create", "data").stdout == "data\n"
    assert limpet("--root", tmp_path / "new", "volume", "ls", "-q").stdout == "data\n"
