"""info, version."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import limpet
from limpet import jsontext
from limpet.cli import output
from limpet.cli.table import Command, Option

if TYPE_CHECKING:
    from limpet.cli.table import Call


def version(call: Call) -> int:
    if call["short"]:
        print(f"limpet version {limpet.__version__}")
        return 0
    fields = {
        "Version": limpet.__version__,
        "Python": ".".join(map(str, sys.version_info[:3])),
        "Os": "linux",
        "Arch": os.uname().machine,
        "KernelVersion": os.uname().release,
    }
    if call["format"]:
        print(output.formatted(call["format"], [fields], ()))
        return 0
    for key, value in fields.items():
        print(f"{key + ':':15s} {value}")
    return 0


def info(call: Call) -> int:
    from limpet.containers import state
    from limpet.images import catalog
    from limpet.kernel import cgroup, features
    from limpet.layers.driver import driver

    store = call.store
    states = [state.status(store, container).state for container in state.all_containers(store)]
    found = features.probe(store.root)
    group = cgroup.root()
    fields: dict[str, Any] = {
        "Containers": len(states),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
        "Images": len(catalog.all_images(store)),
        "ServerVersion": limpet.__version__,
        "Driver": driver(store).name,
        "LimpetRootDir": store.root,
        "LimpetRunDir": store.run,
        "LoggingDriver": "json-file",
        "DefaultRuntime": "limpet",
        "CgroupVersion": "2" if group == "/sys/fs/cgroup" else "hybrid" if group else "1",
        "KernelVersion": os.uname().release,
        "OSType": "linux",
        "Architecture": os.uname().machine,
        "NCPU": os.cpu_count(),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Features": [
            {"Name": f.name, "State": f.state, "Since": f.since, "Use": f.use, "Cost": "" if f.works else f.cost}
            for f in found
        ],
    }
    if call["format"]:
        text = jsontext.dumps(fields) if call["format"] == "json" else output.formatted(call["format"], [fields], ())
        print(text)
        return 0
    for key, value in fields.items():
        if key != "Features":
            shown = output.size_binary(value) if key == "MemTotal" else value
            print(f"{_spaced(key)}: {shown}")
    print("Features:")
    rows = [(f.name, f.state, f.since, f.use if f.works else f"MISSING: {f.cost}") for f in found]
    for line in output.table(("FEATURE", "STATE", "SINCE LINUX", "WHAT FOR"), rows).splitlines():
        print(f"  {line}")
    return 0


def _spaced(key: str) -> str:
    """ "ContainersRunning" → "Containers running"."""
    names = {
        "LimpetRootDir": "Root directory",
        "LimpetRunDir": "Run directory",
        "NCPU": "CPUs",
        "OSType": "OS type",
        "MemTotal": "Memory",
        "ServerVersion": "Version",
    }
    if key in names:
        return names[key]
    text = "".join(f" {c.lower()}" if c.isupper() else c for c in key).strip()
    return text[:1].upper() + text[1:]


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
