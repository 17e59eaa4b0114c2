"""system boot, shutdown, install: limpet as a service of systemd, which runs nothing between boot and shutdown."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from limpet.cli import containers
from limpet.cli.system_store import recover
from limpet.cli.table import Command, Option
from limpet.containers import recovery, state
from limpet.errors import LimpetError, Refused
from limpet.store.files import write_file

if TYPE_CHECKING:
    from limpet.cli.table import Call

DIRECTORY = "/etc/systemd/system"
_UNITS = {
    "limpet.service": """\
[Unit]
Description=Containers of limpet
Wants=network-online.target
After=network-online.target local-fs.target time-sync.target

[Service]
Type=oneshot
RemainAfterExit=yes
{environment}ExecStart={program} system boot
ExecStop={program} system shutdown
# Containers and their monitors have scopes of their own; where there are none, they live on in this service's group.
KillMode=process
TasksMax=infinity
Delegate=yes
TimeoutStopSec=infinity

[Install]
WantedBy=multi-user.target
""",
    "limpet-recover.service": """\
[Unit]
Description=Brings back containers of limpet whose monitor was killed

[Service]
Type=oneshot
{environment}ExecStart={program} system recover
KillMode=process
TasksMax=infinity
""",
    "limpet-recover.timer": """\
[Unit]
Description=Looks after containers of limpet

[Timer]
OnActiveSec=1min
OnUnitActiveSec=1min

[Install]
WantedBy=timers.target
""",
}


def shutdown(call: Call) -> int:
    running = [each for each in state.all_containers(call.store) if state.monitored(call.store, each.id)]
    call.arguments = [each.name for each in running]
    return containers.together(call, lambda container: recovery.shut_down(call.store, container)) if running else 0


def install(call: Call) -> int:
    units = {name: text.format(program=_program(), environment=_environment()) for name, text in _UNITS.items()}
    if call["print"]:
        for name, text in units.items():
            print(f"# {DIRECTORY}/{name}\n{text}")
        return 0
    if not os.path.isdir(DIRECTORY):
        raise Refused(f"{DIRECTORY}: no such directory", "this host has no systemd: call `limpet system boot` at boot")
    if call["remove"]:
        _check_rights()
        _systemctl("disable", "--now", "limpet-recover.timer")
        _systemctl("disable", "limpet.service")
        for name in units:
            if os.path.exists(f"{DIRECTORY}/{name}"):
                os.unlink(f"{DIRECTORY}/{name}")
                print(f"removed {DIRECTORY}/{name}")
        _systemctl("daemon-reload")
        return 0
    _check_rights()
    for name, text in units.items():
        write_file(f"{DIRECTORY}/{name}", text.encode(), 0o644)
        print(f"{DIRECTORY}/{name}")
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", "limpet.service", "limpet-recover.timer")
    return 0


def _check_rights() -> None:
    if not os.access(DIRECTORY, os.W_OK):
        raise Refused(
            f"{DIRECTORY}: only root can write there",
            "limpet system install --print shows what a unit of yours (~/.config/systemd/user) may say",
            exit_code=1,
        )


def _systemctl(*words: str) -> None:
    """Raises LimpetError with its words. Where systemd is not running, links in its directories are all it makes."""
    if not os.path.isdir("/run/systemd/system"):
        words = tuple(word for word in words if word != "--now")
        if words == ("daemon-reload",):
            return
    result = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    if result.returncode:
        raise LimpetError(f"systemctl {' '.join(words)}: {result.stderr.strip() or result.returncode}", exit_code=1)


def _program() -> str:
    """How this limpet is called: the launcher of a checkout, or the installed command. Raises Refused."""
    checkout = os.path.abspath(f"{os.path.dirname(__file__)}/../../../limpet")
    if os.access(checkout, os.X_OK) and os.path.isfile(checkout):
        return _quoted(checkout)
    found = shutil.which(sys.argv[0])
    if found is None:
        raise Refused("limpet does not know by which path it was called", "call it by its whole path")
    return _quoted(os.path.abspath(found))


def _environment() -> str:
    words = [f"{key}={os.environ[key]}" for key in ("LIMPET_ROOT", "LIMPET_RUN") if os.environ.get(key)]
    return "".join(f"Environment={_quoted(word)}\n" for word in words)


def _quoted(text: str) -> str:
    """For a unit file (systemd.syntax(7), systemd.unit(5) "Specifiers")."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if escaped != text or " " in text else text


COMMANDS = {
    "system boot": Command(
        "system boot",
        recover,
        "",
        "At boot: start what has a restart policy and was not stopped by hand (the same as system recover)",
        examples=("limpet system boot",),
        max_args=0,
    ),
    "system shutdown": Command(
        "system shutdown",
        shutdown,
        "",
        "Stop all containers gently, so that the next system boot starts those with a restart policy",
        examples=("limpet system shutdown",),
        max_args=0,
    ),
    "system install": Command(
        "system install",
        install,
        "[OPTIONS]",
        "Have systemd start containers at boot, stop them at shutdown, and look after them each minute",
        (
            Option("print", help="Only print the units"),
            Option("remove", help="Take them away again"),
        ),
        examples=("limpet system install", "limpet system install --print"),
        max_args=0,
    ),
}
