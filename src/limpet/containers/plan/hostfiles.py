"""The three files of /etc that the engine provides: hostname, hosts, resolv.conf (moby `etchosts.go`, host mode).

They lie in `containers/<id>/` and are bind mounted. With the host's network hosts and resolv.conf are copies of the
host's; hosts is generated as soon as there is an `--add-host`.
"""

from __future__ import annotations

import os

from limpet.errors import Invalid
from limpet.kernel import fs
from limpet.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.options import Options

NAMES = ("hostname", "hosts", "resolv.conf")

ENGINE_FILES = (".dockerenv", "dev", *(f"etc/{name}" for name in (*NAMES, "mtab")), "proc", "sys")
"""Mount points and files that the engine makes in a container's root: no change of the container's own."""

_LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


def hostname(options: Options, container_id: str) -> str:
    """What the user gave, the host's name on the host's network or with its UTS namespace, else the short id."""
    if options.hostname:
        return options.hostname
    return os.uname().nodename if "host" in (options.network, options.uts) else container_id[:12]


def write(directory: str, options: Options, container_id: str, run: str = "") -> None:
    """Writes the three files; a file that is there keeps its inode, so that a running container sees the change.

    `run`: the store's, for the names of other containers, where those are wanted.
    """
    name = hostname(options, container_id)
    files.put(f"{directory}/hostname", f"{name}\n".encode(), 0o644)
    if options.network == "host" and not options.add_host:
        hosts = _read("/etc/hosts") or _LOCAL.encode()
        if options.hostname:  # the host's file knows its own name only, and sudo, for one, wants to find what it has
            hosts = hosts.rstrip(b"\n") + f"\n{(options.own_address or ['127.0.1.1'])[0]}\t{name}\n".encode()
    else:
        extra = "".join(f"{address}\t{name}\n" for name, address in map(host_entry, options.add_host))
        own = ""
        if options.network != "host" and not options.networks:  # else `network.private.hosts` has its lines
            full = f"{name}.{options.domainname} {name}" if options.domainname else name
            own = f"127.0.0.1\t{full}\n"
        hosts = f"{_LOCAL}{extra}{own}".encode()
    if run and options.own_address:
        from limpet.network import names
        from limpet.network.private import hosts as blocks

        hosts = blocks.placed(hosts, names.lines(run))
    files.put(f"{directory}/hosts", hosts, 0o644)
    files.put(f"{directory}/resolv.conf", resolver(_servers(options), options), 0o644)


def link_mtab(root: int) -> None:
    """/etc/mtab → /proc/mounts where the image has none (moby `initlayer`): df, mount and others read it.

    `root`: the container's mount. The path is the image's, so it is resolved beneath that.
    """
    try:
        etc = fs.openat2("etc", os.O_PATH | os.O_DIRECTORY, dirfd=root, resolve=fs.RESOLVE_IN_ROOT)
    except OSError:
        return  # an image without /etc asks for nothing
    try:
        os.symlink("/proc/mounts", "mtab", dir_fd=etc)
    except FileExistsError:
        pass
    finally:
        os.close(etc)


def _servers(options: Options) -> bytes:
    """The host's resolv.conf. On another network its loopback can't be reached: the servers behind one there, then.

    systemd-resolved has them in a file of its own (moby `libnetwork/internal/resolvconf`).
    """
    host = _read("/etc/resolv.conf")
    if options.network in ("host", "none") or options.network.startswith(("container:", "ns:")):
        return host
    for text in (host, _read("/run/systemd/resolve/resolv.conf")):
        lines = text.splitlines(keepends=True)
        kept = [line for line in lines if not (line.split()[:1] == [b"nameserver"] and _is_loopback(line))]
        if any(line.split()[:1] == [b"nameserver"] for line in kept):
            return b"".join(kept)
    return b"".join(line for line in host.splitlines(keepends=True) if line.split()[:1] != [b"nameserver"])


def _is_loopback(line: bytes) -> bool:
    address = line.split()[1:2]
    return bool(address) and (address[0].startswith(b"127.") or address[0] == b"::1")


def resolver(host: bytes, options: Options) -> bytes:
    """The host's resolv.conf; --dns, --dns-search (`.` for none) and --dns-option take the place of its lines
    (moby `libnetwork/internal/resolvconf`). Raises Invalid."""
    for address in options.dns:
        if not _is_address(address):
            raise Invalid(f"--dns '{address}' is not an IP address")
    lines: list[tuple[bytes, list[str]]] = [
        (b"nameserver", [f"nameserver {address}" for address in options.dns]),
        (b"search", [f"search {' '.join(options.dns_search)}"] if options.dns_search else []),
        (b"options", [f"options {' '.join(options.dns_option)}"] if options.dns_option else []),
    ]
    given = [word for word, texts in lines if texts]
    if not given:
        return host
    for text in (*options.dns_search, *options.dns_option):
        if not text or any(c.isspace() for c in text):
            raise Invalid(f"'{text}' is no domain and no option of resolv.conf")
    kept = [line for line in host.splitlines() if line.split()[:1] not in [[word] for word in given]]
    if "." in options.dns_search:
        lines[1] = (b"search", [])
    added = [text.encode() for _, texts in lines for text in texts]
    return b"\n".join([*kept, *added, b""])


def host_entry(text: str) -> tuple[str, str]:
    """`name:address` or `name=address`, IPv6 with or without brackets; `host-gateway` is the host: loopback here."""
    equals = text.find("=")
    colon = text.find(":")
    cut = equals if equals > 0 and (colon < 0 or equals < colon) else colon
    if cut <= 0:
        raise Invalid(f"invalid host '{text}'", "write NAME:ADDRESS")
    name, address = text[:cut], text[cut + 1 :]
    if address == "host-gateway":
        address = "127.0.0.1"
    address = address.removeprefix("[").removesuffix("]")
    if not _is_address(address) or not name or any(c in name for c in " \t\n#"):
        raise Invalid(f"invalid host '{text}': '{address}' is not an IP address")
    return name, address


def _is_address(text: str) -> bool:
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text)
            return True
        except (OSError, ValueError):
            pass
    return False


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""
