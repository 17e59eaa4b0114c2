"""registry serve, registry gc: the server side. Sizes are 10g, 500m; times 90s, 10m, 24h, 7d."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from limpet.cli.table import Command, Option
from limpet.errors import Invalid

if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.images.served import ServedImages

_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}
STORAGE = "/var/lib/limpet-registry"


def serve(call: Call) -> int:
    from limpet.registry.server import run
    from limpet.registry.server.config import Config
    from limpet.serving import listen

    address = listen.parse(call["addr"])
    workers = call["workers"]
    if not 1 <= workers <= 64:
        raise Invalid(f"--workers {workers}: from 1 to 64")
    if bool(call["tls-cert"]) != bool(call["tls-key"]):
        raise Invalid("--tls-cert and --tls-key belong together", "or --tls alone, for a certificate of our own")
    if call["from-store"] and os.geteuid():
        _ = call.store  # says what is missing; workers open it for themselves
    if call["proxy"] and call["from-store"]:
        raise Invalid("--proxy and --from-store: one or the other")
    if call["access"] and not call["auth"]:
        raise Invalid("--access needs --auth", "the users that its rules are about")
    secure = bool(call["tls"] or call["tls-cert"])
    config = Config(
        storage=os.path.abspath(call["storage"]),
        read_only=call["read-only"],
        delete=not call["no-delete"],
        sparse=call["sparse"],
        rate=call["rate-limit"],
        quota=_number(call, "quota", _SIZES, "10g, 500m"),
        gc_seconds=_number(call, "gc-interval", _TIMES, "24h, 30m"),
        grace_seconds=_number(call, "grace", _TIMES, "1h, 30m"),
        upload_seconds=_number(call, "upload-expiry", _TIMES, "24h, 30m"),
        access_log=call["access-log"],
        audit_log=call["audit-log"],
        passwords=os.path.abspath(call["auth"]) if call["auth"] else "",
        access=os.path.abspath(call["access"]) if call["access"] else "",
        url=call["url"],
        secure=secure,
        proxy=_upstream(call["proxy"]) if call["proxy"] else "",
        unused_seconds=_number(call, "proxy-keep", _TIMES, "30d, 0") if call["proxy"] else 0,
        proxy_seconds=_number(call, "proxy-fresh", _TIMES, "1m, 0"),
        images=(lambda: _images(call)) if call["from-store"] else None,
        workers=workers,
    )
    if not address.loopback:
        lacks = [
            what
            for what, has in (("by anybody (--auth)", config.passwords), ("without TLS (--tls)", secure))
            if not has
        ]
        if lacks:
            print(
                f"limpet: warning: {address} can be reached from other machines, {' and '.join(lacks)}", file=sys.stderr
            )
    run.serve(config, address, _certificate(call, address.host) if secure else None)
    return 0


def _upstream(url: str) -> str:
    """The domain in a URL: whether it speaks TLS is for registries.toml to say, and plain is for loopback only."""
    scheme, separator, rest = url.rpartition("://")
    domain = rest.rstrip("/")
    if (separator and scheme not in ("http", "https")) or not domain or not set(domain).isdisjoint("/@?# "):
        raise Invalid(f"--proxy {url}: not a registry's address", "for example --proxy https://docker.io")
    return "docker.io" if domain in ("registry-1.docker.io", "index.docker.io") else domain


def _images(call: Call) -> ServedImages:
    """In a worker: a database must not be shared with the process that forked it."""
    from limpet.images.served import ServedImages

    return ServedImages(call.store)


def _certificate(call: Call, host: str) -> tuple[str, str]:
    """(file, key file): what was given, or a certificate of our own for all names that this machine has."""
    from limpet.registry.server.storage import Storage
    from limpet.serving import tls

    certificate, key = call["tls-cert"], call["tls-key"]
    if not certificate:
        import socket

        names = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
        if host and host not in (*names, "0.0.0.0", "::"):
            names.append(host)
        storage = Storage(os.path.abspath(call["storage"]), make=not call["from-store"])
        directory = f"{storage.root}/tls"
        certificate, key, fingerprint = tls.self_made(directory, [*names, *call["tls-name"]])
        print(f"certificate {certificate}, SHA-256 {fingerprint}", file=sys.stderr)
        print("clients trust it as certs.d/HOST:PORT/ca.crt in /etc/docker or /etc/containers", file=sys.stderr)
    return certificate, key


def collect(call: Call) -> int:
    from limpet import units
    from limpet.registry.server import gc
    from limpet.registry.server.storage import Storage

    path = os.path.abspath(call["storage"])
    if not os.path.exists(f"{path}/oci-layout"):
        raise Invalid(f"{path} is not a registry's directory", "--storage DIR names the one that `serve` has")
    report = gc.collect(
        Storage(path),
        grace=_number(call, "grace", _TIMES, "1h, 30m"),
        untagged=call["untagged"],
        upload_seconds=_number(call, "upload-expiry", _TIMES, "24h, 30m"),
        dry_run=call["dry-run"],
    )
    for one in report.damaged:
        print(f"limpet: left alone: {one}", file=sys.stderr)
    did = "would remove" if call["dry-run"] else "removed"
    print(
        f"{path}: {did} {report.manifests} manifests, {report.links} links, {report.blobs} blobs "
        f"({units.size_decimal(report.freed)}), {report.uploads} uploads"
    )
    return 1 if report.damaged else 0


def _number(call: Call, name: str, units: dict[str, int], example: str) -> int:
    text = str(call[name]).lower()
    digits = text.rstrip("bkmgtshd")
    factor = units.get(text[len(digits) :])
    if text == "0":
        return 0
    if factor is None or not (digits.isascii() and digits.isdigit() and len(digits) < 12):
        raise Invalid(f"--{name} {call[name]}: not understood", f"for example {example}")
    return int(digits) * factor


_GRACE = Option("grace", kind="string", default="1h", metavar="TIME", help="Age below which nothing is collected (1h)")
_EXPIRY = Option(
    "upload-expiry", kind="string", default="24h", metavar="TIME", help="Age of an upload that is given up (24h)"
)
_STORAGE = Option("storage", kind="string", default=STORAGE, metavar="DIR", help="Where blobs and tags are kept")

COMMANDS = {
    "registry gc": Command(
        name="registry gc",
        handler=collect,
        usage="[OPTIONS]",
        summary="Remove blobs that no manifest needs; servers of the same directory may go on",
        options=(
            Option("dry-run", help="Only count"),
            _GRACE,
            _STORAGE,
            Option("untagged", help="Remove manifests too that no tag leads to"),
            _EXPIRY,
        ),
        examples=("limpet registry gc --storage ./registry --untagged",),
        max_args=0,
    ),
    "registry serve": Command(
        name="registry serve",
        handler=serve,
        usage="[OPTIONS]",
        summary="Serve a registry of one's own (OCI distribution specification 1.1)",
        options=(
            Option("access", kind="string", default="", metavar="FILE", help="Rules: who may pull, push, delete what"),
            Option(
                "access-log", kind="string", default="", metavar="FILE", help="Log requests as JSON lines; - is stdout"
            ),
            Option(
                "addr",
                kind="string",
                default="127.0.0.1:5000",
                metavar="ADDRESS",
                help="Where to listen: HOST:PORT, or unix:///PATH",
            ),
            Option("audit-log", kind="string", default="", metavar="FILE", help="Log what is changed as JSON lines"),
            Option("auth", kind="string", default="", metavar="FILE", help="Users: made with htpasswd -B"),
            Option("from-store", help="Serve the images of this machine's store, to be pulled only"),
            Option(
                "gc-interval",
                kind="string",
                default="24h",
                metavar="TIME",
                help="Time between collections (24h; 0: none)",
            ),
            _GRACE,
            Option("no-delete", help="Refuse to delete tags, manifests and blobs"),
            Option(
                "proxy", kind="string", default="", metavar="URL", help="Be a cache of this registry, to be pulled only"
            ),
            Option(
                "proxy-keep",
                kind="string",
                default="0",
                metavar="TIME",
                help="Drop what nobody asked for in so long, as 30d (0: never)",
            ),
            Option("proxy-fresh", kind="string", default="1m", metavar="TIME", help="How long a tag is believed (1m)"),
            Option("quota", kind="string", default="0", metavar="SIZE", help="What a repository may hold, as 10g"),
            Option("rate-limit", kind="int", default=0, metavar="N", help="Requests a second for each client address"),
            Option("read-only", help="Only pulls"),
            Option("sparse", help="Take an index of which not all images are here"),
            _STORAGE,
            Option("tls", help="TLS with a certificate of our own, kept in the storage"),
            Option("tls-cert", kind="string", default="", metavar="FILE", help="TLS with this certificate (PEM)"),
            Option("tls-key", kind="string", default="", metavar="FILE", help="The certificate's key"),
            Option("tls-name", kind="list", metavar="NAME", help="One more name or address in our own certificate"),
            _EXPIRY,
            Option("url", kind="string", default="", metavar="URL", help="How clients call us, if behind a proxy"),
            Option("workers", kind="int", default=1, metavar="N", help="Processes that serve"),
        ),
        examples=(
            "limpet registry serve",
            "limpet registry serve --addr 127.0.0.1:5001 --storage ./registry --workers 2",
        ),
        max_args=0,
    ),
}
