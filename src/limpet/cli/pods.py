"""pod create, ls, inspect, exists, rm, prune; and a container made in a pod."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from limpet.cli import keyvalues, output
from limpet.cli.limit_options import LIMITS, limits
from limpet.cli.networks import chosen as chosen_networks
from limpet.cli.table import Command, Option
from limpet.containers import options
from limpet.containers.pod import infra, pods
from limpet.errors import Conflict, Invalid, LimpetError, NotFound
from limpet.store.files import write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from limpet.cli.table import Call
    from limpet.containers.options import Options
    from limpet.containers.pod.pods import Member, Pod
    from limpet.containers.state import Container
    from limpet.images.catalog import Image
    from limpet.store.store import Store


def create(call: Call) -> int:
    name = call.arguments[0] if call.arguments else call["name"]
    if call.arguments and call["name"]:
        raise Invalid("two names of one pod", "leave out --name, or the argument", exit_code=1)
    path = call["pod-id-file"]
    if path and os.path.exists(path):
        raise Conflict(f"pod ID file {path} exists", "make sure that the other pod is gone, or delete it", exit_code=1)
    mode, named = chosen_networks(call["network"]) if call["network"] else ("", [])
    if call["replace"]:
        if not name:
            raise Invalid("--replace without a name", "say which pod, with --name", exit_code=1)
        _replace(call.store, name)
    pod = pods.create(
        call.store,
        name,
        hostname=call["hostname"],
        labels=keyvalues.pairs([*keyvalues.label_files(call["label-file"]), *call["label"]]),
        share=_share(call["share"], call["infra"]),
        infra=call["infra"],
        infra_name=call["infra-name"],
        infra_image=call["infra-image"],
        infra_command=call["infra-command"].split(),
        exit_policy=call["exit-policy"],
        restart=call["restart"],
        network=mode or "host",
        networks=named,
        ip=call["ip"],
        ip6=call["ip6"],
        mac_address=call["mac-address"],
        network_alias=call["network-alias"],
        publish=call["publish"],
        limits=limits(call),
        cgroup_parent=call["cgroup-parent"],
        add_host=call["add-host"],
        dns=call["dns"],
        dns_search=call["dns-search"],
        dns_option=call["dns-option"],
        shm_size=options.parse_size(call["shm-size"], "shm-size") if call["shm-size"] else options.SHM_SIZE,
        sysctls=keyvalues.pairs(call["sysctl"]),
        volumes=call["volume"],
        devices=call["device"],
        security_opt=keyvalues.security(call["security-opt"]),
    )
    if path:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            write_all(fd, pod.id.encode())
        finally:
            os.close(fd)
    print(pod.id)
    return 0


def _share(text: str, has_infra: bool) -> list[str]:
    """`net,ipc`; `+pid` beside what is shared anyway; none, or "", for nothing."""
    if text == _UNSAID:
        return list(pods.SHARED) if has_infra else []
    words = [word for word in text.removeprefix("+").split(",") if word not in ("", "none")]
    return list(dict.fromkeys([*(pods.SHARED if text.startswith("+") else ()), *words]))


_UNSAID = "ipc,net,uts"


def _replace(store: Store, name: str) -> None:
    try:
        pod = pods.find(store, name)
    except NotFound:
        return
    for problem in pods.remove(store, pod, force=True):
        raise problem


def create_in(call: Call, image: Image, wanted: Options) -> Container:
    """What `run --pod` and `create --pod` make; a pod that was made for it goes again if it can't be."""
    from limpet.containers import create as creating

    if call["pod-id-file"]:
        if wanted.pod:
            raise Invalid("--pod and --pod-id-file", "leave out one of the two")
        wanted.pod = _id_in(call["pod-id-file"])
    made = None
    if wanted.pod.startswith("new:"):
        made = pods.create(
            call.store,
            wanted.pod.removeprefix("new:"),
            hostname=wanted.hostname,
            network=wanted.network or "host",
            networks=wanted.networks,
            ip=wanted.ip,
            ip6=wanted.ip6,
            mac_address=wanted.mac_address,
            network_alias=wanted.network_alias,
            publish=wanted.publish,
            add_host=wanted.add_host,
            dns=wanted.dns,
            dns_search=wanted.dns_search,
            dns_option=wanted.dns_option,
        )
        wanted.hostname, wanted.network, wanted.add_host = "", "", []
        wanted.ip = wanted.ip6 = wanted.mac_address = ""
        wanted.networks, wanted.network_alias, wanted.publish = [], [], []
        wanted.pod = made.id
    try:
        return creating.create(call.store, image, wanted)
    except BaseException:
        if made is not None:
            pods.remove(call.store, made, force=True)
        raise


def _id_in(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(4096).strip()
    except (OSError, ValueError) as e:
        raise Invalid(f"pod ID file {path}: {getattr(e, 'strerror', None) or 'not an id'}", exit_code=1) from e


def chosen(call: Call) -> tuple[list[Pod], int]:
    """The pods that were named, by arguments, `--all`, `--latest` or `--pod-id-file`, and 1 if one was not found."""
    if call.get("all"):
        return pods.all_pods(call.store), 0
    if call.get("latest"):
        return pods.all_pods(call.store)[:1], 0
    found: list[Pod] = []
    failed = 0
    names = [*call.arguments, *(_id_in(path) for path in call.get("pod-id-file") or ())]
    if not names:
        raise Invalid("no pod was named", "name one, or --all", exit_code=1)
    for name in names:
        try:
            found.append(pods.find(call.store, name))
        except LimpetError as e:
            if not (call.get("ignore") and isinstance(e, NotFound)):
                say(e)
                failed = 1
    return found, failed


def say(error: LimpetError) -> None:
    print(f"limpet: {error}", file=sys.stderr)


def exists(call: Call) -> int:
    try:
        pods.find(call.store, call.arguments[0])
    except NotFound:
        return 1
    return 0


def each(call: Call, act: Callable[[Pod], list[LimpetError]], found: Sequence[Pod] | None = None) -> int:
    """Acts on each pod and prints the id of each that went well; 1 if any failed. `found`: in place of those named."""
    failed = 0
    if found is None:
        found, failed = chosen(call)
    for pod in found:
        try:
            problems = act(pod)
        except LimpetError as e:
            problems = [e]
        for problem in problems:
            say(problem)
            failed = 1
        if not problems:
            print(pod.id, flush=True)
    return failed


def rm(call: Call) -> int:
    force = call["force"] or call["all"]
    return each(call, lambda pod: pods.remove(call.store, pod, force=force, timeout=call["time"]))


def prune(call: Call) -> int:
    found = [(pod, pods.members(call.store, pod)) for pod in pods.all_pods(call.store)]
    # One that was just made has its containers still to come, as in Podman.
    still = [(pod, each) for pod, each in found if pods.status(each) in ("Exited", "Stopped")]
    if still and not call["force"]:
        lines = "\n".join(f"  {pod.name}  ({len(each)} containers)" for pod, each in still)
        output.confirm(f"This removes {len(still)} pod{'s' if len(still) != 1 else ''} of which nothing runs:\n{lines}")
    return each(call, lambda pod: pods.remove(call.store, pod), [pod for pod, _ in still])


_COLUMNS = (
    ("POD ID", "Id"),
    ("NAME", "Name"),
    ("STATUS", "Status"),
    ("CREATED", "Created"),
    ("INFRA ID", "InfraId"),
    ("# OF CONTAINERS", "NumberOfContainers"),
)
_OF_CONTAINERS = {
    "ctr-ids": ("IDS", "ContainerIds"),
    "ctr-names": ("NAMES", "ContainerNames"),
    "ctr-status": ("STATUS", "ContainerStatuses"),
}


def ls(call: Call) -> int:
    checks = [_filter(text) for text in call["filter"]]
    rows = []
    for pod in pods.all_pods(call.store)[: 1 if call["latest"] else None]:
        found = pods.members(call.store, pod)
        if all(check(pod, found) for check in checks):
            rows.append((pod, found))
    if call["sort"] != "created":
        keys: dict[str, Callable[[tuple[Pod, list[Member]]], Any]] = {
            "id": lambda row: row[0].id,
            "name": lambda row: row[0].name,
            "number": lambda row: len(row[1]),
            "status": lambda row: pods.status(row[1]),
        }
        rows.sort(key=keys[call["sort"]])
    if call["quiet"]:
        for pod, _ in rows:
            print(pod.id if call["no-trunc"] else pod.id[:12])
        return 0
    columns = [*_COLUMNS, *(column for name, column in _OF_CONTAINERS.items() if call[name])]
    fields = [output.Labelled(_fields(*row, full=call["no-trunc"]), row[0].options["labels"]) for row in rows]
    text = output.formatted(call["format"], fields, columns, keep="Name")
    if call["noheading"] and call["format"] in ("", "table"):
        text = text.partition("\n")[2]
    output.say(text)
    return 0


def _fields(pod: Pod, found: Sequence[Member], *, full: bool) -> dict[str, Any]:
    width = None if full else 12
    holder = next((each.container.id for each in found if each.container.options.infra), "")
    return {
        "Id": pod.id[:width],
        "ID": pod.id[:width],
        "Name": pod.name,
        "Status": pods.status(found),
        "Created": output.age(pod.created),
        "InfraId": holder[:width],
        "InfraID": holder[:width],
        "NumberOfContainers": len(found),
        "NumContainers": len(found),
        "ContainerIds": ",".join(each.container.id[:width] for each in found),
        "ContainerNames": ",".join(each.container.name for each in found),
        "ContainerStatuses": ",".join(each.status.state for each in found),
        "Labels": ",".join(f"{key}={value}" for key, value in pod.options["labels"].items()),
        "Networks": ",".join(pod.options["networks"]) or pod.options["network"],
        "Restarts": str(sum(each.status.restarts for each in found)),
    }


def _filter(text: str) -> Callable[[Pod, Sequence[Member]], bool]:
    """Podman's (podman-pod-ps(1))."""
    key, equals, value = text.partition("=")
    tests: dict[str, Callable[[Pod, Sequence[Member]], bool]] = {
        "id": lambda pod, found: pod.id.startswith(value),
        "name": lambda pod, found: value in pod.name,
        "status": lambda pod, found: pods.status(found).lower() == value.lower(),
        "label": lambda pod, found: _labelled(pod, value),
        "label!": lambda pod, found: not _labelled(pod, value),
        "network": lambda pod, found: pod.options["network"] == value,
        "ctr-ids": lambda pod, found: any(each.container.id.startswith(value) for each in found),
        "ctr-names": lambda pod, found: any(value in each.container.name for each in found),
        "ctr-number": lambda pod, found: str(len(found)) == value,
        "ctr-status": lambda pod, found: any(each.status.state == value for each in found),
    }
    if not equals or key not in tests:
        raise Invalid(f"invalid filter '{text}'", f"KEY=VALUE with one of {', '.join(tests)}", exit_code=1)
    return tests[key]


def _labelled(pod: Pod, text: str) -> bool:
    name, equals, value = text.partition("=")
    labels = pod.options["labels"]
    return name in labels and (not equals or labels[name] == value)


def inspect(call: Call) -> int:
    found, failed = chosen(call)
    described = [_described(call.store, pod) for pod in found]
    if call["format"] and call["format"] != "json":
        output.say(output.formatted(call["format"], described, ()))
    else:
        import json

        print(json.dumps(described, indent=4))
    return failed


def _described(store: Store, pod: Pod) -> dict[str, Any]:
    """Under Podman's names (libpod/define/pod_inspect.go)."""
    from limpet.containers.observe.inspect import time_of
    from limpet.containers.plan import limits as limited

    found = pods.members(store, pod)
    said = pod.options
    holder = next((each.container for each in found if each.container.options.infra), None)
    return {
        "Id": pod.id,
        "Name": pod.name,
        "Created": time_of(pod.created),
        "ExitPolicy": said["exit_policy"],
        "State": pods.status(found),
        "Hostname": said["hostname"],
        "Labels": said["labels"],
        "CreateInfra": said["infra"],
        "InfraContainerID": holder.id if holder is not None else "",
        "InfraConfig": {
            "HostNetwork": said["network"] == "host",
            "NetworkOptions": said["network"],
            "DNSServer": said["dns"],
            "DNSSearch": said["dns_search"],
            "DNSOption": said["dns_option"],
            "HostAdd": said["add_host"],
        }
        if said["infra"]
        else None,
        "SharedNamespaces": said["share"],
        "RestartPolicy": said["restart"],
        "ShmSize": said["shm_size"],
        "Sysctls": said["sysctls"],
        "Volumes": said["volumes"],
        "PortBindings": said["publish"],
        "CgroupParent": infra.parent(pod),
        **limited.host_config(said["limits"]),
        "Devices": said["devices"],
        "SecurityOpts": said["security_opt"],
        "NumContainers": len(found),
        "Containers": [
            {"Id": each.container.id, "Name": each.container.name, "State": each.status.state} for each in found
        ],
    }


ID_FILE = Option("pod-id-file", kind="list", metavar="FILE", help="The pod whose id this file has")
ALL = Option("all", "a", help="All pods")
LATEST = Option("latest", "l", help="The one that was made last")
_FORMAT = Option("format", "f", kind="string", default="", metavar="FORMAT", help="json, or a Go template")

COMMANDS = {
    "pod create": Command(
        name="pod create",
        handler=create,
        usage="[OPTIONS] [NAME]",
        summary="Make a pod: containers that share namespaces, and an infra container that holds them",
        options=(
            Option("add-host", kind="list", metavar="NAME:ADDRESS", help="Add a line to /etc/hosts"),
            Option(
                "cgroup-parent", kind="string", default="", metavar="PARENT", help="Control group for its containers"
            ),
            Option("device", kind="list", metavar="DEVICE", help="Add a device of the host to every container"),
            Option("dns", kind="list", metavar="ADDRESS", help="Name server, in place of the host's"),
            Option("dns-option", kind="list", metavar="OPTION", help="Option of the resolver", aliases=("dns-opt",)),
            Option("dns-search", kind="list", metavar="DOMAIN", help="Domain to search names in; . for none"),
            Option(
                "exit-policy",
                kind="string",
                default="continue",
                metavar="POLICY",
                help="continue, or stop: the pod stops when its last container ends",
                choices=pods.POLICIES,
            ),
            Option("hostname", "h", kind="string", default="", metavar="NAME", help="Host name (the pod's name)"),
            Option("infra", default=True, help="Make an infra container (=false: the pod shares nothing)"),
            Option("infra-command", kind="string", default="", metavar="COMMAND", help="What --infra-image runs"),
            Option("infra-image", kind="string", default="", metavar="IMAGE", help="Image, in place of limpet's own"),
            Option("infra-name", kind="string", default="", metavar="NAME", help="Name of the infra container"),
            Option("label", "l", kind="list", metavar="KEY=VALUE", help="Set a label"),
            Option("label-file", kind="list", metavar="FILE", help="Read labels from a file"),
            Option("name", "n", kind="string", default="", metavar="NAME", help="Name of the pod"),
            Option("ip", kind="string", default="", metavar="ADDRESS", help="IPv4 address on its first network"),
            Option("ip6", kind="string", default="", metavar="ADDRESS", help="IPv6 address on its first network"),
            Option("mac-address", kind="string", default="", metavar="MAC", help="Hardware address there"),
            Option(
                "network",
                kind="list",
                metavar="NETWORK",
                help="host (the default), none, or a network by its name",
                offers=("host", "none"),
                aliases=("net",),
            ),
            Option("network-alias", kind="list", metavar="NAME", help="One more name on its networks"),
            Option("pod-id-file", kind="string", default="", metavar="FILE", help="Write the pod's id to a file"),
            Option("replace", help="Remove a pod of this name first"),
            Option("publish", "p", kind="list", metavar="PORTS", help="Publish a port: [ADDRESS:][PORT:]PORT"),
            Option(
                "restart",
                kind="string",
                default="no",
                metavar="POLICY",
                help="Of all its containers: no, on-failure[:N], always, unless-stopped",
                offers=("no", "on-failure", "always", "unless-stopped"),
            ),
            Option("security-opt", kind="list", metavar="OPTION", help="As that of run, for every container"),
            Option(
                "share",
                kind="string",
                default=_UNSAID,
                metavar="LIST",
                help=f"What is shared: {', '.join(infra.ATTRIBUTES)}, none ({_UNSAID}); +pid: that too",
            ),
            Option("shm-size", kind="string", default="", metavar="SIZE", help="Size of /dev/shm (64m)"),
            Option("sysctl", kind="list", metavar="KEY=VALUE", help="Set a kernel parameter"),
            Option("volume", "v", kind="list", metavar="SOURCE:DIR[:ro]", help="Mount it into every container"),
            *LIMITS,
        ),
        examples=("limpet pod create web", "limpet pod create --share +pid --network none --exit-policy stop job"),
        max_args=1,
    ),
    "pod ls": Command(
        name="pod ls",
        handler=ls,
        usage="[OPTIONS]",
        summary="List pods",
        options=(
            Option("ctr-ids", help="Show the ids of their containers"),
            Option("ctr-names", help="Show the names of their containers"),
            Option("ctr-status", help="Show the states of their containers"),
            Option("filter", "f", kind="list", metavar="KEY=VALUE", help="Only those that match"),
            Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),
            LATEST,
            Option("no-trunc", help="Do not cut anything"),
            Option("noheading", "n", help="Without the line of titles"),
            Option("quiet", "q", help="Only ids"),
            Option(
                "sort",
                kind="string",
                default="created",
                metavar="BY",
                help="created, id, name, number, status",
                choices=("created", "id", "name", "number", "status"),
            ),
        ),
        examples=("limpet pod ls --ctr-names", "limpet pod ps --filter status=running -q"),
        max_args=0,
    ),
    "pod inspect": Command(
        name="pod inspect",
        handler=inspect,
        usage="[OPTIONS] POD [POD...]",
        summary="Show all that is known about pods",
        options=(_FORMAT, LATEST),
        examples=("limpet pod inspect web", "limpet pod inspect -f '{{.State}}' web"),
        complete="pod",
    ),
    "pod exists": Command(
        name="pod exists",
        handler=exists,
        usage="POD",
        summary="Exit with 0 if there is such a pod, else with 1",
        examples=("limpet pod exists web || limpet pod create web",),
        min_args=1,
        max_args=1,
        complete="pod",
    ),
    "pod rm": Command(
        name="pod rm",
        handler=rm,
        usage="[OPTIONS] POD [POD...]",
        summary="Remove pods with all their containers, and the anonymous volumes of these",
        options=(
            ALL,
            Option("force", "f", help="Kill those that run"),
            Option("ignore", "i", help="One that is not there is no error"),
            LATEST,
            ID_FILE,
            Option("time", "t", kind="int", metavar="SECONDS", help="Stop first, and wait so long before killing"),
        ),
        examples=("limpet pod rm web", "limpet pod rm -f -t 10 web"),
        complete="pod",
    ),
    "pod prune": Command(
        name="pod prune",
        handler=prune,
        usage="[OPTIONS]",
        summary="Remove all pods that have ended, with their containers",
        options=(Option("force", "f", help="Do not ask"),),
        examples=("limpet pod prune -f",),
        max_args=0,
    ),
}
