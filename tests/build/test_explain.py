"""`build --explain`: why a step was cached or not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.build.test_execute import build

from limpet.build.explain.compare import differences
from limpet.build.explain.parts import Parts
from limpet.build.explain.records import MOST_STEPS, Built, Done, Records
from limpet.store.store import Store


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    for name in ("a", "b"):
        (directory / name).write_text("1")
    return directory


def why(limpet: Any, context: Path, text: str, *options: str, check: bool = True) -> dict[str, list[str]]:
    """A step's number and what came of it → the reasons."""
    result = build(limpet, context, text, "--explain", *options, check=check)
    lines = iter(result.stderr.splitlines())
    assert any(line.startswith("Why") for line in lines), result.stderr
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("["):
            head = f"{line[1:].partition(']')[0]} {line.rpartition(': ')[2]}"
            found[head] = []
        elif line.startswith("      "):
            found[head].append(line.strip())
    return found


@pytest.mark.slow
def test_files_of_the_context(limpet: Any, busybox: str, context: Path) -> None:
    text = f"FROM {busybox}\nCOPY . /all/\nRUN ls /all > /made\nRUN true\n"
    (context / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    none = ["no earlier build of this Dockerfile is known here"]
    assert why(limpet, context, text) == {"1 not cached": none, "2 not cached": none, "3 not cached": none}
    assert why(limpet, context, text) == {"1 cached": [], "2 cached": [], "3 cached": []}
    (context / "a").write_text("2")
    (context / "b").chmod(0o600)
    (context / "c").write_text("new")
    before = ["step 1, which comes before it, is not what it was"]
    assert why(limpet, context, text) == {
        "1 not cached": ["a: content", "b: mode 0644 → 0600", "c: added"],
        "2 not cached": before,
        "3 not cached": before,
    }
    (context / "c").unlink()
    (context / "b").unlink()
    (context / "b").symlink_to("a")
    found = why(limpet, context, text)["1 not cached"]
    assert found == ["b: is of another kind", "c: removed"]


@pytest.mark.slow
def test_everything_else(limpet: Any, busybox: str, context: Path) -> None:
    text = (
        "ARG BASE={base}\nFROM $BASE AS one\nARG V=1\nARG TOKEN=x\nENV E=1\nRUN echo {word}\nFROM $BASE\n"
        "RUN --mount=type=bind,source={source},target=/src cat /src\nCOPY --from=one /etc/passwd /x\n"
        "WORKDIR /srv\nWORKDIR /\n"
    )
    plain = {"base": busybox, "word": "hello", "source": "a"}
    why(limpet, context, text.format(**plain))
    again = why(limpet, context, text.format(**plain))
    assert again == {f"{number} cached": [] for number in (1, 2, 3, 4)}

    assert why(limpet, context, text.format(**plain), "--build-arg", "V=2")["1 not cached"] == ["ARG V: 1 → 2"]
    secret = why(limpet, context, text.format(**plain), "--build-arg", "TOKEN=s3cr3t")["1 not cached"]
    assert secret == ["ARG TOKEN: another value", "ARG V: 2 → 1"]
    assert why(limpet, context, text.format(**{**plain, "word": "there"}))["1 not cached"] == [
        "command: /bin/sh -c echo hello → /bin/sh -c echo there",
        "ARG TOKEN: another value",
    ]
    (context / "a").write_text("2")
    found = why(limpet, context, text.format(**plain))
    assert found["2 not cached"] == ["files of mount /src: a: content"]
    other = why(limpet, context, text.format(**{**plain, "source": "b"}))["2 not cached"]
    assert other == ["mount /src: changed", "files of mount /src: a: removed", "files of mount /src: b: added"]

    epoch = why(limpet, context, text.format(**plain), "--build-arg", "SOURCE_DATE_EPOCH=86400")
    assert epoch["1 not cached"] == ["SOURCE_DATE_EPOCH: 0 → 86400"]
    assert why(limpet, context, text.format(**plain), "--no-cache")["1 not cached"] == ["--no-cache"]
    limpet("run", "--name", "cc", busybox, "touch", "/new")
    limpet("commit", "cc", "busybox:test2")
    limpet("commit", "--message", "another", "cc", "busybox:test3")
    limpet("rm", "cc")
    build(limpet, context, text.format(**plain))
    (line,) = why(limpet, context, text.format(**{**plain, "base": "busybox:test2"}))["1 not cached"]
    assert line == f"the base: {busybox} → busybox:test2"
    assert why(limpet, context, text.format(**plain))["1 cached"] == []
    limpet("tag", "busybox:test3", busybox)
    (line,) = why(limpet, context, text.format(**plain))["1 not cached"]
    assert line.startswith(f"the base {busybox} is another image: ")


@pytest.mark.slow
def test_a_build_that_failed_and_another_directory(limpet: Any, busybox: str, context: Path) -> None:
    text = f"FROM {busybox}\nRUN test -e /ready\nRUN true\n"
    assert "1 not cached" in why(limpet, context, text, check=False)
    assert why(limpet, context, text, check=False) == {"1 not cached": ["it failed the last time"]}
    text = f"FROM {busybox}\nRUN true\nCOPY a /\n"
    build(limpet, context, text)
    shutil.copytree(context, context.parent / "other")
    (context.parent / "other/a").write_text("3")
    found = why(limpet, context.parent / "other", text)
    assert found == {"1 cached": [], "2 not cached": ["a: content"]}
    for path in (limpet.root / "cache/steps").iterdir():
        path.write_bytes(b"broken")
    (context.parent / "other/a").write_text("4")
    found = why(limpet, context.parent / "other", text)
    assert found["2 not cached"] == ["something in it differs; what it was before is not known any more"]
    for path in (limpet.root / "cache/builds").iterdir():
        path.write_bytes(b"broken")
    assert why(limpet, context.parent / "other", text) == {"1 cached": [], "2 cached": []}


def test_no_value_of_a_secret_is_kept(limpet: Any, busybox: str, context: Path) -> None:
    (context / "token").write_text("s3cr3t-file")
    text = f"FROM {busybox}\nARG API_KEY\nRUN --mount=type=secret,id=t cat /run/secrets/t >/dev/null\nCOPY a /a\n"
    build(limpet, context, text, "--build-arg", "API_KEY=s3cr3t-argument", "--secret", f"id=t,src={context}/token")
    kept = [path for path in (limpet.root / "cache").rglob("*") if path.is_file()]
    assert any(path.parent.name == "steps" for path in kept)
    assert not [path for path in kept if b"s3cr3t" in path.read_bytes()]


def test_long_and_many(tmp_path: Path) -> None:
    fields = "\0".join(["100644", "0", "0", "0", "", "False", "digest"])
    one = Parts({"command": "x" * 5000 + "1"}, [("", f"/f{n:02}\0{fields}") for n in range(40)])
    two = Parts({"command": "x" * 5000 + "2"}, [])
    found = differences(one, two, lambda a, b: [])
    assert found[0] == "/f00: removed"
    assert found[10] == "and 30 more removed"
    assert found[11].startswith("command: …")
    assert len(found[11]) < 200
    bad = Parts({"command": "a\x1b[31m\0b"}, [("\x1b]0;x", f"/x\0{fields}")])
    assert not any("\x1b" in line for line in differences(bad, two, lambda a, b: []))


def test_records_are_bounded(store: Store, tmp_path: Path) -> None:
    records = Records(store, str(tmp_path), str(tmp_path / "Dockerfile"))
    for number in range(MOST_STEPS + 5):
        records.put(f"{number:064}", "0" * 64, Parts({"command": str(number)}, []))
        if number < 5:
            path = f"{store.root}/cache/steps/{'0' * 16}-{number:064}"
            os.utime(path, (number, number))
    records.shrink()
    left = os.listdir(f"{store.root}/cache/steps")
    assert len(left) == MOST_STEPS
    assert records.get(f"{4:064}", "0" * 64) is None
    found = records.get(f"{5:064}", "0" * 64)
    assert found is not None
    assert found.named == {"command": "5"}
    built = Built("b", "id", 0, (Done("k", "p", "RUN", 1, "x", True),))
    records.save({"one": built})
    again = Records(store, str(tmp_path), str(tmp_path / "Dockerfile"))
    assert again.stages == {"one": built}
    again.save({"two": built})
    assert set(Records(store, str(tmp_path), str(tmp_path / "Dockerfile")).stages) == {"one", "two"}
    assert Records(store, str(tmp_path), str(tmp_path / "Other")).stages == {}
