"""`limpet bake`: the targets are built, linked ones first, and what was only needed for them goes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FILE = """
variable "TAG" { default = "1" }
group "default" { targets = ["app", "files"] }
target "base" {
  dockerfile-inline = <<EOT
FROM busybox:test
RUN echo base >/base
EOT
}
target "app" {
  context = "dir"
  contexts = { base = "target:base" }
  args = { WHO = "world" }
  labels = { "org.label" = "x" }
  tags = ["app:${TAG}"]
  secret = ["id=tok,src=token"]
  target = "app"
  cache-to = ["type=local,dest=cache"]
}
target "files" {
  dockerfile-inline = "FROM scratch\\nCOPY dir/file /copied\\n"
  output = ["out"]
}
"""

DOCKERFILE = """
FROM base AS app
ARG WHO
COPY file /file
RUN --mount=type=secret,id=tok echo hello $WHO $(wc -c </run/secrets/tok) >/out
FROM base AS last
RUN false
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    (directory / "dir").mkdir(parents=True)
    (directory / "docker-bake.hcl").write_text(FILE)
    (directory / "dir/Dockerfile").write_text(DOCKERFILE)
    (directory / "dir/file").write_text("content\n")
    (directory / "token").write_text("1234")
    return directory


@pytest.mark.slow
@pytest.mark.usefixtures("busybox")
def test_targets_are_built_with_what_they_need(limpet: Any, project: Path) -> None:
    result = limpet("bake", "--metadata-file", "meta.json", cwd=project)
    assert result.stderr.index("base:\n") < result.stderr.index("app:\n")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["app"]
    assert limpet("run", "--rm", "app:1", "cat", "/base", "/file", "/out").stdout == "base\ncontent\nhello world 4\n"
    assert limpet("image", "inspect", "-f", "{{json .Config.Labels}}", "app:1").stdout.strip() == '{"org.label":"x"}'
    assert (project / "out/copied").read_text() == "content\n"
    assert (project / "cache/index.json").exists()
    assert sorted(json.loads((project / "meta.json").read_text())) == ["app", "files"]
    assert sorted(limpet("images", "--format", "{{.Repository}}").stdout.split()) == ["app", "busybox"]
    assert not list((limpet.root / "tmp").iterdir())
    # What was only built for others is in the cache, as all else.
    again = limpet("bake", "app", "--set", "app.tags=again", cwd=project)
    assert again.stderr.count(": cached") == 3
    assert "ran in" not in again.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("busybox")
def test_an_error_names_the_target(limpet: Any, project: Path) -> None:
    result = limpet("bake", "app", "--set", "app.target=last", check=False, cwd=project)
    assert result.returncode == 1
    assert "target app: dir/Dockerfile:7:1:" in result.stderr
    assert limpet("images", "-aq").stdout.split() == limpet("images", "-q", "busybox").stdout.split()


@pytest.mark.slow
@pytest.mark.usefixtures("busybox")
def test_conditions_of_steps_and_rights(limpet: Any, project: Path) -> None:
    (project / "docker-bake.hcl").write_text(
        'target "default" {\n'
        '  dockerfile-inline = "FROM busybox:test\\nRUN grep here /etc/hosts && ulimit -n && ls /sys/class/net"\n'
        '  extra-hosts = { here = "10.1.2.3" }\n  ulimits = ["nofile=77"]\n  shm-size = "7m"\n  network = "none"\n}\n'
    )
    shown = limpet("bake", "--progress", "plain", cwd=project).stderr
    assert "10.1.2.3" in shown
    assert "77" in shown
    assert "eth0" not in shown
    result = limpet("bake", "--set", "*.entitlements=security.insecure", check=False, cwd=project)
    assert "target default: it wants security.insecure" in result.stderr
    result = limpet("bake", "--check", "--set", "*.dockerfile-inline=FROM busybox:test as x", check=False, cwd=project)
    assert "FromAsCasing" in result.stdout


def test_files_variables_and_lists(limpet: Any, project: Path, tmp_path: Path) -> None:
    environment = {**limpet.environment, "TAG": "env"}
    (project / "docker-bake.override.json").write_text('{"target": {"app": {"args": {"MORE": "${TAG}"}}}}')

    def printed(*options: str) -> Any:
        command = [*limpet.command, "bake", "--print", *options]
        import subprocess

        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["target"]

    assert printed("app")["app"]["args"] == {"MORE": "env", "WHO": "world"}
    assert printed("--var", "TAG=var", "app")["app"]["tags"] == ["app:var"]
    assert printed("-f", "docker-bake.hcl", "app")["app"]["args"] == {"WHO": "world"}
    assert set(printed("--provenance=false", "--no-cache")) == {"app", "base", "files"}
    listed = limpet("bake", "--list", cwd=project).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["TARGET", "app", "base", "default", "files"]
    assert limpet("bake", "--list", "variables", cwd=project).stdout.split()[0] == "VARIABLE"
    variables = json.loads(limpet("bake", "--list=type=variables,format=json", cwd=project).stdout)
    assert variables == [{"name": "TAG", "value": "1"}]
    for options, said in (
        (("ap",), "did you mean app?"),
        (("-f", "none.hcl"), "none.hcl: No such file"),
        (("--list=all",), "targets, variables"),
        (("--var", "TGA=1"), "did you mean TAG?"),
        (("--list", "app"), "targets, variables"),
        (("--list=targets", "app"), "it takes no target"),
        (("--set", "app"), "it needs a target and a key"),
    ):
        result = limpet("bake", *options, check=False, cwd=project)
        assert result.returncode == 1
        assert said in result.stderr
        assert result.stderr.count("\n") <= 2
    result = limpet("bake", check=False, cwd=tmp_path)
    assert "no docker-bake.hcl, docker-bake.json or Compose file here" in result.stderr
