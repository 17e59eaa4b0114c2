"""A pod's infra container: it holds the namespaces that the others join, and does nothing.

No image: its root is empty but for a program of 9 bytes of machine code that waits. PID 1 is every container's init
(`tinyinit`), which reaps for all where the pod shares its processes. Elsewhere than on x86-64 it takes an image.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from limpet.containers import create
from limpet.containers.options import Options
from limpet.containers.plan import sharing
from limpet.errors import Refused
from limpet.images.catalog import Image
from limpet.kernel import machinecode
from limpet.store.files import write_all

if TYPE_CHECKING:
    from limpet.containers.mounts.mountplan import Mount
    from limpet.containers.pod.pods import Pod
    from limpet.containers.state import Container
    from limpet.store.store import Store

NAME = "limpet/infra"
"""In place of an image's name, in lists."""

_PROGRAM = "pause"
_X86_64 = """
                    ; _start:
b822000000          ;     mov $34, %eax      # pause
0f05                ;     syscall
ebf7                ;     jmp _start
"""


def program(machine: str) -> bytes | None:
    """The executable for that machine, or None."""
    return machinecode.elf_x86_64(machinecode.from_listing(_X86_64)) if machine == "x86_64" else None


def make(store: Store, pod: Pod) -> Container:
    """Creates it, not started. Raises as `create.create`, and Refused where there is no program for this machine."""
    said = pod.options
    options = Options(
        name=said["infra_name"] or f"{pod.id[:12]}-infra",
        image=said["infra_image"] or NAME,
        pod=pod.id,
        infra=True,
        hostname=said["hostname"],
        network=said["network"],
        **{name: said[name] for name in ("networks", "ip", "ip6", "mac_address", "network_alias", "publish")},
        cgroup_parent=parent(pod),
        parent_limits=dict(said["limits"]),
        add_host=list(said["add_host"]),
        dns=list(said["dns"]),
        dns_search=list(said["dns_search"]),
        dns_option=list(said["dns_option"]),
        ipc="shareable" if "ipc" in said["share"] else "private",
        shm_size=said["shm_size"],
        sysctls=dict(said["sysctls"]),
        volumes=list(said["volumes"]),
        restart=said["restart"],
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        read_only=True,
        log_driver="none",
        labels=dict(said["labels"]),
    )
    if said["infra_image"]:
        from limpet.images import catalog

        options.command = list(said["infra_command"])
        return create.create(store, catalog.find(store, said["infra_image"]), options)
    code = program(os.uname().machine)
    if code is None:
        raise Refused(
            f"a pod's infra container needs an image on {os.uname().machine}",
            "--infra-image registry.k8s.io/pause, or --infra=false for a pod that shares nothing",
        )
    options.command, options.entrypoint, options.init = [f"/{_PROGRAM}"], [], True

    def fill(directory: str, mounts: list[Mount]) -> None:
        fd = os.open(f"{directory}/upper/{_PROGRAM}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
        try:
            os.fchmod(fd, 0o755)
            write_all(fd, code)
            os.fsync(fd)
        finally:
            os.close(fd)

    return create.create(store, Image("", {}, [], 0), options, layers=[], fill=fill)


def parent(pod: Pod) -> str:
    """The group in which those of the pod's containers are; "" for the common one, where the pod has no limits."""
    said = str(pod.options["cgroup_parent"])
    return f"{said.rstrip('/') or '/limpet'}/pod-{pod.id[:12]}" if pod.options["limits"] else said


ATTRIBUTES = {"net": "network", "ipc": "ipc", "uts": "uts", "pid": "pid", "cgroup": "cgroupns"}
"""What a pod may share, by Podman's words: the container's option."""


def join(options: Options, pod: Pod, infra: Container) -> None:
    """Gives a container to be made what the pod shares; what its user said of a namespace wins, but for the network."""
    said: dict[str, Any] = pod.options
    options.cgroup_parent = options.cgroup_parent or parent(pod)
    for word in said["share"]:
        name = ATTRIBUTES[word]
        if word == "net":
            theirs = sharing.CONTAINER + infra.id  # on the host's network too: they have one address there
            if options.network not in ("", theirs) or options.networks:
                raise Refused(
                    f"--network: the network of a container in a pod is that of pod {pod.name}",
                    "say it when the pod is made, or make the pod with --share ipc,uts",
                )
            options.network = theirs
            if options.publish or options.publish_all:
                raise Refused(
                    f"-p: the ports of a container in a pod are those of pod {pod.name}",
                    "publish them when the pod is made: limpet pod create -p",
                )
            if options.add_host:  # else the files are the infra container's
                options.add_host = _before(said["add_host"], options.add_host)
            if not (options.dns or options.dns_search or options.dns_option):
                continue
            for field in ("dns", "dns_search", "dns_option"):
                setattr(options, field, [*(getattr(options, field) or said[field])])
        elif not getattr(options, name):
            setattr(options, name, sharing.CONTAINER + infra.id)
    if said["volumes"]:
        options.volumes_from = _before([infra.id], options.volumes_from)
    options.devices = _before(said["devices"], options.devices)
    options.security_opt = _before(said["security_opt"], options.security_opt)


def _before(first: list[str], own: list[str]) -> list[str]:
    """A copy of a container in the pod has them already."""
    return [*(text for text in first if text not in own), *own]
