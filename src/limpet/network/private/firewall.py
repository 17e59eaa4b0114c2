"""The rules of private networks: one nftables table of limpet's own, replaced as a whole in one transaction.

The table is `inet limpet`, that of a store elsewhere `inet limpet-<hash of its root>`. It is made of what runs, so it
mends itself and nothing of it is ever left over. Nobody else's rules are touched. `ruleset` says what the rules are
(libnftables-json(5)), `apply` hands them to nft(8).

What is published is translated before routing, so the host's rules on `forward` decide about it: there its port of
before is `meta l4proto tcp ct original proto-dst`, and the client's address is the true one.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import socket
import subprocess

from limpet.errors import LimpetError
from limpet.network.addresses import PREFIX6
from limpet.store.store import DEFAULT_ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.network.endpoints import Endpoint
    from limpet.network.networks import Network

    Rule = list[dict[str, Any]]

_CHAINS: dict[str, tuple[str, str, int]] = {
    "guard": ("filter", "prerouting", -300),
    "publish": ("nat", "prerouting", -100),
    "publish-local": ("nat", "output", -100),
    "forward": ("filter", "forward", 0),
    "masquerade": ("nat", "postrouting", 100),
}
_FAMILIES = {4: "ip", 6: "ip6"}
_LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}


def table(root: str) -> str:
    return "limpet" if root == DEFAULT_ROOT else f"limpet-{hashlib.sha256(root.encode()).hexdigest()[:8]}"


def ruleset(
    root: str, networks: list[Network], endpoints: list[Endpoint], *, close_forwarding: bool = False
) -> list[dict[str, Any]]:
    """The commands that make the table of these bridge networks, of which `endpoints` are in use.

    `close_forwarding`: the host forwarded nothing before limpet came, and shall not between its other interfaces.
    """
    name = table(root)
    commands: list[dict[str, Any]] = [
        {"add": {"table": {"family": "inet", "name": name}}},
        {"delete": {"table": {"family": "inet", "name": name}}},
    ]
    if not networks:
        return commands
    commands.append({"add": {"table": {"family": "inet", "name": name}}})
    for chain, (kind, hook, priority) in _CHAINS.items():
        about = {"family": "inet", "table": name, "name": chain, "type": kind, "hook": hook, "prio": priority}
        commands.append({"add": {"chain": {**about, "policy": "accept"}}})

    def add(chain: str, comment: str, *rule: dict[str, Any]) -> None:
        about = {"family": "inet", "table": name, "chain": chain, "comment": comment, "expr": list(rule)}
        commands.append({"add": {"rule": about}})

    bridges = [network.bridge for network in networks]
    by_id = {network.id: network for network in networks}
    for endpoint in endpoints:
        network = by_id.get(endpoint.network_id)
        if network is not None:
            for port in endpoint.ports:
                _publish(add, endpoint, port)
    for network in networks:
        _isolate(add, network, bridges)
        _masquerade(add, network)
    if close_forwarding:
        outside = [_interface("iifname", bridges, "!="), _interface("oifname", bridges, "!=")]
        add("forward", "this host forwarded nothing before", *outside, {"drop": None})
    return commands


def _publish(add: Any, endpoint: Endpoint, port: list[Any]) -> None:
    """`port`: [host address, host port, container port, protocol]; an address of "" is every one of both families."""
    host, outer, inner, protocol = port
    comment = f"container {endpoint.container_id[:12]}"
    for version, target in ((4, endpoint.address), (6, endpoint.address6)):
        if not target or (host and ipaddress.ip_address(host).version != version):
            continue
        places: list[Rule]
        if host and not ipaddress.ip_address(host).is_unspecified:
            places = [[_match(_payload(_FAMILIES[version], "daddr"), host)]]
        else:
            places = _everywhere(version)
        what = [
            _match(_payload(protocol, "dport"), outer),
            {"dnat": {"family": _FAMILIES[version], "addr": target, "port": inner}},
        ]
        if not (host and ipaddress.ip_address(host).is_loopback):
            # A packet from outside to a loopback address is a lie: it would be refused only after the translation.
            outside = _match(_payload(_FAMILIES[version], "daddr"), _prefix(_LOOPBACK[version]), "!=")
            add("publish", comment, outside, *places[0], *what)
        for where in places:
            add("publish-local", comment, *where, *what)


def _everywhere(version: int) -> list[Rule]:
    """Every address of the host, but for those that are containers' on the host's network."""
    address = _payload(_FAMILIES[version], "daddr")
    local = _match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")
    others = _LOOPBACK[4] if version == 4 else f"{socket.inet_ntop(socket.AF_INET6, PREFIX6 + bytes(8))}/64"
    wide = [_match({"meta": {"key": "nfproto"}}, f"ipv{version}"), local, _match(address, _prefix(others), "!=")]
    return [wide, [_match(address, "127.0.0.1")]] if version == 4 else [wide]


def _isolate(add: Any, network: Network, bridges: list[str]) -> None:
    bridge, comment = network.bridge, f"network {network.name}"
    loopback = _match(_payload("ip", "daddr"), _prefix(_LOOPBACK[4]))
    add("guard", comment, _interface("iifname", bridge), loopback, {"drop": None})  # see `upkeep`, route_localnet
    add("forward", comment, _interface("iifname", bridge), _interface("oifname", bridge), {"accept": None})
    if network.internal:
        add("forward", f"{comment} is internal", _interface("iifname", bridge), {"drop": None})
        add("forward", f"{comment} is internal", _interface("oifname", bridge), {"drop": None})
        return
    known = _match({"ct": {"key": "state"}}, ["established", "related"], "in")
    published = _match({"ct": {"key": "status"}}, "dnat", "in")
    add("forward", comment, _interface("oifname", bridge), known, {"accept": None})
    add("forward", comment, _interface("oifname", bridge), published, {"accept": None})
    others = [other for other in bridges if other != bridge]
    for version in (4, 6):
        if network.subnet(version) is None:
            continue
        family = _match({"meta": {"key": "nfproto"}}, f"ipv{version}")
        if not network.routed(version):
            add("forward", comment, _interface("oifname", bridge), family, {"drop": None})
        elif others:
            between = [_interface("iifname", others), _interface("oifname", bridge)]
            add("forward", comment, *between, family, {"drop": None})


def _masquerade(add: Any, network: Network) -> None:
    bridge = network.bridge
    for version in (4, 6):
        said = network.subnet(version)
        if said is None:
            continue
        source = _payload(_FAMILIES[version], "saddr")
        inside = _match(source, _prefix(said["subnet"]))
        if network.masquerade(version):
            add(
                "masquerade",
                f"network {network.name}",
                inside,
                _interface("oifname", bridge, "!="),
                {"masquerade": None},
            )
        # Who calls a published port from the same network, or from a loopback address, would get the answer from
        # somebody he does not know.
        published = _match({"ct": {"key": "status"}}, "dnat", "in")
        here = _interface("oifname", bridge)
        add("masquerade", f"network {network.name}", inside, here, published, {"masquerade": None})
        looped = _match(source, _prefix(_LOOPBACK[version]))
        add("masquerade", f"network {network.name}", looped, here, published, {"masquerade": None})


def _match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def _payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def _interface(key: str, names: str | list[str], op: str = "==") -> dict[str, Any]:
    right = names if isinstance(names, str) else names[0] if len(names) == 1 else {"set": names}
    return _match({"meta": {"key": key}}, right, op)


def _prefix(subnet: str) -> dict[str, Any]:
    address, _, length = subnet.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}}


def apply(commands: list[dict[str, Any]]) -> None:
    """All of them or none. Raises LimpetError."""
    text = json.dumps({"nftables": commands})
    try:
        done = subprocess.run(["nft", "-j", "-f", "-"], input=text, capture_output=True, text=True, env=_ENVIRONMENT)
    except FileNotFoundError:
        raise LimpetError(
            "nft is not installed: networks of the driver bridge need it", "on Debian: apt-get install nftables"
        ) from None
    if done.returncode:
        first = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise LimpetError(f"nft refuses the rules of limpet's networks: {first}", "`limpet info` shows the kernel")


def present(root: str) -> bool:
    """Whether the store's table is there. False without nft."""
    try:
        command = ["nft", "list", "table", "inet", table(root)]
        return subprocess.run(command, capture_output=True, env=_ENVIRONMENT).returncode == 0
    except FileNotFoundError:
        return False


_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
