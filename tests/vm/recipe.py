"""What the guests are made of. A change of this file, of `initrd.py` or of the lock file makes them anew."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOCK = ROOT / "requirements-check.lock"

UNUSED = ("ast-serialize", "librt", "mypy", "mypy-extensions", "ruff", "types-jsonschema", "types-pyyaml")
"""Of the lock file: what says the same in any system."""

PACKAGES = (
    "systemd systemd-sysv dbus libpam-systemd linux-image-amd64 python3 ca-certificates busybox-static kmod iproute2 "
    "uidmap runc e2fsprogs acl attr strace procps util-linux"
).split()

MODULES = "virtio_pci virtio_blk crc32c_generic ext4 9p 9pnet_virtio overlay".split()
"""What the initrd loads. The rest is loaded by the kernel when it is asked for."""

MASKED = (
    "systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-udev-trigger.service "
    "systemd-udev-settle.service systemd-timesyncd.service systemd-networkd.service getty.target "
    "serial-getty@ttyS0.service getty@tty1.service systemd-firstboot.service systemd-update-utmp.service "
    "apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer "
    "systemd-random-seed.service e2scrub_reap.service systemd-pcrphase.service sys-kernel-debug.mount "
    "systemd-binfmt.service sys-kernel-config.mount sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount "
    "systemd-modules-load.service systemd-hwdb-update.service kmod-static-nodes.service systemd-tmpfiles-clean.timer "
    "man-db.timer systemd-journal-flush.service systemd-remount-fs.service systemd-user-sessions.service"
).split()
"""Units that cost time in an emulation, and that nothing here needs."""

UNIT = """\
[Unit]
Description=Tests of limpet
After=basic.target dbus.service limpet.service
Wants=dbus.service

[Service]
Type=oneshot
ExecStart=/bin/sh /usr/local/sbin/guest-tests
StandardInput=null
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
TasksMax=infinity
TimeoutStartSec=infinity
TimeoutStopSec=5
Environment=HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

[Install]
WantedBy=multi-user.target
"""

CHECKOUT_UNIT = """\
[Unit]
Description=The checkout of limpet, shared in from the host, with what changes in it kept in memory
DefaultDependencies=no
Before=basic.target
After=local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /usr/local/sbin/guest-checkout

[Install]
WantedBy=basic.target
"""

CHECKOUT_SCRIPT = """\
set -e
mkdir -p /run/guest/src /run/guest/upper /run/guest/work /out /checkout
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro src /run/guest/src
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 out /out
# The virtual environments of the host are for its Python: the guest has one of its own for both.
ln -s /opt/venv /run/guest/upper/.venv
ln -s /opt/venv /run/guest/upper/.venv-check
touch /opt/venv/ready
mount -t overlay -o lowerdir=/run/guest/src,upperdir=/run/guest/upper,workdir=/run/guest/work overlay /checkout
"""

TESTS_SCRIPT = """\
# Runs /out/stage-N (N: which boot this is), writes its exit code, and reboots if there is another stage.
cd /checkout
stage=$(( $(cat /var/lib/guest-stage 2>/dev/null || echo 0) + 1 ))
echo $stage >/var/lib/guest-stage
sh /out/stage-$stage
echo $? >/out/exit-$stage
sync
if [ -e /out/stage-$((stage + 1)) ]; then systemctl --no-block reboot; else
    [ -e /out/gentle ] && systemctl --no-block poweroff || systemctl --force --force poweroff
fi
"""


@dataclass(frozen=True)
class Guest:
    """`part`: what `./check --vm` runs in it. `quick`: of what it runs the tests that are not slow, after a boot of
    their own. `seconds`: within which each has to be done. `reboot`: and what only shows over a reboot, by `inside`."""

    name: str
    part: tuple[str, ...]
    quick: tuple[str, ...] = ()
    seconds: int = 2700
    reboot: bool = False

    def digest(self) -> str:
        """Of everything that decides what the guest is, but for the state of Debian's archive."""
        found = hashlib.sha256(self.name.encode())
        for path in (Path(__file__), Path(__file__).with_name("initrd.py"), Path(__file__).with_name("guest.py"), LOCK):
            found.update(path.read_bytes())
        return found.hexdigest()


GUESTS = {
    guest.name: guest
    for guest in (
        Guest(
            "trixie",  # Linux 6.12; version 2 of cgroups alone
            (
                "tests/containers/test_limits.py",
                "tests/containers/test_pause.py",
                "tests/containers/test_run.py",
                "tests/containers/test_scopes.py",
                "tests/containers/test_stats.py",
                "tests/containers/test_userns.py",
                "tests/kernel",
                "tests/network",
                "tests/rootless/test_user_systemd.py",
                "tests/system/test_boot.py",
                "tests/test_frozen.py",
            ),
            reboot=True,
        ),
        Guest(
            "bookworm",  # Linux 6.1: no EROFS from a file, no overlay by descriptors
            ("tests/containers/test_run.py", "tests/containers/test_scopes.py", "tests/layers/test_stack.py"),
            quick=("tests/kernel", "tests/layers", "tests/store", "tests/images", "tests/system"),
        ),
    )
}
