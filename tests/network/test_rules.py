"""`--egress` and `--ingress` as text, and the table that they come to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limpet.errors import Invalid
from limpet.network import rules
from limpet.network.rules import ANY, Ports


def allowed(table: dict[rules.Prefix, list[Ports]], address: str, port: int, protocol: int = rules.TCP) -> bool:
    """What the kernel's program does: the longest prefix, its ranges."""
    packed = ipaddress.ip_address(address).packed
    whole = rules.mapped(packed).address if len(packed) == 4 else packed
    number = int.from_bytes(whole)
    six = len(packed) == 16
    fitting = [p for p in table if p.six == six and int.from_bytes(p.address) >> 128 - p.bits == number >> 128 - p.bits]
    if not fitting:
        return False
    ranges = table[max(fitting, key=lambda prefix: prefix.bits)]
    return any(r.first <= port <= r.last and r.protocol in (0, protocol) for r in ranges)


def table(text: str, **members: list[str]) -> dict[rules.Prefix, list[Ports]]:
    return rules.compile(
        rules.parse("egress", text), ["127.64.0.9"], lambda where: members.get(where.split(":")[1], [])
    )


def test_addresses_and_ports() -> None:
    found = table("10.0.0.0/8:443, 10.1.2.3:80/tcp, [2001:db8::/32]:8000-8100/udp, web, host", web=["127.70.0.1"])
    for address, port, protocol, wanted in (
        ("10.9.9.9", 443, rules.TCP, True),
        ("10.9.9.9", 80, rules.TCP, False),
        ("10.1.2.3", 80, rules.TCP, True),
        ("10.1.2.3", 80, rules.UDP, False),
        ("10.1.2.3", 443, rules.TCP, True),  # what the shorter prefix allows, holds for the longer one
        ("11.0.0.1", 443, rules.TCP, False),
        ("2001:db8::1", 8050, rules.UDP, True),
        ("2001:db8::1", 8050, rules.TCP, False),
        ("127.70.0.1", 1, rules.TCP, True),
        ("127.0.0.1", 22, rules.TCP, True),
        ("::1", 22, rules.TCP, True),
        ("192.0.2.1", 22, rules.TCP, False),
    ):
        assert allowed(found, address, port, protocol) is wanted, (address, port, protocol)


def test_nothing_but_itself() -> None:
    found = table("none")
    assert found == {rules.mapped(bytes([127, 64, 0, 9])): [ANY]}


def test_all_of_one_family_is_not_the_other() -> None:
    assert allowed(table("::/0"), "2001:db8::1", 1)
    assert not allowed(table("::/0"), "192.0.2.1", 1)
    assert not allowed(table("0.0.0.0/0"), "2001:db8::1", 1)


@given(
    st.lists(
        st.tuples(st.ip_addresses(v=4), st.integers(0, 32), st.integers(1, 65535)), min_size=1, max_size=6
    ),
    st.ip_addresses(v=4),
    st.integers(1, 65535),
)  # fmt: skip
def test_the_table_allows_what_any_rule_allows(said: list[tuple[object, int, int]], address: object, port: int) -> None:
    networks = [(ipaddress.ip_network(f"{where}/{bits}", strict=False), number) for where, bits, number in said]
    found = table(",".join(f"{network}:{number}" for network, number in networks))
    for each in (str(address), str(networks[0][0].network_address)):
        for number in (port, networks[0][1]):
            wanted = any(ipaddress.ip_address(each) in network and number == n for network, n in networks)
            assert allowed(found, each, number) == (wanted or each == "127.64.0.9")


WRONG = ["", "web,", "none,host", "web:x", "web:0", "web:70000", "web:90-80", "10.0.0.0/33", "[::1", "[::1]80", "a/b"]


@pytest.mark.parametrize("text", [*WRONG, "project:"])
def test_what_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="--egress"):
        rules.parse("egress", text)


def test_too_many_ranges() -> None:
    with pytest.raises(Invalid, match="more than 8 ranges"):
        table(",".join(f"10.0.0.1:{port}" for port in range(1, 10)))
