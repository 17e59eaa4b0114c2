"""Containers and the networks that they are on: connect, disconnect, and Docker's form of both (Engine API)."""

from __future__ import annotations

import os
import time

from limpet.containers import state
from limpet.containers.plan import sharing
from limpet.errors import Conflict, NotFound
from limpet.network import endpoints, networks
from limpet.store import eventlog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.containers.state import Container
    from limpet.network.endpoints import Endpoint, Wish
    from limpet.network.networks import Network
    from limpet.store.store import Store


def connect(store: Store, container: Container, wish: Wish) -> None:
    """Puts a container on one more network, at once if it runs. Raises NotFound, Conflict, Invalid, LimpetError."""
    network = networks.use(store, wish.name)
    if not container.options.networks or not sharing.connected(container.options):
        raise Conflict(
            f"container {container.name} has --network {container.options.network}: it can't be on another one too",
            f"make it anew with --network {network.name}",
            exit_code=1,
        )
    if network.driver not in networks.WITH_ADDRESSES:
        raise Conflict(f"network {network.name} has the driver {network.driver}, which stands alone", exit_code=1)
    with store.db.transaction():
        own = endpoints.of_container(store, container.id)
        names = own[0].own if own else []
        position = max((endpoint.position for endpoint in own), default=-1) + 1
        endpoint = endpoints.add(store, container.id, wish, position, own=names)
    try:
        _with_namespace(store, container, lambda upkeep, namespace: upkeep.join(store, endpoint, namespace))
    except BaseException:
        with store.db.transaction():
            endpoints.remove(store, endpoint)
        raise
    _tell(store, network, container, "connect")


def disconnect(store: Store, container: Container, network: Network) -> None:
    """Takes it from the network, at once if it runs. Raises NotFound if it is not on it."""
    found = [each for each in endpoints.of_container(store, container.id) if each.network_id == network.id]
    if not found:
        raise NotFound(f"container {container.name} is not on network {network.name}", exit_code=1)
    if not sharing.connected(container.options):
        raise Conflict(f"container {container.name} can't leave the {container.options.network} network", exit_code=1)
    with store.db.transaction():
        endpoints.remove(store, found[0])
    _with_namespace(store, container, lambda upkeep, namespace: upkeep.part(store, network, found[0], namespace))
    _tell(store, network, container, "disconnect")


def _with_namespace(store: Store, container: Container, what: Any) -> None:
    pid = state.running_pid(store, container.id)
    if not pid:
        return
    from limpet.network.private import upkeep

    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # it has just ended
    try:
        what(upkeep, namespace)
    finally:
        os.close(namespace)


def _tell(store: Store, network: Network, container: Container, action: str) -> None:
    about = {"name": network.name, "type": network.driver, "container": container.id}
    eventlog.write(store, "network", action, network.id, about)


def describe(store: Store, name: str) -> dict[str, Any]:
    """A network as NetworkInspect has it. `Containers` are those that run. Raises NotFound."""
    common = {"Scope": "local", "Attachable": False, "Ingress": False, "ConfigFrom": {"Network": ""}}
    common |= {"ConfigOnly": False}
    if name in networks.BUILT_IN and networks.lookup(store, name) is None:
        there = [
            container
            for container in state.all_containers(store)
            if container.options.network == name and state.running_pid(store, container.id)
        ]
        return {
            "Name": name,
            "Id": networks.built_in_id(name),
            "Created": state.NEVER,
            "Driver": networks.BUILT_IN[name],
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": []},
            "Internal": False,
            **common,
            "Containers": {container.id: _member(container.name, None, None) for container in there},
            "Options": {},
            "Labels": {},
        }
    network = networks.find(store, name)
    members = {}
    for endpoint in endpoints.of_network(store, network.id):
        found = state.lookup(store, endpoint.container_id)
        if found is not None and state.running_pid(store, found.id):
            members[found.id] = _member(found.name, endpoint, network)
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(network.created)),
        "Driver": "null" if network.driver == "none" else network.driver,
        "EnableIPv4": True,
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [
                {"Subnet": each["subnet"], "Gateway": each["gateway"]}
                | ({"IPRange": each["range"]} if each["range"] else {})
                for each in network.subnets
            ],
        },
        "Internal": network.internal,
        **common,
        "Containers": members,
        "Options": network.options,
        "Labels": network.labels,
    }


def _member(name: str, endpoint: Endpoint | None, network: Network | None) -> dict[str, Any]:
    addresses = {4: "", 6: ""}
    if endpoint is not None and network is not None:
        for version, address in ((4, endpoint.address), (6, endpoint.address6)):
            if address:
                addresses[version] = f"{address}/{_length(network, version)}"
    return {
        "Name": name,
        "EndpointID": endpoint.id if endpoint is not None else "",
        "MacAddress": endpoint.mac if endpoint is not None else "",
        "IPv4Address": addresses[4],
        "IPv6Address": addresses[6],
    }


def settings(store: Store, container: Container) -> dict[str, Any]:
    """`NetworkSettings.Networks` of a container; addresses while it runs, as Docker has it."""
    runs = bool(state.running_pid(store, container.id))
    found = {}
    for endpoint in endpoints.of_container(store, container.id):
        network = networks.find(store, endpoint.network_id)
        found[network.name] = _settings(container, endpoint, network, runs=runs)
    return found


def _settings(container: Container, endpoint: Endpoint, network: Network, *, runs: bool) -> dict[str, Any]:
    asked = {}
    wish = next((w for w in map(endpoints.parse, container.options.networks) if w.name == network.name), None)
    if wish is not None and wish.ip:
        asked["IPv4Address"] = wish.ip
    if wish is not None and wish.ip6:
        asked["IPv6Address"] = wish.ip6
    ways = {version: (network.subnet(version) or {"gateway": ""})["gateway"] for version in (4, 6)}
    return {
        "IPAMConfig": asked or None,
        "Links": None,
        "Aliases": endpoint.aliases or None,
        "MacAddress": endpoint.mac if runs else "",
        "NetworkID": network.id,
        "EndpointID": endpoint.id if runs else "",
        "Gateway": ways[4] if runs and endpoint.address and not network.internal else "",
        "IPAddress": endpoint.address if runs else "",
        "IPPrefixLen": _length(network, 4) if runs and endpoint.address else 0,
        "IPv6Gateway": ways[6] if runs and endpoint.address6 and not network.internal else "",
        "GlobalIPv6Address": endpoint.address6 if runs else "",
        "GlobalIPv6PrefixLen": _length(network, 6) if runs and endpoint.address6 else 0,
        "DriverOpts": None,
        "DNSNames": list(dict.fromkeys([container.name, *endpoint.aliases, container.id[:12], *endpoint.own])),
    }


def _length(network: Network, version: int) -> int:
    said = network.subnet(version)
    return int(said["subnet"].partition("/")[2]) if said is not None else 0
