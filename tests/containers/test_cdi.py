"""Devices by name (CDI): `--device vendor.com/class=name` and `--gpus`, with files of /etc/cdi as vendors do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import cdi_files

from limpet.containers.plan import cdi
from limpet.errors import Conflict, Invalid, NotFound, Refused


@pytest.fixture
def place() -> Iterator[Path]:
    with cdi_files.directory() as found:
        yield found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two directories in place of the machine's, for this process."""
    places = (tmp_path / "etc", tmp_path / "run")
    for each in places:
        each.mkdir()
    monkeypatch.setattr(cdi, "PLACES", tuple(map(str, places)))
    return places


def write(path: Path, kind: str, *names: str, **more: Any) -> None:
    devices = [{"name": name, "containerEdits": {"env": [f"NAME={name}", f"FROM={path.name}"]}} for name in names]
    path.write_text(json.dumps({"cdiVersion": "0.8.0", "kind": kind, "devices": devices, **more}))


# As `nvidia-ctk cdi generate` writes it, with nodes that every machine has.
VENDOR = """\
cdiVersion: 0.7.0
kind: nvidia.com/gpu
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void, SHARED=yes]
  deviceNodes: [{{path: /dev/nvidiactl, hostPath: /dev/zero, permissions: rw}}]
  mounts:
  - {{hostPath: {library}, containerPath: /lib/libcuda.so.1, options: [ro, nosuid, nodev, rbind, rprivate]}}
  hooks:
  - hookName: createContainer
    path: {hook}
    args: [hook, update-ldcache, --folder, /lib]
    env: [WHERE=hook]
devices:
- name: "0"
  containerEdits:
    env: [ZERO=1]
    deviceNodes:
    - {{path: /dev/nvidia0, type: c, major: 1, minor: 3, fileMode: 432, uid: 7, gid: 8}}
    additionalGids: [0, 4242]
- name: "1"
  containerEdits: {{deviceNodes: [{{path: /dev/nvidia1, hostPath: /dev/kmsg, permissions: none}}]}}
- name: all
  containerEdits: {{env: [ALL=1]}}
"""


def test_a_gpu_as_its_vendor_describes_it(limpet: Any, busybox: str, place: Path, tmp_path: Path) -> None:
    (tmp_path / "library").write_text("of the driver\n")
    hook = tmp_path / "hook"
    hook.write_text(
        f'#!/bin/sh\nread state; echo "$0 $* $WHERE" > {tmp_path}/seen; echo "$state" > {tmp_path}/state\n'
        'bundle=$(echo "$state" | sed \'s/.*"bundle":"\\([^"]*\\)".*/\\1/\')\n'
        "cat $bundle/rootfs/lib/libcuda.so.1 > $bundle/rootfs/etc/ld.so.cache\n"
    )
    hook.chmod(0o755)
    (place / "limpet-test.yaml").write_text(VENDOR.format(library=tmp_path / "library", hook=hook))
    script = (
        "cat /lib/libcuda.so.1 /etc/ld.so.cache; echo $NVIDIA_VISIBLE_DEVICES $SHARED $ZERO $ALL; id -G;"
        " stat -c '%a %u %g %t:%T' /dev/nvidia0; dd if=/dev/nvidiactl bs=1 count=1 2>/dev/null | wc -c; ls /dev/nvidia1"
    )
    shown = limpet("run", "--rm", "--gpus", "1", busybox, "sh", "-c", script, check=False).stdout.splitlines()
    assert shown == ["of the driver", "of the driver", "void yes 1", "0 4242", "660 7 8 1:3", "1"]
    assert (tmp_path / "seen").read_text() == f"{hook} update-ldcache --folder /lib hook\n"
    state = json.loads((tmp_path / "state").read_text())
    assert (state["status"], state["ociVersion"], state["pid"] > 1) == ("creating", "1.0.2", True)
    shown = limpet("run", "--rm", "--gpus", "all", busybox, "sh", "-c", "echo $ALL $ZERO")
    assert shown.stdout == "1\n"
    two = ["--gpus", '"device=0,1"', "--device", "/dev/full"]
    shown = limpet(
        "run",
        "--rm",
        *two,
        busybox,
        "sh",
        "-c",
        "ls /dev/nvidia? /dev/full; exec 3</dev/nvidia1 && echo opened",
        check=False,
    )
    assert shown.stdout.split() == ["/dev/full", "/dev/nvidia0", "/dev/nvidia1"]
    assert limpet("inspect", "-f", "{{.HostConfig.DeviceRequests}}", "x", check=False).returncode == 1
    listed = limpet("info", "-f", "{{range .DiscoveredDevices}}{{.ID}} {{end}}").stdout
    assert {"nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"} <= set(listed.split())
    assert "nvidia.com/gpu=all" in limpet("info").stdout


def test_the_last_hook_and_one_that_fails(limpet: Any, busybox: str, place: Path, tmp_path: Path) -> None:
    def described(kind: str, path: str, **more: Any) -> None:
        hooks = [{"hookName": kind, "path": path, "args": ["x", "-c", more.pop("script", "true")], **more}]
        write(place / "limpet-test.json", "example.org/toy", "one", containerEdits={"hooks": hooks})

    run = ("run", "--rm", "--name", "toy", "--device", "example.org/toy=one", busybox, "echo", "ran")
    for kind in ("poststart", "poststop"):
        described(kind, "/bin/sh", script=f"cat > {tmp_path}/{kind}")
        assert limpet(*run).stdout == "ran\n"
    assert json.loads((tmp_path / "poststart").read_text())["status"] == "running"
    assert json.loads((tmp_path / "poststop").read_text())["status"] == "stopped"
    described("createRuntime", "/bin/sh", script="echo no such card >&2; exit 3")
    result = limpet(*run, check=False)
    assert (result.returncode, result.stdout) == (125, "")
    assert result.stderr == "limpet: createRuntime hook /bin/sh: ended with exit code 3: no such card\n"
    described("createContainer", "/nonexistent")
    assert "hook /nonexistent: ended with exit code 127: No such file" in limpet(*run, check=False).stderr
    described("createContainer", "/bin/sh", script="exec sleep 100", timeout=1)
    assert "hook /bin/sh: took more than 1 s" in limpet(*run, check=False).stderr
    assert limpet("ps", "-aq").stdout == ""
    described("startContainer", "/bin/sh")
    assert "has a hook 'startContainer', which limpet does not run" in limpet(*run, check=False).stderr


def test_what_is_not_described_is_told_with_the_way_out(limpet: Any, busybox: str, place: Path) -> None:
    result = limpet("run", "--rm", "--gpus", "all", busybox, "true", check=False)
    assert result.returncode == 125
    assert "describes a GPU" in result.stderr
    assert "nvidia-ctk cdi generate" in result.stderr
    write(place / "limpet-test.json", "example.org/toy", "one", "two")
    result = limpet("create", "--device", "example.org/toy=three", busybox, "true", check=False)
    assert result.returncode == 125
    assert "device example.org/toy=three: no file of /etc/cdi and /var/run/cdi has it" in result.stderr
    assert "there are example.org/toy=one, example.org/toy=two" in result.stderr
    result = limpet("create", "--device", "toy", busybox, "true", check=False)
    assert "device toy: no name of a device" in result.stderr
    limpet("create", "--name", "toy", "--device", "example.org/toy=one", busybox, "sh", "-c", "echo $NAME $FROM")
    assert limpet("start", "-a", "toy").stdout == "one limpet-test.json\n"
    (place / "limpet-test.json").unlink()  # the card was taken out
    result = limpet("start", "toy", check=False)
    assert (result.returncode, "device example.org/toy=one: no file of" in result.stderr) == (1, True)


def test_the_later_directory_counts_and_two_files_of_one_are_a_conflict(here: tuple[Path, Path]) -> None:
    etc, run = here
    write(etc / "a.json", "example.org/toy", "one", "two")
    write(run / "b.json", "example.org/toy", "one")
    assert [device.path for device in cdi.find(["example.org/toy=one", "example.org/toy=two"])] == [
        f"{run}/b.json", f"{etc}/a.json",
    ]  # fmt: skip
    write(etc / "c.yaml", "example.org/toy", "two")  # JSON is YAML
    with pytest.raises(Conflict, match=r"a\.json and .*c\.yaml both have it"):
        cdi.find(["example.org/toy=two"])
    assert cdi.find(["example.org/toy=one"])


def test_edits_of_a_file_are_made_once(here: tuple[Path, Path]) -> None:
    write(here[0] / "a.json", "example.org/toy", "one", "two", containerEdits={"env": ["COMMON=1"]})
    made = cdi.edits(cdi.find(["example.org/toy=one", "example.org/toy=two"]))
    assert [edit["env"][0] for _, edit in made] == ["COMMON=1", "NAME=one", "NAME=two"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a CDI specification"),
        ("[]", "no object"),
        ("{", "not a CDI specification"),
        ('{"kind": 3, "devices": [{"name": "x"}]}', "is no name"),
        ('{"kind": "example.org/toy", "devices": [{}]}', "another form"),
        ('{"kind": "example.org/toy", "devices": ["x"]}', "another form"),
        ('{"kind": "example.org/toy", "devices": [{"name": "x", "containerEdits": 5}]}', "another form"),
    ],
)
def test_a_file_that_is_none_hides_no_other(here: tuple[Path, Path], text: str, said: str) -> None:
    (here[0] / "bad.json").write_text(text)
    write(here[0] / "good.json", "example.org/good", "one")
    assert cdi.find(["example.org/good=one"])
    with pytest.raises(NotFound, match=said):
        cdi.find(["example.org/toy=one"])
    assert len(cdi.described()[1]) == 1


@pytest.mark.parametrize(
    "edit",
    [
        {"env": [5]}, {"env": ["A"]}, {"deviceNodes": [{}]}, {"deviceNodes": [{"path": "zero"}]},
        {"deviceNodes": [{"path": "/dev/zero", "permissions": "x"}]}, {"mounts": [{"hostPath": "/"}]},
        {"mounts": [{"hostPath": "/", "containerPath": "x"}]}, {"hooks": [{"hookName": "prestart", "path": "true"}]},
        {"additionalGids": [-1]}, {"deviceNodes": [{"path": "/dev/x", "type": "z"}]}, {"mounts": "x"},
    ],
)  # fmt: skip
def test_edits_of_another_form_are_refused(here: tuple[Path, Path], edit: Any) -> None:
    write(here[0] / "a.json", "example.org/toy", "one", containerEdits=edit)
    config: Any = {
        "process": {"env": [], "user": {"uid": 0, "gid": 0, "additionalGids": []}},
        "linux": {"devices": [], "resources": {"devices": []}},
        "mounts": [],
    }
    with pytest.raises(Invalid, match="another form than CDI's"):
        cdi.apply(config, ["example.org/toy=one"])


def test_what_limpet_does_not_make_is_refused(here: tuple[Path, Path]) -> None:
    for edit in ({"intelRdt": {"closID": "x"}}, {"netDevices": [{"hostInterfaceName": "eth1", "name": "x"}]}):
        write(here[0] / "a.json", "example.org/toy", "one", containerEdits=edit)
        with pytest.raises(Refused, match=f"which limpet does not make|{next(iter(edit))}"):
            cdi.edits(cdi.find(["example.org/toy=one"]))


def test_gpus_are_read_as_docker_reads_them(here: tuple[Path, Path]) -> None:
    write(here[0] / "a.json", "amd.com/gpu", "0", "all")
    assert cdi.gpus(["all"]) == ["amd.com/gpu=all"]  # the one vendor that there is
    write(here[0] / "n.json", "nvidia.com/gpu", "0", "all")
    for text, expected in {
        "all": ["nvidia.com/gpu=all"], "-1": ["nvidia.com/gpu=all"], "2": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"],
        "count=1": ["nvidia.com/gpu=0"], "device=GPU-3a": ["nvidia.com/gpu=GPU-3a"],
        '"device=0,1"': ["nvidia.com/gpu=0", "nvidia.com/gpu=1"],
        'all,"capabilities=compute,utility"': ["nvidia.com/gpu=all"], "driver=amd,count=all": ["amd.com/gpu=all"],
        "driver=cdi,device=example.org/toy=one": ["example.org/toy=one"],
    }.items():  # fmt: skip
        assert cdi.gpus([text]) == expected, text
    for text in ("", "x", "-2", "0", "device=", "count=1,device=0", "driver=foo,count=1", "options=x", 'all,"x'):
        with pytest.raises(Invalid):
            cdi.gpus([text])
