"""Is what is here under a name still what the registry on this machine has? Asked in a few milliseconds.

A pull of what is here already is one request, and the HTTP library alone takes longer to import than that takes. So a
registry on this machine is asked by a dozen lines over a plain socket. That answers only the plain case: no settings
for registries that could matter, no login, the manifest with the digest that the name has, all its layers whole and on
disk. In every other case the answer is None, and the pull goes its usual way.
"""

from __future__ import annotations

import _socket
import os

from limpet import jsontext
from limpet.errors import LimpetError
from limpet.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.oci.reference import Reference
    from limpet.store.store import Store

_TIMEOUT = 2.0
_MAX_HEAD, _MAX_BODY = 1 << 16, 4 << 20
_ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json,"
    " application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "s390x": "s390x", "ppc64le": "ppc64le"}


def unchanged(store: Store, text: str) -> tuple[Reference, str] | None:
    """The name and the digest that it stands for here and there; None if that can't be said so simply."""
    try:
        name = reference.parse(text)
    except LimpetError:
        return None
    addresses = _this_machine(name.domain)
    if not addresses or name.digest or not _nothing_set():
        return None
    row = store.db.row(
        "SELECT image_id, coalesce(index_digest, manifest), index_digest IS NOT NULL FROM name"
        " WHERE reference = ? AND implicit = 0",
        name.canonical,
    )
    if row is None or row[1] is None:
        return None
    image_id, digest, of_index = row
    if not _is_whole(store, image_id) or (of_index and not _for_this_machine(store, image_id)):
        return None
    data = _manifest(addresses, name)
    if data is None or f"sha256:{_sha256(data)}" != digest:
        return None
    return name, digest


def _this_machine(domain: str) -> list[tuple[int, tuple[str, int]]]:
    """The addresses of a registry that is spoken to in plain HTTP (`registry.proxies.is_loopback`), in order."""
    host, _, port = domain.partition(":")
    number = int(port) if port.isdecimal() and len(port) < 6 else 80
    if not 0 < number < 65536:
        return []
    if host == "localhost":
        return [(_socket.AF_INET6, ("::1", number)), (_socket.AF_INET, ("127.0.0.1", number))]
    parts = host.split(".")
    if len(parts) != 4 or parts[0] != "127" or not all(part.isdecimal() and int(part) < 256 for part in parts):
        return []
    return [(_socket.AF_INET, (host, number))]


def _is_whole(store: Store, image_id: str) -> bool:
    """All layers are here, and settled: nothing is left to be done about them."""
    layers = store.db.rows(
        "SELECT image_layer.diff_id, layer.diff_id, boot FROM image_layer LEFT JOIN layer USING (diff_id)"
        " WHERE image_id = ?",
        image_id,
    )
    return all(
        known is not None and boot is None and os.path.exists(f"{store.layer_path(diff_id)}/data")
        for diff_id, known, boot in layers
    )


def _for_this_machine(store: Store, image_id: str) -> bool:
    """Whether of an index a pull without --platform would choose this image again: it has this very architecture."""
    config = jsontext.loads(store.db.row("SELECT config FROM image WHERE id = ?", image_id)[0])
    fields = (config.get("os"), config.get("architecture"), config.get("variant") or "")
    return fields == ("linux", _ARCHITECTURES.get(os.uname().machine), "")


def _nothing_set() -> bool:
    """No file says anything about registries but what short names mean (`registry.settings` has the order)."""
    environment = os.environ
    if environment.get("LIMPET_REGISTRIES") or environment.get("CONTAINERS_REGISTRIES_CONF"):
        return False
    config = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    if any(os.path.exists(path) for path in ("/etc/limpet/registries.toml", f"{config}/limpet/registries.toml")):
        return False
    for place in ("/etc/containers", f"{config}/containers"):
        files = [f"{place}/registries.conf"]
        try:
            files += [f"{place}/registries.conf.d/{name}" for name in os.listdir(f"{place}/registries.conf.d")]
        except OSError:
            pass
        if not all(_only_short_names(file) for file in files):
            return False
    return True


def _only_short_names(file: str) -> bool:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        data = os.read(fd, _MAX_HEAD)
    except OSError:
        return False
    finally:
        os.close(fd)
    within = b""
    for line in data.split(b"\n"):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        if line.startswith(b"["):
            within = line
        if within != b"[aliases]" and not line.startswith((b"unqualified-search-registries", b"short-name-mode")):
            return False
    return len(data) < _MAX_HEAD


def _manifest(addresses: list[tuple[int, tuple[str, int]]], name: Reference) -> bytes | None:
    """The body of the one answer that is of use here: 200, of a known length."""
    for family, address in addresses:
        connection = _socket.socket(family, _socket.SOCK_STREAM)
        try:
            connection.settimeout(_TIMEOUT)
            try:
                connection.connect(address)
            except OSError:
                continue
            connection.sendall(
                f"GET /v2/{name.path}/manifests/{name.tag} HTTP/1.1\r\nHost: {name.domain}\r\nAccept: {_ACCEPT}\r\n"
                "User-Agent: limpet\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n".encode()
            )
            return _body(connection)
        except OSError:
            return None
        finally:
            connection.close()
    return None


def _body(connection: _socket.socket) -> bytes | None:
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        piece = connection.recv(1 << 16)
        if not piece or len(data) > _MAX_HEAD:
            return None
        data += piece
    status, *lines = data[:end].decode("latin-1").split("\r\n")
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "")
    if status.split(" ")[1:2] != ["200"] or not length.isdecimal() or not 0 < int(length[:9]) <= _MAX_BODY:
        return None
    if headers.get("content-encoding", "identity") != "identity" or "transfer-encoding" in headers:
        return None
    body = bytearray(data[end + 4 :])
    while len(body) < int(length):
        piece = connection.recv(1 << 16)
        if not piece:
            return None
        body += piece
    return bytes(body) if len(body) == int(length) else None


def _sha256(data: bytes) -> str:
    """`hashlib` loads OpenSSL, 4 ms; the interpreter's own is slower by the megabyte, and this is a few kilobytes."""
    try:
        from _sha2 import sha256  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            from hashlib import sha256
    digest: str = sha256(data).hexdigest()
    return digest
