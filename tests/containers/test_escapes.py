"""Ways out of a container that worked elsewhere, each by its number: the attempt is made, and has to come to nothing.

More of them stand where the thing is tested that they misuse: CVE-2024-21626 and CVE-2019-19921 in `test_hostile`,
CVE-2018-15664 and CVE-2019-14271 (`cp`) in `test_copy`, CVE-2022-36109 in `test_users`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.containers.test_hostile import image_with

pytestmark = pytest.mark.slow

Limpet = Any

# A dynamic loader that tells what it was loaded for, and tries to open that for writing: 0 if it can.
LOADER = """
.globl _start
_start:
    mov $89, %eax               # readlink
    lea path(%rip), %rdi
    lea -4096(%rsp), %rsi
    mov %rsi, %rbx
    mov $4000, %edx
    syscall
    mov %eax, %edx
    mov $1, %eax                # write
    mov $1, %edi
    mov %rbx, %rsi
    syscall
    mov $2, %eax                # open
    lea path(%rip), %rdi
    mov $2, %esi
    syscall
    mov %eax, %edi
    mov $231, %eax
    syscall
path: .asciz "/proc/self/exe"
"""


@pytest.fixture
def loader(tmp_path: Path) -> bytes:
    if not (shutil.which("as") and shutil.which("ld")) or os.uname().machine != "x86_64":
        pytest.skip("needs binutils for x86-64")
    (tmp_path / "loader.s").write_text(LOADER)
    subprocess.run(["as", "loader.s", "-o", "loader.o"], cwd=tmp_path, check=True)
    subprocess.run(["ld", "-e", "_start", "-Ttext=0x7000000", "loader.o", "-o", "loader"], cwd=tmp_path, check=True)
    return (tmp_path / "loader").read_bytes()


def test_the_hosts_program_by_proc_self_exe(limpet: Limpet, busybox_tar: Path, tmp_path: Path, loader: bytes) -> None:
    """CVE-2019-5736: who is executed as /proc/self/exe runs as the file of the runtime, and could overwrite it."""
    image = image_with(
        limpet,
        busybox_tar,
        tmp_path,
        ("file", "lib64/ld-linux-x86-64.so.2", loader),
        ("file", "bin/script", "#!/proc/self/exe\n"),
        ("link", "bin/link", "/proc/self/exe"),
    )
    limpet("run", "-d", "--name", "box", image, "sleep", "1000")
    (tmp_path / "context").mkdir()
    for program in ("/bin/script", "/bin/link"):
        (tmp_path / "context/Dockerfile").write_text(f'FROM {image}\nRUN ["{program}", "x"]\n')
        for words in (
            ("run", "--rm", image, program, "x"),
            ("run", "--rm", "-t", image, program, "x"),
            ("run", "--rm", "--no-init", image, program, "x"),
            ("run", "--rm", "--userns", "auto", image, program, "x"),
            ("run", "--rm", "--entrypoint", program, image),
            ("exec", "box", program, "x"),
            ("exec", "-t", "box", program, "x"),
            ("build", "-q", "--no-cache", tmp_path / "context"),
        ):
            result = limpet(*words, check=False, timeout=20)
            assert "python" not in result.stdout + result.stderr, words
            assert result.returncode in (1, 125, 126, 127, 255), words


def test_the_program_in_between_is_nobodys_file(limpet: Limpet, busybox: str) -> None:
    """CVE-2019-5736 again: what a container does see of us is in memory, and its own."""
    script = "cat /proc/1/comm; ls -l /proc/1/exe; for p in /proc/[0-9]*; do readlink $p/exe; done"
    out = limpet("run", "--rm", busybox, "sh", "-c", script).stdout
    assert "python" not in out
    assert "/dev/#" in out


# Mounts


@pytest.mark.parametrize("null", ["link", "file", "none"])
def test_a_volume_at_dev_with_another_null(limpet: Limpet, busybox: str, tmp_path: Path, null: str) -> None:
    """CVE-2025-31133: what masks is the null device, or nothing begins; a missing one is no reason not to mask."""
    (tmp_path / "dev").mkdir()
    if null == "link":
        (tmp_path / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    elif null == "file":
        (tmp_path / "dev/null").write_text("hostile")
    result = limpet("run", "--rm", "-v", f"{tmp_path}/dev:/dev", busybox, "cat", "/proc/kcore", check=False)
    assert result.returncode == 125
    assert "/dev/null is" in result.stderr
    assert result.stdout == ""


def test_a_terminal_that_is_a_link(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """CVE-2025-52565: what becomes /dev/console, and where, is decided before the masks are there."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    for planted in ("pts/0", "pts/1", "console"):
        dev = tmp_path / planted.replace("/", "-")
        (dev / "pts").mkdir(parents=True)
        for name, device in (("null", (1, 3)), ("ptmx", (5, 2)), ("pts/ptmx", (5, 2))):
            os.mknod(dev / name, 0o020666, os.makedev(*device))
        (dev / planted).symlink_to("/proc/sys/kernel/core_pattern")
        script = "echo hostile >/dev/console; cat /dev/console"
        result = limpet("run", "--rm", "-t", "-v", f"{dev}:/dev", busybox, "sh", "-c", script, check=False)
        assert pattern not in result.stdout
        assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


def test_the_hosts_dev_stays_as_it_is(limpet: Limpet, busybox: str) -> None:
    before = sorted(os.listdir("/dev"))
    limpet("run", "--rm", "-v", "/dev:/dev", busybox, "sh", "-c", "[ -c /dev/null ]")
    assert sorted(os.listdir("/dev")) == before


def test_nothing_covers_proc(limpet: Limpet, busybox_tar: Path, tmp_path: Path) -> None:
    """CVE-2019-16884, CVE-2023-28642: by its name, by the image's VOLUME, by a link of the image."""
    image = image_with(
        limpet, busybox_tar, tmp_path, ("link", "data", "/proc"), ("link", "var/deep", "../proc/self/../sys")
    )
    for options in (
        ("-v", "vol:/proc"),
        ("-v", "vol:/proc/sys"),
        ("-v", "vol:/proc/self/attr"),
        ("-v", f"{tmp_path}:/data"),
        ("-v", f"{tmp_path}:/data/sys"),
        ("-v", f"{tmp_path}:/var/deep"),
        ("--tmpfs", "/proc/sys/kernel"),
        ("--tmpfs", "/data/acpi"),
        ("-v", "/dev/null:/proc/kcore"),
    ):
        result = limpet("run", "--rm", *options, image, "true", check=False)
        assert result.returncode == 125, options
        assert "nothing can be mounted inside /proc" in result.stderr, options
    for volume in ("/proc", "/data/sys", "/../proc/sys"):
        limpet("import", "-q", "-c", f"VOLUME {volume}", tmp_path / "hostile.tar", "hostile:2")
        assert limpet("run", "--rm", "hostile:2", "true", check=False).returncode == 125, volume
    # What lxcfs does, and a /proc of somebody's
    (tmp_path / "uptime").write_text("1.00 1.00\n")
    out = limpet("run", "--rm", "-v", f"{tmp_path}/uptime:/proc/uptime", image, "cat", "/proc/uptime").stdout
    assert out == "1.00 1.00\n"
    limpet("run", "--rm", "-v", "/proc:/proc", image, "true")


def test_volumes_of_an_image_at_odd_places(limpet: Limpet, busybox_tar: Path, tmp_path: Path) -> None:
    """`/`, and what climbs: an error, or a place inside."""
    for volume in ("/", "/..", "/../../", "relative", "/../../../outside"):
        limpet("import", "-q", "-c", f'VOLUME ["{volume}"]', busybox_tar, "odd:1", check=False)
        result = limpet("run", "--rm", "odd:1", "sh", "-c", "ls / | grep -c boot; true", check=False)
        assert "internal error" not in result.stderr
        assert result.stdout in ("", "0\n")
    assert not Path("/outside").exists()


def test_a_link_that_moves_while_it_is_mounted_on(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """CVE-2021-30465: a second container swaps a directory of a shared volume for a link to the root."""
    (tmp_path / "payload").mkdir()
    (tmp_path / "payload/marker").touch()
    limpet("volume", "create", "shared")
    script = "cd /v; mkdir -p d/etc; ln -sfn / l; while :; do mv d e; mv l d; mv d l; mv e d; done"
    limpet("run", "-d", "--name", "racer", "-v", "shared:/v", busybox, "sh", "-c", script)
    passwd = Path("/etc/passwd").read_bytes()
    for _ in range(12):
        result = limpet(
            "run", "--rm", "-v", "shared:/v", "-v", f"{tmp_path}/payload:/v/d/etc", busybox,
            "sh", "-c", "ls -d /boot /limpet-host 2>/dev/null; cat /proc/self/mountinfo", check=False,
        )  # fmt: skip
        assert "/boot" not in result.stdout.splitlines()
        assert result.returncode in (0, 1, 125, 127)
        assert not Path("/etc/marker").exists()
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert Path("/etc/passwd").read_bytes() == passwd


def test_a_subpath_of_a_volume_that_is_a_link(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """CVE-2023-3676's kind: who writes a volume says where its sub-paths lead."""
    (tmp_path / "secret").write_text("of the host")
    script = f"ln -s {tmp_path} /v/absolute; ln -s ../../../../../../../../../..{tmp_path} /v/climbing; mkdir /v/in"
    limpet("run", "--rm", "-v", "vol:/v", busybox, "sh", "-c", script)
    for path in ("absolute", "climbing", "absolute/../secret", "in/../climbing"):
        mount = f"type=volume,source=vol,target=/m,volume-subpath={path}"
        result = limpet("run", "--rm", "--mount", mount, busybox, "cat", "/m/secret", "/m", check=False)
        assert result.returncode != 0, path
        assert "of the host" not in result.stdout
    mount = "type=volume,source=vol,target=/m,volume-subpath=in"
    limpet("run", "--rm", "--mount", mount, busybox, "ls", "/m")


def test_a_bind_source_that_moves(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """What is mounted is opened once: the name may lead elsewhere before or after, and never to both."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in "ab":
        (tmp_path / name / "first").write_text(name)
        (tmp_path / name / "second").write_text(name)
    (tmp_path / "source").symlink_to("a")
    swap = "while :; do ln -s b x; mv -T x source; ln -s a x; mv -T x source; done"
    with subprocess.Popen(["sh", "-c", swap], cwd=tmp_path) as swapper:
        try:
            for _ in range(5):
                words = ("run", "--rm", "-v", f"{tmp_path}/source:/s", busybox, "cat", "/s/first", "/s/second")
                assert limpet(*words).stdout in ("aa", "bb")
        finally:
            swapper.kill()


def test_export_of_a_volume_follows_no_link(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """CVE-2023-0778: the content of a link's target in the exported tar."""
    (tmp_path / "secret").write_text("of the host")
    limpet("run", "--rm", "-v", "vol:/v", busybox, "ln", "-s", f"{tmp_path}/secret", "/v/link")
    limpet("volume", "export", "vol", "-o", tmp_path / "vol.tar")
    assert b"of the host" not in (tmp_path / "vol.tar").read_bytes()


# Rights


def test_control_groups_give_no_way_out(limpet: Limpet, busybox: str) -> None:
    """CVE-2022-0492: a release agent runs as root of the host."""
    script = """
    mkdir /tmp/c
    for kind in memory rdma cpu ""; do
        mount -t cgroup ${kind:+-o $kind} none /tmp/c && echo mounted $kind
        unshare -UrmC sh -c "mount -t cgroup ${kind:+-o $kind} none /tmp/c && echo mounted $kind in a namespace"
    done
    mount -t cgroup2 none /tmp/c && echo mounted 2
    for file in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release -o -name cgroup.procs); do
        (echo 0 >$file) && echo wrote $file
    done
    mount -o remount,rw /sys/fs/cgroup && echo remounted
    mkdir /sys/fs/cgroup/below && echo made
    true
    """
    assert limpet("run", "--rm", busybox, "sh", "-c", script).stdout == ""
    limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
    assert limpet("exec", "box", "sh", "-c", script).stdout == ""


def test_no_capability_is_inheritable(limpet: Limpet, busybox: str) -> None:
    """CVE-2022-24769, CVE-2022-27649, CVE-2022-29162: in what runs and in what is executed, as root and as a user."""
    limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
    for user in ("0", "1000"):
        for words in (("run", "--rm", "-u", user, busybox), ("exec", "-u", user, "box")):
            out = limpet(*words, "grep", "-E", "CapInh|CapAmb", "/proc/self/status").stdout
            assert [line.split()[1] for line in out.splitlines()] == ["0" * 16] * 2
    assert limpet("exec", "--privileged", "box", "grep", "CapInh", "/proc/self/status").stdout.split()[1] == "0" * 16


def test_no_socket_of_ours_is_abstract(limpet: Limpet, busybox: str) -> None:
    """CVE-2020-15257: who shares the host's network reaches abstract sockets, whoever's they are."""
    limpet("run", "-d", "--name", "box", busybox, "sleep", "1000")
    limpet("exec", "-d", "box", "sleep", "1000")
    ours = [line for line in Path("/proc/net/unix").read_text().splitlines() if "limpet" in line]
    assert not [line for line in ours if line.split()[7].startswith("@")]
    out = limpet("exec", "box", "cat", "/proc/net/unix").stdout
    assert not [line for line in out.splitlines() if "@" in line and "limpet" in line]


def test_the_store_is_closed_to_the_hosts_users(limpet: Limpet, busybox: str) -> None:
    """CVE-2021-41091: a set-user-ID file that a container made can be reached by nobody else."""
    script = "cp /bin/busybox /root/su; chmod 6755 /root/su; chmod 777 / /root"
    limpet("run", "--name", "box", busybox, "sh", "-c", script)
    (found,) = limpet.root.glob("containers/*/upper/root/su")
    assert found.stat().st_mode & 0o6000 == 0o6000
    above = [path.stat().st_mode for path in found.parents if path.is_relative_to(limpet.root)]
    assert any(not mode & 0o001 for mode in above)


def test_who_executes_is_not_to_be_traced(limpet: Limpet, busybox: str) -> None:
    """CVE-2016-9962: the child that comes into a container is nobody's there before its exec."""
    script = """
    while :; do
        for p in /proc/[0-9]*; do
            case $p in /proc/1|/proc/$$) continue;; esac
            name=$(readlink $p/exe) || continue
            case $name in *python*) echo "$p is $name"; ls -l $p/fd $p/root;; esac
        done
    done
    """
    limpet("run", "-d", "--name", "box", busybox, "sh", "-c", script)
    for _ in range(10):
        limpet("exec", "box", "true")
    assert limpet("logs", "box").stdout == ""


def test_exec_trusts_no_file_of_the_container(limpet: Limpet, busybox: str) -> None:
    """A passwd, a loader's configuration, a resolver's that lie in wait for whoever comes in with rights."""
    script = """
    rm /etc/passwd /etc/group; mkfifo /etc/passwd; ln -s /proc/self/environ /etc/group
    echo /evil.so >/etc/ld.so.preload; echo "passwd: evil" >/etc/nsswitch.conf
    echo ready; exec sleep 1000
    """
    limpet("run", "-d", "--name", "box", busybox, "sh", "-c", script)
    while "ready" not in limpet("logs", "box").stdout:
        pass
    uids = ("grep", "Uid", "/proc/self/status")
    assert limpet("exec", "box", *uids, timeout=20).stdout.split()[1] == "0"
    for user in ("12:34", "somebody"):
        result = limpet("exec", "-u", user, "box", *uids, check=False, timeout=20)
        assert (result.returncode, result.stderr) == (126, "limpet: /etc/passwd of the image is not a regular file\n")


# Builds


def test_mount_points_of_a_step_are_cleaned_up_inside(limpet: Limpet, busybox: str, tmp_path: Path) -> None:
    """CVE-2024-23652: an empty directory that was made to mount on is removed, wherever its name leads by then."""
    victim = tmp_path / "outside/victim"
    victim.mkdir(parents=True)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        f"FROM {busybox}\n"
        f"RUN --mount=type=tmpfs,target=/outside/victim mv /outside /moved; ln -s {tmp_path}/outside /outside\n"
        f"RUN --mount=type=bind,source=.,target={tmp_path}/outside/victim true\n"
    )
    limpet("build", "-q", "-t", "made", context)
    assert victim.is_dir()


@pytest.mark.parametrize("source", ["link", "in/../link", "link/../secret"])
def test_sources_of_build_mounts_that_are_links(limpet: Limpet, busybox: str, tmp_path: Path, source: str) -> None:
    """CVE-2024-23651, CVE-2024-1753: in a cache, another stage and the context they lead nowhere outside."""
    (tmp_path / "secret").write_text("of the host")
    context = tmp_path / "context"
    context.mkdir()
    (context / "link").symlink_to(tmp_path)
    (context / "in").mkdir()
    plant = f"ln -sfn {tmp_path} link; mkdir -p in"
    for place in (
        f"type=cache,id=c,source={source}",
        f"type=bind,from=hostile,source={source}",
        f"type=bind,source={source}",
    ):
        (context / "Dockerfile").write_text(
            f"FROM {busybox} AS hostile\n"
            f"RUN --mount=type=cache,id=c,target=/c {plant}; cd /c; {plant}\n"
            f"FROM hostile\nRUN --mount={place},target=/m cat /m/secret /m\n"
        )
        result = limpet("build", "--no-cache", "-t", "made", context, check=False)
        assert "of the host" not in result.stdout + result.stderr, place
        assert "internal error" not in result.stderr


@pytest.mark.parametrize("identity", ["../../../../escaped", "/tmp/escaped", "..", "a/../../b"])
def test_the_id_of_a_cache_mount_is_no_path(limpet: Limpet, busybox: str, tmp_path: Path, identity: str) -> None:
    """CVE-2024-9675."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {busybox}\nRUN --mount=type=cache,id={identity},target=/c touch /c/escaped\n"
    )
    limpet("build", "-q", "-t", "made", tmp_path, check=False)
    assert not Path("/tmp/escaped").exists()
    made = {Path(path).relative_to(limpet.root).parts[0] for path in limpet.root.rglob("escaped")}
    assert made <= {"cache", "caches", "volumes", "build"}, made
    assert not list(limpet.root.parent.glob("escaped"))
