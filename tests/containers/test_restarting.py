"""When a container is started again, and what a command may say about it while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from limpet.containers import restarting, state
from limpet.containers.options import Options
from limpet.store.store import Store


@pytest.mark.parametrize(
    ("policy", "code", "restarts", "whatever", "again"),
    [
        ("no", 1, 0, False, False),
        ("no", 1, 0, True, True),
        ("always", 0, 99, False, True),
        ("unless-stopped", 0, 0, False, True),
        ("on-failure", 0, 0, False, False),
        ("on-failure", 1, 99, False, True),
        ("on-failure:2", 1, 1, False, True),
        ("on-failure:2", 1, 2, False, False),
        ("on-failure:2", 0, 2, True, True),
    ],
)
def test_policies(tmp_path: Path, policy: str, code: int, restarts: int, whatever: bool, again: bool) -> None:
    options = Options(restart=policy)
    assert restarting.wanted(options, str(tmp_path), code, restarts, whatever=whatever) is again
    (tmp_path / "stopped").touch()
    assert restarting.wanted(options, str(tmp_path), code, restarts, whatever=whatever) is False


def test_the_delay_grows_and_begins_anew() -> None:
    delays = [restarting.FIRST_DELAY]
    for _ in range(12):
        delays.append(restarting.delay(delays[-1], 0.5))
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60
    assert restarting.delay(60, 11) == 0.1


def test_a_word_is_taken_up(store: Store) -> None:
    container = state.Container("a" * 64, "old", None, "x", [], 0.0, Options(restart="no"))
    restarting.leave_word(store, container)  # no run directory: nobody is there to read it
    run = store.run_path(container.id)
    Path(run).mkdir(parents=True)
    assert restarting.take_word(container, run) is False
    other = state.Container("a" * 64, "new", None, "x", [], 0.0, Options(restart="always", limits={"memory": 1}))
    restarting.leave_word(store, other)
    assert restarting.take_word(container, run) is True
    assert (container.name, container.options.restart, container.options.limits) == ("new", "always", {"memory": 1})
    older = '{"name": "newer", "limits": {}, "restart": "no"}'  # what a limpet without "options" leaves
    Path(run, "updated").write_text(older)
    assert restarting.take_word(container, run) is True
    assert (container.name, container.options.restart, container.options.limits) == ("newer", "no", {})
    Path(run, "updated").write_text("half a li")
    assert restarting.take_word(container, run) is False
