"""Every option of `docker run` and `podman run`, with a sample that is run: where docs/docker-flags.md comes from.

    python -m tests.cli.flags > docs/docker-flags.md

What a flag is to be is said here; `test_flags` runs each, compares, and sees that no flag of the clients' helps lacks.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from limpet.cli import main as entry

WORKS, DIFFERS, REFUSED = "works", "differs", "refused"


class Flag(NamedTuple):
    """`words`: the sample; {tmp}, {disk} and {base} are filled in. `script` runs in the container, and `shown` is in
    what it prints. `unless`: with these words in an error it is this host that can't. `note`: for the table."""

    words: str = ""
    script: str = "true"
    shown: str = ""
    state: str = WORKS
    note: str = ""
    unless: str = ""


_STATUS = "cat /proc/self/status"
_HEALTH = "--health-cmd true"
_NO_BFQ, _NO_QUOTA = "scheduled by bfq", "quota"

FLAGS: dict[str, Flag] = {
    "add-host": Flag("--add-host db:10.0.0.1", "cat /etc/hosts", "10.0.0.1\tdb"),
    "annotation": Flag("--annotation a=b"),
    "arch": Flag("--arch amd64"),
    "attach": Flag("-a stdout", "echo out; echo err >&2", "out"),
    "authfile": Flag("--authfile /dev/null"),
    "blkio-weight": Flag("--blkio-weight 100", unless=_NO_BFQ),
    "blkio-weight-device": Flag("--blkio-weight-device {disk}:100", unless=_NO_BFQ),
    "cap-add": Flag("--cap-add SYS_TIME", _STATUS, "CapBnd:\t00000000aa0425fb"),
    "cap-drop": Flag("--cap-drop ALL", _STATUS, "CapBnd:\t0000000000000000"),
    "cgroup-parent": Flag("--cgroup-parent /limpet-flags"),
    "cgroupns": Flag("--cgroupns host", "readlink /proc/self/ns/cgroup", "cgroup:"),
    "cidfile": Flag("--cidfile {tmp}/cid"),
    "cpu-period": Flag("--cpu-period 50000"),
    "cpu-quota": Flag("--cpu-quota 50000"),
    "cpu-shares": Flag("--cpu-shares 512"),
    "cpus": Flag("--cpus 0.5"),
    "cpuset-cpus": Flag("--cpuset-cpus 0", _STATUS, "Cpus_allowed_list:\t0\n"),
    "cpuset-mems": Flag("--cpuset-mems 0"),
    "detach": Flag("-d"),
    "detach-keys": Flag("--detach-keys ctrl-a"),
    "device": Flag(
        "--device /dev/null:/dev/other", "ls /dev/other", "/dev/other", note="CDI names and directories too"
    ),
    "device-cgroup-rule": Flag("--device-cgroup-rule", "mknod /l c 10 237 && exec 3</l && echo opened", "opened"),
    "device-read-bps": Flag("--device-read-bps {disk}:1mb"),
    "device-read-iops": Flag("--device-read-iops {disk}:100"),
    "device-write-bps": Flag("--device-write-bps {disk}:1mb"),
    "device-write-iops": Flag("--device-write-iops {disk}:100"),
    "dns": Flag("--dns 10.0.0.2", "cat /etc/resolv.conf", "nameserver 10.0.0.2"),
    "dns-option": Flag("--dns-option ndots:3", "cat /etc/resolv.conf", "options ndots:3"),
    "dns-search": Flag("--dns-search example.org", "cat /etc/resolv.conf", "search example.org"),
    "domainname": Flag("--domainname example.org", "cat /proc/sys/kernel/domainname", "example.org"),
    "entrypoint": Flag("--entrypoint echo", "true", "sh -c true"),
    "env": Flag("-e A=1", "echo $A", "1"),
    "env-file": Flag("--env-file {tmp}/pairs", "echo $A", "of the file"),
    "env-host": Flag("--env-host", "echo $LIMPET_ROOT", "/"),
    "env-merge": Flag("--env-merge PATH=${PATH}:/opt", "echo $PATH", ":/opt"),
    "expose": Flag("--expose 80"),
    "gpus": Flag(
        "--gpus all", unless="describes a GPU", note="by CDI files alone; `nvidia-ctk cdi generate` writes them"
    ),
    "group-add": Flag("--group-add 4242", "id -G", "4242"),
    "health-cmd": Flag(_HEALTH),
    "health-interval": Flag(f"{_HEALTH} --health-interval 10s"),
    "health-on-failure": Flag(f"{_HEALTH} --health-on-failure kill"),
    "health-retries": Flag(f"{_HEALTH} --health-retries 2"),
    "health-start-interval": Flag(f"{_HEALTH} --health-start-interval 1s"),
    "health-start-period": Flag(f"{_HEALTH} --health-start-period 1s"),
    "health-timeout": Flag(f"{_HEALTH} --health-timeout 1s"),
    "hostname": Flag("-h box", "hostname", "box"),
    "http-proxy": Flag("--http-proxy", state=DIFFERS, note="only if it is said"),
    "image-volume": Flag("--image-volume ignore", state=DIFFERS, note="bind is an anonymous volume"),
    "init": Flag("--init", "cat /proc/1/comm", "limpet-init", DIFFERS, "the default, unless the command is an init"),
    "interactive": Flag("-i"),
    "ip": Flag("--network flags --ip 10.213.7.9", "ip addr", "10.213.7.9"),
    "ip6": Flag("--network flags --ip6 fd00:213:7::9", "cat /proc/net/if_inet6", "fd00021300070000"),
    "ipc": Flag("--ipc none", "df -k | grep -c /dev/shm; true", "0"),
    "label": Flag("-l a=b"),
    "label-file": Flag("--label-file {tmp}/pairs"),
    "log-driver": Flag("--log-driver none", state=DIFFERS, note="`limpet run --help` names them; no cloud's"),
    "log-opt": Flag("--log-opt max-size=1m", state=DIFFERS, note="3 files of 10 MB unless it is said"),
    "mac-address": Flag(
        "--network flags --mac-address 02:42:0a:00:00:09", "cat /sys/class/net/eth0/address", "02:42:0a"
    ),
    "memory": Flag("-m 64m"),
    "memory-reservation": Flag("--memory-reservation 32m"),
    "memory-swap": Flag("-m 64m --memory-swap 64m", unless="does not count swap"),
    "memory-swappiness": Flag("--memory-swappiness 10", unless="memory.swappiness", note="cgroup version 1 only"),
    "mount": Flag("--mount type=tmpfs,target=/scratch", "grep -c ' /scratch tmpfs ' /proc/mounts", "1"),
    "name": Flag("--name flagged"),
    "network": Flag("--network none", "ls /sys/class/net", "lo", DIFFERS, "the host's is the default; see network.md"),
    "network-alias": Flag("--network flags --network-alias other"),
    "no-healthcheck": Flag("--no-healthcheck"),
    "no-hostname": Flag("--no-hostname", "cat /etc/hostname || echo none", "none"),
    "no-hosts": Flag("--no-hosts", "cat /etc/hosts || echo none", "none"),
    "oom-score-adj": Flag("--oom-score-adj 100", "cat /proc/self/oom_score_adj", "100"),
    "os": Flag("--os linux"),
    "pid": Flag("--pid host", "readlink /proc/self/ns/pid", "pid:"),
    "pidfile": Flag("--pidfile {tmp}/pid"),
    "pids-limit": Flag("--pids-limit 50"),
    "platform": Flag("--platform linux/amd64"),
    "pod": Flag("--pod flags", "hostname", "flags"),
    "pod-id-file": Flag("--pod-id-file {tmp}/pod", "hostname", "flags"),
    "privileged": Flag("--privileged", "ls /dev/kmsg", "/dev/kmsg"),
    "publish": Flag("-p 127.0.0.1:38213:80", state=DIFFERS, note="on loopback unless an address is given"),
    "publish-all": Flag("-P"),
    "pull": Flag("--pull never"),
    "quiet": Flag("-q"),
    "read-only": Flag("--read-only", "touch /x || echo refused", "refused"),
    "read-only-tmpfs": Flag(
        "--read-only --read-only-tmpfs", "touch /tmp/x && echo ok", "ok", DIFFERS, "only if it is said"
    ),
    "replace": Flag("--replace --name {base}-2"),
    "requires": Flag("--requires {base}"),
    "restart": Flag("--restart no"),
    "rm": Flag("--rm"),
    "runtime": Flag("--runtime limpet", state=DIFFERS, note="limpet and runc"),
    "security-opt": Flag(
        "--security-opt no-new-privileges", _STATUS, "NoNewPrivs:\t1", DIFFERS, "no labels, no AppArmor"
    ),
    "shm-size": Flag("--shm-size 1m", "df -k /dev/shm", "1024"),
    "sig-proxy": Flag("--sig-proxy=false"),
    "stop-signal": Flag("--stop-signal USR1"),
    "stop-timeout": Flag("--stop-timeout 3"),
    "storage-opt": Flag("--storage-opt size=1g", unless=_NO_QUOTA, state=DIFFERS, note="size alone"),
    "sysctl": Flag("--network none --sysctl net.ipv4.ip_forward=1", "cat /proc/sys/net/ipv4/ip_forward", "1"),
    "timeout": Flag("--timeout 1", "sleep 60; echo late"),
    "tmpfs": Flag("--tmpfs /scratch", "grep -c ' /scratch tmpfs ' /proc/mounts", "1"),
    "tty": Flag("-t", "tty", "/dev/pts/0"),
    "tz": Flag("--tz Europe/Berlin", "date +%Z", "CE", unless="has no such zone"),
    "ulimit": Flag("--ulimit nofile=77", "ulimit -n", "77"),
    "umask": Flag("--umask 077", "umask", "0077"),
    "unsetenv": Flag("--unsetenv HOSTNAME", "env", "PATH="),
    "unsetenv-all": Flag("--unsetenv-all", "env", "PATH="),
    "user": Flag("-u 1000", "id -u", "1000"),
    "userns": Flag(
        "--userns auto", "cat /proc/self/uid_map", "65536", DIFFERS, "host and auto", unless="can't map ids"
    ),
    "uts": Flag("--uts host", "readlink /proc/self/ns/uts", "uts:"),
    "variant": Flag("--variant v1", state=DIFFERS, note="as part of --platform", unless="not for linux"),
    "volume": Flag(
        "-v {tmp}:/host:ro", "ls /host", "pairs", DIFFERS, "a missing directory is an error; --mkdir makes it"
    ),
    "volume-driver": Flag("--volume-driver local -v flags:/x"),
    "volumes-from": Flag("--volumes-from {base}", "ls /base", "file"),
    "workdir": Flag("-w /tmp", "pwd", "/tmp"),
    **dict.fromkeys(
        (
            "cert-dir cgroup-conf cgroups chrootdirs conmon-pidfile cpu-count cpu-percent cpu-rt-period "
            "cpu-rt-runtime creds decryption-key disable-content-trust gidmap group-entry "
            "health-log-destination health-max-log-count health-max-log-size health-startup-cmd "
            "health-startup-interval health-startup-retries health-startup-success health-startup-timeout "
            "hosts-file hostuser init-ctr init-path intel-rdt-clos-id io-maxbandwidth io-maxiops isolation "
            "kernel-memory link link-local-ip oom-kill-disable passwd passwd-entry personality preserve-fd "
            "preserve-fds rdt-class retry retry-delay rmi rootfs sdnotify seccomp-policy secret "
            "shm-size-systemd subgidname subuidname systemd tls-verify uidmap use-api-socket"
        ).split(),
        Flag(state=REFUSED),
    ),
}

NEWER = (
    "cert-dir creds decryption-key group-entry health-log-destination health-max-log-count health-max-log-size"
    " health-startup-cmd health-startup-interval health-startup-retries health-startup-success health-startup-timeout"
    " hosts-file init-ctr intel-rdt-clos-id ip6 no-hostname preserve-fd retry retry-delay shm-size-systemd gpus"
    " rdt-class"
).split()
"""Of podman run 5, which is on no machine of the tests (podman-run(1))."""

EXEC: dict[str, Flag] = {
    "detach": Flag("-d"),
    "detach-keys": Flag("--detach-keys ctrl-a"),
    "env": Flag("-e A=1", "echo $A", "1"),
    "env-file": Flag("--env-file {tmp}/pairs", "echo $A", "of the file"),
    "interactive": Flag("-i"),
    "latest": Flag(state=REFUSED),
    "preserve-fd": Flag(state=REFUSED),
    "preserve-fds": Flag(state=REFUSED),
    "privileged": Flag("--privileged", _STATUS, "CapEff:"),
    "tty": Flag("-t", "tty", "/dev/pts/"),
    "user": Flag("-u 1000", "id -u", "1000"),
    "workdir": Flag("-w /tmp", "pwd", "/tmp"),
}


class Outcome(NamedTuple):
    """`reason`: limpet's words for a refusal. `problem`: what was not as it was to be, or ""."""

    reason: str = ""
    problem: str = ""


def theirs(client: str, command: str) -> list[str]:
    """The long names in a client's help."""
    shown = subprocess.run([client, *command.split(), "--help"], capture_output=True, text=True, check=True).stdout
    return [name for name in re.findall(r"^\s+(?:-\w, )?--([\w-]+)", shown, re.MULTILINE) if name != "help"]


def commands(client: str) -> list[str]:
    """The names of commands and groups in a client's help."""
    shown = subprocess.run([client, "--help"], capture_output=True, text=True, check=True).stdout
    lists = shown[shown.index("Commands:") :].partition("Options:")[0]
    return sorted(set(re.findall(r"^  ([a-z-]+)\*? ", lists, re.MULTILINE)) - {"help"})


def prepare(limpet: Any, image: str, tmp: Path) -> dict[str, str]:
    """What the samples need: files, a network, a pod, a container. The result fills in the samples."""
    (tmp / "pairs").write_text("A=of the file\n")
    limpet("network", "create", "--ipv6", "--subnet", "10.213.7.0/24", "--subnet", "fd00:213:7::/64", "flags")
    (tmp / "pod").write_text(limpet("pod", "create", "flags").stdout)
    script = "touch /base/file; exec sleep 1000"
    limpet("run", "-d", "--name", "flags-base", "-v", "flags-data:/base", image, "sh", "-c", script)
    disks = (f"/dev/{disk.name}" for disk in sorted(Path("/sys/block").iterdir()))
    return {
        "tmp": str(tmp),
        "base": "flags-base",
        "disk": next((d for d in disks if Path(d).is_block_device()), "/dev/x"),
    }


def clean(limpet: Any) -> None:
    limpet("pod", "rm", "-f", "flags", check=False)
    limpet("rm", "-f", "-v", "flags-base", "flags-base-2", check=False)
    limpet("network", "rm", "flags", check=False)


def words(flag: Flag, name: str, filled: dict[str, str]) -> list[str]:
    if name == "device-cgroup-rule":
        return [flag.words, "c 10:237 r"]
    return [word if "$" in word else word.format(**filled) for word in flag.words.split()]


def outcome(limpet: Any, name: str, flag: Flag, filled: dict[str, str], target: list[str]) -> Outcome:
    """Runs the sample. `target`: command and its own words before, image or container after: [run, --rm], [image]."""
    command, place = target
    if flag.state == REFUSED:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):  # here, since what is refused is refused before anything is done
            code = entry.main([command, f"--{name}=1", place, "true"])
        lines = said.getvalue().splitlines()
        if code != 125 or len(lines) != 2 or lines[0] != f"limpet: unknown flag: --{name}":
            return Outcome(problem=f"--{name} was to be refused: {code} {said.getvalue()}")
        return Outcome(lines[1])
    before = ["--rm"] if command == "run" else []
    result = limpet(command, *before, *words(flag, name, filled), place, "sh", "-c", flag.script, check=False)
    if flag.unless and flag.unless in result.stderr:
        return Outcome()
    code = 137 if name == "timeout" else 0
    if result.returncode != code or flag.shown not in result.stdout + result.stderr or "late" in result.stdout:
        return Outcome(problem=f"--{name}: {result.returncode} {result.stdout}{result.stderr}")
    return Outcome()


def page(reasons: dict[str, str], exec_reasons: dict[str, str], sources: dict[str, set[str]]) -> str:
    """The whole document. `sources`: "docker run", "podman run", "docker", …: the names that are there."""
    from limpet.cli import missing
    from limpet.cli.commands import ALIASES, COMMANDS, GROUPS

    lines = [
        "# Options and commands of Docker and Podman",
        "",
        "Written by `python -m tests.cli.flags`; a test runs every option with a sample, compares, and sees that none",
        "of `docker run --help` (28) and `podman run --help` (4.3, and what 5 added) lacks. What is *refused* is an",
        "error with the words shown here: nothing is taken and ignored. `create` has the options of `run`, but for",
        "those of a client that looks on (`-d`, `--detach-keys`, `--sig-proxy`).",
        "",
        "## run and create",
        "",
        *_table(FLAGS, reasons, sources["docker run"], sources["podman run"]),
        "",
        "## exec",
        "",
        *_table(EXEC, exec_reasons, sources["docker exec"], sources["podman exec"]),
        "",
        "## Commands",
        "",
        "| command | docker | podman | limpet |",
        "|---|---|---|---|",
    ]
    for name in sorted({*sources["docker"], *sources["podman"]}):
        here = name in {*COMMANDS, *ALIASES, *GROUPS}
        said = "works" if here else f"refused: {missing.command(name)}"
        lines.append(f"| `{name}` | {_tick(name in sources['docker'])} | {_tick(name in sources['podman'])} | {said} |")
    return "\n".join(lines) + "\n"


def _table(flags: dict[str, Flag], reasons: dict[str, str], docker: set[str], podman: set[str]) -> list[str]:
    lines = ["| option | docker | podman | limpet |", "|---|---|---|---|"]
    for name in sorted(flags):
        flag = flags[name]
        more = reasons.get(name, "") if flag.state == REFUSED else flag.note
        said = f"{flag.state}: {more}" if more else flag.state
        lines.append(f"| `--{name}` | {_tick(name in docker)} | {_tick(name in podman)} | {said} |")
    return lines


def _tick(there: bool) -> str:
    return "✓" if there else ""


def sources() -> dict[str, set[str]]:
    found = {
        f"{client} {name}": set(theirs(client, name)) for client in ("docker", "podman") for name in ("run", "exec")
    }
    found["podman run"].update(NEWER)
    found["podman exec"].add("preserve-fd")
    return {**found, "docker": set(commands("docker")), "podman": set(commands("podman"))}


def write() -> None:
    """Prints the page; the reasons are what limpet says."""
    from limpet.cli import missing

    def said(command: str, flags: dict[str, Flag]) -> dict[str, str]:
        return {name: missing.reason(command, f"--{name}") for name, flag in flags.items() if flag.state == REFUSED}

    sys.stdout.write(page(said("run", FLAGS), said("exec", EXEC), sources()))


if __name__ == "__main__":
    write()
