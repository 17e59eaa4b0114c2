"""Rules, rates and figures of traffic, with containers that keep to nothing by themselves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from limpet.containers.network import policing
from limpet.errors import Invalid
from limpet.network import loading, meters

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not loading.loads(), reason="needs programs on control groups (BPF, Linux 5.18)"),
]
TRY = """
import json, socket, sys
def attempt(kind, family, address, port):
    s = socket.socket(family, kind)
    s.settimeout(1)
    try:
        s.connect((address, port))
        if kind == socket.SOCK_DGRAM:
            s.send(b"x")
            s.recv(9)
        return "yes"
    except PermissionError: return "refused"
    except ConnectionRefusedError: return "nobody"
    except TimeoutError: return "silence"
print(json.dumps([attempt(socket.SOCK_STREAM if k == "tcp" else socket.SOCK_DGRAM,
    socket.AF_INET6 if ":" in a else socket.AF_INET, a, int(p)) for k, a, p in (w.split(",") for w in sys.argv[1:])]))
"""
ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 9)); t = socket.create_server(("", 80))
print("ready", flush=True)
while True: s.sendto(b"answer", s.recvfrom(9)[1])
"""


def address(limpet: Any, name: str) -> str:
    found: str = limpet("inspect", "--format", "{{.NetworkSettings.IPAddress}}", name).stdout.strip()
    return found


def serve(limpet: Any, name: str, *options: str) -> str:
    limpet("run", "-d", "--name", name, *options, "limpet/host", "python3", "-c", ECHO)
    until(lambda: limpet("logs", name).stdout == "ready\n")
    return address(limpet, name)


def attempts(limpet: Any, options: tuple[str, ...], *targets: str) -> list[str]:
    found: list[str] = json.loads(limpet("run", "--rm", *options, "limpet/host", "python3", "-c", TRY, *targets).stdout)
    return found


def test_egress(limpet: Any) -> None:
    web, other = serve(limpet, "web"), serve(limpet, "other")
    targets = (
        f"tcp,{web},80",
        f"tcp,{web},81",
        f"udp,{web},9",
        f"tcp,{other},80",
        f"udp,{other},9",
        "tcp,192.0.2.1,80",
    )
    assert attempts(limpet, ("--egress", "web:80"), *targets) == ["yes", *["refused"] * 5]
    assert attempts(limpet, ("--egress", "web"), *targets) == ["yes", "nobody", "yes", *["refused"] * 3]
    assert attempts(limpet, ("--egress", "none"), *targets) == ["refused"] * 6
    assert attempts(limpet, ("--egress", "host"), *targets) == ["yes", "nobody", "yes", "yes", "yes", "refused"]


def test_ingress_and_what_was_denied(limpet: Any) -> None:
    web = serve(limpet, "web", "--ingress", "app:80,project:shop:9/udp")
    targets = (f"tcp,{web},80", f"udp,{web},9")
    assert attempts(limpet, ("--name", "app"), *targets) == ["yes", "silence"]
    assert attempts(limpet, ("--name", "stranger"), *targets) == ["silence", "silence"]
    assert attempts(limpet, ("--label", f"{policing.PROJECT}=shop"), *targets) == ["silence", "yes"]
    limpet("run", "-d", "--name", "neighbour", "limpet/host", "sleep", "100")
    limpet("exec", "neighbour", "python3", "-c", TRY, targets[0])
    rows = [json.loads(line) for line in limpet("network", "denials", "--format", "json").stdout.splitlines()]
    assert {"web"} == {row["Container"] for row in rows}
    assert ("neighbour", "from", "80/tcp") in {(row["Peer"], row["Way"], row["Port"]) for row in rows}
    assert len(rows) == 5


def test_a_server_answers_whom_it_may_not_call(limpet: Any) -> None:
    """Answers belong to conversations that others began."""
    web = serve(limpet, "web", "--egress", "none")
    assert attempts(limpet, (), f"tcp,{web},80", f"udp,{web},9") == ["yes", "yes"]


def test_raw_sockets_begin_nothing(limpet: Any) -> None:
    """A crafted segment that claims to belong to a connection."""
    code = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 6);"
        "s.sendto(bytes(12) + b'P' + bytes(7), ('127.0.0.1', 0))"
    )
    assert limpet("run", "--rm", "limpet/host", "python3", "-c", code).returncode == 0
    refused = limpet("run", "--rm", "--egress", "192.0.2.1", "limpet/host", "python3", "-c", code, check=False)
    assert "PermissionError" in refused.stderr


def test_traffic_is_counted_and_kept_to_a_rate(limpet: Any, tmp_path: Path) -> None:
    script = "cd /tmp && head -c 3000000 /dev/zero >f && echo ready && exec python3 -m http.server 80"
    limpet("run", "-d", "--name", "web", "--egress-rate", "8mbit", "limpet/host", "sh", "-c", script)
    until(lambda: "ready" in limpet("logs", "web").stdout)
    web = address(limpet, "web")
    fetch = f"import urllib.request as u; print(len(u.urlopen('http://{web}/f').read()))"
    knock = f"import socket; socket.create_connection(('{web}', 80))"
    until(lambda: limpet("exec", "web", "python3", "-c", knock, check=False).returncode == 0)
    began = time.monotonic()
    assert limpet("run", "--rm", "limpet/host", "python3", "-c", fetch).stdout == "3000000\n"
    assert time.monotonic() - began > 2  # a megabyte a second, less what the bucket held
    received, sent = limpet("stats", "--no-stream", "--format", "{{.NetIO}}", "web").stdout.strip().split(" / ")
    assert sent.endswith("MB")
    assert 3 <= float(sent.removesuffix("MB")) < 3.5
    assert received.endswith("kB")


def test_nothing_stays_in_the_kernel(limpet: Any) -> None:
    from limpet.kernel import cgroup

    limpet("run", "-d", "--name", "keeper", "limpet/host", "sleep", "100")  # else the programs go with the last group
    limpet("run", "-d", "--name", "web", "--egress", "10.0.0.0/8", "--ingress", "host", "limpet/host", "sleep", "100")
    container = limpet("inspect", "--format", "{{.Id}}", "web").stdout.strip()
    group = cgroup.path(container)
    assert group is not None
    number = Path(group).stat().st_ino
    maps = meters._of(str(Path(group).parent))
    assert maps is not None

    def entries() -> int:
        from limpet.kernel import bpfmaps
        from limpet.network import filtering

        owners = [meters._KEY.unpack(key)[1] for key in bpfmaps.keys(maps.rules, filtering.RULE_KEY)]
        owners += [int.from_bytes(key, "little") for key in bpfmaps.keys(maps.meters, 8)]
        return owners.count(number)

    assert entries() > 4
    limpet("rm", "-f", "web")
    assert entries() == 0
    maps.close()


@pytest.mark.parametrize(
    ("text", "wanted"), [("10mbit", 1_250_000), ("1gbit", 125_000_000), ("500kbit", 62_500), ("2m", 2 << 20)]
)
def test_rates(text: str, wanted: int) -> None:
    assert policing.rate("egress-rate", text) == wanted


@pytest.mark.parametrize("text", ["fast", "bit", "0bit", "-1mbit", "1tbit", "infbit"])
def test_bad_rates(text: str) -> None:
    with pytest.raises(Invalid, match="egress-rate"):
        policing.rate("egress-rate", text)
