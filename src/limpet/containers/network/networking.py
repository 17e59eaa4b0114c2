"""A container on networks of its own: what its options say of them, and the process that connects it at its start.

That process is another one since its libraries are 15 MB and 100 ms, and since a monitor has no database. It begins
with the mounting of the container's root and gets the namespace when the container's files are there.
"""

from __future__ import annotations

import os
import sys

from limpet import SOURCE, jsontext
from limpet.containers.plan import hostfiles, sharing
from limpet.errors import Conflict, Invalid, LimpetError, NotFound, Refused
from limpet.kernel import idmap, process
from limpet.network import endpoints, networks
from limpet.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from limpet.containers.options import Options
    from limpet.containers.state import Container
    from limpet.network.endpoints import Wish
    from limpet.network.publication import Port, Published
    from limpet.store.store import Store

    Config = dict[str, Any]

_MODES = ("host", "none", "private")


def wishes(options: Options) -> list[Wish]:
    """What is said of each network; --ip and the like belong to the first. Raises Invalid."""
    found = [endpoints.parse(text) for text in options.networks]
    if found:
        first = found[0]
        for name, value in (("ip", options.ip), ("ip6", options.ip6), ("mac", options.mac_address)):
            if value and getattr(first, name):
                raise Invalid(f"network {first.name}: {name} is there twice, as an option too")
            setattr(first, name, value or getattr(first, name))
        first.aliases += options.network_alias
        endpoints.check(first)
    return found


def resolve(store: Store, options: Options) -> None:
    """The networks have to be there. One of the host's network, or of none, is that mode. Raises NotFound, Invalid."""
    _check_names(options)
    try:
        found = [(wish, networks.use(store, wish.name)) for wish in wishes(options)]
    except NotFound as e:  # no container was made: `run` fails, with its code
        raise NotFound(e.message, e.hint) from None
    drivers = {network.driver for _, network in found}
    if (options.publish or options.publish_all) and not any(
        network.driver == "bridge" and not network.internal for _, network in found
    ):
        raise Invalid(
            f"-p: nothing of network {found[0][1].name} can be published, which is "
            + ("internal" if found[0][1].internal else f"of the driver {found[0][1].driver}"),
            "leave out -p, or add a network that leads out",
        )
    plain = drivers - set(networks.WITH_ADDRESSES)
    if plain and len(drivers) > 1:
        raise Invalid(f"networks of the drivers {' and '.join(sorted(drivers))} can't be had together")
    options.network = plain.pop() if plain else found[0][1].name


def check(options: Options) -> None:
    """What can be said without a store. Raises Invalid."""
    if idmap.nested() and sharing.connected(options):
        raise Refused(f"--network {options.network} needs root", "yours have --network host, none and container:NAME")
    _check_names(options)
    names = options.networks
    if not names and (options.ip or options.ip6 or options.mac_address or options.network_alias):
        raise Invalid(
            f"--ip, --ip6, --mac-address and --network-alias are not for --network {options.network}",
            "a network that `limpet network create` made has them",
        )
    if any(text.startswith("[::1]") for text in options.publish) and sharing.connected(options):
        raise Invalid(
            "-p [::1]: the kernel keeps ::1 on the host, a container's network is another", "127.0.0.1, or an address"
        )
    if options.network.startswith(sharing.PATH) and not options.network.removeprefix(sharing.PATH).startswith("/"):
        raise Invalid(f"--network {options.network}: the path has to be absolute", "ns:/run/netns/NAME")
    if sharing.connected(options) and options.userns == "auto":
        raise Invalid(
            f"--network {options.network} is not there with a user namespace of its own",
            "--userns host, or --network none",
        )


def another(options: Options) -> None:
    """For a container that is a copy: on the same networks, by the same aliases, at addresses of its own."""
    options.ip = options.ip6 = options.mac_address = ""
    aliases = [(wish.name, wish.aliases) for wish in map(endpoints.parse, options.networks)]
    options.networks = [f"{name}:{','.join(f'alias={each}' for each in more)}".rstrip(":") for name, more in aliases]


def _check_names(options: Options) -> None:
    names = [wish.name for wish in wishes(options)]
    for name in names:
        if name in _MODES or name in (sharing.CONTAINER[:-1], sharing.PATH[:-1]):
            raise Invalid(f"--network {name} can't be had beside other networks", "leave out one of them")
        if names.count(name) > 1:
            raise Invalid(f"--network {name} is there twice", "say all of it at once: NAME:ip=...,alias=...")


def add(store: Store, container_id: str, options: Options) -> None:
    """Puts a new container on its networks, within the transaction that makes it."""
    own = _own_names(options, container_id)
    try:
        for position, wish in enumerate(wishes(options)):
            endpoints.add(store, container_id, wish, position, own=own)
    except (Invalid, Conflict) as e:
        raise type(e)(e.message, e.hint) from None  # see `resolve`


def _own_names(options: Options, container_id: str) -> list[str]:
    name = hostfiles.hostname(options, container_id)
    return [f"{name}.{options.domainname}", name] if options.domainname else [name]


def connecting(store: Store, container: Container) -> Connecting:
    """What gives a container that starts its network."""
    return Outward(store, container) if container.options.network == "private" else Connected(store, container)


class Connecting:
    """A new network namespace, until the container is in it. `with connecting(…) as c:` … `c.finish(…)`."""

    ports: list[Port]
    """What is published, when `finish` has come back."""
    outward = 0
    """The process by which it reaches others, a child of ours; 0 if the kernel does that."""

    def __init__(self, store: Store, container: Container) -> None:
        self._store = store
        self._container = container
        self._namespace = process.new_network()

    def __enter__(self) -> Connecting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._namespace)

    def reserve(self) -> Published | None:
        """Keeps the ports of the host that are to be published. Raises Conflict for one in use."""
        raise NotImplementedError

    def finish(self, config: Config, published: Published | None) -> Config:
        """Waits until the network is there; the plan, with its namespace. Raises LimpetError.

        `published` loses those ports that the network can't serve: of IPv6, if it has none.
        """
        raise NotImplementedError

    def _placed(self, config: Config) -> Config:
        own = {"type": "network", "path": f"/proc/{os.getpid()}/fd/{self._namespace}"}
        if self._container.options.runtime == "runc":
            self._write(own)
        linux = config["linux"]
        kinds = [each for each in linux["namespaces"] if each["type"] != "network"]
        return {**config, "linux": {**linux, "namespaces": [*kinds, own]}}

    def _write(self, own: dict[str, str]) -> None:
        """runc reads the plan from its file."""
        path = f"{self._store.container_path(self._container.id)}/config.json"
        with open(path, "rb") as file:
            config = jsontext.loads(file.read())
        kinds = [each for each in config["linux"]["namespaces"] if each["type"] != "network"]
        config["linux"]["namespaces"] = [*kinds, own]
        files.put(path, jsontext.dumps(config).encode())

    def _reserve(self) -> Published | None:
        options = self._container.options
        if not options.publish and not options.publish_all:
            return None
        from limpet.containers.network import addressing
        from limpet.network import publication

        # The kernel can't send what came for ::1 anywhere else.
        wanted = [port for port in addressing.ports(self._store, self._container) if port[0] != "::1"]
        try:
            return publication.reserve(wanted)
        except Conflict as e:
            e.message = f"container {self._container.name}: {e.message}"
            raise


class Outward(Connecting):
    """By pasta."""

    def reserve(self) -> Published | None:
        return None  # pasta has the ports itself

    def finish(self, config: Config, published: Published | None) -> Config:
        from limpet.network import publication
        from limpet.network.private import pasta

        found = self._reserve()  # says who has one that is taken, and which one is free
        self.ports = found.ports if found is not None else []
        if found is not None:
            publication.withdraw(found)
        try:
            log = f"{self._store.run_path(self._container.id)}/pasta.log"
            self.outward = pasta.start(self._namespace, self.ports, log)
        except LimpetError as e:
            raise LimpetError(f"container {self._container.name}: {e.message}", e.hint) from None
        return self._placed(config)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is not None and self.outward:
            from limpet.network.private import pasta

            pasta.stop(self.outward)


class Connected(Connecting):
    """By a process, which is at work from the beginning."""

    def __init__(self, store: Store, container: Container) -> None:
        super().__init__(store, container)
        self._process = _Process(store, "connect", container.id, self._namespace)

    def reserve(self) -> Published | None:
        return self._reserve()

    def finish(self, config: Config, published: Published | None) -> Config:
        try:
            answer = self._process.end([list(port) for port in published.ports] if published else [])
        except LimpetError as e:
            raise LimpetError(f"container {self._container.name}: {e.message}", e.hint) from None
        if published is not None:
            published.ports = [port for port in published.ports if list(port) in answer["ports"]]
        self.ports = published.ports if published is not None else []
        return self._placed(config)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._process.close()


def release(store: Store, container: Container) -> None:
    """The container has ended: a process tidies up as soon as this one, its monitor, has ended too.

    Nobody waits for it: what it does the next one does as well that works on networks.
    """
    read, _ = os.pipe()  # the other end is open until we end
    try:
        _spawn(store, "release", container.id, read, os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))
    except OSError:
        pass


_CODE = """\
import sys
sys.path.insert(0, sys.argv[1])
sys.path.append(sys.argv[2])
from limpet.network.private.process import main
main(*sys.argv[3:])
"""


class _Process:
    """See `network.private.process`."""

    def __init__(self, store: Store, verb: str, container_id: str, namespace: int) -> None:
        read, self._input = os.pipe()
        self._output, write = os.pipe()
        self._pid = _spawn(store, verb, container_id, read, write, namespace)
        os.close(read)
        os.close(write)

    def end(self, order: object) -> Config:
        """Sends the order and waits for the answer. Raises LimpetError with what it said."""
        try:
            os.write(self._input, jsontext.dumps(order).encode() + b"\n")
        except BrokenPipeError:
            pass  # no answer tells of it
        answer = b""
        while chunk := os.read(self._output, 65536):
            answer += chunk
        said: Config = {"error": "the process that connects it was killed"}
        if answer.endswith(b"\n"):
            said = jsontext.loads(answer)
        if said.get("error"):
            raise LimpetError(said["error"], said.get("hint", ""))
        return said

    def close(self) -> None:
        os.close(self._input)  # its end, if it waits still
        os.close(self._output)
        os.waitpid(self._pid, 0)


def _spawn(store: Store, verb: str, container_id: str, read: int, write: int, namespace: int = -1) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_DUP2, write, 1)]
    if namespace >= 0:
        actions.append((os.POSIX_SPAWN_DUP2, namespace, 3))
    package = SOURCE
    # Of a virtual environment; elsewhere the libraries are beside the package. A monitor that slept has no such path.
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = f"{os.path.dirname(os.path.dirname(sys.executable))}/lib/{version}/site-packages"
    arguments = [sys.executable, "-S", "-I", "-c", _CODE, package, site, store.root, store.run, verb, container_id]
    return os.posix_spawn(sys.executable, arguments, os.environ, file_actions=actions)
