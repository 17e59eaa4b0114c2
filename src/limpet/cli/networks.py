"""network create, ls, inspect, rm, prune, connect, disconnect, hosts; and what `--network` says."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from limpet.cli.table import Command, Option
from limpet.errors import Conflict, Invalid, LimpetError, NotFound

if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.network.networks import Network
    from limpet.store.store import Store

_WORDS = ("host", "none", "private")


def chosen(texts: list[str]) -> tuple[str, list[str]]:
    """The mode, and the networks with names if it is none of the words. Docker's `default` is limpet's: the host's."""
    texts = ["host" if text == "default" else text for text in texts]
    first = texts[0]
    if len(texts) == 1 and (first in _WORDS or first.startswith(("container:", "ns:"))):
        return first, []
    return first.removeprefix("name=").partition(":")[0].partition(",")[0], texts


def create(call: Call) -> int:
    from limpet.cli import keyvalues
    from limpet.network import networks

    if call["ipam-driver"] not in ("", "default"):
        raise Invalid(f"--ipam-driver {call['ipam-driver']} is not there", "leave it out: limpet gives the addresses")
    network = networks.create(
        call.store,
        call.arguments[0],
        driver=call["driver"] or "bridge",
        subnets=_subnets(call["subnet"], call["gateway"], call["ip-range"]),
        internal=call["internal"],
        ipv6=call["ipv6"],
        labels=keyvalues.pairs(call["label"]),
        options=keyvalues.pairs(call["opt"]),
        aux=keyvalues.pairs(call["aux-address"]),
    )
    print(network.id)
    return 0


def _subnets(subnets: list[str], gateways: list[str], ranges: list[str]) -> list[dict[str, str]]:
    """Gateways and ranges go to the subnet that they are in (moby `cli/command/network/create.go`). Raises Invalid."""
    import ipaddress

    found = [{"subnet": text, "gateway": "", "range": ""} for text in subnets]
    for key, texts in (("gateway", gateways), ("range", ranges)):
        for text in texts:
            for each in found:
                try:
                    whole = ipaddress.ip_network(each["subnet"], strict=False)
                    part = ipaddress.ip_network(text, strict=False)
                except ValueError as e:
                    raise Invalid(str(e), exit_code=1) from None
                if part.version == whole.version and part.network_address in whole and not each[key]:
                    each[key] = text
                    break
            else:
                raise Invalid(f"no matching subnet for {key} {text}", "give its --subnet too", exit_code=1)
    return found


def ls(call: Call) -> int:
    from limpet.cli import output

    rows = [row for row in _rows(call.store) if _matches(call.store, row, call["filter"])]
    if call["quiet"]:
        for row in rows:
            print(row["id"] if call["no-trunc"] else row["id"][:12])
        return 0
    shown = [
        output.Labelled(
            {
                "ID": row["id"] if call["no-trunc"] else row["id"][:12],
                "Name": row["name"],
                "Driver": row["driver"],
                "Scope": "local",
                "IPv6": str(row["ipv6"]).lower(),
                "Internal": str(row["internal"]).lower(),
                "Labels": ",".join(f"{key}={value}" for key, value in row["labels"].items()),
                "CreatedAt": row["created"],
            },
            row["labels"],
        )
        for row in rows
    ]
    columns = (("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope"))
    output.say(output.formatted(call["format"], shown, columns, keep="Name"))
    return 0


def _rows(store: Store) -> list[dict[str, Any]]:
    import time

    from limpet.network import networks

    made = [
        {
            "id": network.id,
            "name": network.name,
            "driver": network.driver,
            "ipv6": network.ipv6,
            "internal": network.internal,
            "labels": network.labels,
            "created": time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(network.created)),
            "type": "custom",
        }
        for network in networks.all_networks(store)
    ]
    built_in = [
        {"id": networks.built_in_id(name), "name": name, "driver": driver, "ipv6": False, "internal": False}
        | {"labels": {}, "created": "", "type": "builtin"}
        for name, driver in networks.BUILT_IN.items()
    ]
    return sorted([*made, *built_in], key=lambda row: str(row["name"]))


def _matches(store: Store, row: dict[str, Any], filters: list[str]) -> bool:
    """Words of one key are alternatives, as Docker has it; keys all have to hold."""
    wanted: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key not in ("dangling", "driver", "id", "label", "name", "scope", "type"):
            hint = "KEY=VALUE with one of dangling, driver, id, label, name, scope, type"
            raise Invalid(f"invalid filter '{text}'", hint, exit_code=1)
        wanted.setdefault(key, []).append(value)
    for key, values in wanted.items():
        if key == "label":
            good = all(
                name in row["labels"] and (not equals or row["labels"][name] == value)
                for name, equals, value in (text.partition("=") for text in values)
            )
        elif key == "dangling":
            used = bool(store.db.row("SELECT 1 FROM endpoint WHERE network_id = ?", row["id"]))
            good = any((value in ("true", "1")) != used for value in values) and row["type"] == "custom"
        elif key in ("name", "id"):
            good = any(value in row[key] for value in values)
        else:
            good = ("local" if key == "scope" else row[key]) in values
        if not good:
            return False
    return True


def inspect(call: Call) -> int:
    from limpet import jsontext
    from limpet.cli import output
    from limpet.containers.network import networked

    found: list[dict[str, Any]] = []
    failed = 0
    for name in call.arguments:
        try:
            found.append(networked.describe(call.store, name))
        except NotFound as e:
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
    if call["format"]:
        output.say(output.formatted(call["format"], found, ()))
    else:
        print(jsontext.dumps(found, indent=4))
    return failed


def rm(call: Call) -> int:
    from limpet.containers import recovery
    from limpet.network import networks

    failed = 0
    for name in call.arguments:
        try:
            if name in networks.BUILT_IN:
                raise Invalid(f"{name} is a pre-defined network and cannot be removed", exit_code=1)
            networks.remove(call.store, networks.find(call.store, name))
            print(name)
        except NotFound as e:
            if not call["force"]:
                print(f"limpet: {e}", file=sys.stderr)
                failed = 1
        except LimpetError as e:
            print(f"limpet: {e}", file=sys.stderr)
            failed = 1
    recovery.collect_networks(call.store)
    return failed


def hosts(call: Call) -> int:
    """NAME.limpet for the host's programs; without an option what there is now."""
    from limpet.network import names

    store = call.store
    if call["install"] and call["remove"]:
        raise Invalid("conflicting options: --install and --remove", "give one of the two")
    if call["remove"]:
        path = names.remove(store.root)
        print(f"{path}: no longer has the containers' names" if path else "no file has the containers' names")
        return 0
    if not call["install"]:
        print("\n".join(line for line in names.of_the_host(names.lines(store.run)) if line))
        return 0
    before = names.installed(store.root)
    if before and before != os.path.abspath(call["file"]):
        raise Conflict(f"{before} has the containers' names already", "`limpet network hosts --remove` takes them away")
    try:
        names.install(store.run, store.root, call["file"])
    except OSError as e:
        raise LimpetError(f"{call['file']}: {e.strerror}", "--file names another file", exit_code=1) from e
    print(f"{call['file']}: has the containers' names, as NAME.limpet, and is kept up to date")
    return 0


def prune(call: Call) -> int:
    from limpet.cli import output
    from limpet.containers import recovery
    from limpet.network import networks

    if call["filter"]:
        for text in call["filter"]:
            if not text.startswith(("label=", "label!=")):
                raise Invalid(f"invalid filter '{text}'", "label=KEY[=VALUE] is there", exit_code=1)
    unused = [
        network
        for network in networks.all_networks(call.store)
        if not call.store.db.row("SELECT 1 FROM endpoint WHERE network_id = ?", network.id)
        and _keeps(network, call["filter"])
    ]
    if unused and not call["force"]:
        names = "\n".join(f"  {network.name}" for network in unused)
        output.confirm(
            f"This removes {len(unused)} network{'s' * (len(unused) != 1)} that no container is on:\n{names}"
        )
    gone = []
    for network in unused:
        try:
            networks.remove(call.store, network)
            gone.append(network.name)
        except LimpetError as e:  # somebody has just begun to use it
            print(f"limpet: {e}", file=sys.stderr)
    if gone:
        print("Deleted Networks:", *gone, sep="\n")
    for what in recovery.collect_networks(call.store):
        print(f"removed {what}")
    return 0


def _keeps(network: Network, filters: list[str]) -> bool:
    for text in filters:
        key, _, pair = text.partition("=")
        name, equals, value = pair.partition("=")
        has = name in network.labels and (not equals or network.labels[name] == value)
        if has == key.endswith("!"):
            return False
    return True


def connect(call: Call) -> int:
    from limpet.containers import state
    from limpet.containers.network import networked
    from limpet.network.endpoints import Wish, check

    wish = Wish(call.arguments[0])
    wish.ip, wish.ip6, wish.mac, wish.aliases = call["ip"], call["ip6"], call["mac-address"], call["alias"]
    networked.connect(call.store, state.find(call.store, call.arguments[1]), check(wish))
    return 0


def disconnect(call: Call) -> int:
    from limpet.containers import state
    from limpet.containers.network import networked
    from limpet.network import networks

    network = networks.find(call.store, call.arguments[0])
    try:
        networked.disconnect(call.store, state.find(call.store, call.arguments[1]), network)
    except NotFound:
        if not call["force"]:
            raise
    return 0


_FILTER = Option(
    "filter", "f", kind="list", metavar="KEY=VALUE", help="Only those that match: name, driver, label, ..."
)

COMMANDS = {
    "network create": Command(
        name="network create",
        handler=create,
        usage="[OPTIONS] NETWORK",
        summary="Create a network",
        options=(
            Option("attachable", help="Every network is: nothing has to be said", hidden=True),
            Option("aux-address", kind="list", metavar="NAME=ADDRESS", help="Address that no container gets"),
            Option(
                "driver",
                "d",
                kind="string",
                default="bridge",
                metavar="NAME",
                help="bridge (the default), macvlan, ipvlan, host, none",
                offers=("bridge", "macvlan", "ipvlan", "host", "none"),
            ),
            Option(
                "gateway", kind="list", metavar="ADDRESS", help="The network's own address; the first one without it"
            ),
            Option("internal", help="No way out of it"),
            Option(
                "ip-range", kind="list", metavar="CIDR", help="Part of the subnet that containers' addresses are from"
            ),
            Option(
                "ipam-driver", kind="string", default="", metavar="NAME", help="default: limpet itself", hidden=True
            ),
            Option("ipv6", help="IPv6 too: a subnet of unique local addresses, unless --subnet has another"),
            Option("label", kind="list", metavar="KEY=VALUE", help="Set a label"),
            Option("opt", "o", kind="list", metavar="KEY=VALUE", help="Option of the driver: mtu, parent, ..."),
            Option("subnet", kind="list", metavar="CIDR", help="Its addresses; without it a subnet that is free"),
        ),
        examples=(
            "limpet network create web",
            "limpet network create --internal --ipv6 --subnet 10.5.0.0/24 --label app=shop back",
            "limpet network create -d macvlan -o parent=eth0 --subnet 192.0.2.0/24 --gateway 192.0.2.1 lan",
        ),
        min_args=1,
        max_args=1,
    ),
    "network hosts": Command(
        name="network hosts",
        handler=hosts,
        usage="[OPTIONS]",
        summary="Names of containers for the host: NAME.limpet",
        options=(
            Option("file", kind="string", default="/etc/hosts", metavar="FILE", help="The file that has them"),
            Option("install", help="Put them in the file, in a marked block, and keep them up to date there"),
            Option("remove", help="Take the block away again"),
        ),
        examples=("limpet network hosts --install",),
        max_args=0,
    ),
    "network ls": Command(
        name="network ls",
        handler=ls,
        usage="[OPTIONS]",
        summary="List networks",
        options=(
            _FILTER,
            Option("format", kind="string", default="", metavar="FORMAT", help="table, json, or a Go template"),
            Option("no-trunc", help="Whole ids"),
            Option("quiet", "q", help="Only ids"),
        ),
        examples=("limpet network ls", "limpet network ls -qf driver=bridge"),
        max_args=0,
    ),
    "network inspect": Command(
        name="network inspect",
        handler=inspect,
        usage="[OPTIONS] NETWORK [NETWORK...]",
        summary="Show all that is known about networks, and who is on them",
        options=(
            Option("format", "f", kind="string", default="", metavar="FORMAT", help="json, or a Go template"),
            Option("verbose", "v", help="There is nothing more to show", hidden=True),
        ),
        examples=("limpet network inspect -f '{{(index .IPAM.Config 0).Subnet}}' web",),
        min_args=1,
        complete="network",
    ),
    "network rm": Command(
        name="network rm",
        handler=rm,
        usage="[OPTIONS] NETWORK [NETWORK...]",
        summary="Remove networks that no container is on",
        options=(Option("force", "f", help="What is not there is no error"),),
        examples=("limpet network rm web",),
        min_args=1,
        complete="network",
    ),
    "network prune": Command(
        name="network prune",
        handler=prune,
        usage="[OPTIONS]",
        summary="Remove networks that no container is on, and what crashes left",
        options=(
            Option("filter", kind="list", metavar="KEY=VALUE", help="Only those that match: label, label!"),
            Option("force", "f", help="Do not ask"),
        ),
        examples=("limpet network prune -f",),
        max_args=0,
    ),
    "network connect": Command(
        name="network connect",
        handler=connect,
        usage="[OPTIONS] NETWORK CONTAINER",
        summary="Put a container on one more network, running or not",
        options=(
            Option("alias", kind="list", metavar="NAME", help="One more name of it on this network"),
            Option("ip", kind="string", default="", metavar="ADDRESS", help="Its IPv4 address"),
            Option("ip6", kind="string", default="", metavar="ADDRESS", help="Its IPv6 address"),
            Option("mac-address", kind="string", default="", metavar="MAC", help="Its MAC address", hidden=True),
        ),
        examples=("limpet network connect --alias db back postgres",),
        min_args=2,
        max_args=2,
        complete="network|container",
    ),
    "network disconnect": Command(
        name="network disconnect",
        handler=disconnect,
        usage="[OPTIONS] NETWORK CONTAINER",
        summary="Take a container from a network",
        options=(Option("force", "f", help="One that is not on it is no error"),),
        examples=("limpet network disconnect back postgres",),
        min_args=2,
        max_args=2,
        complete="network|container",
    ),
}
