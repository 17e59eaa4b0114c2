"""EXPOSE: `80`, `53/udp`, `8000-8010/tcp`, and the forms with an address or a host port that old files have."""

from __future__ import annotations

import ipaddress
import re

_NUMBER = re.compile(r"[+]?[0-9]{1,9}\Z")


class PortError(ValueError):
    pass


def parse(text: str) -> tuple[list[str], bool, bool]:
    """(ports as `80/tcp`, whether an address or a host port was there, whether the protocol had capitals).

    Raises PortError with BuildKit's message.
    """
    parts = text.split(":")
    ip, host, container = ":".join(parts[:-2]), parts[-2] if len(parts) > 1 else "", parts[-1]
    container, _, protocol = container.partition("/")
    if not container:
        raise PortError(f'invalid port: "{text}": no port specified')
    if protocol.lower() not in ("", "tcp", "udp", "sctp"):
        raise PortError(f'invalid port: "{text}": invalid proto: {protocol}')
    if ip:
        _check_address(ip)
    begin, end = _range(container, f"invalid containerPort: {container}")
    if host:
        first, last = _range(host, f"invalid hostPort: {host}")
        if end - begin != last - first and end != begin:
            raise PortError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    kind = protocol.lower() or "tcp"
    return [f"{port}/{kind}" for port in range(begin, end + 1)], bool(ip or host), protocol != protocol.lower()


def _check_address(ip: str) -> None:
    try:
        ipaddress.ip_address(ip[1:-1] if ip.startswith("[") and ip.endswith("]") else ip)
    except ValueError:
        raise PortError(f"invalid IP address: {ip}") from None


def _range(text: str, message: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    if not _NUMBER.match(first) or (dash and not _NUMBER.match(last)):
        raise PortError(message)
    begin, end = int(first), int(last or first)
    if not 0 <= begin <= end <= 65535:
        raise PortError(message)
    return begin, end
