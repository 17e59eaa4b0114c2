"""info, version."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import limpet
from limpet.cli import output
from limpet.cli.table import Command, Option

if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.store.store import Store


def version(call: Call) -> int:
    if call["short"]:
        print(f"limpet version {limpet.__version__}")
        return 0
    fields = {
        "Version": limpet.__version__,
        "Python": ".".join(map(str, sys.version_info[:3])),
        "Os": "linux",
        "Arch": _architecture(),
        "KernelVersion": os.uname().release,
    }
    both = {"Client": fields, "Server": fields}  # one program, but scripts ask Docker for either
    if call["format"]:
        rows = [both if call["format"] == "json" else {**both, **fields}]
        print(output.formatted(call["format"], rows, ()))
        return 0
    for key, value in fields.items():
        print(f"{key + ':':15s} {value}")
    return 0


def info(call: Call) -> int:
    from limpet.kernel import cgroup, features

    place = call.store.root
    while call.store.absent and not os.path.isdir(place):
        place = os.path.dirname(place)
    from limpet.network import probe

    found = [*features.probe(place), *probe.features()]
    fields = _facts(call.store)
    fields["Features"] = [
        {"Name": f.name, "State": f.state, "Since": f.since, "Use": f.use, "Cost": "" if f.works else f.cost}
        for f in found
    ]
    if call["format"]:
        print(output.formatted(call["format"], [fields], ()))
        return 0
    for title, key in _SHOWN:
        print(f"{title}: {output.size_binary(fields[key]) if key == 'MemTotal' else fields[key]}")
    limits = _limits_shown(fields["LimitsBy"])
    if cgroup.delegated() and cgroup.root() is None:
        limits += f"; there is no control group of yours: {cgroup.WAY}"
    print(f"Limits: {limits}")
    print(f"Registries: {fields['RegistryConfig']['Error'] or _registries(fields['RegistryConfig'])}")
    named = [device["ID"] for device in fields["DiscoveredDevices"]]
    print(f"Devices: {', '.join(named) or 'none described'} (CDI: {', '.join(fields['CDISpecDirs'])})")
    for problem in fields["CDIErrors"]:
        print(f"  {problem}")
    print("Features:")
    rows = [(f.name, f.state, f.since, f.use if f.works else f"MISSING: {f.cost}") for f in found]
    for line in output.table(("FEATURE", "STATE", "SINCE LINUX", "WHAT FOR"), rows).splitlines():
        print(f"  {line}")
    return 0


def _facts(store: Store) -> dict[str, Any]:
    """Under Docker's names, as far as it has some."""
    import shutil

    from limpet.containers import state
    from limpet.containers.plan import cdi
    from limpet.images import catalog
    from limpet.kernel import cgroup, idmap, systemd
    from limpet.layers.driver import driver

    states = [state.status(store, container).state for container in state.all_containers(store)]
    rootless = idmap.nested()
    runc = shutil.which("runc")
    devices, problems = cdi.described()
    return {
        "Containers": len(states),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
        "Images": len(catalog.all_images(store)),
        "ServerVersion": limpet.__version__,
        "Driver": driver(store).name if not store.absent else "none yet",
        "DockerRootDir": store.root,
        "RunDir": store.run,
        "LoggingDriver": "json-file",
        "DefaultRuntime": "limpet",
        "Runtimes": {"limpet": {"path": "limpet"}, **({"runc": {"path": runc}} if runc else {})},
        "SecurityOptions": [
            *("name=seccomp,profile=builtin", "name=cgroupns"),
            *(["name=rootless"] if rootless else []),
        ],
        "Ids": _ids(),
        "CgroupDriver": "systemd" if systemd.makes_scopes() else "cgroupfs",
        "CgroupVersion": cgroup.version(),
        **_limits(),
        "KernelVersion": os.uname().release,
        "OperatingSystem": _operating_system(),
        "OSType": "linux",
        "Architecture": os.uname().machine,
        "NCPU": os.cpu_count(),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Name": os.uname().nodename,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "CDISpecDirs": list(cdi.PLACES),
        "DiscoveredDevices": [{"Source": "cdi", "ID": name} for name in sorted(devices)],
        "CDIErrors": problems,
        "RegistryConfig": _registry_config(),
    }


def _limits() -> dict[str, Any]:
    """Docker's fields, and by which version of cgroup each limit is held."""
    from limpet.kernel import controllers

    held = {name: controllers.version(name) for name in controllers.NAMES}
    return {
        "MemoryLimit": bool(held["memory"]),
        "SwapLimit": bool(held["memory"]) and controllers.counts_swap(),
        "PidsLimit": bool(held["pids"]),
        "CPUShares": bool(held["cpu"]),
        "CpuCfsPeriod": bool(held["cpu"]),
        "CpuCfsQuota": bool(held["cpu"]),
        "CPUSet": bool(held["cpuset"]),
        "LimitsBy": {name: version and f"cgroup v{version}" for name, version in held.items()},
    }


def _ids() -> str:
    """Whose containers' ids are on the host."""
    from limpet.kernel import idmap

    if not idmap.nested():
        return "the host's own"
    count = sum(size for _, _, size in idmap.current())
    if count == 1:
        return f"one, user {idmap.outside()}: owners and devices that can't be made are written down at the files"
    return f"{count}: root is user {idmap.outside()}, the others are from /etc/subuid and /etc/subgid"


def _limits_shown(held: dict[str, Any]) -> str:
    """ "memory, pids by cgroup v1; none of io" """
    by: dict[str, list[str]] = {}
    for name, version in held.items():
        by.setdefault(version or "", []).append(name)
    found = [f"{', '.join(names)} by {version}" for version, names in sorted(by.items()) if version]
    return "; ".join([*found, *([f"none of {', '.join(by[''])}"] if "" in by else [])])


def _registry_config() -> dict[str, Any]:
    """Docker's fields, and the files in use. A mistake in one is shown, and is no reason to show nothing else."""
    from limpet.errors import Invalid
    from limpet.registry import settings

    found: dict[str, Any] = {"Files": [], "Mirrors": [], "Search": [], "Blocked": [], "Error": ""}
    try:
        known = settings.load()
    except Invalid as e:
        return {**found, "Error": str(e)}
    hub = known.rule("docker.io", "")
    mirrors = hub.mirrors if hub is not None else ()
    return {
        "Files": list(known.files),
        "Mirrors": [f"{one.place.domain}/{one.place.path}".rstrip("/") for one in mirrors],
        "Search": list(known.search or ("docker.io",)),
        "Blocked": [f"{rule.domain}/{rule.path}".rstrip("/") for rule in known.rules if rule.blocked],
        "Error": "",
    }


def _registries(config: dict[str, Any]) -> str:
    return ", ".join(config["Files"]) or "no file; TLS for all but this machine, short names are Docker Hub's"


_SHOWN = (
    ("Containers", "Containers"),
    (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"),
    (" Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Version", "ServerVersion"),
    ("Storage driver", "Driver"),
    ("Root directory", "DockerRootDir"),
    ("Run directory", "RunDir"),
    ("Logging driver", "LoggingDriver"),
    ("Default runtime", "DefaultRuntime"),
    ("Cgroup driver", "CgroupDriver"),
    ("Cgroup version", "CgroupVersion"),
    ("Ids of containers", "Ids"),
    ("Kernel version", "KernelVersion"),
    ("Operating system", "OperatingSystem"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Memory", "MemTotal"),
)


def _operating_system() -> str:
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 16).splitlines()
    except OSError:
        return "Linux"
    return next((line.partition("=")[2].strip("\"'") for line in lines if line.startswith("PRETTY_NAME=")), "Linux")


def _architecture() -> str:
    """Go's name of it, as in platforms."""
    from limpet.oci import platform

    return platform.host().architecture


_FORMAT = Option("format", "f", kind="string", default="", metavar="FORMAT", help="json, or a Go template")

COMMANDS = {
    "version": Command(
        name="version",
        handler=version,
        usage="[OPTIONS]",
        summary="Show the version",
        options=(_FORMAT, Option("short", help="One line only")),
        examples=("limpet version", "limpet version -f '{{.Version}}'"),
        max_args=0,
    ),
    "info": Command(
        name="info",
        handler=info,
        usage="[OPTIONS]",
        summary="Show the store, and which features this host has, which are missing and what that costs",
        options=(_FORMAT,),
        examples=("limpet info", "limpet info -f '{{.Driver}}'"),
        max_args=0,
    ),
}
