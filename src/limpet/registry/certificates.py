"""TLS for one host: the system's trust and what `certs.d/HOST[:PORT]/` adds (Docker's and containers' directories).

`*.crt` are authorities to trust besides the system's; `NAME.cert` (or `NAME.crt`) with a `NAME.key` is who we are.
Directories, in order; the first that exists for the host is used:
`$XDG_CONFIG_HOME/limpet`, `/etc/limpet`, `$XDG_CONFIG_HOME/containers`, `/etc/containers`, `/etc/docker`, each with
`certs.d/HOST:PORT`, or `certs.d/HOST` for port 443 and where there is none with a port.
"""

from __future__ import annotations

import functools
import os
import ssl
from dataclasses import dataclass

from limpet.errors import Invalid

PLACES = ("/etc/limpet", "/etc/containers", "/etc/docker")


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files. `authorities` are trusted besides the system's; `verify` off trusts everybody."""

    authorities: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    verify: bool = True


def directories(netloc: str) -> list[str]:
    """Where files for a host may be, the first choice first."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    host, colon, port = netloc.rpartition(":")
    names = [netloc] if not colon or port.endswith("]") else [netloc, host]
    system, *others = PLACES
    places = [f"{config}/limpet", system, f"{config}/containers", *others]
    return [f"{place}/certs.d/{name}" for place in places for name in names]


def find(netloc: str) -> Tls | None:
    """What the first directory for a host has; None if there is none. Raises Invalid for a certificate without key."""
    if not netloc or "/" in netloc or netloc.startswith("."):
        return None
    for directory in directories(netloc):
        try:
            names = sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as e:
            raise Invalid(f"{directory}: {e.strerror}") from None
        return _read(directory, names)
    return None


@functools.cache
def context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or later. Raises Invalid, naming the file."""
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    for path in tls.authorities:
        try:
            made.load_verify_locations(path)
        except ssl.SSLError:
            raise Invalid(f"{path}: not a certificate in PEM form") from None
        except OSError as e:
            raise Invalid(f"{path}: {e.strerror}") from None
    if tls.certificate:
        try:
            made.load_cert_chain(tls.certificate, tls.key or None, password=_no_password)
        except ssl.SSLError:
            raise Invalid(
                f"{tls.certificate}: not a certificate in PEM form with its key {tls.key or 'in the same file'}",
                "a key with a passphrase can't be used",
            ) from None
        except OSError as e:
            missing = next((path for path in (tls.certificate, tls.key) if path and not os.path.exists(path)), "")
            raise Invalid(f"{missing or tls.certificate}: {e.strerror}") from None
    return made


def _read(directory: str, names: list[str]) -> Tls:
    """Docker: *.crt authorities, NAME.cert + NAME.key. Also client.crt beside a client.key is who we are."""
    authorities, pairs = [], []
    for name in names:
        stem, extension = os.path.splitext(name)
        key = f"{stem}.key"
        if extension == ".cert" or (extension == ".crt" and key in names):
            if key not in names:
                raise Invalid(
                    f"{directory}/{name}: its key {key} is missing",
                    "authorities have names that end in .crt, client certificates in .cert",
                )
            pairs.append((f"{directory}/{name}", f"{directory}/{key}"))
        elif extension == ".crt":
            authorities.append(f"{directory}/{name}")
        elif extension == ".key" and f"{stem}.cert" not in names and f"{stem}.crt" not in names:
            raise Invalid(f"{directory}/{name}: its certificate {stem}.cert is missing")
    if len(pairs) > 1:
        raise Invalid(f"{directory}: several client certificates", "leave one, with its key")
    certificate, key = pairs[0] if pairs else ("", "")
    return Tls(tuple(authorities), certificate, key)


def _no_password() -> str:
    """Asked for when a key has a passphrase: nobody shall be prompted in the middle of a pull."""
    return ""
