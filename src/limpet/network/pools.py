"""Subnets that collide with nothing: no route of this host (a VPN's), no address, no name server, no other network.

Networks whose subnet nobody chose get the first free part of these pools, in this order; `/etc/limpet/network.toml`
(LIMPET_NETWORK_CONFIG names another file) has others:

    pools = [{ base = "10.201.0.0/16", size = 24 }, { base = "fd00:1:2::/48", size = 64 }]
"""

from __future__ import annotations

import ipaddress
import os

from limpet.errors import Conflict, Invalid, LimpetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.network.networks import Network

    Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

CONFIG = "/etc/limpet/network.toml"
POOLS = (("10.201.0.0/16", 24), ("172.29.0.0/16", 24), ("192.168.192.0/19", 24))
"""IPv4: (pool, length of a network's prefix). Away from where offices, clouds and Docker (172.17 to 172.28) begin."""
_MOST = 65536  # parts of a pool that are looked at


def of_host() -> list[tuple[Subnet, str]]:
    """What is taken on this host: routes of all tables, addresses of interfaces, name servers; each with its owner."""
    from limpet.network.private import wiring

    taken = wiring.routes()
    for server in _name_servers():
        taken.append((ipaddress.ip_network(server), f"name server {server}"))
    return taken


def _name_servers() -> list[str]:
    found = []
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                words = [line.split() for line in file]
        except OSError:
            continue
        for each in words:
            if each[:1] == ["nameserver"] and len(each) > 1:
                try:
                    found.append(str(ipaddress.ip_address(each[1].partition("%")[0])))
                except ValueError:
                    pass
    return found


def choose(
    network: Network, wanted: list[dict[str, str]], others: list[Network], used: list[tuple[Subnet, str]]
) -> list[dict[str, str]]:
    """The network's subnets, complete. `used`: of `of_host`. Raises Invalid, Conflict, LimpetError if none is free."""
    taken = [
        *used,
        *(
            (ipaddress.ip_network(each["subnet"]), f"network {other.name}")
            for other in others
            if other.driver == "bridge"
            for each in other.subnets
        ),
    ]
    found = [_complete(each) for each in wanted]
    for place, each in enumerate(found):
        subnet = ipaddress.ip_network(each["subnet"])
        if network.driver != "bridge":
            continue  # it is somebody else's network that the containers are on
        for other, owner in [*taken, *((ipaddress.ip_network(o["subnet"]), "itself") for o in found[:place])]:
            if subnet.version == other.version and subnet.overlaps(other):
                raise Conflict(
                    f"subnet {subnet} overlaps with {other} ({owner})",
                    "choose another one, or leave --subnet out: one that is free is chosen",
                    exit_code=1,
                )
    versions = {ipaddress.ip_network(each["subnet"]).version for each in found}
    if 6 in versions and not network.ipv6:
        raise Invalid(f"--subnet {found[-1]['subnet']} without --ipv6", "add --ipv6", exit_code=1)
    if network.driver != "bridge" and 4 not in versions:
        raise Invalid(
            f"a {network.driver} network has the subnet of its parent's network, which has to be said",
            "add --subnet and --gateway",
            exit_code=1,
        )
    if 4 not in versions:
        found.insert(0, _complete({"subnet": str(_free(4, taken))}))
    if network.ipv6 and 6 not in versions:
        found.append(_complete({"subnet": str(_free(6, taken))}))
    return found


def _free(version: int, taken: list[tuple[Subnet, str]]) -> Subnet:
    pools = _pools(version)
    same = [subnet for subnet, _ in taken if subnet.version == version and subnet.prefixlen]
    for base, size in pools:
        for number in range(min(_MOST, 1 << (size - base.prefixlen))):
            start = base.network_address + (number << (base.max_prefixlen - size))
            part = type(base)((int(start), size))
            if not any(part.overlaps(other) for other in same):
                return part
    tried = ", ".join(str(base) for base, _ in pools)
    raise LimpetError(
        f"no subnet of {tried} is free: routes, addresses and networks of this host overlap with all of them",
        f"say --subnet, or give other pools in {_config()}",
        exit_code=1,
    )


def _config() -> str:
    return os.environ.get("LIMPET_NETWORK_CONFIG") or CONFIG


def _pools(version: int) -> list[tuple[Subnet, int]]:
    said = _read()
    found = []
    for base, size in said:
        subnet = ipaddress.ip_network(base)
        if subnet.version == version:
            found.append((subnet, size))
    if not found and version == 6:
        # RFC 4193: 40 random bits, so that two hosts that come to be connected do not collide.
        prefix = (0xFD << 120) | int.from_bytes(os.urandom(5)) << 80
        found = [(ipaddress.IPv6Network((prefix, 48)), 64)]
    return found or [(ipaddress.ip_network(base), size) for base, size in POOLS]


def _read() -> list[tuple[str, int]]:
    path = _config()
    try:
        with open(path, "rb") as file:
            data = file.read(1 << 20)
    except FileNotFoundError:
        return []
    import tomllib

    try:
        said = tomllib.loads(data.decode()).get("pools", [])
        found = [(str(each["base"]), int(each["size"])) for each in said]
        for base, size in found:
            subnet = ipaddress.ip_network(base)
            if not subnet.prefixlen <= size <= (30 if subnet.version == 4 else 126):
                raise ValueError(f"size {size} is no part of {base}")
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise Invalid(f"{path}: {e}", 'it has pools = [{ base = "10.201.0.0/16", size = 24 }]') from e
    return found


def _complete(said: dict[str, str]) -> dict[str, str]:
    """With its gateway, the first address if nobody said one. Raises Invalid."""
    try:
        subnet = ipaddress.ip_network(said["subnet"], strict=False)
    except ValueError as e:
        raise Invalid(f"invalid subnet '{said['subnet']}': {e}", "write it like 10.1.2.0/24", exit_code=1) from None
    if (
        str(subnet) != str(said["subnet"])
        and "/" in said["subnet"]
        and int(subnet.network_address) != int(ipaddress.ip_address(said["subnet"].partition("/")[0]))
    ):
        raise Invalid(
            f"invalid subnet '{said['subnet']}': the address is not the beginning of the network",
            f"{subnet} is",
            exit_code=1,
        )
    if subnet.num_addresses < 4:
        raise Invalid(f"subnet {subnet} has no place for a gateway and a container", exit_code=1)
    gateway = said.get("gateway") or str(subnet.network_address + 1)
    within(gateway, subnet, "gateway")
    inner = said.get("range") or ""
    if inner:
        try:
            part = ipaddress.ip_network(inner, strict=False)
        except ValueError as e:
            raise Invalid(f"invalid range '{inner}': {e}", exit_code=1) from None
        if part.version != subnet.version or not part.subnet_of(subnet):  # type: ignore[arg-type]
            raise Invalid(f"the range {part} is not within the subnet {subnet}", exit_code=1)
        inner = str(part)
    return {"subnet": str(subnet), "gateway": gateway, "range": inner}


def within(text: str, subnet: Subnet, what: str) -> str:
    """The address in its usual form, which a host of the subnet may have. Raises Invalid."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise Invalid(f"{what} '{text}' is not an IP address", exit_code=1) from None
    if address.version != subnet.version or address not in subnet:
        raise Invalid(f"{what} {address} is not within the subnet {subnet}", exit_code=1)
    last = subnet.network_address + (subnet.num_addresses - 1)
    if address == subnet.network_address or (subnet.version == 4 and address == last):
        raise Invalid(f"{what} {address} names the subnet {subnet} as a whole", exit_code=1)
    return str(address)
