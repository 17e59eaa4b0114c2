"""Which proxy an address is reached by: HTTPS_PROXY, HTTP_PROXY, NO_PROXY, as in Docker (Go's `httpproxy`).

The upper-case name counts before the lower-case one. This machine's own addresses never go by a proxy. NO_PROXY is a
list of `*`, addresses, networks (`10.0.0.0/8`), names (with all names below them), `.names` (only those below), each
with a port or without.
"""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from limpet.errors import Invalid
from limpet.registry import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

_PORTS = {"http": 80, "https": 443}


def proxy_of(address: str, environment: Mapping[str, str] | None = None) -> str:
    """The proxy's address for a URL, "" for none. Raises Invalid for a proxy that is none."""
    environment = os.environ if environment is None else environment
    target = urlsplit(address)
    proxy = _variable(environment, f"{target.scheme}_proxy")
    host = target.hostname or ""
    if not proxy or is_loopback(target.netloc.rpartition("@")[2]) or not host:
        return ""
    if _is_excepted(_variable(environment, "no_proxy"), host, target.port or _PORTS[target.scheme]):
        return ""
    name = f"{target.scheme}_proxy".upper()
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise Invalid(f"{name}: {redact.clean(proxy)[:200]!r} is not an address", "write http://HOST:PORT")
    if parts.scheme not in ("http", "https"):
        raise Invalid(f"{name}: no proxies of the kind {parts.scheme[:20]!r}", "write http://HOST:PORT")
    redact.conceal(parts.password or "")
    return proxy


def is_loopback(netloc: str) -> bool:
    """Whether a host[:port] is this machine itself: localhost, a name under it, 127.0.0.0/8 or ::1."""
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0] == "::1"
    host = netloc.partition(":")[0].lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    numbers = host.split(".")
    return len(numbers) == 4 and numbers[0] == "127" and all(n.isdecimal() and int(n) < 256 for n in numbers)


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name.upper()) or environment.get(name) or ""


def _is_excepted(no_proxy: str, host: str, port: int) -> bool:
    host = host.lower().rstrip(".")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        ip = None
    for word in no_proxy.lower().replace(",", " ").split():
        if word == "*":
            return True
        if ip is not None and "/" in word:
            try:
                if ip in ipaddress.ip_network(word, strict=False):
                    return True
            except ValueError:
                pass
            continue
        name, wanted = _host_and_port(word)
        if wanted and wanted != str(port):
            continue
        if ip is not None:
            if name == host:
                return True
            continue
        name = name.removeprefix("*")
        if name.startswith("."):
            if host.endswith(name):
                return True
        elif host == name or host.endswith(f".{name}"):
            return True
    return False


def _host_and_port(word: str) -> tuple[str, str]:
    if word.startswith("["):
        name, _, rest = word[1:].partition("]")
        return name, rest.removeprefix(":")
    if word.count(":") == 1:
        name, _, port = word.partition(":")
        return name, port
    return word, ""
