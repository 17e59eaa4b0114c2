"""Makes a guest's disk, kernel and initrd, once for each recipe; several sessions at once make it once."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.vm import initrd
from tests.vm.recipe import (
    CHECKOUT_SCRIPT,
    CHECKOUT_UNIT,
    LOCK,
    MASKED,
    MODULES,
    PACKAGES,
    TESTS_SCRIPT,
    UNIT,
    UNUSED,
    Guest,
)

_SIZE = "6G"  # sparse
_KEPT = 3 * 86400  # seconds for which a guest of another recipe stays, since other checkouts may use it


@dataclass(frozen=True)
class Made:
    """A guest in the cache."""

    disk: Path
    kernel: Path
    initrd: Path


def cache() -> Path:
    place = os.environ.get("LIMPET_VM_CACHE")
    return Path(place) if place else Path.home() / ".cache/limpet/vm"


def cached(guest: Guest) -> bool:
    return _place(guest).exists()


@contextmanager
def made(guest: Guest) -> Iterator[Made]:
    """The guest, made if it is not there; nobody prunes it meanwhile. Raises subprocess.CalledProcessError."""
    place = _place(guest)
    place.parent.mkdir(parents=True, exist_ok=True)
    # Who makes, prunes or begins to use one has this lock; who uses one has that in the guest's directory.
    with open(place.parent / f"{guest.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            prune(guest)
            _make(guest, place)
        used = open(place / "used", "w")
        fcntl.flock(used, fcntl.LOCK_SH)
    with used:
        os.utime(place / "used")
        yield Made(place / "disk.img", place / "vmlinuz", place / "initrd")


def prune(guest: Guest) -> None:
    """Takes away what a killed session left half-made, and guests of other recipes that nobody used for days."""
    for old in cache().glob(f"{guest.name}-*"):
        try:
            with open(old / "used") as used:
                fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(used.fileno()).st_mtime > _KEPT:
                    shutil.rmtree(old)
        except FileNotFoundError:
            shutil.rmtree(old)
        except BlockingIOError:
            pass


def _place(guest: Guest) -> Path:
    return cache() / f"{guest.name}-{guest.digest()[:12]}"


def _make(guest: Guest, place: Path) -> None:
    print(f"vm: making the guest {guest.name} (once; some minutes)", flush=True)
    start = time.monotonic()
    new = place.with_name(f"{place.name}.new")
    root = new / "root"
    new.mkdir()
    try:
        words = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}"]
        no_documents = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
        # Debian's own initrd would go unused, and takes long to make.
        settings = "$1/etc/initramfs-tools"
        skip = [f"--essential-hook=mkdir -p {settings} && echo update_initramfs=no >{settings}/update-initramfs.conf"]
        subprocess.run([*words, *no_documents, *skip, "--dpkgopt=force-confold", guest.name, str(root)], check=True)
        _python(root, new)
        _settings(root)
        kernel = next((root / "boot").glob("vmlinuz-*"))
        shutil.copy(kernel, new / "vmlinuz")
        (new / "initrd").write_bytes(initrd.build(root, kernel.name.removeprefix("vmlinuz-"), MODULES))
        for path in ("boot", "var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(root / path)
            (root / path).mkdir()
        subprocess.run(
            ["mkfs.ext4", "-q", "-m", "0", "-d", root, new / "disk.img", _SIZE], check=True, capture_output=True
        )
        shutil.rmtree(root)
        (new / "used").touch()
        new.rename(place)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    print(f"vm: {guest.name} is made, in {time.monotonic() - start:.0f} s", flush=True)


def _python(root: Path, scratch: Path) -> None:
    """The locked packages for the guest's Python, with their bytecode: it is slow to make in an emulation."""
    version = (root / "usr/bin/python3").readlink().name.removeprefix("python")
    venv = root / "opt/venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to("/usr/bin/python3")
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    packages = venv / f"lib/python{version}/site-packages"
    wanted, keep = [], True
    for line in LOCK.read_text().splitlines():
        if line[:1].isalpha():
            keep = line.partition("==")[0] not in UNUSED
        if keep:
            wanted.append(line)
    lock = scratch / "lock"
    lock.write_text("\n".join(wanted) + "\n")
    words = ["python3", "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input", "--no-compile"]
    words += ["--root-user-action=ignore", "--require-hashes", "--only-binary=:all:", "--no-deps"]
    words += ["--python-version", version, "--target", str(packages), "-r", str(lock)]
    subprocess.run(words, check=True)
    lock.unlink()
    compiling = [
        "python3",
        "-m",
        "compileall",
        "-q",
        "-j2",
        "/usr/lib/python3",
        f"/usr/lib/python{version}",
        "/opt/venv",
    ]
    subprocess.run(["chroot", str(root), *compiling], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _settings(root: Path) -> None:
    units = root / "etc/systemd/system"
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    scripts = {"guest-checkout": (CHECKOUT_UNIT, CHECKOUT_SCRIPT), "guest-tests": (UNIT, TESTS_SCRIPT)}
    for name, (unit, script) in scripts.items():
        (units / f"{name}.service").write_text(unit)
        (root / "usr/local/sbin" / name).write_text(script)
        wanted = units / f"{unit.rpartition('WantedBy=')[2].strip()}.wants"
        wanted.mkdir(exist_ok=True)
        (wanted / f"{name}.service").symlink_to(f"../{name}.service")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    (root / "etc/hostname").write_text("guest\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost guest\n::1 localhost\n")
    (root / "etc/fstab").write_text("")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    for place in ("etc", "var"):
        (root / place / ".updated").touch()  # nothing to bring up to date at the first boot (systemd-update-done(8))
    (root / "etc/subuid").write_text("user:100000:65536\n")
    (root / "etc/subgid").write_text("user:100000:65536\n")
