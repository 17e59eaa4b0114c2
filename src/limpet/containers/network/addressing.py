"""A container's own address on the host's network: chosen when it is created, given when it starts, taken at its end.

What the kernel does with it is in `network.programs`; where the kernel can't, the container has the host's addresses,
as with `--address 0.0.0.0`, and its start says so. The containers of a user without root have them: the kernel lets
only root load such programs.
"""

from __future__ import annotations

from limpet import jsontext
from limpet.containers.plan import sharing
from limpet.errors import Conflict, Invalid, LimpetError, Refused, reason
from limpet.kernel import cgroup, idmap
from limpet.network import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.containers.options import Options
    from limpet.containers.state import Container
    from limpet.network.publication import Port, Published
    from limpet.store.store import Store

VARIABLE = "LIMPET_ADDRESS"
"""In the environment of a container that has one, for programs that ask."""


def check(options: Options) -> None:
    """Raises Invalid."""
    if not options.address:
        return
    own4, own6 = addresses.parse(options.address)
    if options.network != "host":
        raise Invalid(f"--address {options.address[0]}: a container of --network {options.network} has none", "")
    if (own4, own6) == addresses.HOST:
        return
    if idmap.nested():
        raise Refused(f"--address {options.address[0]} needs root", "leave it out: yours have the host's addresses")
    if addresses.is_loopback(own4):
        return
    if own4.startswith("127."):
        raise Invalid(f"--address {own4}: 127.0.0.0/16 is the host's own", "any other part of 127.0.0.0/8 will do")
    from limpet.network import local

    local.check([own4, own6])


def choose(store: Store, container_id: str, options: Options) -> list[str]:
    """[IPv4, IPv6] (or the first alone) that the new container owns; [] for none. Within the transaction of its row.

    Raises Conflict for an address that another container of this store owns.
    """
    if options.network != "host" or idmap.nested():
        return []
    own4, own6 = addresses.parse(options.address)
    if (own4, own6) == addresses.HOST:
        return []
    if not own4:
        own4 = addresses.choose(container_id, lambda address: bool(_owner(store, address)))
    elif other := _owner(store, own4):
        raise Conflict(f"the address {own4} is that of container {other}", "give another with --address, or none")
    if addresses.is_loopback(own4):
        own6 = own6 or addresses.ipv6_of(own4)
    return [own4, own6] if own6 else [own4]


def _owner(store: Store, own4: str) -> str:
    """The name of the container that owns it, or ""."""
    row = store.db.row("SELECT name FROM container WHERE instr(options, ?)", f'"own_address":["{own4}"')
    return row[0] if row else ""


def give(store: Store, container: Container, group: str | None) -> str:
    """Before the container's first process. What can't be had, in words for the user; "" if all is well.

    Raises Conflict if another store's container has the address just now.
    """
    options = container.options
    other = sharing.joins(options).get("network", "")
    from limpet.network import loading

    if (not options.own_address and not other) or idmap.nested():
        loading.drop()
        return ""
    from limpet.network import attachment

    try:
        if group is None:
            raise OSError(95, "there is no control group of version 2")
        if other:
            attachment.share(group, _group_of(store, other))
            return ""
        own4, own6 = [*options.own_address, ""][:2]
        attachment.give(group, store.run, own4, own6, published=bool(options.publish or options.publish_all))
    except Conflict as e:
        e.message = f"container {container.name}: {e.message}"
        raise
    except OSError as e:
        return (
            f"container {container.name} has the host's addresses: {reason(e)}; "
            f"its own, {', '.join(options.own_address)}, is only in {VARIABLE}"
        )
    finally:
        loading.drop()
    return ""


def _group_of(store: Store, container_id: str) -> str:
    """The path of the group of a container that runs, by its plan: this is no place to ask the database."""
    try:
        with open(f"{store.container_path(container_id)}/config.json", "rb") as file:
            return (cgroup.root() or "") + str(jsontext.loads(file.read())["linux"]["cgroupsPath"])
    except FileNotFoundError:
        return ""  # it was removed just now


def ports(store: Store, container: Container) -> list[Port]:
    """What `-p` and `-P` ask for."""
    from limpet.containers.network import publishing
    from limpet.containers.observe import listing

    exposed = []
    if container.options.publish_all:
        exposed = listing.all_exposed(listing.image_config(store, container), container.options)
    return publishing.wanted(container.options, exposed)


def publish(store: Store, container: Container, group: str | None) -> Published | None:
    """What `-p` and `-P` ask for, once the container has its address; None if they ask for nothing.

    Raises Conflict for a port in use, LimpetError where the kernel can't do it.
    """
    options = container.options
    if sharing.connected(options) or not (options.publish or options.publish_all):
        return None
    from limpet.network import publication

    wanted = ports(store, container)
    own4, own6 = [*options.own_address, ""][:2]
    try:
        if group is None:
            raise OSError(95, "there is no control group of version 2")
        return publication.publish(group, own4, own6, wanted)
    except Conflict as e:
        e.message = f"container {container.name}: {e.message}"
        raise
    except OSError as e:
        what = f"container {container.name}: its ports can't be published: {reason(e)}"
        raise LimpetError(what, "`limpet info` says what this host lacks; --address 0.0.0.0 needs no publishing") from e


def announce(store: Store, container: Container) -> None:
    """Tells the others its names, once it runs."""
    options = container.options
    if options.own_address:
        from limpet.network import names

        more = [name for name in (options.hostname, *options.network_alias) if name]
        own = dict.fromkeys([container.name, container.id[:12], *more])
        try:
            names.join(store.run, store.root, options.own_address[0], list(own))
        except OSError:
            pass  # a full disk: it runs all the same


def retire(store: Store, container: Container) -> None:
    """The others forget its names."""
    if container.options.own_address:
        from limpet.network import names

        try:
            names.leave(store.run, store.root, container.options.own_address[0])
        except OSError:
            pass


def take(container: Container, group: str | None) -> None:
    """At the container's end, while its group is still there."""
    own = container.options.own_address
    if group is None or idmap.nested() or not (own or sharing.joins(container.options).get("network")):
        return
    from limpet.network import attachment, local

    try:
        attachment.take(group)
        if len(own) > 1 and addresses.is_loopback(own[0]):
            local.remove(own[1])
    except OSError:
        pass  # `collect` finds what is left


def collect(store: Store) -> None:
    """Takes away what dead containers of any store left: entries of the programs' maps, addresses of lo."""
    if idmap.nested():
        return  # none of ours has one
    from limpet.network import attachment, names

    living, _ = attachment.collect()
    names.keep(store.run, store.root, living)
