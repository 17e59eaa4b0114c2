"""What the options of `podman_options` come to in a container's options."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from limpet.cli import keyvalues
from limpet.errors import Invalid, LimpetError, NotFound

if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.containers.options import Options

_ZONES = "/usr/share/zoneinfo"
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")


def apply(call: Call, made: Options) -> None:
    """Raises Invalid."""
    made.annotations = keyvalues.pairs(call["annotation"])
    made.platform = made.platform or _platform(call)
    if call["authfile"]:
        os.environ["REGISTRY_AUTH_FILE"] = os.path.abspath(call["authfile"])  # as `registry.credentials` reads it
    _environment(call, made)
    made.image_volume = {"anonymous": "", "bind": ""}.get(call["image-volume"], call["image-volume"])
    made.no_files = [name for name in ("hostname", "hosts") if call[f"no-{name}"]]
    if call["no-hosts"] and made.add_host:
        raise Invalid("--no-hosts and --add-host", "leave out one of the two")
    made.pidfile = os.path.abspath(call["pidfile"]) if call["pidfile"] else ""
    if call["read-only-tmpfs"] and made.read_only:
        taken = {text.partition(":")[0] for text in made.tmpfs}
        made.tmpfs += [f"{path}:mode={mode}" for path, mode in _SCRATCH if path not in taken]
    if call["replace"]:
        _replace(call, made.name)
    made.requires = call["requires"]
    if call["timeout"] is not None:
        if call["timeout"] < 0:
            raise Invalid(f"--timeout {call['timeout']}: it is a number of seconds, 0 for no end")
        made.timeout = call["timeout"]
    if call["tz"]:
        made.volumes = [*made.volumes, f"{_zone(call['tz'])}:/etc/localtime:ro"]
    if call["umask"]:
        if not set(call["umask"]) <= set("01234567") or len(call["umask"]) > 4:
            raise Invalid(f"--umask '{call['umask']}' is no mask of modes", "as in 0022 or 077")
        made.umask = call["umask"]


_SCRATCH = (("/run", "755"), ("/tmp", "1777"), ("/var/tmp", "1777"))


def _platform(call: Call) -> str:
    system, arch, variant = call["os"], call["arch"], call["variant"]
    if not (system or arch or variant):
        return ""
    from limpet.oci import platform

    host = platform.host()
    return "/".join([system or "linux", arch or host.architecture, *([variant] if variant else [])])


def _environment(call: Call, made: Options) -> None:
    """What is said by name wins over what is taken over from the caller."""
    if call["env-host"]:
        made.env = [*(f"{key}={value}" for key, value in os.environ.items()), *made.env]
    elif call["http-proxy"]:
        names = [name for each in _PROXIES for name in (each, each.upper()) if name in os.environ]
        made.env = [*(f"{name}={os.environ[name]}" for name in names), *made.env]
    for text in call["unsetenv"]:
        if not text or "=" in text:
            raise Invalid(f"--unsetenv '{text}' is no name of a variable")
    made.env = [*call["unsetenv"], *made.env]
    made.env_clear = call["unsetenv-all"]
    for text in call["env-merge"]:
        if text.find("=") < 1:
            raise Invalid(f"invalid --env-merge '{text}'", "write KEY=VALUE, as in PATH=${PATH}:/opt/bin")
    made.env_merge = call["env-merge"]


def _replace(call: Call, name: str) -> None:
    if not name:
        raise Invalid("--replace without a name", "say which container, with --name")
    from limpet.containers import state, stop

    try:
        stop.remove(call.store, state.find(call.store, name), force=True, volumes=False)
    except NotFound:
        pass
    except LimpetError as e:
        e.exit_code = 125
        raise


def _zone(name: str) -> str:
    """The host's file of a time zone."""
    if name == "local":
        return os.path.realpath("/etc/localtime")
    path = os.path.realpath(f"{_ZONES}/{name}")
    if not path.startswith(f"{_ZONES}/") or not os.path.isfile(path):
        raise Invalid(f"--tz '{name}': {_ZONES} of this host has no such zone", "as in Europe/Berlin, UTC or local")
    return path
