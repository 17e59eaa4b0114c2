"""Figures, rules and rates of containers' traffic: the maps of `filtering`'s programs, and the entry that each has.

As `attachment`'s, the programs are on the parent of all containers' groups, attached by whoever comes first, and found
again by all who follow; nothing is pinned.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import NamedTuple

from limpet.kernel import bpf, bpfmaps, cgroup
from limpet.network import filtering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from limpet.network.rules import Ports, Prefix

GENERATION = 1
_ENTRIES, _RULES, _FLOWS, _DENIALS = 1 << 12, 1 << 16, 1 << 14, 1 << 12
_LPM_TRIE = 11
_FINDER = "skb_out"
_ID = struct.Struct("<Q")
_KEY = struct.Struct("<IQI16s")
_SIDE = struct.Struct("<7Q")
_NEVER = struct.pack("<HHI", 1, 0, 0)
"""A range that no port is in."""


class Maps:
    """meters: id of a group → `filtering.METER`; rules, flows, denials: see there."""

    __slots__ = ("denials", "flows", "meters", "rules")

    def __init__(self, meters: int, rules: int, flows: int, denials: int) -> None:
        self.meters = meters
        self.rules = rules
        self.flows = flows
        self.denials = denials

    def close(self) -> None:
        for descriptor in (self.meters, self.rules, self.flows, self.denials):
            os.close(descriptor)


class Traffic(NamedTuple):
    """Of a container since it started: bytes, packets, and packets that were dropped, each in and out."""

    bytes: tuple[int, int]
    packets: tuple[int, int]
    dropped: tuple[int, int]


class Denial(NamedTuple):
    """What was refused: `egress` or else ingress; `when` in seconds of the monotonic clock."""

    egress: bool
    address: bytes
    port: int
    protocol: int
    times: int
    when: float


def give(
    group: str,
    egress: dict[Prefix, list[Ports]] | None = None,
    ingress: dict[Prefix, list[Ports]] | None = None,
    rates: tuple[int, int] = (0, 0),
) -> None:
    """An entry for the container whose group's path that is: it is counted, and kept to rules (None: none) and rates.

    `rates`: bytes a second, in and out; 0 for no limit. Raises OSError where the kernel can't do it.
    """
    group = cgroup.outer(group)
    directory = os.open(os.path.dirname(group), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        maps = _find(directory) or _load(directory, cgroup.level(group))
    finally:
        os.close(directory)
    try:
        number = os.stat(group).st_ino
        for side, table in ((filtering.IN, ingress), (filtering.OUT, egress)):
            replace(maps, number, side, table or {})
        flags = (ingress is not None) << filtering.IN | (egress is not None) << filtering.OUT
        sides = b"".join(_SIDE.pack(0, 0, 0, rate, max(rate // 8, 1 << 17), rate // 8, 0) for rate in rates)
        bpfmaps.put(maps.meters, _ID.pack(number), sides + struct.pack("<II", flags, 0))
    finally:
        maps.close()


def replace(maps: Maps, number: int, side: int, table: dict[Prefix, list[Ports]]) -> None:
    """The rules of one direction. New ones first: in between more is allowed, never less."""
    wanted = {}
    for prefix, ports in table.items():
        key = _KEY.pack(96 + prefix.bits, number, side + (filtering.SIX if prefix.six else 0), prefix.address)
        ranges = b"".join(struct.pack("<HHI", *each) for each in ports)
        wanted[key] = ranges + _NEVER * (filtering.RANGES - len(ports))
    for key, value in wanted.items():
        bpfmaps.put(maps.rules, key, value)
    for key in bpfmaps.keys(maps.rules, filtering.RULE_KEY):
        _, owner, kind, _ = _KEY.unpack(key)
        if owner == number and kind & 1 == side and key not in wanted:
            bpfmaps.drop(maps.rules, key)


def refresh(group: str, egress: dict[Prefix, list[Ports]] | None, ingress: dict[Prefix, list[Ports]] | None) -> None:
    """Other rules for a container that runs, whose names mean other addresses by now."""
    with _Opened(group) as found:
        if found is None:
            return
        maps, number = found
        for side, table in ((filtering.IN, ingress), (filtering.OUT, egress)):
            if table is not None:
                replace(maps, number, side, table)


def read(group: str) -> Traffic | None:
    """None for a container that is not counted."""
    with _Opened(group) as found:
        value = bpfmaps.get(found[0].meters, _ID.pack(found[1]), filtering.METER) if found else None
    if value is None:
        return None
    came, went = _SIDE.unpack_from(value), _SIDE.unpack_from(value, filtering.SIDE)
    return Traffic(*((came[at], went[at]) for at in range(3)))


def denials(group: str) -> list[Denial]:
    """What the rules of a container that runs have refused."""
    found: list[Denial] = []
    with _Opened(group) as opened:
        if opened is None:
            return found
        maps, number = opened
        for key in bpfmaps.keys(maps.denials, filtering.DENIAL_KEY):
            owner, address, port, protocol, side = struct.unpack_from("<Q16sHBB", key)
            value = bpfmaps.get(maps.denials, key, filtering.DENIAL)
            if owner == number and value is not None:
                count, when = struct.unpack("<QQ", value)
                found.append(Denial(side == filtering.OUT, address, port, protocol, count, when / 1e9))
    return found


def take(group: str) -> None:
    """Takes the entry of a container away, while its group is still there. What is not there is fine."""
    with _Opened(group) as found:
        if found is not None:
            _drop(found[0], {found[1]})


def collect() -> None:
    """Takes away the entries of groups that are no more."""
    for parent in cgroup.parents():
        maps = _of(parent)
        if maps is None:
            continue
        try:
            with os.scandir(parent) as entries:
                living = {entry.inode() for entry in entries}
            known = {_ID.unpack(key)[0] for key in bpfmaps.keys(maps.meters, _ID.size)}
            _drop(maps, known - living)
        finally:
            maps.close()


def _drop(maps: Maps, numbers: Iterable[int]) -> None:
    gone = set(numbers)
    for number in gone:
        bpfmaps.drop(maps.meters, _ID.pack(number))
    for table, size, at in (
        (maps.rules, filtering.RULE_KEY, 4),
        (maps.denials, filtering.DENIAL_KEY, 0),
    ):
        for key in bpfmaps.keys(table, size) if gone else ():
            if _ID.unpack_from(key, at)[0] in gone:
                bpfmaps.drop(table, key)


class _Opened:
    """`with _Opened(group) as found`: (maps, id), or None where nothing is counted."""

    def __init__(self, group: str) -> None:
        self._group = cgroup.outer(group)
        self._maps: Maps | None = None

    def __enter__(self) -> tuple[Maps, int] | None:
        try:
            number = os.stat(self._group).st_ino
        except FileNotFoundError:
            return None
        self._maps = _of(os.path.dirname(self._group))
        return None if self._maps is None else (self._maps, number)

    def __exit__(self, *_: object) -> None:
        if self._maps is not None:
            self._maps.close()


def _of(parent: str) -> Maps | None:
    try:
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _find(directory)
    except OSError:
        return None  # a kernel without these hooks
    finally:
        os.close(directory)


def _find(directory: int) -> Maps | None:
    for _, called, ids in bpf.programs(directory, filtering.HOOKS[_FINDER][0]):
        if called == _name(_FINDER):
            return Maps(**bpfmaps.opened(ids))
    return None


def _load(directory: int, level: int) -> Maps:
    for hook, (kind, _) in filtering.HOOKS.items():
        for program, called, _ in bpf.programs(directory, kind):
            if called == _name(hook):
                bpf.detach(program, directory, kind)  # of a start that was killed
    maps = Maps(
        bpfmaps.create(bpfmaps.HASH, 8, filtering.METER, _ENTRIES, "meters", bpfmaps.NO_PREALLOC),
        bpfmaps.create(
            _LPM_TRIE, filtering.RULE_KEY, filtering.RANGE * filtering.RANGES, _RULES, "rules", bpfmaps.NO_PREALLOC
        ),
        bpfmaps.create(bpfmaps.LRU_HASH, filtering.FLOW_KEY, 8, _FLOWS, "flows"),
        bpfmaps.create(bpfmaps.LRU_HASH, filtering.DENIAL_KEY, filtering.DENIAL, _DENIALS, "denials"),
    )
    loaded = []
    try:
        for hook, (kind, family) in filtering.HOOKS.items():
            code = filtering.assemble(hook, maps, level)
            loaded.append((hook, kind, bpf.load(family, code, _name(hook), kind)))
        for _, kind, program in sorted(loaded, key=lambda each: each[0] == _FINDER):
            bpf.attach(program, directory, kind, bpf.F_ALLOW_MULTI)
    except BaseException:
        maps.close()
        raise
    finally:
        for _, _, program in loaded:
            os.close(program)
    return maps


def _name(hook: str) -> str:
    return f"l{GENERATION}m_{hook}"
