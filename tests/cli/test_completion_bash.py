"""bash cuts words at = and :, and gives the whole line besides: what is offered must fit what bash replaces."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

BREAKS = " \t\n\"'><=;|&(:"


def cut(line: str) -> list[str]:
    """COMP_WORDS of bash for a line without quotes; the last word is the one at the cursor."""
    words, now = [], ""
    for c in line:
        if c in " =:":
            words += [now] if now else []
            words += [c] if c != " " else []
            now = ""
        else:
            now += c
    return [*words, now] if now or line.endswith(" ") else words


@pytest.fixture
def offered(limpet: Any, busybox: str, tmp_path: Path) -> Any:
    """`offered("limpet rmi bu")`: what the function puts into COMPREPLY."""
    script = tmp_path / "completion.bash"
    script.write_text(limpet("completion", "bash").stdout)
    launcher = tmp_path / "bin/limpet"
    launcher.parent.mkdir()
    launcher.write_text("#!/bin/sh\nexec " + shlex.join(limpet.command) + ' "$@"\n')
    launcher.chmod(0o755)
    limpet("tag", busybox, "localhost:5000/a/b:1")
    limpet("create", "--name", "web", busybox, "true")
    limpet("create", "--name", "job", busybox, "true")

    def ask(line: str) -> list[str]:
        words = cut(line)
        code = (
            f"PATH={tmp_path}/bin:$PATH; source {script}; COMP_WORDBREAKS={shlex.quote(BREAKS)}; COMP_LINE={line!r};"
            f" COMP_POINT={len(line)}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _limpet;"
            " printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        result = subprocess.run(["bash", "-c", code], env=limpet.environment, capture_output=True, text=True)
        assert result.stderr == ""
        return result.stdout.split()

    return ask


def test_what_bash_replaces(offered: Any, busybox: str) -> None:
    assert offered("limpet rmi ") == ["busybox:test", "localhost:5000/a/b:1"]
    assert offered("limpet rmi localhost:50") == ["5000/a/b:1"]
    assert offered("limpet rmi localhost:") == ["5000/a/b:1"]
    assert offered("limpet rmi localhost:5000/a/b:") == ["1"]
    assert offered("limpet run --network=") == ["host", "none", "private", "bridge"]
    assert offered("limpet run --network=n") == ["none"]
    assert offered("limpet run --network n") == ["none"]
    assert offered("limpet run -e A=1 --network=host bu") == ["busybox:test"]
    assert offered("limpet inspect ") == ["job", "web", "busybox:test", "localhost:5000/a/b:1"]
    assert offered("limpet rm web ") == ["job"]
    assert offered("limpet cp w") == ["web:"]
    assert offered("limpet start --detach-keys=a w") == ["web"]
    assert offered("limpet completion ") == ["bash", "zsh", "fish"]
    assert offered("limpet help im") == ["images", "import", "image"]


def test_looking_makes_no_store(limpet: Any, offered: Any, tmp_path: Path) -> None:
    assert offered(f"limpet -D --root {tmp_path}/nowhere inspect ") == []
    assert not (tmp_path / "nowhere").exists()
