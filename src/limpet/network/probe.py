"""What this host can do of what the network needs, found by doing it: for `limpet info`. Leaves nothing behind."""

from __future__ import annotations

from limpet.kernel import cgroup, interfaces
from limpet.kernel.features import Feature
from limpet.network import addresses, loading


def features() -> list[Feature]:
    there = cgroup.root() is not None
    return [
        Feature(
            "BPF addresses",
            there and loading.loads(),
            "5.18",
            "an address of its own for each container on the host's network",
            "containers have the host's addresses; programs must choose theirs, from LIMPET_ADDRESS",
        ),
        Feature(
            "IPv6 on lo",
            any(name == "lo" for name, _ in interfaces.addresses6()),
            "2.2",
            f"IPv6 addresses for containers, like {addresses.ipv6_of('127.64.0.1')}",
            "containers have an IPv4 address alone",
        ),
    ]
