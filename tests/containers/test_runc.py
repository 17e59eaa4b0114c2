"""`--runtime runc` runs the same bundle: what is seen inside is what our own runtime shows."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

Limpet = Any

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("runc", path="/usr/sbin:/usr/bin") is None, reason="needs runc"),
]

BOTH = ("limpet", "runc")
OPTIONS = [
    (),
    ("-u", "user", "-w", "/tmp", "-e", "A=1", "--read-only"),
    ("--cap-drop", "ALL", "--cap-add", "CHOWN", "--security-opt", "no-new-privileges", "--network", "none"),
    ("--ulimit", "nofile=100:200", "--tmpfs", "/t:size=1m", "-v", "data:/data:ro", "--shm-size", "1m"),
]


def inside(limpet: Limpet, image: str, runtime: str, script: str, *options: str) -> str:
    return limpet("run", "--rm", "--no-init", "--runtime", runtime, *options, image, "sh", "-c", script).stdout


@pytest.mark.parametrize("options", OPTIONS)
def test_status_and_environment_are_the_same(limpet: Limpet, busybox: str, options: tuple[str, ...]) -> None:
    """All of /proc/self/status that the runtime decides, limits, environment, devices, host name."""
    script = (
        "id; pwd; env | grep -v ^LIMPET_ADDRESS | sort; ulimit -n; hostname; umask; cat /proc/sys/kernel/shmmax;"
        "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|Umask|NSpid)' /proc/self/status | grep -v NSpid;"
        "for n in null zero full random urandom tty; do stat -c '%n %F %t,%T %a %u' /dev/$n; done;"
        "for n in fd stdin stdout stderr ptmx core; do echo $n $(readlink /dev/$n); done; ls /dev"
    )
    ours, theirs = (inside(limpet, busybox, runtime, script, "-h", "same", *options).splitlines() for runtime in BOTH)
    assert ours == theirs


@pytest.mark.parametrize("options", OPTIONS)
def test_mounts_are_the_same(limpet: Limpet, busybox: str, options: tuple[str, ...]) -> None:
    """Kind and flags of each mount. /sys/fs/cgroup differs on hosts with version 1, of which we show nothing."""
    script = "cat /proc/self/mountinfo"

    def table(runtime: str) -> dict[str, tuple[str, str, str]]:
        found = {}
        for line in inside(limpet, busybox, runtime, script, *options).splitlines():
            left, _, right = line.partition(" - ")
            _, _, _, _, target, flags, *propagation = left.split()
            kind = right.split()[0]
            if not target.startswith("/sys/fs/cgroup"):
                found[target] = (kind, flags, " ".join(word.partition(":")[0] for word in propagation))
        return found

    assert table("limpet") == table("runc")


def test_what_is_forbidden_is_the_same(limpet: Limpet, busybox: str) -> None:
    script = (
        "unshare -m true 2>&1; echo $?; mount -t tmpfs t /tmp 2>&1; echo $?; echo x 2>&1 > /proc/sys/kernel/hostname;"
        "mknod /tmp/sda b 8 0; cat /tmp/sda 2>&1; echo $?; ls /proc/acpi /sys/firmware | wc -l;"
        "cat /proc/kcore | wc -c;"
        "touch /sys/x 2>&1; hostname x 2>&1; chroot / true; echo $?; date -s 2020-01-01 2>&1 | tail -1"
    )
    assert inside(limpet, busybox, "limpet", script) == inside(limpet, busybox, "runc", script)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "echo x; exit 37"], 37),
        (["nosuch"], 127),
        (["/etc/passwd"], 126),
        (["/bin/none"], 127),
    ],
)
def test_exit_codes_are_the_same(limpet: Limpet, busybox: str, command: list[str], code: int) -> None:
    results = [
        limpet("run", "--rm", "--no-init", "--runtime", runtime, busybox, *command, check=False) for runtime in BOTH
    ]
    assert [result.returncode for result in results] == [code, code]
    assert results[0].stdout == results[1].stdout
    assert limpet("ps", "-aq").stdout == ""


def test_input_terminal_logs_stop_exec(limpet: Limpet, busybox: str) -> None:
    assert limpet("run", "--rm", "-i", "--runtime", "runc", busybox, "cat", input="abc").stdout == "abc"
    out = limpet("run", "--rm", "-t", "--runtime", "runc", busybox, "sh", "-c", "tty; exit 4", check=False)
    assert (out.stdout, out.returncode) == ("/dev/pts/0\n", 4)
    limpet("run", "-d", "--name", "box", "--runtime", "runc", busybox, "sh", "-c", "echo up; trap 'exit 5' TERM;"
           "while :; do sleep 0.02; done")  # fmt: skip
    assert limpet("exec", "box", "cat", "/proc/1/comm").stdout == "sh\n"
    limpet("stop", "box")
    assert limpet("logs", "box").stdout == "up\n"
    assert "Exited (5)" in limpet("ps", "-a").stdout
    limpet("start", "box")
    limpet("rm", "-f", "box")
