"""Is what is here under a name still what the registry on this machine has? Asked in a few milliseconds.

A pull of what is here already is one request, and the HTTP library alone takes longer to import than that takes. So a
registry on this machine is asked by a dozen lines over a plain socket. That answers only the plain case: no settings
for registries that could matter, no login, the digest that the name has (a HEAD says it: who would lie about that could
send the old manifest as well), all layers whole and on disk. In every other case the answer is None, and the pull goes
its usual way.

The registry is asked first, and the database opened while it answers: with two cores that is a tenth of all the time.
"""

from __future__ import annotations

import _socket
import os

from limpet.errors import LimpetError
from limpet.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.oci.reference import Reference
    from limpet.store.store import Store

_TIMEOUT = 2.0
_MAX_HEAD = 1 << 16
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
    connection = _ask(addresses, name)
    if connection is None:
        return None
    try:
        digest = _here(store, name)  # while the registry thinks about it
        return (name, digest) if digest and _answer(connection) == digest else None
    finally:
        connection.close()


def _here(store: Store, name: Reference) -> str:
    """The digest of the manifest or index that the name has here, if all of the image is; else ""."""
    row = store.db.row(
        "SELECT image_id, coalesce(index_digest, manifest), index_digest IS NOT NULL FROM name"
        " WHERE reference = ? AND implicit = 0",
        name.canonical,
    )
    if row is None or row[1] is None:
        return ""
    image_id, digest, of_index = row
    if not _is_whole(store, image_id) or (of_index and not _for_this_machine(store, image_id)):
        return ""
    return str(digest)


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
    from limpet import jsontext

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


def _ask(addresses: list[tuple[int, tuple[str, int]]], name: Reference) -> _socket.socket | None:
    """The question is on its way; whoever gets the connection closes it. None if nobody takes it."""
    for family, address in addresses:
        connection = _socket.socket(family, _socket.SOCK_STREAM)
        connection.settimeout(_TIMEOUT)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            continue
        try:
            connection.sendall(
                f"HEAD /v2/{name.path}/manifests/{name.tag} HTTP/1.1\r\nHost: {name.domain}\r\nAccept: {_ACCEPT}\r\n"
                "User-Agent: limpet\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n".encode()
            )
        except OSError:
            connection.close()
            return None
        return connection
    return None


def _answer(connection: _socket.socket) -> str:
    """The digest in the one answer that is of use here, a 200 that has one; else ""."""
    data = b""
    try:
        while (end := data.find(b"\r\n\r\n")) < 0:
            piece = connection.recv(1 << 16)
            if not piece or len(data) > _MAX_HEAD:
                return ""
            data += piece
    except OSError:
        return ""
    status, *lines = data[:end].decode("latin-1").split("\r\n")
    if status.split(" ")[1:2] != ["200"]:
        return ""
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return headers.get("docker-content-digest", "")
