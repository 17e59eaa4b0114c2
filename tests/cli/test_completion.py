"""Completion, asked as each shell asks."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from typing import Any

import pytest


def words(limpet: Any, *typed: str) -> list[str]:
    return [line.partition("\t")[0] for line in limpet("__complete", "--", *typed).stdout.splitlines()]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["ru"], ["run"]),
        (["image", "p"], ["prune", "pull", "push"]),
        (["run", "--rm", "--inter"], ["--interactive"]),
        (["run", "--isolate", ""], ["default", "light", "none", "strict"]),
        (["run", "--restart", "on"], ["on-failure"]),
        (
            ["run", "--restart="],
            ["--restart=no", "--restart=on-failure", "--restart=always", "--restart=unless-stopped"],
        ),
        (["update", "--restart", "u"], ["unless-stopped"]),
        (["exec", "box", ""], []),
        (["run", "busybox", ""], []),
        (["--roo"], ["--root"]),
        (["--root", "/x", "vers"], ["version"]),
        (["build", ""], [":files"]),
        (["run", "--env-file", ""], [":files"]),
        (["nonsense", ""], []),
        (["ps", ""], []),
    ],
)
def test_commands_options_and_values(limpet: Any, typed: list[str], expected: list[str]) -> None:
    assert sorted(words(limpet, *typed)) == sorted(expected)


def test_names_of_containers_images_and_volumes(limpet: Any, busybox: str) -> None:
    limpet("create", "--name", "web", "-v", "data:/data", busybox, "true")
    assert words(limpet, "logs", "") == ["web"]
    assert words(limpet, "run", "-it", "busy") == ["busybox:test"]
    assert words(limpet, "volume", "rm", "") == ["data"]
    assert words(limpet, "container", "rm", "-f", "w") == ["web"]


def test_containers_that_the_command_can_do_something_to(limpet: Any, busybox: str) -> None:
    limpet("create", "--name", "made", busybox, "true")
    limpet("run", "--name", "over", busybox, "true")
    for name in ("runs", "still"):
        limpet("run", "-d", "--name", name, busybox, "sleep", "1000")
    limpet("pause", "still")
    assert words(limpet, "start", "") == ["made", "over"]
    assert words(limpet, "stop", "") == words(limpet, "exec", "-it", "") == ["runs", "still"]
    assert words(limpet, "unpause", "") == ["still"]
    assert words(limpet, "rm", "") == ["made", "over", "runs", "still"]


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_files_of_a_container(limpet: Any, busybox: str, state: str) -> None:
    """What a shell would take apart is not offered: the container chooses its names, typed for somebody."""
    script = "mkdir -p '/x/a b' /x/sub /x/sub/in; touch '/x/$(id)' /x/one; ln -s ../../etc /x/etc"
    limpet("run", "--name", "box", busybox, "sh", "-c", script)
    if state == "running":
        limpet("create", "--name", "other", busybox, "true")
        limpet("rm", "box")
        limpet("run", "-d", "--name", "box", busybox, "sh", "-c", f"{script}; touch /ready; sleep 1000")
        limpet("exec", "box", "sh", "-c", "until [ -e /ready ]; do sleep 0.01; done")
    assert "box:" in words(limpet, "cp", "bo")
    assert words(limpet, "cp", "box:/x/") == ["box:/x/etc", "box:/x/one", "box:/x/sub/"]
    assert words(limpet, "cp", "box:/x/sub/i") == ["box:/x/sub/in/"]
    assert "box:/x/etc/passwd" in words(limpet, "cp", "box:/x/etc/")
    assert "box:/x/" in words(limpet, "cp", "box:")
    assert words(limpet, "cp", "box:/nowhere/") == words(limpet, "cp", "nobody:/") == []


def test_names_of_registries(limpet: Any, tmp_path: Any) -> None:
    """Those with a login or a setting; no store is made for that, and no program asked."""
    (tmp_path / "config.json").write_text('{"auths": {"a.example": {}, "b.example/team": {}}, "credsStore": "none"}')
    (tmp_path / "registries.toml").write_text('[registry."c.example"]\n[registry."*.d.example"]\n')
    limpet.environment.pop("REGISTRY_AUTH_FILE", None)
    limpet.environment |= {"DOCKER_CONFIG": str(tmp_path), "LIMPET_REGISTRIES": f"{tmp_path}/registries.toml"}
    assert words(limpet, "login", "") == ["a.example", "b.example/team", "c.example"]
    assert words(limpet, "logout", "b") == ["b.example/team"]
    assert not limpet.root.exists()


def test_bash_really_completes(limpet: Any, tmp_path: Any) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(limpet("completion", "bash").stdout)
    launcher = tmp_path / "limpet"
    launcher.write_text("#!/bin/sh\nexec " + shlex.join(limpet.command) + ' "$@"\n')
    launcher.chmod(0o755)
    ask = (
        f"PATH={tmp_path}:$PATH; source {script}; COMP_WORDS=(limpet image ''); COMP_CWORD=2; _limpet;"
        " printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    result = subprocess.run(["bash", "-c", ask], env=limpet.environment, capture_output=True, text=True)
    assert "inspect" in result.stdout.split()
    assert "prune" in result.stdout.split()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_accept_their_script(limpet: Any, shell: str, tmp_path: Any) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(limpet("completion", shell).stdout)
    result = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_an_unknown_shell_is_named(limpet: Any) -> None:
    result = limpet("completion", "csh", check=False)
    assert (result.returncode, result.stderr.splitlines()[0]) == (1, "limpet: no completion for 'csh'")
