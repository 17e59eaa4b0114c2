"""docs/docker-flags.md: each option of `docker run` and `podman run` is what the table says, and none is missing."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.cli import flags

from limpet.cli import main, missing
from limpet.cli.commands import ALIASES, COMMANDS, GROUPS

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs/docker-flags.md"


@pytest.fixture
def clients() -> None:
    if not (shutil.which("docker") and shutil.which("podman")):
        pytest.skip("needs the clients docker and podman, whose helps are compared")


def run_all(limpet: Any, table: dict[str, flags.Flag], filled: dict[str, str], target: list[str]) -> dict[str, Any]:
    """Those that are refused in this process, the others a few at a time."""
    refused = {name for name, flag in table.items() if flag.state == flags.REFUSED}
    found = {name: flags.outcome(limpet, name, table[name], filled, target) for name in refused}
    with ThreadPoolExecutor(3) as pool:
        rest = [name for name in table if name not in refused]
        found.update(
            zip(
                rest, pool.map(lambda name: flags.outcome(limpet, name, table[name], filled, target), rest), strict=True
            )
        )
    return found


def test_every_option_has_the_class_that_the_table_says(
    limpet: Any, busybox: str, tmp_path: Path, clients: None
) -> None:
    """One store for all of them: a run is a tenth of a second."""
    filled = flags.prepare(limpet, busybox, tmp_path)
    try:
        found = run_all(limpet, flags.FLAGS, filled, ["run", busybox])
        inside = run_all(limpet, flags.EXEC, filled, ["exec", "flags-base"])
    finally:
        flags.clean(limpet)
    problems = [outcome.problem for outcome in (*found.values(), *inside.values()) if outcome.problem]
    assert not problems, "\n".join(problems)
    reasons, exec_reasons = ({name: each.reason for name, each in these.items()} for these in (found, inside))
    assert PAGE.read_text() == flags.page(reasons, exec_reasons, flags.sources()), "python -m tests.cli.flags"


def test_no_option_of_the_clients_is_missing(clients: None) -> None:
    for client in ("docker", "podman"):
        assert set(flags.theirs(client, "run")) <= set(flags.FLAGS)
        assert set(flags.theirs(client, "create")) <= set(flags.FLAGS)
        assert set(flags.theirs(client, "exec")) <= set(flags.EXEC)
    assert set(flags.NEWER) <= set(flags.FLAGS)


def test_every_command_is_there_or_says_what_is_instead(limpet: Any, clients: None) -> None:
    for name in sorted({*flags.commands("docker"), *flags.commands("podman")}):
        if name in {*COMMANDS, *ALIASES}:
            assert main.load(name).summary
        elif name not in GROUPS:
            result = limpet(name, check=False)
            assert result.returncode == 1
            assert missing.command(name) == result.stderr.splitlines()[1] != ""
