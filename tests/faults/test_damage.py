"""A store that somebody damaged, moved, or made read-only: one line that says what is wrong, and a way out."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Limpet = Any


def plain(result: Any) -> Any:
    """An error of ours, not an accident."""
    for word in ("internal error", "Traceback", "Errno", "KeyError", "JSONDecode"):
        assert word not in result.stderr, f"{result.args}: {result.stderr}"
    return result


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, "gone") for name in ("upper", "work", "rootfs", "hosts", "log")),
        *(
            (name, how)
            for name in ("image.json", "config.json", "mounts.json", "status")
            for how in ("gone", "garbage")
        ),
        ("upper", "garbage"),
        ("status", "empty"),
    ],
)
def test_a_half_deleted_container(limpet: Limpet, busybox: str, name: str, how: str) -> None:
    limpet("run", "--name", "box", "-v", "/anonymous", busybox, "echo", "said")
    (directory,) = (limpet.root / "containers").iterdir()
    path = directory / (f"{directory.name}-json.log" if name == "log" else name)
    if path.is_dir():
        shutil.rmtree(path)
        if how != "gone":
            path.write_text("" if how == "empty" else "garbage")
    else:
        path.unlink()
        if how != "gone":
            path.write_text("" if how == "empty" else '{"state": 5, "x": [')
    for words in (
        ("ps", "-a"),
        ("inspect", "box"),
        ("logs", "box"),
        ("diff", "box"),
        ("system", "df"),
        ("system", "check"),
    ):
        plain(limpet(*words, check=False))
    started = plain(limpet("start", "-a", "box", check=False))
    if started.returncode:
        assert "limpet: " in started.stderr
    plain(limpet("ps", "-a"))
    plain(limpet("rm", "-f", "-v", "box"))
    assert limpet("ps", "-aq").stdout == ""
    assert limpet("run", "--rm", "--name", "box", busybox, "echo", "again").stdout == "again\n"
    limpet("system", "prune", "-f", "garbage")
    assert limpet("system", "check").stdout == "nothing is wrong\n"


@pytest.mark.parametrize("how", ["directory gone", "data gone", "index gone", "data cut", "index cut", "data empty"])
def test_a_half_deleted_layer(limpet: Limpet, busybox: str, how: str) -> None:
    limpet("create", "--name", "box", busybox, "true")
    (layer,) = [path for path in (limpet.root / "layers").iterdir() if path.is_dir()]
    name, _, what = how.partition(" ")
    if name == "directory":
        shutil.rmtree(layer)
    elif not (layer / name).exists():
        pytest.skip(f"the driver has no {name}")
    elif what == "gone":
        (layer / name).unlink()
    else:
        os.truncate(layer / name, (layer / name).stat().st_size // 2 if what == "cut" else 0)
    for words in (("run", "--rm", busybox, "true"), ("start", "-a", "box")):
        result = plain(limpet(*words, check=False))
        if result.returncode:
            assert result.stderr.startswith("limpet: ")
    for words in (("images",), ("ps", "-a"), ("history", busybox), ("system", "df")):
        plain(limpet(*words))
    checked = plain(limpet("system", "check", check=False))
    if name != "index":  # which is made again by whoever misses it
        assert checked.returncode == 1
        assert checked.stdout != "nothing is wrong\n"
    plain(limpet("system", "check", "--repair", check=False))
    plain(limpet("rm", "-f", "box"))
    if plain(limpet("run", "--rm", busybox, "true", check=False)).returncode:
        plain(limpet("rmi", "-f", busybox))
        limpet("system", "prune", "-af")
        assert limpet("system", "check").stdout == "nothing is wrong\n"


def test_a_store_that_was_moved(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """Nothing in it names the place where it was."""
    limpet("volume", "create", "named")
    script = "cat /v/file /a/file /file 2>/dev/null; date >/v/file; date >/a/file; date >/file"
    limpet("run", "--name", "box", "-v", "named:/v", "-v", "/a", busybox, "sh", "-c", script)
    moved = tmp_path / "moved"
    limpet.root.rename(moved)
    environment = {**limpet.environment, "LIMPET_ROOT": str(moved), "LIMPET_RUN": f"{moved}/run"}

    def there(*words: str) -> str:
        result = subprocess.run([*limpet.command, *words], env=environment, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        return result.stdout

    try:
        assert there("start", "-a", "box").count("\n") == 3
        assert there("run", "--rm", "-v", "named:/v", busybox, "cat", "/v/file")
        assert there("system", "check") == "nothing is wrong\n"
        assert str(limpet.root) not in there("inspect", "box")
        assert not limpet.root.exists()
    finally:
        there("rm", "-f", "-v", "box")


def test_a_read_only_store(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """What only looks works; what changes something says why it can't, and nothing breaks."""
    limpet("run", "--name", "box", busybox, "echo", "said")

    def read_only(*words: str) -> Any:
        mount = f'mount --bind {limpet.root} {limpet.root} && mount -o remount,bind,ro {limpet.root} && exec "$@"'
        return plain(
            subprocess.run(
                ["unshare", "-m", "sh", "-c", mount, "sh", *limpet.command, *words],
                env={**limpet.environment, "LIMPET_RUN": str(tmp_path / "run")},
                capture_output=True,
                text=True,
                timeout=60,
            )
        )

    for words, expected in (
        (("ps", "-a", "--format", "{{.Names}}"), "box\n"),
        (("images", "--format", "{{.Repository}}"), "busybox\n"),
        (("logs", "box"), "said\n"),
        (("inspect", "-f", "{{.State.Status}}", "box"), "exited\n"),
    ):
        result = read_only(*words)
        assert (result.returncode, result.stdout) == (0, expected), (words, result.stderr)
    for words in (
        ("run", "--rm", busybox, "true"),
        ("start", "box"),
        ("rm", "-f", "box"),
        ("tag", busybox, "other:1"),
        ("rmi", "-f", busybox),
        ("volume", "create", "x"),
        ("commit", "box", "made:1"),
        ("system", "prune", "-af"),
    ):
        result = read_only(*words)
        assert result.returncode in (1, 125), words
        assert "read-only" in result.stderr.lower() or "readonly" in result.stderr.lower(), (words, result.stderr)
    assert limpet("start", "-a", "box").stdout == "said\n"
    assert limpet("system", "check").stdout == "nothing is wrong\n"
