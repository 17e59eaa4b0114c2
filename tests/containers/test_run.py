"""`run`, `create`, `start` as a user sees them: output, exit codes, what is inside, what stays behind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from limpet.kernel import capabilities

Limpet = Any


def sh(limpet: Limpet, image: str, script: str, *options: str, **more: Any) -> str:
    return limpet("run", "--rm", *options, image, "sh", "-c", script, **more).stdout


def test_output_and_exit_code(limpet: Limpet, busybox: str) -> None:
    result = limpet("run", "--rm", busybox, "sh", "-c", "echo out; echo err >&2; exit 37", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 37)
    assert limpet("ps", "-aq").stdout == ""
    for place in ("containers", "tmp"):
        assert os.listdir(limpet.root / place) == []


def test_every_byte_arrives(limpet: Limpet, busybox: str) -> None:
    count = sh(limpet, busybox, "dd if=/dev/zero bs=1M count=20 2>/dev/null")
    assert len(count) == 20 << 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["/bin/nosuch"], 127, 'exec: "/bin/nosuch": no such file or directory'),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
        (["/etc"], 126, "it is a directory"),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["sh", "-c", "kill -TERM $$"], 143, ""),
    ],
)
def test_exit_codes_are_dockers(limpet: Limpet, busybox: str, command: list[str], code: int, words: str) -> None:
    result = limpet("run", "--rm", busybox, *command, check=False)
    assert result.returncode == code
    assert words in result.stderr
    assert limpet("ps", "-aq").stdout == ""


def test_a_command_not_found_says_what_path_held(limpet: Limpet, busybox: str) -> None:
    result = limpet("run", "--rm", "-e", "PATH=/bin:/none", busybox, "nosuch", check=False)
    assert "PATH holds /bin (" in result.stderr
    assert "/none (missing)" in result.stderr


def test_the_wrong_architecture_names_both(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    program = bytearray(Path("/bin/true").read_bytes()[:4096])
    program[18:20] = (243).to_bytes(2, "little")
    (tmp_path / "riscv").write_bytes(program)
    (tmp_path / "riscv").chmod(0o755)
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    wrong = limpet("run", "--rm", "-v", f"{tmp_path}:/x", busybox, "/x/riscv", check=False)
    assert wrong.returncode == 126
    host = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    assert f"the program is for riscv64, this host is {host}" in wrong.stderr
    assert (
        "neither an ELF program nor a script"
        in limpet("run", "--rm", "-v", f"{tmp_path}:/x", busybox, "/x/text", check=False).stderr
    )


def test_a_missing_interpreter_is_named(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/usr/bin/python9\n")
    (tmp_path / "script").chmod(0o755)
    result = limpet("run", "--rm", "-v", f"{tmp_path}:/x", busybox, "/x/script", check=False)
    assert result.returncode == 127
    assert "its interpreter '/usr/bin/python9' is missing" in result.stderr


def test_a_failed_start_is_recorded(limpet: Limpet, busybox: str) -> None:
    assert limpet("run", "--name", "broken", busybox, "nosuch", check=False).returncode == 127
    state = json.loads(limpet("inspect", "broken").stdout)[0]["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert "executable file not found" in state["Error"]


def test_environment_user_and_directory(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nA=1\n  B=two words \nFROM_CALLER\nMISSING\nC='quoted'\n")
    limpet.environment["FROM_CALLER"] = "yes"
    script = 'echo "$A|$B|$C|$FROM_CALLER|${MISSING-none}|$D"; id; pwd; echo $HOME'
    out = sh(
        limpet, busybox, script, "--env-file", str(tmp_path / "env"), "-e", "D=4", "-u", "user", "-w", "/var/new"
    ).splitlines()
    assert out[0] == "1|two words |'quoted'|yes|none|4"
    assert out[1] == "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra),2001(more)"
    assert out[2:] == ["/var/new", "/home/user"]


def test_standard_environment(limpet: Limpet, busybox: str) -> None:
    env = dict(line.split("=", 1) for line in limpet("run", "--rm", busybox, "env").stdout.splitlines())
    assert env.pop("HOSTNAME") == os.uname().nodename
    assert env.pop("LIMPET_ADDRESS").startswith("127.")
    assert env == {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


def test_standard_input(limpet: Limpet, busybox: str) -> None:
    assert limpet("run", "--rm", "-i", busybox, "cat", input="a\nb").stdout == "a\nb"
    assert limpet("run", "--rm", busybox, "cat", input="a\nb").stdout == ""
    big = "x" * 3_000_000
    assert limpet("run", "--rm", "-i", busybox, "wc", "-c", input=big).stdout.strip() == "3000000"


def test_namespaces(limpet: Limpet, busybox: str) -> None:
    names = ("mnt", "pid", "ipc", "uts", "cgroup", "net")
    script = f"for n in {' '.join(names)}; do readlink /proc/self/ns/$n; done; ps | wc -l; cat /proc/self/cgroup"
    out = sh(limpet, busybox, script)
    lines = out.splitlines()
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    assert not set(lines[:5]) & set(ours[:5])
    assert lines[5] == ours[5]
    assert int(lines[6]) <= 6
    assert "0::/" in lines


def test_no_network(limpet: Limpet, busybox: str) -> None:
    out = sh(limpet, busybox, "ip -o link; ping -c 1 -q 127.0.0.1 >/dev/null && echo up; hostname", "--network", "none")
    assert "LOOPBACK,UP" in out
    assert "eth" not in out
    lines = out.splitlines()
    assert lines[-2] == "up"
    assert len(lines[-1]) == 12


def test_confinement_is_dockers(limpet: Limpet, busybox: str) -> None:
    status = dict(
        line.split(":\t", 1) for line in sh(limpet, busybox, "cat /proc/self/status").splitlines() if ":\t" in line
    )
    expected = f"{capabilities.mask(capabilities.DEFAULT):016x}"
    assert [status[f"Cap{name}"] for name in ("Bnd", "Eff", "Prm", "Inh", "Amb")] == [expected] * 3 + ["0" * 16] * 2
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "0")
    out = sh(limpet, busybox, "unshare -m true; echo $?; cat /proc/kcore | wc -c; ls /sys/firmware | wc -l;"
             "echo x > /proc/sys/kernel/hostname; mknod /tmp/sda b 8 0 && cat /tmp/sda; echo $?")  # fmt: skip
    assert out.split() == ["1", "0", "0", "1"]


def test_less_and_more_confinement(limpet: Limpet, busybox: str) -> None:
    grep = "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status"
    assert sh(limpet, busybox, grep, "--cap-drop", "ALL", "--security-opt", "no-new-privileges").split()[1::2] == [
        "0" * 16,
        "1",
        "2",
    ]
    privileged = sh(limpet, busybox, f"{grep}; echo host > /proc/sys/kernel/hostname; hostname; unshare -m echo ok",
                    "--privileged").split()  # fmt: skip
    assert privileged[5] == "0"
    assert privileged[-2:] == ["host", "ok"]
    assert os.uname().nodename != "host"
    unconfined = sh(limpet, busybox, grep, "--security-opt", "seccomp=unconfined").split()
    assert unconfined[-1] == "0"


def test_a_seccomp_profile_of_ones_own(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    }
    (tmp_path / "p.json").write_text(json.dumps(profile))
    out = sh(limpet, busybox, "mkdir /tmp/x; echo $?; unshare -m echo ok", "--security-opt",
             f"seccomp={tmp_path}/p.json", "--cap-add", "SYS_ADMIN")  # fmt: skip
    assert out.split() == ["1", "ok"]
    (tmp_path / "p.json").write_text("{")
    bad = limpet("run", "--rm", "--security-opt", f"seccomp={tmp_path}/p.json", busybox, "true", check=False)
    assert bad.returncode == 125
    assert len(bad.stderr.splitlines()) <= 2


def test_devices(limpet: Limpet, busybox: str) -> None:
    out = sh(limpet, busybox, "ls /dev; head -c 3 /dev/zero | wc -c; echo x > /dev/null; ls -l /dev/full | cut -c1-10")
    names = out.split()
    assert {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "mqueue", "fd", "stdin", "ptmx"} <= {
        *names
    }
    assert names[-2:] == ["3", "crw-rw-rw-"]
    more = sh(limpet, busybox, "ls -l /dev/other | cut -c1-10; cat /dev/other", "--device", "/dev/null:/dev/other:r")
    assert more == "crw-rw-rw-\n"


def test_read_only_and_tmpfs_and_shm(limpet: Limpet, busybox: str) -> None:
    script = "touch /x; echo $?; touch /tmp/x; echo $?; df -k /dev/shm | tail -1 | awk '{print $2}'"
    out = sh(limpet, busybox, script, "--read-only", "--tmpfs", "/tmp:size=1m", "--shm-size", "2m")
    assert out.split() == ["1", "0", "2048"]


def test_limits_and_sysctls_and_hosts(limpet: Limpet, busybox: str) -> None:
    out = sh(
        limpet, busybox, "ulimit -n; cat /proc/sys/kernel/shmmni; grep db /etc/hosts; hostname; cat /etc/hostname",
        "--ulimit", "nofile=100:200", "--sysctl", "kernel.shmmni=77", "--add-host", "db:10.1.2.3", "-h", "web",
    )  # fmt: skip
    assert out.splitlines() == ["100", "77", "10.1.2.3\tdb", "web", "web"]


def test_entry_point_and_labels_and_cidfile(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    cid = tmp_path / "cid"
    out = limpet(
        "run", "--entrypoint", "echo", "-l", "a=b", "--cidfile", cid, "--name", "ent", busybox, "x", "y"
    ).stdout
    assert out == "x y\n"
    inspected = json.loads(limpet("inspect", "ent").stdout)[0]
    assert inspected["Id"] == cid.read_text()
    assert inspected["Config"]["Labels"] == {"a": "b"}
    again = limpet("run", "--cidfile", cid, busybox, "true", check=False)
    assert (again.returncode, "container ID file" in again.stderr) == (125, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rm", "--restart", "always"], "conflicting options"),
        (["--name", "x"], "invalid container name"),
        (["-w", "relative"], "absolute path"),
        (["--cap-add", "FLY"], "invalid capability"),
        (["--security-opt", "selinux=1"], "not supported"),
        (["--stop-signal", "NOPE"], "invalid signal"),
        (["-u", "nobody9"], "unable to find user nobody9"),
        (["-v", "/nonexistent9:/x"], "bind source /nonexistent9 does not exist"),
        (["--env-file", "/nonexistent9"], "env file /nonexistent9"),
        (["--log-opt", "max-size=x"], "invalid size"),
    ],
)
def test_mistakes_leave_nothing(limpet: Limpet, busybox: str, options: list[str], words: str) -> None:
    if "--rm" not in options:
        options = ["--rm", *options]
    result = limpet("run", *options, busybox, "true", check=False)
    assert result.returncode == 125
    assert words in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert limpet("ps", "-aq").stdout == ""
    assert os.listdir(limpet.root / "containers") == []


def test_a_name_in_use(limpet: Limpet, busybox: str) -> None:
    limpet("create", "--name", "one", busybox, "true")
    result = limpet("create", "--name", "one", busybox, "true", check=False)
    assert result.returncode == 125
    assert 'the container name "/one" is already in use' in result.stderr
    assert len(os.listdir(limpet.root / "containers")) == 1


def test_create_then_start_attached(limpet: Limpet, busybox: str) -> None:
    made = limpet("create", "-i", "--name", "box", busybox, "sh", "-c", "cat; exit 5").stdout
    assert len(made.strip()) == 64
    result = limpet("start", "-ai", "box", input="hello", check=False)
    assert (result.stdout, result.returncode) == ("hello", 5)


def test_start_of_a_running_one_is_fine(limpet: Limpet, busybox: str) -> None:
    limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
    assert limpet("start", "box").stdout == "box\n"
    assert limpet("start", "box", "nosuch", check=False).returncode == 1


def test_the_writable_layer_stays_until_removed(limpet: Limpet, busybox: str) -> None:
    limpet("create", "--name", "box", busybox, "sh", "-c", "echo line >> /file; cat /file")
    assert limpet("start", "-a", "box").stdout == "line\n"
    assert limpet("start", "-a", "box").stdout == "line\nline\n"


@pytest.mark.slow
def test_two_at_once_do_not_meet(limpet: Limpet, busybox: str) -> None:
    command = [*limpet.command, "run", "--rm", busybox, "sh", "-c", "sleep 0.1; hostname"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env=limpet.environment) for _ in range(8)]
    assert [process.wait(60) for process in running] == [0] * 8
    for process in running:
        assert process.stdout is not None
        process.stdout.close()
    assert os.listdir(limpet.root / "containers") == []


def test_the_config_is_valid_against_the_published_schema(limpet: Limpet, busybox: str) -> None:
    import jsonschema

    limpet("run", "-d", "--name", "box", "-v", "data:/data", busybox, "sleep", "1000")
    (directory,) = (limpet.root / "containers").iterdir()
    config = json.loads((directory / "config.json").read_text())
    schema = json.loads((Path(__file__).parent / "runtime-spec.schema.json").read_text())
    jsonschema.validate(config, schema, cls=jsonschema.Draft4Validator)
    assert config["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"


@pytest.mark.parametrize("options", [(), ("-u", "1000"), ("-u", "www", "--cap-drop", "ALL"), ("-t",)])
def test_output_through_the_descriptors_of_pid_1(limpet: Any, busybox: str, options: tuple[str, ...]) -> None:
    """What cron jobs and log links of images do."""
    script = "echo out >/proc/1/fd/1; echo err >/proc/1/fd/2; sleep 0.1; cat /proc/1/comm"
    limpet("run", "--name", "talker", *options, busybox, "sh", "-c", script)
    logged = limpet("logs", "talker")
    assert sorted((logged.stdout + logged.stderr).split()) == ["err", "limpet-init", "out"]


def test_pid_1_has_no_more_rights_than_the_program(limpet: Any, busybox: str, tmp_path: Path) -> None:
    fields = "'^(Uid|Gid|Groups|Cap.*|NoNewPrivs|Seccomp):'"
    script = f"for i in 1 self; do grep -E {fields} /proc/$i/status; done"
    for options in (
        [],
        ["-u", "1000:33"],
        ["--privileged"],
        ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
    ):
        lines = limpet("run", "--rm", *options, busybox, "sh", "-c", script).stdout.splitlines()
        half = len(lines) // 2
        assert half == 10
        assert lines[:half] == lines[half:]
    profile = tmp_path / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    script = "grep CapPrm /proc/1/status; readlink /proc/1/exe || echo closed"
    shown = limpet("run", "--rm", "--security-opt", f"seccomp={profile}", busybox, "sh", "-c", script).stdout.split()
    assert shown == ["CapPrm:", f"{1 << 5:016x}", "closed"]


@pytest.mark.slow
def test_mtab_shows_the_mounts_and_is_no_change(limpet: Any, busybox: str) -> None:
    """Docker makes the link where an image has none; one that is there stays as it is."""
    limpet("run", "--name", "box", busybox, "sh", "-c", "readlink /etc/mtab; grep -c ' / ' /etc/mtab; df / | tail -1")
    assert limpet("logs", "box").stdout.splitlines()[:2] == ["/proc/mounts", "1"]
    assert limpet("diff", "box").stdout == ""
    limpet("run", "--name", "own", busybox, "sh", "-c", "rm /etc/mtab; echo mine > /etc/mtab; rm -r /etc/passwd")
    assert limpet("start", "-a", "own", check=False).returncode == 1  # /etc/passwd is gone
    (limpet.root / "own").mkdir()
    limpet("cp", "own:/etc/mtab", limpet.root / "own")
    assert (limpet.root / "own/mtab").read_text() == "mine\n"
    read_only = limpet("run", "--rm", "--read-only", busybox, "readlink", "/etc/mtab")
    assert read_only.stdout == "/proc/mounts\n"


def test_a_link_of_the_image_does_not_lead_mtab_out(limpet: Any, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    limpet("run", "--name", "evil", busybox, "sh", "-c", f"mv /etc /was; ln -s {tmp_path}/outside /etc")
    limpet("start", "-a", "evil", check=False)
    assert os.listdir(tmp_path / "outside") == []


def test_signals_that_the_caller_ignores_reach_the_container(limpet: Limpet, busybox: str) -> None:
    ignore = "trap '' HUP INT QUIT USR1; exec \"$@\""
    script = ["grep", "SigIgn", "/proc/self/status", "/proc/1/status"]
    words = ["sh", "-c", ignore, "sh", *limpet.command, "run", "--rm", busybox, *script]
    result = subprocess.run(words, env=limpet.environment, capture_output=True, text=True, timeout=60)
    assert [line.split()[-1] for line in result.stdout.splitlines()] == ["0" * 16] * 2
    limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
    words = ["sh", "-c", ignore, "sh", *limpet.command, "exec", "box", "grep", "SigIgn", "/proc/self/status"]
    result = subprocess.run(words, env=limpet.environment, capture_output=True, text=True, timeout=60)
    assert result.stdout.split()[-1] == "0" * 16


def test_the_files_that_are_provided_are_read_only_too(limpet: Limpet, busybox: str) -> None:
    script = "for f in hosts resolv.conf hostname; do echo x >>/etc/$f && echo wrote; done; true"
    assert limpet("run", "--rm", "--read-only", busybox, "sh", "-c", script).stdout == ""
    assert limpet("run", "--rm", busybox, "sh", "-c", script).stdout == "wrote\n" * 3
