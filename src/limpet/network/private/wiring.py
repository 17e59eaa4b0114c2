"""Links, addresses and routes, by netlink (pyroute2): in the network namespace of the caller and in a container's.

What limpet makes on the host bears its mark, the interface's alias `limpet <root of the store>`: a collector takes what
has it, and nothing else. Loading pyroute2 takes 100 ms (`netlink`): only what works on networks imports this module.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os

from limpet.errors import Conflict, LimpetError
from limpet.kernel import process
from limpet.network.private.netlink import IPRoute, NetlinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from limpet.network.endpoints import Endpoint
    from limpet.network.networks import Network

    Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOCAL_TABLE = 255
_BLACKHOLES = (6, 7, 8)  # RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
_UNIVERSE, _LINK = 0, 253  # rt_scope_t
_VERSIONS = ((4, 2), (6, 10))  # IP version, AF_*


def mark(root: str) -> str:
    return f"limpet {root}"[:255]


def routes() -> list[tuple[Subnet, str]]:
    """Every subnet that this host has a route to or an address in, and which interface that is. No default routes."""
    found: list[tuple[Subnet, str]] = []
    with IPRoute() as here:
        names = {link["index"]: link.get("ifname") for link in here.get_links()}
        for version, family in _VERSIONS:
            for route in here.get_routes(family=family):
                target = route.get("dst")
                if target is None or not route["dst_len"] or route["table"] == _LOCAL_TABLE:
                    continue
                subnet = ipaddress.ip_network(f"{target}/{route['dst_len']}", strict=False)
                if subnet.is_link_local or subnet.is_multicast:
                    continue
                found.append((subnet, f"route by {names.get(route.get('oif'), 'no interface')}"))
            for address in here.get_addr(family=family):
                text = f"{address.get('address')}/{address['prefixlen']}"
                subnet = ipaddress.ip_network(text, strict=False)
                if subnet.version == version and not subnet.is_link_local:
                    found.append((subnet, f"address of {names.get(address['index'])}"))
    return found


class Inside:
    """`with Inside(fd):` this process is in that network namespace; sockets that it opens stay there."""

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace
        self._home = -1

    def __enter__(self) -> None:
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        process.setns(self._namespace, process.CLONE_NEWNET)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process.setns(self._home, process.CLONE_NEWNET)
        os.close(self._home)


def links(here: IPRoute, root: str) -> dict[str, int]:
    """The interfaces of a store on the host: name → index."""
    wanted = mark(root)
    return {link.get("ifname"): link["index"] for link in here.get_links() if link.get("ifalias") == wanted}


def ensure_bridge(here: IPRoute, network: Network, root: str) -> int:
    """The index of the network's bridge, made if it is missing, with the gateways' addresses. Raises LimpetError."""
    name = network.bridge
    index = _index(here, name)
    if index is not None:
        found = here.get_links(index)[0]
        if found.get("ifalias") == mark(root):
            return index
        raise Conflict(f"network {network.name}: interface {name} is there already, and not limpet's")
    try:
        here.link("add", ifname=name, kind="bridge", **({"mtu": network.mtu} if network.mtu else {}))
        index = _index(here, name)
        assert index is not None
        here.link("set", index=index, ifalias=mark(root))  # at once: who finds it shall know whose it is
        if network.subnet(6) is not None:
            _write(f"/proc/sys/net/ipv6/conf/{name}/accept_dad", "0")
            _write(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "0")
        for each in network.subnets:
            length = int(each["subnet"].partition("/")[2])
            here.addr("add", index=index, address=each["gateway"], prefixlen=length)
        here.link("set", index=index, state="up")
    except NetlinkError as e:
        if index is not None:
            here.link("del", index=index)
        raise _failed(e, f"network {network.name}: making its bridge {name}") from e
    return index


def plug(here: IPRoute, namespace: int, network: Network, endpoint: Endpoint, name: str, root: str) -> None:
    """Two interfaces: one in the namespace, with the addresses, one on the network's bridge. Raises LimpetError."""
    bridge = ensure_bridge(here, network, root)
    _unplug(here, endpoint.interface)
    peer = {"ifname": name, "net_ns_fd": namespace, "address": endpoint.mac}
    size = {"mtu": network.mtu} if network.mtu else {}
    try:
        here.link("add", ifname=endpoint.interface, kind="veth", peer={**peer, **size}, **size)
        index = _index(here, endpoint.interface)
        here.link("set", index=index, ifalias=mark(root))
        here.link("set", index=index, master=bridge, state="up")
        if not network.talk:
            here.brport("set", index=index, isolated=1)
    except NetlinkError as e:
        raise _failed(e, f"network {network.name}: connecting interface {name}") from e
    _configure(namespace, network, endpoint, name)


def derive(here: IPRoute, namespace: int, network: Network, endpoint: Endpoint, name: str) -> None:
    """macvlan and ipvlan: an interface of the namespace's own on top of one of the host's. Raises LimpetError."""
    parent = network.options.get("parent", "")
    index = _index(here, parent)
    if index is None:
        raise LimpetError(f"network {network.name}: its parent interface {parent} is not there", "`ip link` lists them")
    options: dict[str, Any] = {"kind": network.driver, "link": index, "net_ns_fd": namespace}
    if network.driver == "macvlan":
        options |= {"macvlan_mode": network.options.get("macvlan_mode", "bridge"), "address": endpoint.mac}
    else:
        options |= {"ipvlan_mode": ("l2", "l3", "l3s").index(network.options.get("ipvlan_mode", "l2"))}
    if network.mtu:
        options["mtu"] = network.mtu
    temporary = endpoint.interface  # the name in the container may be one of the host's at the moment of its making
    try:
        here.link("add", ifname=temporary, **options)
    except NetlinkError as e:
        raise _failed(e, f"network {network.name}: {network.driver} on {parent}") from e
    with Inside(namespace):
        inner = IPRoute()
    with inner:
        inner.link("set", index=_index(inner, temporary), ifname=name)
    _configure(namespace, network, endpoint, name)


def _configure(namespace: int, network: Network, endpoint: Endpoint, name: str) -> None:
    with Inside(namespace):
        inner = IPRoute()
        for path, value in (
            ("ipv6/conf/all/disable_ipv6", "0"),
            (f"ipv6/conf/{name}/disable_ipv6", "0" if endpoint.address6 else "1"),
            (f"ipv6/conf/{name}/accept_dad", "0"),  # the address is the row's alone: it need not be probed for
            (f"ipv6/conf/{name}/accept_ra", "0"),
        ):
            _write(f"/proc/sys/net/{path}", value)
    with inner:
        try:
            index = _index(inner, name)
            for version, address in ((4, endpoint.address), (6, endpoint.address6)):
                said = network.subnet(version)
                if address and said is not None:
                    inner.addr("add", index=index, address=address, prefixlen=int(said["subnet"].partition("/")[2]))
            inner.link("set", index=index, state="up")
        except NetlinkError as e:
            raise _failed(e, f"network {network.name}: interface {name} of the container") from e


def set_gateways(namespace: int, ways: dict[int, str]) -> None:
    """The default routes, {4: gateway, 6: gateway}, in place of what there was."""
    with Inside(namespace):
        inner = IPRoute()
    with inner:
        for version, family in _VERSIONS:
            for route in inner.get_default_routes(family=family):
                if route.get("gateway") and route["table"] != _LOCAL_TABLE:
                    inner.route("del", dst="default", gateway=route.get("gateway"), oif=route.get("oif"), family=family)
            if version in ways:
                inner.route("add", dst="default", gateway=ways[version], family=family)


def unplug(namespace: int, name: str) -> None:
    """Takes an interface out of a namespace; its other end goes with it. One that is not there is fine."""
    with Inside(namespace):
        inner = IPRoute()
    with inner:
        _unplug(inner, name)


def remove(here: IPRoute, name: str) -> None:
    """An interface of the host's; gone already is fine."""
    _unplug(here, name)


def names_inside(namespace: int) -> dict[str, str]:
    """Interfaces of a namespace: name → MAC address."""
    with Inside(namespace):
        inner = IPRoute()
    with inner:
        return {link.get("ifname"): link.get("address") or "" for link in inner.get_links()}


def _unplug(here: IPRoute, name: str) -> None:
    index = _index(here, name)
    if index is None:
        return
    try:
        here.link("del", index=index)
    except NetlinkError as e:
        if e.code not in (errno.ENODEV, errno.ENOENT):
            raise _failed(e, f"removing interface {name}") from e


def _index(here: IPRoute, name: str) -> int | None:
    found = here.link_lookup(ifname=name)
    return found[0] if found else None


def _failed(error: NetlinkError, what: str) -> LimpetError:
    hints = {
        errno.EOPNOTSUPP: "this kernel has not that kind of interface: `modprobe` may load it",
        errno.EPERM: "limpet needs CAP_NET_ADMIN for networks of its own",
        errno.EBUSY: "something else holds that interface",
    }
    return LimpetError(f"{what}: {os.strerror(error.code)}", hints.get(error.code, ""))


def _write(path: str, value: str) -> None:
    """A parameter that is not there (no IPv6, say) needs no setting."""
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except FileNotFoundError:
        pass


class Guard:
    """`with Guard(run):` one at a time works on the networks of a store."""

    def __init__(self, run: str) -> None:
        self._path = f"{run}/network.lock"
        self._fd = -1

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
