"""What private networks have in the kernel, brought in line with the rows and with who runs.

A container runs, or is about to, while somebody holds its lock. A bridge is there while a running container is on its
network. `settle` takes whatever else has the store's mark: after a kill -9 of anything, the next one that works on
networks (a start, an end, `network …`, `system recover`, `system prune`) makes it good.
"""

from __future__ import annotations

import os

from limpet import jsontext
from limpet.errors import LimpetError
from limpet.network import endpoints, networks
from limpet.network.private import firewall, hosts, wiring
from limpet.network.private.netlink import IPRoute
from limpet.store.files import in_use, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.network.endpoints import Endpoint
    from limpet.network.networks import Network
    from limpet.store.store import Store

_PREFIX = "com.docker.network.container_iface_prefix"
_FORWARD = {4: "/proc/sys/net/ipv4/ip_forward", 6: "/proc/sys/net/ipv6/conf/all/forwarding"}


def connect(store: Store, container_id: str, namespace: int, ports: list[list[Any]]) -> list[list[Any]]:
    """Gives a container that starts its interfaces, in its network namespace, and its name to the others.

    `ports`: what is to be published, [host address, host port, port, protocol]; the result is what can be.
    """
    with wiring.Guard(store.run):
        known = {network.id: network for network in networks.all_networks(store)}
        own = endpoints.of_container(store, container_id)
        with IPRoute() as here:
            for endpoint in own:
                _plug(here, store, known[endpoint.network_id], endpoint, namespace)
        _ways(known, own, namespace)
        served = _publish(store, known, own, ports)
        _settle(store)
    return served


def _publish(store: Store, known: dict[str, Network], own: list[Endpoint], ports: list[list[Any]]) -> list[list[Any]]:
    """Its first network that leads out is where its ports are reached."""
    served: list[list[Any]] = []
    first = next((e for e in own if (n := known[e.network_id]).driver == "bridge" and not n.internal), None)
    if first is not None:
        served = [port for port in ports if (first.address6 if ":" in port[0] else first.address)]
    for endpoint in own:
        wanted = served if endpoint is first else []
        if endpoint.ports != wanted:
            endpoints.publish(store, endpoint, wanted)
    return served


def join(store: Store, endpoint: Endpoint, namespace: int) -> None:
    """Gives a running container one more interface."""
    with wiring.Guard(store.run):
        known = {network.id: network for network in networks.all_networks(store)}
        with IPRoute() as here:
            _plug(here, store, known[endpoint.network_id], endpoint, namespace)
        _ways(known, endpoints.of_container(store, endpoint.container_id), namespace)
        _settle(store)


def part(store: Store, network: Network, endpoint: Endpoint, namespace: int) -> None:
    """Takes the interface of a running container away, whose row has gone."""
    with wiring.Guard(store.run):
        if network.driver in networks.WITH_ADDRESSES:
            wiring.unplug(namespace, interface(network, endpoint))
            known = {each.id: each for each in networks.all_networks(store)}
            _ways(known, endpoints.of_container(store, endpoint.container_id), namespace)
        _settle(store)


def settle(store: Store) -> list[str]:
    """Takes away what no running container needs, and makes rules and names anew. What was taken away, for people."""
    with wiring.Guard(store.run):
        return _settle(store)


def interface(network: Network, endpoint: Endpoint) -> str:
    """Its name in the container."""
    return f"{network.options.get(_PREFIX, 'eth')}{endpoint.position}"


def alive(store: Store, container_id: str) -> bool:
    return in_use(f"{store.run_path(container_id)}/lock")


def _plug(here: IPRoute, store: Store, network: Network, endpoint: Endpoint, namespace: int) -> None:
    name = interface(network, endpoint)
    if network.driver == "bridge":
        wiring.plug(here, namespace, network, endpoint, name, store.root)
    elif network.driver in networks.WITH_ADDRESSES:
        wiring.derive(here, namespace, network, endpoint, name)


def _ways(known: dict[str, Network], own: list[Endpoint], namespace: int) -> None:
    """The first network that leads somewhere is the way out (moby: by name; here by the order that was said)."""
    ways: dict[int, str] = {}
    for endpoint in own:
        network = known[endpoint.network_id]
        for version, address in ((4, endpoint.address), (6, endpoint.address6)):
            said = network.subnet(version)
            if address and said is not None and not network.internal and version not in ways:
                ways[version] = said["gateway"]
    wiring.set_gateways(namespace, ways)


def _settle(store: Store) -> list[str]:
    known = {network.id: network for network in networks.all_networks(store)}
    present: dict[str, bool] = {}
    used: list[Endpoint] = []
    for endpoint in endpoints.everything(store):
        if endpoint.container_id not in present:
            present[endpoint.container_id] = alive(store, endpoint.container_id)
        if present[endpoint.container_id]:
            used.append(endpoint)
    ids = {endpoint.network_id for endpoint in used}
    bridged = [network for network in known.values() if network.driver == "bridge" and network.id in ids]
    wanted = {network.bridge for network in bridged} | {endpoint.interface for endpoint in used}
    taken = []
    with IPRoute() as here:
        for name in wiring.links(here, store.root):
            if name not in wanted:
                wiring.remove(here, name)
                taken.append(f"interface {name}")
        for network in bridged:
            wiring.ensure_bridge(here, network, store.root)
    ours = _parameters(store, bridged)
    if bridged:
        firewall.apply(firewall.ruleset(store.root, bridged, used, close_forwarding=ours))
    elif firewall.present(store.root):
        firewall.apply(firewall.ruleset(store.root, [], []))
        taken.append(f"nftables table inet {firewall.table(store.root)}")
    _name(store, known, used)
    return taken


def _parameters(store: Store, bridged: list[Network]) -> bool:
    """Forwarding, which the host may not have had. Put back when the last bridge goes; whether IPv4's was off.

    A host that forwards IPv6 ignores router advertisements, by which it may have its own addresses, unless accept_ra
    is 2 (kernel, ip-sysctl.rst).
    """
    path = f"{store.run}/network-parameters"
    try:
        with open(path, "rb") as file:
            before: dict[str, str] = jsontext.loads(file.read())
    except OSError:
        before = {}
    wanted: dict[str, str] = {}
    outward = [network for network in bridged if not network.internal]
    if outward:
        wanted[_FORWARD[4]] = "1"
        if any(network.subnet(6) is not None for network in outward):
            for name in _listdir("/proc/sys/net/ipv6/conf"):
                place = f"/proc/sys/net/ipv6/conf/{name}/accept_ra"
                if _read(place) == "1" and not name.startswith(("lp-", "lv-")):
                    wanted[place] = "2"
            wanted[_FORWARD[6]] = "1"
    changed = {place: value for place, value in wanted.items() if _read(place) not in ("", value)}
    if changed:
        before = {**{place: _read(place) for place in changed}, **before}
        write_file(path, jsontext.dumps(before).encode(), durable=False)
        for place, value in changed.items():
            _write(place, value)
    if not outward and before:
        for place, value in before.items():
            _write(place, value)
        os.unlink(path)
        before = {}
    for network in bridged:  # what is published on 127.0.0.1 leaves by the bridge; `firewall` keeps others out
        _write(f"/proc/sys/net/ipv4/conf/{network.bridge}/route_localnet", "1")
    return before.get(_FORWARD[4]) == "0"


def _name(store: Store, known: dict[str, Network], used: list[Endpoint]) -> None:
    rows = store.db.rows("SELECT id, name FROM container WHERE id IN (SELECT container_id FROM endpoint)")
    names: dict[str, str] = dict(rows)
    members: dict[str, list[Endpoint]] = {}
    for endpoint in used:
        members.setdefault(endpoint.network_id, []).append(endpoint)
    for container_id in {endpoint.container_id for endpoint in used}:
        own = [endpoint for endpoint in used if endpoint.container_id == container_id]
        lines = [line for endpoint in own for line in _lines(endpoint, [*endpoint.own, names.get(container_id, "")])]
        gateway = next(
            (
                said["gateway"]
                for e in own
                if (said := known[e.network_id].subnet(4)) and known[e.network_id].driver == "bridge"
            ),
            "",
        )
        if gateway:
            lines.append(f"{gateway}\thost.limpet.internal host.docker.internal")
        for endpoint in own:
            for other in members[endpoint.network_id]:
                if other.container_id != container_id:
                    lines += _lines(other, [names.get(other.container_id, ""), *other.aliases])
        hosts.update(f"{store.container_path(container_id)}/hosts", lines)


def _lines(endpoint: Endpoint, names: list[str]) -> list[str]:
    words = " ".join(dict.fromkeys(name for name in [*names, endpoint.container_id[:12]] if name))
    return [f"{address}\t{words}" for address in (endpoint.address, endpoint.address6) if address]


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _write(path: str, value: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except FileNotFoundError:
        pass
    except OSError as e:
        raise LimpetError(
            f"{path} can't be set to {value}: {e.strerror}", "networks need a /proc/sys to write to"
        ) from e
