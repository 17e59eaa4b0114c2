"""How a build shows itself: on a terminal of any width, in a pipe, quiet, as JSON; and what is left after a failure."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import stat
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import pytest
from tests.cli.terminal import Session

from limpet.cli.building import screen

pytestmark = pytest.mark.slow

HOSTILE = r"printf '\033[2J\033[H\033]0;title\007\033[31mred\033P1\033\\\r\t\342\200\256\233K\377end\n'"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def session(limpet: Any, context: Path, dockerfile: str, *options: str, columns: int = 80, rows: int = 24) -> Session:
    (context / "Dockerfile").write_text(dockerfile)
    return Session([*limpet.command, "build", *options, str(context)], limpet.environment, columns, rows)


def build(limpet: Any, context: Path, dockerfile: str, *options: str, check: bool = True) -> Any:
    (context / "Dockerfile").write_text(dockerfile)
    return limpet("build", *options, context, check=check)


def test_a_terminal_shows_what_goes_on_and_keeps_what_is_done(limpet: Any, busybox: str, context: Path) -> None:
    text = (
        f"FROM {busybox} AS tools\nRUN echo 漢字 first; {HOSTILE}; mkfifo /p; echo waiting; sleep 0.7\n"
        f"FROM {busybox}\nCOPY --from=tools /bin/sh /sh\nRUN true\n"
    )
    shown = session(limpet, context, text)
    shown.see(lambda screen: "│ waiting" in screen)
    lines = shown.screen.text()
    assert any(re.match(r"Building \d", line) for line in lines)
    assert " tools: 0 of 1 done" in lines
    assert any(re.match(r"• +[\d.]+ s +\[1/3\] RUN echo 漢字", line) for line in lines)
    assert "    │ 漢字 first" in lines
    assert "    │     �K�end" in lines, "what follows the last carriage return"
    assert shown.end() == 0
    lines = shown.screen.text()
    assert not any("│" in line or line.startswith("•") for line in lines), "nothing of the region stays"
    done = [line for line in lines if line.startswith("✓")]
    assert len(done) == 3
    assert re.match(r"✓ +[\d.]+ s +[\d.]+kB \[1/3\] tools: RUN echo 漢字 first; .*…$", done[0]), done
    assert re.match(r"✓ +[\d.]+ s +[\d.]+[kM]B \[2/3\] stage-1: COPY --from=tools /bin/sh /sh$", done[1]), done
    assert re.match(r"✓ +[\d.]+ s +[\d.]+kB \[3/3\] stage-1: RUN true$", done[2]), done
    assert any(re.fullmatch(r"3 steps in [\d.]+ s: 3 ran; [\d.]+[kM]B of new layers", line) for line in lines)
    again = session(limpet, context, text)
    assert again.end() == 0
    lines = again.screen.text()
    assert next(line[:40] for line in lines if line.startswith("✓")) == "✓    cached         [1/3] tools: RUN ech"
    assert any(re.search(r"3 cached \(that saved .* s\)", line) for line in lines)


@pytest.mark.parametrize(("before", "after"), [(100, 30), (30, 100), (12, 7)])
def test_a_window_that_is_resized_or_narrow(limpet: Any, busybox: str, context: Path, before: int, after: int) -> None:
    begin = "RUN echo begin of a line that is longer than the window is wide, and then some more of it; echo there; "
    text = f"FROM {busybox}\n{begin}sleep 0.6; echo {'漢' * 40}; echo over; sleep 0.6\n"
    shown = session(limpet, context, text, columns=before)
    shown.see(lambda screen: "│ ther" in screen or "│ th" in screen or "│ …" in screen)
    shown.resize(after)
    shown.see(lambda screen: "│ over" in screen or screen.count("│") > 3 or screen.count("│ …") > 3)
    lines = shown.screen.text()
    assert sum(line.startswith("Build") for line in lines) == 1, lines
    assert sum(line.startswith("•") for line in lines) == 1, lines
    assert shown.end() == 0
    lines = shown.screen.text()
    assert sum(line.startswith("✓") for line in lines) == 1
    assert not any("│" in line or line.startswith(("•", "Building")) for line in lines), lines


def test_a_low_window_shows_as_many_lines_as_it_has(limpet: Any, busybox: str, context: Path) -> None:
    shown = session(limpet, context, f"FROM {busybox}\nRUN seq 50; sleep 0.5\n", rows=5)
    shown.see(lambda screen: "│ 50" in screen)
    lines = shown.screen.text()
    assert "    │ 49" in lines
    assert "    │ 48" not in lines
    assert shown.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_the_terminal_as_it_was(limpet: Any, busybox: str, context: Path, number: int) -> None:
    shown = session(limpet, context, f"FROM {busybox}\nRUN echo there; sleep 60\n")
    shown.see(lambda screen: "│ there" in screen)
    assert shown.state() == shown.before
    os.kill(shown.process.pid, number)
    shown.process.wait(30)
    assert shown.state() == shown.before
    code = shown.end()
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    assert b"?25l" not in shown.raw, "the cursor is never hidden, so that nobody has to bring it back"
    assert shown.screen.column == 0
    for container in limpet("ps", "-aq").stdout.split():
        limpet("rm", "-f", container)


def test_the_whole_output_of_a_step_that_failed_is_kept(limpet: Any, busybox: str, context: Path) -> None:
    failing = f"FROM {busybox}\nRUN \\\n  seq 100000 && \\\n  false\nRUN true\n"
    path = os.path.relpath(context / "Dockerfile")
    quiet = build(limpet, context, failing, "-q", check=False)
    assert quiet.returncode == 1
    assert quiet.stdout == ""
    lines = quiet.stderr.splitlines()
    assert lines[0].startswith("------ the end of what [1/2] RUN")
    assert lines[30] == "100000"
    log = Path(lines[31].removeprefix("------ all of it: "))
    assert lines[32:-1] == [
        f"{path}:2",
        f"1 |     FROM {busybox}",
        "2 | >>> RUN \\",
        "3 | >>>   seq 100000 && \\",
        "4 | >>>   false",
        "5 |     RUN true",
    ]
    assert lines[-1].startswith(f"limpet: {path}:2:1: the command failed with exit code 1 >>> RUN")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    kept = log.read_text().splitlines()
    assert [line for line in kept if line.isdigit()] == [str(number) for number in range(1, 100001)]
    assert limpet("system", "check").returncode == 0
    plain = build(limpet, context, failing, check=False).stderr.splitlines()
    assert "100000" in plain, "shown as it came"
    assert "------" not in " ".join(plain), "so it is not said twice"
    for _ in range(11):
        build(limpet, context, f"FROM {busybox}\nRUN echo x\n", "-q", "--no-cache")
    assert len(list(log.parent.glob("*.log"))) == 10
    old = min(log.parent.glob("*.log"))
    os.utime(old, (0, 0))
    assert limpet("system", "df", "-v").returncode == 0
    limpet("system", "prune", "-f")
    assert not old.exists()
    assert len(list(log.parent.glob("*.log"))) == 9
    limpet("cache", "prune", "-af")
    assert not log.parent.exists()


def test_lines_of_several_stages_say_whose_they_are(limpet: Any, busybox: str, context: Path) -> None:
    text = f"FROM {busybox} AS a\nRUN printf 'one\\ntwo'\nFROM {busybox}\nCOPY --from=a /bin /x\nRUN echo three\n"
    lines = build(limpet, context, text).stderr.splitlines()
    assert {"#1 one", "#1 two", "#3 three"} <= set(lines)
    assert lines.index("[1/3] a: RUN printf 'one\\ntwo'") < lines.index("#1 one") < lines.index("#1 two")


def test_quiet_is_the_id_alone(limpet: Any, busybox: str, context: Path) -> None:
    text = f"FROM {busybox} as x\nRUN echo loud; echo louder >&2\n"
    for option in ("-q", "--progress=quiet"):
        done = build(limpet, context, text, option, "--no-cache")
        assert done.stderr == ""
        assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.stdout)


def test_raw_json_has_the_shape_of_buildkit_s(limpet: Any, busybox: str, context: Path) -> None:
    text = f"FROM {busybox} as a\nRUN printf 'out\\377'; echo err >&2\nFROM {busybox}\nCOPY --from=a /bin/sh /x\n"
    done = build(limpet, context, text, "--progress=rawjson")
    rows = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(set(row) <= {"vertexes", "statuses", "logs", "warnings"} for row in rows)
    last = {each["digest"]: each for row in rows for each in row.get("vertexes", ())}
    first, second = (each for each in last.values() if not each["name"].startswith("[internal]"))
    (internal,) = (each for each in last.values() if each["name"] == "[internal] build")
    assert internal["completed"] >= second["completed"]
    assert second["inputs"] == [first["digest"]]
    assert first["name"] == "[a 1/2] RUN printf 'out\\377'; echo err >&2"
    assert first["started"] < first["completed"] <= second["completed"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["started"])
    assert first["result"] == "ran"
    assert first["layer"].startswith("sha256:")
    assert first["size"] > 0
    assert 0 <= first.get("cpu", 0) < 5
    logs = [each for row in rows for each in row.get("logs", ()) if each["vertex"] == first["digest"]]
    said = {stream: b"".join(base64.b64decode(e["data"]) for e in logs if e["stream"] == stream) for stream in (1, 2)}
    assert said == {1: b"out\377", 2: b"err\n"}
    (warning,) = [each for row in rows for each in row.get("warnings", ())]
    assert b"FromAsCasing" in base64.b64decode(warning["short"])
    assert warning["range"][0]["start"]["line"] == 1
    assert warning["vertex"] == internal["digest"]
    cached = build(limpet, context, text, "--progress=rawjson").stderr.splitlines()
    ended = [json.loads(line)["vertexes"][0] for line in cached if "completed" in line]
    assert [each.get("cached", False) for each in ended] == [True, True, False]
    failed = build(limpet, context, f"FROM {busybox}\nRUN exit 3\n", "--progress=rawjson", check=False)
    rows = [json.loads(line) for line in failed.stderr.splitlines() if line.startswith("{")]
    assert rows[-1]["vertexes"][0]["error"] == "the command failed with exit code 3"


def test_secrets_are_masked_wherever_output_goes(limpet: Any, busybox: str, context: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("swordfish-4711\n")
    run = "RUN --mount=type=secret,id=s printf swordfi; sleep 0.1; echo sh-4711 swordfish; cat /run/secrets/s; false"
    for option in ("--progress=plain", "-q", "--progress=rawjson"):
        done = build(limpet, context, f"FROM {busybox}\n{run}\n", option, "--secret", f"id=s,src={secret}", check=False)
        said = done.stderr
        if option.endswith("rawjson"):
            rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
            logs = [each for row in rows for each in row.get("logs", ())]
            said = b"".join(base64.b64decode(each["data"]) for each in logs).decode()
        assert "*** swordfish\n***" in said
        assert "swordfish-4711" not in said
    (log,) = (limpet.root / "builds").glob("*.log")
    assert "*** swordfish\n***\n" in log.read_text()
    assert "swordfish-4711" not in log.read_text()


def test_the_profile_is_a_picture_and_a_trace(limpet: Any, busybox: str, context: Path, tmp_path: Path) -> None:
    text = f"FROM {busybox} AS a\nRUN sleep 0.2 && : '<&\"]]>'\nFROM {busybox}\nCOPY --from=a /bin/sh /x\n"
    svg, trace = tmp_path / "p.svg", tmp_path / "p.json"
    build(limpet, context, text, "--profile", str(svg), "--profile", str(trace))
    tree = xml.parse(svg)
    bars = [each for each in tree.iter("{http://www.w3.org/2000/svg}rect") if each.get("class") == "ran"]
    assert len(bars) == 2
    assert float(bars[0].get("width") or 0) > float(bars[1].get("width") or 0)
    assert any('<&"]]>' in (each.text or "") for each in tree.iter("{http://www.w3.org/2000/svg}text"))
    events = json.loads(trace.read_text())["traceEvents"]
    steps = [each for each in events if each["ph"] == "X" and each["cat"] == "ran"]
    assert [each["name"][:10] for each in steps] == ["[1/2] RUN ", "[2/2] COPY"]
    assert steps[0]["dur"] >= 200_000
    assert steps[1]["ts"] >= steps[0]["ts"] + steps[0]["dur"]
    assert {each["args"]["name"] for each in events if each["ph"] == "M"} == {"a", "stage-1"}
    wrong = build(limpet, context, text, "--profile", "x.png", check=False)
    assert wrong.stderr.splitlines()[0] == "limpet: --profile x.png: .svg or .json is wanted at its end"


def test_what_can_t_be_shown_is_said(limpet: Any, busybox: str, context: Path) -> None:
    wrong = build(limpet, context, f"FROM {busybox}\n", "--progress=tty", check=False)
    assert wrong.stderr.splitlines()[0] == "limpet: --progress=tty: standard error is not a terminal"
    wrong = build(limpet, context, f"FROM {busybox}\n", "--progress=fancy", check=False)
    assert "fancy" in wrong.stderr


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("a\x1b[31;1mred\x1b[0m", "ared"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jx\x1bcy\x1b", "xy"),
        ("a\tb\x00\x7f\u202e", "a    b"),
        ("\x1bPq#0\x1b\\z", "z"),
        ("a\u3000b\xa0c", "a\u3000b\xa0c"),
    ],
)
def test_nothing_that_a_terminal_would_obey(text: str, clean: str) -> None:
    assert screen.harmless(text) == clean


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("漢字漢", 5, "漢字…"),
        ("漢字漢", 4, "漢…"),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"),
    ],
)
def test_a_line_is_as_wide_as_it_looks(text: str, room: int, shown: str) -> None:
    assert screen.cut(text, room) == shown
    assert screen.width(screen.cut(text, room)) <= room


def test_the_last_lines_of_output_in_pieces() -> None:
    lines = screen.Lines(3)
    for piece in (b"one\ntw", b"o\n10%\r20%", b"\r30%\n", "漢".encode()[:1], "漢".encode()[1:] + b"\n"):
        lines.feed(piece)
    assert lines.last(9) == ["two", "30%", "漢"]
    assert lines.last(1) == ["漢"]
    assert lines.last(0) == []


def test_the_last_lines_are_the_same_however_output_is_cut() -> None:
    data = b"".join(b"%d %b\r%d\n" % (number, "漢".encode() * (number % 7), number) for number in range(500)) + b"end"
    for size in (1, 2, 7, 100, 1000, len(data)):
        lines = screen.Lines(4)
        for at in range(0, len(data), size):
            lines.feed(data[at : at + size])
        assert lines.last(4) == ["497", "498", "499", "end"], size


def test_stages_at_the_same_time_and_what_becomes_of_them_when_one_fails(
    limpet: Any, busybox: str, context: Path
) -> None:
    text = (
        f"FROM {busybox} AS a\nRUN echo from a; sleep 60\nFROM {busybox} AS b\nRUN echo from b; sleep 1; exit 3\n"
        f"FROM {busybox}\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n"
    )
    shown = session(limpet, context, text)
    shown.see(lambda screen: "│ from a" in screen and "│ from b" in screen)
    lines = [line for line in shown.screen.text() if line]
    assert [re.sub(r"[\d.]+ s\b", "TIME", line) for line in lines] == [
        "Building TIME, 0 of 4 steps",
        " a: 0 of 1 done",
        "•    TIME         [1/4] RUN echo from a; sleep 60",
        "    │ from a",
        " b: 0 of 1 done",
        "•    TIME         [2/4] RUN echo from b; sleep 1; exit 3",
        "    │ from b",
    ]
    assert shown.end() == 1
    lines = shown.screen.text()
    assert any(re.match(r"✗ +[\d.]+ s +\[2/4\] b: RUN echo from b", line) for line in lines)
    assert "- cancelled         [1/4] a: RUN echo from a; sleep 60" in lines
    at = lines.index("------ the end of what [2/4] b: RUN echo from b; sleep 1; exit 3 wrote:")
    assert lines[at + 1] == "from b"
    assert "4 | >>> RUN echo from b; sleep 1; exit 3" in lines
