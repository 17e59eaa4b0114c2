"""Whom a container may talk to and who to it (`--egress`, `--ingress`), how fast, and how much it did.

Names in the rules are other containers', whose addresses come and go: who makes or removes a container tells the
kernel's tables of those that run (`refresh`). The monitor, which does not open the database, takes what names mean from
a file that the starter leaves.
"""

from __future__ import annotations

from limpet import jsontext
from limpet.errors import Invalid, Refused, reason
from limpet.kernel import cgroup, idmap
from limpet.store import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from limpet.containers.options import Options
    from limpet.containers.state import Container
    from limpet.network.meters import Traffic
    from limpet.network.rules import Ports, Prefix
    from limpet.store.store import Store

    Members = dict[str, list[str]]
    Table = dict[Prefix, list[Ports]]

PROJECT = "com.docker.compose.project"
_SELF = "self"
_NAMED = ("container:", "project:", "network:")


def check(options: Options) -> None:
    """Raises Invalid, and Refused to a user without root."""
    from limpet.network import rules

    for option, text in (("egress", options.egress), ("ingress", options.ingress)):
        if text is not None:
            rules.parse(option, text)
    if idmap.nested():
        raise Refused("--egress, --ingress and rates need root: only root may give the kernel such programs", "")
    if options.network.startswith("container:"):
        raise Invalid("--egress, --ingress and rates with another container's network", "say them for that one")


def rate(option: str, text: str) -> int:
    """Bytes a second of `10mbit`, `1gbit` (tc(8)'s units) or `2m` (bytes). Raises Invalid."""
    from limpet.containers.options import parse_size

    if not text.endswith("bit"):
        return parse_size(text, option)
    number, unit = text.removesuffix("bit"), 1
    for letter, factor in (("k", 10**3), ("m", 10**6), ("g", 10**9)):
        if number.endswith(letter):
            number, unit = number.removesuffix(letter), factor
    try:
        found = int(float(number) * unit / 8)
    except (ValueError, OverflowError):
        found = 0
    if not 0 < found <= 10**10:
        raise Invalid(f"invalid --{option} '{text}'", "write a rate like 10mbit, or bytes a second like 2m")
    return found


def prepare(store: Store, container: Container) -> None:
    """Before its monitor is asked to start it: what the names in its rules mean."""
    found = _members(store, container.options)
    path = f"{store.run_path(container.id)}/peers"
    files.write_file(path, jsontext.dumps(found).encode(), durable=False)


def give(store: Store, container: Container, group: str | None) -> None:
    """Before the container's first process. Raises Refused where rules were asked for that can't be kept.

    What is thrown away after one command in the foreground is not worth counting: only what was detached is.
    """
    options = container.options
    wanted = options.policed
    if not wanted and (idmap.nested() or group is None):
        return
    from limpet.network import meters

    try:
        if group is None:
            raise OSError(95, "there is no control group of version 2")
        egress, ingress = _tables(container, _read(f"{store.run_path(container.id)}/peers"))
        meters.give(group, egress, ingress, (options.ingress_rate, options.egress_rate))
    except OSError as e:
        if wanted:
            raise Refused(
                f"container {container.name}: --egress, --ingress and rates can't be kept to here: {reason(e)}",
                "leave them out, or use --network none",
            ) from e


def take(group: str | None) -> None:
    """At the container's end, while its group is still there."""
    if group is None or idmap.nested():
        return
    from limpet.network import meters

    try:
        meters.take(group)
    except OSError:
        pass  # `collect` finds what is left


def collect() -> None:
    if not idmap.nested():
        from limpet.network import meters

        meters.collect()


def traffic(container: Container) -> Traffic | None:
    """None for a container that is not counted, or that does not run."""
    if idmap.nested() or (group := cgroup.path(container.group)) is None:
        return None
    from limpet.network import meters

    return meters.read(group)


def refresh(store: Store) -> None:
    """After a container came or went: rules that name others mean other addresses now."""
    from limpet.containers import state
    from limpet.network import meters

    for container_id in state.ruled(store):
        container = state.lookup(store, container_id)
        if container is None or not state.running_pid(store, container_id):
            continue
        prepare(store, container)
        group = cgroup.path(container.group)
        if group is not None:
            egress, ingress = _tables(container, _members(store, container.options))
            try:
                meters.refresh(group, egress, ingress)
            except OSError:
                pass  # it ended just now


def _tables(container: Container, members: Members) -> tuple[Table | None, Table | None]:
    from limpet.kernel import interfaces
    from limpet.network import rules

    options = container.options
    said = {"egress": options.egress, "ingress": options.ingress}
    parsed = {option: rules.parse(option, text) for option, text in said.items() if text is not None}
    local = list(rules.LOCAL)
    if any(rule.where == "host" for each in parsed.values() for rule in each):
        local += interfaces.addresses()
    own = members.get(_SELF, options.own_address)
    whose: Callable[[str], list[str]] = lambda where: members.get(where, [])  # noqa: E731
    tables = {option: rules.compile(each, own, whose, local) for option, each in parsed.items()}
    return tables.get("egress"), tables.get("ingress")


def _members(store: Store, options: Options) -> Members:
    """The addresses of all that the rules name."""
    from limpet.network import rules

    found: Members = {_SELF: _addresses(store, f"container:{options.name}")}
    for option, text in (("egress", options.egress), ("ingress", options.ingress)):
        for rule in rules.parse(option, text) if text is not None else ():
            if rule.where.startswith(_NAMED):
                found[rule.where] = _addresses(store, rule.where)
    return found


def _addresses(store: Store, where: str) -> list[str]:
    kind, _, name = where.partition(":")
    if kind == "network":
        rows = store.db.rows(
            "SELECT address, address6 FROM endpoint JOIN network ON network_id = network.id WHERE network.name = ?",
            name,
        )
        return [address for row in rows for address in row if address]
    if kind == "project":
        rows = store.db.rows("SELECT id, options FROM container WHERE instr(options, ?)", f'"{PROJECT}":"{name}"')
    else:
        rows = store.db.rows("SELECT id, options FROM container WHERE name = ?", name)
    found: list[str] = []
    for container_id, text in rows:
        found += jsontext.loads(text).get("own_address", [])
        ends = store.db.rows("SELECT address, address6 FROM endpoint WHERE container_id = ?", container_id)
        found += [address for row in ends for address in row if address]
    return found


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found: dict[str, Any] = jsontext.loads(file.read())
            return found
    except FileNotFoundError:
        return {}
