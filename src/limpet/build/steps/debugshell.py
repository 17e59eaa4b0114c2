"""`build --debug-shell`: a shell in the file system of the RUN step that failed, with what it changed so far.

The shell's container is another one: with the step's environment, user, directory and mounts, and the upper directory
of the one that failed. An image without a shell gets the host's busybox, if that is a static program, for the time.
When the shell ends all of it is thrown away.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from limpet.build.copying.place import look, real
from limpet.build.language.lines import printable
from limpet.build.steps.run import options
from limpet.containers import attach, create, start, stop
from limpet.containers.options import Options
from limpet.errors import Invalid, LimpetError
from limpet.images import elf
from limpet.images.catalog import Image
from limpet.kernel import terminal
from limpet.layers.driver import driver
from limpet.store.files import remove_tree

if TYPE_CHECKING:
    from typing import Any

    from limpet.build.planning.plan import Run
    from limpet.build.steps.stepmounts import StepMounts
    from limpet.store.store import Store

SHELLS = ("/bin/bash", "/bin/sh", "/usr/bin/bash", "/usr/bin/sh", "/busybox/sh", "/bin/ash")
_LENT = "/.limpet-busybox"


def check_terminal() -> None:
    """Raises Invalid where no shell could be used: nobody shall wait for a failure to learn that."""
    if not (os.isatty(0) and os.isatty(2)):
        raise Invalid(
            "--debug-shell needs a terminal, and standard input or standard error is none",
            "leave it out here; build again at a terminal to look at what failed",
        )


def open_shell(
    store: Store,
    place: str,
    document: dict[str, Any],
    layers: list[str],
    step: Run,
    ready: StepMounts,
    code: int,
) -> None:
    """Returns when the shell has ended. `place` is the directory of the step, which loses its changes.

    `document`: the base image's config. Raises LimpetError.
    """
    secrets = [f"{key}={value}" for key, value in ready.env.items()]
    wanted = Options(**options(step, ready))
    wanted.env = [each for each in wanted.env if each not in secrets]
    wanted.mounts = [
        f"type=bind,source={bind.source},target={bind.target}{',readonly' if bind.read_only else ''}"
        for bind in ready.binds
    ]
    wanted.init = wanted.auto_remove = wanted.tty = wanted.interactive = True
    wanted.labels = {"limpet.build": "debug shell"}
    if wanted.network == "host":
        wanted.address = ["0.0.0.0"]  # as the step's program has it
    image = Image("", {**document, "config": {}}, [], 0)
    if not any(each.startswith("TERM=") for each in wanted.env):
        wanted.env = [*wanted.env, f"TERM={os.environ.get('TERM', 'xterm')}"]
    lent = ""
    shell = _shell(store, place, layers, step)
    try:
        if shell:
            wanted.command = [shell]
        else:
            lent = _lend(store)
            wanted.mounts = [*wanted.mounts, f"type=bind,source={lent},target={_LENT},readonly"]
            wanted.command = [f"{_LENT}/sh"]
            path = next((each for each in wanted.env if each.startswith("PATH=")), "PATH=")
            wanted.env = [each for each in wanted.env if each != path] + [f"{path}:{_LENT}".replace("=:", "=")]
        container = create.create(store, image, wanted, layers=layers)
        try:
            os.rename(f"{place}/upper", f"{store.container_path(container.id)}/upper")
            _tell(step, code, wanted.command[0])
            connection = start.launch(store, container, client=True, size=_size(), unwritten=secrets)
            attach.attach(store, container, connection=connection, sink=_write)
        finally:
            stop.remove(store, container, force=True, volumes=True)
    finally:
        if lent:
            remove_tree(lent)


def _shell(store: Store, place: str, layers: list[str], step: Run) -> str:
    """The path of a shell that is there, what the step changed counted; "" for none."""
    work = store.temporary("work")
    os.mkdir(work, 0o700)
    try:
        root = driver(store).mount(layers, f"{place}/upper", work)
        try:
            own = [step.argv[0]] if step.argv and os.path.basename(step.argv[0]).endswith("sh") else []
            return next((each for each in [*own, *SHELLS] if _executable(root, each)), "")
        finally:
            os.close(root)
    finally:
        remove_tree(work)


def _executable(root: int, path: str) -> bool:
    if not path.startswith("/"):
        return False
    info = look(root, real(root, path.strip("/")))
    return info is not None and stat.S_ISREG(info.st_mode) and bool(info.st_mode & 0o111)


def _lend(store: Store) -> str:
    """A directory with the host's busybox and a link for each of its applets. Raises LimpetError."""
    busybox = shutil.which("busybox")
    program = None
    if busybox is not None:
        with suppress(OSError, Invalid):
            program = elf.read(busybox)
    if busybox is None or program is None or program.interpreter or program.needed:
        raise LimpetError(
            "the image has no shell, and this machine no static busybox to lend",
            "install busybox-static, or build FROM an image with a shell to look at it",
        )
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=False).stdout.split()
    place = store.temporary("busybox")
    os.mkdir(place, 0o755)
    shutil.copy(busybox, f"{place}/busybox")
    for name in {*names, "sh"} - {"busybox"}:
        if "/" not in name:
            os.symlink("busybox", f"{place}/{name}")
    return place


def _tell(step: Run, code: int, shell: str) -> None:
    command = printable(" ".join(step.place.text.split()))
    lent = " (the host's busybox: the image has no shell)" if shell.startswith(_LENT) else ""
    text = f"{command}\nended with exit code {code}. Here is a shell in its file system{lent}; `exit` ends the build."
    print(text, file=sys.stderr, flush=True)


def _size() -> tuple[int, int] | None:
    with suppress(OSError):
        return terminal.get_size(0)
    return None


def _write(stream: int, data: bytes) -> None:
    """To standard error: standard output has the image's id only."""
    while data:
        data = data[os.write(2, data) :]
