"""A registry under load: ours beside docker-registry on the same cores, asked in turns by wrk."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import engines

if TYPE_CHECKING:
    from pathlib import Path

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_UNITS = {"B": 1.0, "KB": 2.0**10, "MB": 2.0**20, "GB": 2.0**30}
_BLOB = 64 << 20


def measure(scratch: Path, rounds: int, seconds: int = 1) -> None:
    """Prints manifests a second, and the rate of blobs, for few and many connections: medians, and the median of the
    ratios of two that were measured one after the other, which a busy machine disturbs least."""
    if not shutil.which("wrk"):
        print("serve: wrk is missing (apt-get install wrk)")
        return
    ports = {"limpet": _free(), "docker": _free()}
    ours = [str(engines.CHECKOUT / "limpet"), "registry", "serve", "--addr", f"127.0.0.1:{ports['limpet']}"]
    servers = {
        "limpet": subprocess.Popen(
            [*ours, "--storage", str(scratch / "served"), "--workers", "2"], stdout=subprocess.PIPE
        ),
        "docker": engines.registry(scratch, ports["docker"], storage="served-docker"),
    }
    try:
        _wait(ports["limpet"])
        _wait(ports["docker"])
        blob = os.urandom(1 << 20) * (_BLOB >> 20)
        paths = {name: _filled(port, blob) for name, port in ports.items()}
        found: dict[tuple[str, int, str], list[float]] = {}
        for number in range(rounds):
            for kind, path, counts in (("manifest", 0, (1, 16, 64)), ("blob", 1, (1, 2, 8))):
                for count in counts:
                    for name, port in sorted(ports.items(), reverse=bool(number % 2)):
                        requests, rate = _wrk(f"http://127.0.0.1:{port}{paths[name][path]}", count, seconds)
                        value = requests if kind == "manifest" else rate
                        found.setdefault((kind, count, name), []).append(value)
    finally:
        for server in servers.values():
            server.terminate()
            server.wait()
    for (kind, count, name), values in found.items():
        if name == "limpet":
            others = found[kind, count, "docker"]
            ratio = statistics.median(mine / other for mine, other in zip(values, others, strict=True))
            scale, unit = (1, "/s") if kind == "manifest" else (1e6, "MB/s")
            shown = "".join(f"{statistics.median(one) / scale:9.0f} {unit}" for one in (values, others))
            label = f"serve, {kind}s, {count} connection{'' if count == 1 else 's'}"
            print(f"{label:34s}{shown}   {ratio:6.2f} of docker-registry's (goal: at least 1)", flush=True)


def _free() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait(port: int) -> None:
    while True:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return


def _ask(port: int, method: str, target: str, body: bytes | None = None, kind: str = "") -> str:
    """The Location of the answer."""
    parts = urlsplit(target)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    connection.request(method, path, body, {"Content-Type": kind} if kind else {})
    response = connection.getresponse()
    response.read()
    connection.close()
    if response.status >= 300:
        raise RuntimeError(f"{method} {target}: {response.status}")
    return response.headers.get("Location", "")


def _filled(port: int, blob: bytes) -> tuple[str, str]:
    """(path of a manifest, path of its one layer)"""
    config = b"{}"
    digests = {data: f"sha256:{sha256(data).hexdigest()}" for data in (config, blob)}
    for data, digest in digests.items():
        where = _ask(port, "POST", "/v2/bench/blobs/uploads/")
        _ask(port, "PUT", f"{where}{'&' if '?' in where else '?'}digest={digest}", data, "application/octet-stream")
    parts = [
        {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digests[data], "size": len(data)}
        for kind, data in (("config.v1+json", config), ("layer.v1.tar", blob))
    ]
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": parts[0], "layers": parts[1:]}
    _ask(port, "PUT", "/v2/bench/manifests/1", json.dumps(manifest).encode(), _MANIFEST)
    return "/v2/bench/manifests/1", f"/v2/bench/blobs/{digests[blob]}"


def _wrk(address: str, connections: int, seconds: int) -> tuple[float, float]:
    """(requests, bytes) a second."""
    words = ["wrk", f"-t{min(connections, 2)}", f"-c{connections}", f"-d{seconds}s", "-H", f"Accept: {_MANIFEST}"]
    said = subprocess.run([*words, address], capture_output=True, text=True, check=True).stdout
    requests = re.search(r"Requests/sec:\s+([\d.]+)", said)
    rate = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?B)", said)
    if requests is None or rate is None or "Non-2xx" in said:
        raise RuntimeError(f"{address}: {said}")
    return float(requests[1]), float(rate[1]) * _UNITS[rate[2]]
