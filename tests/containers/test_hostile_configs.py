"""Configurations of images that nobody should have written: an error in one line, or a container as any other."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.registry.server import make_image

Limpet = Any


def load(limpet: Limpet, busybox_tar: Path, tmp_path: Path, config: Any) -> Any:
    """`limpet load` of an image with that `config`, as a docker-archive."""
    image = make_image([busybox_tar.read_bytes()], config=config)
    manifest = [{"Config": "config.json", "RepoTags": ["hostile:1"], "Layers": ["layer.tar"]}]
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for name, data in (
            ("config.json", image.config),
            ("layer.tar", busybox_tar.read_bytes()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return limpet("load", "-q", "-i", tmp_path / "image.tar", check=False)


CONFIGS: dict[str, Any] = {
    "entry point with NUL": {"Entrypoint": ["/bin/echo\0x", "a\0b"]},
    "argument with NUL": {"Entrypoint": ["/bin/echo"], "Cmd": ["a\0b"]},
    "environment with NUL": {"Cmd": ["/bin/true"], "Env": ["A=b\0c"]},
    "environment without =": {"Cmd": ["/bin/true"], "Env": ["A", "=", "=b", ""]},
    "environment of other things": {"Cmd": ["/bin/true"], "Env": [1, None, {"A": "b"}]},
    "no list of variables": {"Cmd": ["/bin/true"], "Env": "A=b"},
    "huge environment": {"Cmd": ["/bin/true"], "Env": [f"V{i}={'x' * 100000}" for i in range(40)]},
    "one huge variable": {"Cmd": ["/bin/true"], "Env": ["V=" + "x" * 3000000]},
    "many variables": {"Cmd": ["/bin/true"], "Env": [f"V{i}=x" for i in range(20000)]},
    "no command": {"Cmd": []},
    "empty command": {"Cmd": [""]},
    "command of numbers": {"Cmd": [1, 2]},
    "command as text": {"Cmd": "/bin/true"},
    "user that climbs": {"Cmd": ["/bin/true"], "User": "../../etc/passwd"},
    "negative user": {"Cmd": ["/bin/true"], "User": "-1:-1"},
    "user beyond all": {"Cmd": ["/bin/true"], "User": "4294967296"},
    "nobody's number": {"Cmd": ["/bin/true"], "User": "4294967295"},
    "user with a line's end": {"Cmd": ["/bin/true"], "User": "root:x\nroot"},
    "user as number": {"Cmd": ["/bin/true"], "User": 0},
    "directory that climbs": {"Cmd": ["/bin/pwd"], "WorkingDir": "../../../../etc"},
    "directory of a descriptor": {"Cmd": ["/bin/ls", "-l"], "WorkingDir": "/proc/self/fd/7/../.."},
    "directory with NUL": {"Cmd": ["/bin/true"], "WorkingDir": "/a\0b"},
    "user with NUL": {"Cmd": ["/bin/true"], "User": "a\0b"},
    "directory that is a file": {"Cmd": ["/bin/true"], "WorkingDir": "/etc/passwd"},
    "volume at the root": {"Cmd": ["/bin/true"], "Volumes": {"/": {}}},
    "volume that climbs": {"Cmd": ["/bin/true"], "Volumes": {"/../../x": {}}},
    "volume with NUL": {"Cmd": ["/bin/true"], "Volumes": {"/a\0b": {}}},
    "volumes in a list": {"Cmd": ["/bin/true"], "Volumes": ["/a"]},
    "no such signal": {"Cmd": ["/bin/true"], "StopSignal": "SIGNOSUCH"},
    "signal as number": {"Cmd": ["/bin/true"], "StopSignal": 9},
    "no ports": {"Cmd": ["/bin/true"], "ExposedPorts": {"x/y": {}, "99999999": {}, "": {}}},
    "labels of lists": {"Cmd": ["/bin/true"], "Labels": {"a": ["b"], "org.limpet.init": "true"}},
    "labels in a list": {"Cmd": ["/bin/true"], "Labels": ["a=b"]},
    "check of other things": {"Cmd": ["/bin/true"], "Healthcheck": {"Test": "x", "Interval": "1s", "Retries": -1}},
    "hooks": {
        "Cmd": ["/bin/true"],
        "hooks": {"prestart": [{"path": "/bin/touch", "args": ["x", "/tmp/limpet-hooked"]}]},
    },
    "nothing": None,
    "a text": "config",
    "a list": [],
}


@pytest.mark.slow
def test_they_run_or_are_refused_in_a_line(limpet: Limpet, busybox_tar: Path, tmp_path: Path) -> None:
    refused = []
    for name, config in CONFIGS.items():
        result = load(limpet, busybox_tar, tmp_path, config)
        plain(name, result)
        if result.returncode:
            refused.append(name)
            continue
        result = limpet("run", "--name", "box", "hostile:1", check=False, timeout=30)
        plain(name, result)
        assert "root" not in result.stdout, name  # neither a directory of the host's nor /etc/passwd
        for words in (("ps", "-a"), ("inspect", "hostile:1"), ("rm", "-f", "-v", "box")):
            plain(name, limpet(*words, check=False))
        assert not Path("/tmp/limpet-hooked").exists()
    assert "environment without =" not in refused
    assert "command as text" in refused
    assert len(refused) < len(CONFIGS) * 2 // 3


def plain(name: str, result: Any) -> None:
    for word in ("internal error", "Traceback", "ValueError", "Errno"):
        assert word not in result.stderr, (name, result.stderr)
    assert len(result.stderr) < 5000, name
    assert result.stderr.count("limpet: ") <= 1, (name, result.stderr)


@pytest.mark.slow
def test_no_image_has_a_say_in_runcs_hooks(limpet: Limpet, busybox_tar: Path, tmp_path: Path) -> None:
    config = {
        **CONFIGS["hooks"],
        "Labels": {"hooks": "x", "org.opencontainers.image.hooks": "x", "run.oci.hooks.stdout": "/tmp/limpet-hooked"},
    }
    load(limpet, busybox_tar, tmp_path, config)
    limpet("create", "--name", "box", "--runtime", "runc", "hostile:1")
    limpet("start", "-a", "box", check=False)
    (path,) = limpet.root.glob("containers/*/config.json")
    written = json.loads(path.read_text())
    assert "hooks" not in written
    assert all(key.startswith("org.limpet.") for key in written.get("annotations", {}))
    assert not Path("/tmp/limpet-hooked").exists()
