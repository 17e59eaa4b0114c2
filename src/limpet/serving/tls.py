"""TLS for servers: a given certificate, or one that is made here and signed by itself."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from limpet.errors import Invalid
from limpet.store import files

_DAYS = 825


def context(certificate: str, key: str) -> ssl.SSLContext:
    """Raises Invalid for files that can't be read or don't belong together."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(certificate, key)
    except ssl.SSLError as e:
        raise Invalid(f"{certificate}, {key}: {e.reason or e}", "give a certificate in PEM and the key to it") from None
    except OSError as e:
        raise Invalid(f"{certificate}, {key}: {e.strerror}") from None
    return made


async def renew(made: ssl.SSLContext, certificate: str, key: str, seconds: float = 60) -> None:
    """Runs beside a server: a certificate that was renewed holds for new connections, looked for every `seconds`."""
    known = _stamp(certificate)
    while True:
        await asyncio.sleep(seconds)
        now = _stamp(certificate)
        if now in (known, None):
            continue
        try:
            context(certificate, key)  # first on its own: half a pair must not spoil the one in use
            made.load_cert_chain(certificate, key)
            known = now
        except (Invalid, OSError) as e:
            print(f"limpet: the certificate was not renewed: {e}", file=sys.stderr, flush=True)


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def self_made(directory: str, names: list[str]) -> tuple[str, str, str]:
    """(certificate, key, SHA-256 fingerprint): made once, and anew if it lacks one of `names` or ends soon."""
    os.makedirs(directory, 0o700, exist_ok=True)
    certificate, key = f"{directory}/cert.pem", f"{directory}/key.pem"
    found = _usable(certificate, key, names)
    if found is None:
        found = _make(certificate, key, names)
    return certificate, key, found.fingerprint(hashes.SHA256()).hex(":")


def _usable(certificate: str, key: str, names: list[str]) -> x509.Certificate | None:
    try:
        with open(certificate, "rb") as file:
            found = x509.load_pem_x509_certificate(file.read())
        said = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return None
    has = {*said.get_values_for_type(x509.DNSName), *map(str, said.get_values_for_type(x509.IPAddress))}
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=30)
    return found if os.path.exists(key) and set(names) <= has and found.not_valid_after_utc > soon else None


def _make(certificate: str, key: str, names: list[str]) -> x509.Certificate:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "limpet registry")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general(one) for one in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files.write_file(key, secret, 0o600)
    files.write_file(certificate, made.public_bytes(serialization.Encoding.PEM), 0o644)
    return made


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
