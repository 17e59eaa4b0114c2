"""What this host can do of what the network needs, found by doing it: for `limpet info`. Leaves nothing behind."""

from __future__ import annotations

from limpet.kernel import cgroup, interfaces
from limpet.kernel.features import Feature
from limpet.network import addresses, loading


def features() -> list[Feature]:
    there = loading.loads() if cgroup.root() is not None else frozenset()
    return [
        Feature(
            "BPF addresses",
            bool(there),
            "5.18",
            "an address of its own for each container on the host's network",
            "containers have the host's addresses; programs must choose theirs, from LIMPET_ADDRESS",
        ),
        Feature(
            "BPF published ports",
            loading.LISTENER in there,
            "6.1",
            "-p without a proxy",
            "ports can't be published; --address 0.0.0.0 has the host's",
        ),
        Feature(
            "IPv6 on lo",
            any(name == "lo" for name, _ in interfaces.addresses6()),
            "2.2",
            f"IPv6 addresses for containers, like {addresses.ipv6_of('127.64.0.1')}",
            "containers have an IPv4 address alone",
        ),
    ]
