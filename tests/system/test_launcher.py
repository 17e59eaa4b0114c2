"""The two ways to have limpet: the launcher of a checkout, and an installed wheel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
VERSION = "limpet version"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a clone has that the launcher needs, without a virtual environment."""
    target = tmp_path / "checkout"
    target.mkdir()
    for name in ("limpet", "requirements.lock"):
        shutil.copy(ROOT / name, target)
    shutil.copytree(ROOT / "tools", target / "tools")
    shutil.copytree(ROOT / "src", target / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return target


@pytest.mark.slow
def test_the_first_run_installs_once_also_when_two_start_at_once(checkout: Path) -> None:
    both = [
        subprocess.Popen(["./limpet", "--version"], cwd=checkout, stdout=-1, stderr=-1, text=True) for _ in range(2)
    ]
    results = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert all(out.startswith(VERSION) for out, _ in results), results
    assert sum("installing Python packages" in err for _, err in results) == 1

    start = time.monotonic()
    again = subprocess.run(["./limpet", "--version"], cwd=checkout, capture_output=True, text=True)
    assert again.returncode == 0
    assert again.stderr == ""
    assert time.monotonic() - start < 5

    link = checkout / "elsewhere"
    link.symlink_to(checkout / "limpet")
    assert subprocess.run([link, "--version"], cwd="/", capture_output=True, text=True).stdout.startswith(VERSION)


@pytest.mark.slow
def test_an_installation_killed_half_way_is_done_again(checkout: Path) -> None:
    first = subprocess.Popen(["./limpet", "--version"], cwd=checkout, stderr=-1, text=True, start_new_session=True)
    site_packages = checkout / ".venv/lib"
    while not any(site_packages.glob("*/site-packages/*/")):
        assert first.poll() is None, "the installation ended before it could be killed"
        os.sched_yield()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert not (checkout / ".venv/ready").exists()
    again = subprocess.run(["./limpet", "--version"], cwd=checkout, capture_output=True, text=True, timeout=300)
    assert again.stdout.startswith(VERSION), again.stderr


def test_a_python_that_is_too_old_is_named(checkout: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho /usr/bin/python3.9 False\n")
    old.chmod(0o755)
    environment = {**os.environ, "LIMPET_PYTHON": str(old)}
    result = subprocess.run(["./limpet", "ps"], cwd=checkout, env=environment, capture_output=True, text=True)
    assert result.returncode == 125
    assert result.stderr == (
        "limpet: needs Python 3.11 or newer as python3 (found: /usr/bin/python3.9); set LIMPET_PYTHON to one\n"
    )


@pytest.mark.slow
def test_an_installed_wheel_runs_a_container(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(tmp_path / "dist"), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    install = [venv / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    environment = {**os.environ, "LIMPET_ROOT": str(tmp_path / "root")}

    def limpet(*args: str) -> str:
        result = subprocess.run([venv / "bin/limpet", *args], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert limpet("--version").startswith(VERSION)
    limpet("capture", "limpet/host")
    assert limpet("run", "--rm", "limpet/host", "echo", "hello") == "hello\n"


@pytest.fixture
def readable(checkout: Path) -> Iterator[Path]:
    """The checkout where everybody can read it: pytest's own directories are root's alone."""
    place = Path(tempfile.mkdtemp(prefix="limpet-test-"))
    place.chmod(0o755)
    shutil.copytree(checkout, place / "checkout")
    yield place / "checkout"
    shutil.rmtree(place)


@pytest.mark.parametrize("hindrance", ["unreachable", "refused", "library"])
def test_somebody_who_may_not_run_its_python_gets_one_clear_line(readable: Path, hindrance: str) -> None:
    interpreter = readable.parent / "private/python3"
    interpreter.parent.mkdir(mode=0o700)
    (readable / ".venv/bin").mkdir(parents=True)
    python = readable / ".venv/bin/python"
    if hindrance == "unreachable":
        interpreter.symlink_to(sys.executable)
        python.symlink_to(interpreter)
    elif hindrance == "refused":  # it may be executed itself, and executes what may not be (pyenv's are such scripts)
        interpreter.symlink_to(sys.executable)
        python.write_text(f'#!/bin/sh\nexec {interpreter} "$@"\n')
        python.chmod(0o755)
    else:
        python.write_text("#!/bin/sh\necho 'error while loading shared libraries: libpython' >&2; exit 127\n")
        python.chmod(0o755)
    (readable / ".venv/ready").touch()
    for words in (["ps"], ["--help"]):
        result = subprocess.run([readable / "limpet", *words], user=65534, group=65534, capture_output=True, text=True)
        assert result.returncode == 125
        assert result.stderr == (
            f"limpet: nobody can't run {python}; its owner makes {readable}/.venv anew with"
            " LIMPET_PYTHON=/usr/bin/python3\n"
        )


def test_a_python_that_is_gone_is_said(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to("/nowhere/python3")
    (checkout / ".venv/ready").touch()
    result = subprocess.run(["./limpet", "ps"], cwd=checkout, capture_output=True, text=True)
    assert result.returncode == 125
    assert result.stderr == (
        "limpet: the Python of ./.venv is gone; delete that directory, and the next run makes it again\n"
    )


def test_somebody_who_may_not_install_gets_one_clear_line(readable: Path) -> None:
    environment = {**os.environ, "LIMPET_PYTHON": "/usr/bin/python3"}
    command = [readable / "limpet", "ps"]
    result = subprocess.run(command, user=65534, group=65534, env=environment, capture_output=True, text=True)
    assert result.returncode == 125
    assert result.stderr == (
        f"limpet: {readable}/.venv can't be made by nobody: let the owner of the checkout run limpet once\n"
    )
