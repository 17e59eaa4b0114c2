"""Networks as rows: what can be made, which subnets they get, how they are shown and go."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.network.conftest import Machine

from limpet.errors import Conflict, LimpetError
from limpet.network import endpoints, networks, pools
from limpet.store.store import Store


def test_the_life_of_a_network(machine: Machine) -> None:
    limpet = machine.limpet
    long = limpet("network", "create", "--label", "app=shop", "--internal", "back").stdout.strip()
    limpet("network", "create", "--ipv6", "web")
    assert limpet("network", "ls").stdout.splitlines()[0].split() == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]
    rows = limpet("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Internal}} {{.IPv6}}").stdout.splitlines()
    assert rows == [
        "back bridge true false",
        "host host false false",
        "none null false false",
        "private pasta false false",
        "web bridge false true",
    ]
    assert limpet("network", "ls", "-qf", "label=app=shop").stdout == f"{long[:12]}\n"
    assert limpet("network", "ls", "-f", "type=custom", "-f", "name=we", "--format", "{{.Name}}").stdout == "web\n"
    shown = json.loads(limpet("network", "inspect", long[:8]).stdout)[0]
    assert (shown["Name"], shown["Id"], shown["Internal"], shown["Labels"]) == ("back", long, True, {"app": "shop"})
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.201.0.0/24", "Gateway": "10.201.0.1"}]
    assert limpet("network", "inspect", "-f", "{{(index .IPAM.Config 1).Subnet}}", "web").stdout.startswith("fd")
    assert limpet("network", "rm", "back", "web").stdout == "back\nweb\n"
    assert limpet("network", "inspect", "back", check=False).returncode == 1


WRONG = [
    (["host"], "already exists: it is built in", "another name"),
    (["a/b"], "invalid network name", "a-z"),
    (["-d", "overlay", "x"], "driver 'overlay' is not supported", "macvlan"),
    (["-o", "mtuu=1400", "x"], "no such option", "did you mean mtu?"),
    (["-o", "mtu=7", "x"], "68 to 65535", ""),
    (["-o", "com.docker.network.bridge.enable_icc=maybe", "x"], "one of true, false", ""),
    (["--subnet", "10.1.2.3/24", "x"], "not the beginning", "10.1.2.0/24"),
    (["--subnet", "10.1.2.0/31", "x"], "no place", ""),
    (["--subnet", "10.1.2.0/24", "--gateway", "10.1.2.255", "x"], "as a whole", ""),
    (["--gateway", "10.1.2.1", "x"], "no matching subnet", "--subnet"),
    (["--subnet", "10.1.0.0/16", "--ip-range", "10.2.0.0/24", "x"], "no matching subnet", ""),
    (["--subnet", "fd00::/64", "x"], "without --ipv6", "add --ipv6"),
    (["--subnet", "192.0.2.0/25", "x"], "overlaps with 192.0.2.0/24", "leave --subnet out"),
    (["-d", "macvlan", "x"], "has to be said", "--subnet"),
    (["-d", "none", "--internal", "x"], "no addresses of its own", ""),
]


def test_what_can_not_be_is_said_in_a_line_and_leaves_nothing(machine: Machine) -> None:
    for arguments, message, hint in WRONG:
        result = machine.limpet("network", "create", *arguments, check=False)
        assert result.returncode == 1
        lines = result.stderr.splitlines()
        assert message in lines[0]
        assert hint in "".join(lines[1:])
        assert len(lines) <= 2
    assert machine.limpet("network", "ls", "-qf", "type=custom").stdout == ""


def test_a_subnet_collides_with_no_route_address_or_name_server(machine: Machine, tmp_path: Path) -> None:
    """A VPN's route is a route; so is one in a table of its own, as wg-quick makes it."""
    limpet = machine.limpet
    machine.run("ip", "route", "add", "10.201.0.0/17", "via", "192.0.2.2")
    machine.run("ip", "route", "add", "10.201.128.0/17", "via", "192.0.2.2", "table", "51820")
    machine.run("ip", "address", "add", "172.29.0.9/32", "dev", "lo")
    limpet("network", "create", "one")
    assert limpet("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "one").stdout == "172.29.1.0/24\n"
    pool = tmp_path / "network.toml"
    pool.write_text('pools = [{ base = "10.201.4.0/23", size = 24 }]')
    limpet.environment["LIMPET_NETWORK_CONFIG"] = str(pool)
    result = limpet("network", "create", "two", check=False)
    assert "no subnet of 10.201.4.0/23 is free" in result.stderr
    assert str(pool) in result.stderr
    pool.write_text('pools = [{ base = "10.9.0.0/29", size = 24 }]')
    assert "size 24 is no part of" in limpet("network", "create", "two", check=False).stderr


def test_networks_made_at_once_share_no_subnet(machine: Machine) -> None:
    limpet = machine.limpet
    limpet("network", "create", "first")
    made = [
        subprocess.Popen([*limpet.command, "network", "create", f"n{number}"], env=limpet.environment, stdout=-3)
        for number in range(4)
    ]
    assert [each.wait() for each in made] == [0] * 4
    names = ["first", *(f"n{number}" for number in range(4))]
    text = limpet("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", *names).stdout
    assert len(set(text.split())) == 5


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(8, 28)), max_size=30))
def test_a_chosen_subnet_is_free(routes: list[tuple[int, int]]) -> None:
    used = [(ipaddress.ip_network(f"10.201.{number}.0/{length}", strict=False), "a route") for number, length in routes]
    network = networks.Network("0" * 64, "x", "bridge", 0.0, {})
    try:
        (found,) = pools.choose(network, [], [], used)
    except LimpetError:
        return
    chosen = ipaddress.ip_network(found["subnet"])
    assert not any(chosen.overlaps(other) for other, _ in used)
    assert ipaddress.ip_address(found["gateway"]) in chosen


@pytest.fixture
def filled(store: Store) -> Store:
    """Four containers without an image, and a network with room for three."""
    for number in range(4):
        row = (f"{number}" * 64, f"c{number}", "", "[]", 0.0, "{}")
        store.db.run(
            "INSERT INTO container (id, name, image_name, layers, created, options) VALUES (?,?,?,?,?,?)", *row
        )
    networks.create(
        store,
        "small",
        driver="macvlan",
        options={"parent": "lo"},
        subnets=[{"subnet": "10.7.0.0/29", "gateway": "", "range": ""}],
        aux={"router": "10.7.0.3", "printer": "10.7.0.4"},
    )
    return store


def test_addresses_are_the_containers_until_they_go(filled: Store) -> None:
    found = [endpoints.add(filled, f"{n}" * 64, endpoints.Wish("small"), 0).address for n in range(3)]
    assert found == ["10.7.0.2", "10.7.0.5", "10.7.0.6"]
    with pytest.raises(LimpetError, match=r"no free address in 10\.7\.0\.0/29"):
        endpoints.add(filled, "3" * 64, endpoints.Wish("small"), 0)
    wanted = endpoints.parse("small:ip=10.7.0.5")
    with pytest.raises(Conflict, match="container c1's"):
        endpoints.add(filled, "3" * 64, wanted, 0)
    filled.db.run("DELETE FROM container WHERE name = 'c1'")
    assert endpoints.add(filled, "3" * 64, wanted, 0).address == "10.7.0.5"


@pytest.mark.parametrize(
    "text",
    [
        "n:ip=10.0.0",
        "n:ip",
        "n:color=red",
        "n:mac=01:02:03:04:05:06",
        "n:mac=1:2",
        "n:alias=a b",
        "n:ip=1.2.3.4,ip=1.2.3.5",
    ],
)
def test_nonsense_about_a_network_is_refused(text: str) -> None:
    with pytest.raises(LimpetError):
        endpoints.parse(text)


def test_both_forms_of_an_attachment_say_the_same() -> None:
    ours, theirs = (
        endpoints.parse(text)
        for text in (
            "n:ip=10.0.0.2,alias=a,alias=b,mac=02-00-00-00-00-0A",
            "name=n,ip=10.0.0.2,alias=a,alias=b,mac-address=02:00:00:00:00:0a",
        )
    )
    for field in endpoints.Wish.__slots__:
        assert getattr(ours, field) == getattr(theirs, field)
