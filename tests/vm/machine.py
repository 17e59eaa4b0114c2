"""Boots a guest, has it run its stages, streams what it prints, and ends it by a time limit."""

from __future__ import annotations

import os
import selectors
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm import guest as guests
from tests.vm.recipe import ROOT, Guest

_CONSOLE_LINES = 25


@dataclass
class Outcome:
    """`codes`: the exit code of each stage that ended. `files`: what the guest left in /out. `hung`: by its limit."""

    codes: list[int] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    output: str = ""
    console: str = ""
    hung: bool = False
    seconds: float = 0.0

    def problem(self, stages: int) -> str:
        """What went wrong with the guest itself; "" if every stage came to its end, whatever its exit code."""
        if not self.hung and len(self.codes) == stages:
            return ""
        how = f"was ended by its time limit, after {self.seconds:.0f} s" if self.hung else "ended before its stages did"
        last = "\n".join(self.console.splitlines()[-_CONSOLE_LINES:])
        return f"the guest {how}; the last lines of its console:\n{last}"


def boot(guest: Guest, stages: Sequence[str], seconds: float, stream: bool = True, gentle: bool = False) -> Outcome:
    """Each stage is a shell script, run as root in /checkout after a boot of its own; the disk lives until the last.

    A stage leaves files in /out. `gentle`: the guest is shut down at its end as a machine is, by all its services.
    Raises subprocess.CalledProcessError when the guest can't be made.
    """
    with guests.made(guest) as made, tempfile.TemporaryDirectory(prefix="limpet-vm-") as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        for number, script in enumerate(stages, 1):
            (out / f"stage-{number}").write_text(script)
        if gentle:
            (out / "gentle").touch()
        outcome = Outcome()
        start = time.monotonic()
        _run(_command(made, out, Path(scratch)), Path(scratch), start + seconds, stream, outcome)
        outcome.seconds = time.monotonic() - start
        outcome.console = (Path(scratch) / "console").read_text(errors="replace")
        for number in range(1, len(stages) + 1):
            code = out / f"exit-{number}"
            if not (code.exists() and code.read_text().strip()):
                break
            outcome.codes.append(int(code.read_text()))
        given = {"gentle", *(f"{kind}-{n}" for kind in ("stage", "exit") for n in range(1, len(stages) + 1))}
        outcome.files = {path.name: path.read_bytes() for path in out.iterdir() if path.name not in given}
        return outcome


def _command(made: guests.Made, out: Path, scratch: Path) -> list[str]:
    # setpriv: the guest ends with who started it, even if that is killed.
    words = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"]
    # Where KVM works, LIMPET_VM_ACCEL=kvm makes it ten times as fast; that it is there does not mean that it works.
    accelerator = os.environ.get("LIMPET_VM_ACCEL") or "tcg,thread=multi"
    words += ["-machine", "q35", "-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "2048"]
    words += ["-kernel", str(made.kernel), "-initrd", str(made.initrd)]
    words += ["-append", "console=ttyS0 quiet systemd.show_status=0 mitigations=off nokaslr audit=0"]
    words += ["-drive", f"file={made.disk},if=virtio,format=raw,snapshot=on,cache=unsafe"]
    words += ["-virtfs", f"local,path={ROOT},mount_tag=src,security_model=none,readonly=on,multidevs=remap"]
    words += ["-virtfs", f"local,path={out},mount_tag=out,security_model=none"]
    words += ["-chardev", f"file,id=console,path={scratch}/console", "-serial", "chardev:console"]
    words += ["-chardev", "stdio,id=tests,signal=off", "-serial", "chardev:tests"]
    return [*words, "-device", "virtio-rng-pci", "-display", "none", "-monitor", "none", "-net", "none"]


def _run(command: list[str], scratch: Path, end: float, stream: bool, outcome: Outcome) -> None:
    environment = {**os.environ, "TMPDIR": str(scratch)}  # what the guest writes to its disk is a file there
    parts: list[bytes] = []
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    assert process.stdout is not None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(max(0.0, end - time.monotonic())):
                    outcome.hung = True
                    break
                data = os.read(process.stdout.fileno(), 65536)
                if not data:
                    break
                data = data.replace(b"\r\n", b"\n")
                parts.append(data)
                if stream:
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        outcome.output = b"".join(parts).decode(errors="replace")


def pytest_script(arguments: Sequence[str], report: str = "report.xml") -> str:
    """A stage that runs part of the tests."""
    words = ["/opt/venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no"]
    words += ["-W", "ignore:unclosed database:ResourceWarning"]  # Python 3.13 has it; what a test drops is dropped
    words += ["--basetemp", "/var/tmp/t", "--junit-xml", f"/out/{report}", *arguments]
    return f"export LIMPET_GUEST=1\n{shlex.join(words)}\n"
