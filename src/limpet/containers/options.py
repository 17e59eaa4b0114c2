"""What a user asked for when a container was made: every option of `create` and `run`, and nothing that follows.

The row of the container keeps it as JSON. What the image says is kept apart (`image.json`), and both are merged at each
start (`spec.make`), so that nothing of the image is frozen into what the user said.
"""

from __future__ import annotations

from limpet import jsontext
from limpet.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHM_SIZE = 64 << 20  # Docker's default for /dev/shm
LOG_MAX_SIZE = 10_000_000  # limpet's default: 3 files of 10 MB, where Docker has no limit
LOG_MAX_FILE = 3

_DEFAULTS: dict[str, Any] = {
    "name": "",
    "image": "",
    "command": [],
    "entrypoint": None,
    "env": [],
    "workdir": "",
    "user": "",
    "group_add": [],
    "volumes": [],
    "mounts": [],
    "tmpfs": [],
    "mkdir": False,
    "read_only": False,
    "hostname": "",
    "domainname": "",
    "labels": {},
    "init": None,
    "stop_signal": "",
    "stop_timeout": None,
    "privileged": False,
    "cap_add": [],
    "cap_drop": [],
    "security_opt": [],
    "add_host": [],
    "tty": False,
    "interactive": False,
    "detach": False,
    "auto_remove": False,
    "restart": "no",
    "network": "host",
    "address": [],
    "own_address": [],
    "egress": None,
    "ingress": None,
    "egress_rate": 0,
    "ingress_rate": 0,
    "sockets": [],
    "on_demand": False,
    "idle_stop": 0.0,
    "networks": [],
    "ip": "",
    "ip6": "",
    "mac_address": "",
    "network_alias": [],
    "publish": [],
    "publish_all": False,
    "runtime": "limpet",
    "devices": [],
    "device_cgroup_rules": [],
    "cdi": [],
    "pod": "",
    "pod_ends": False,
    "infra": False,
    "parent_limits": {},
    "annotations": {},
    "env_merge": [],
    "env_clear": False,
    "image_volume": "",
    "no_files": [],
    "pidfile": "",
    "requires": [],
    "timeout": 0,
    "umask": "",
    "shm_size": SHM_SIZE,
    "ulimits": [],
    "sysctls": {},
    "log_opts": {},
    "log_driver": "json-file",
    "expose": [],
    "dns": [],
    "dns_search": [],
    "dns_option": [],
    "ipc": "",
    "uts": "",
    "cgroupns": "",
    "cgroup_parent": "",
    "userns": "",
    "pid": "",
    "isolate": "",
    "volumes_from": [],
    "volume_driver": "",
    "storage_opts": {},
    "platform": "",
    "oom_score_adj": 0,
    "limits": {},
    "health": {},
}

_CONTAINERS = [(name, type(default)) for name, default in _DEFAULTS.items() if isinstance(default, list | dict)]


class Options:
    """All fields have a default; `Options(image="x", tty=True)` sets some. Lists and dicts are the instance's own."""

    __slots__ = tuple(_DEFAULTS)

    name: str  # "" for a generated one
    image: str  # as the user wrote it
    command: list[str]  # arguments after the image; [] for the image's
    entrypoint: list[str] | None  # None for the image's, [] for none
    env: list[str]  # KEY=VALUE, already merged from --env-file and the caller's environment
    workdir: str
    user: str  # user[:group], names or numbers
    group_add: list[str]
    volumes: list[str]  # -v
    mounts: list[str]  # --mount
    tmpfs: list[str]  # --tmpfs
    mkdir: bool  # make missing sources of bind mounts
    read_only: bool
    hostname: str
    domainname: str
    labels: dict[str, str]
    init: bool | None  # None: unless the command is an init itself
    stop_signal: str
    stop_timeout: int | None  # seconds; None for the default of 10
    privileged: bool
    cap_add: list[str]
    cap_drop: list[str]
    security_opt: list[str]
    add_host: list[str]  # name:address
    tty: bool
    interactive: bool
    detach: bool
    auto_remove: bool
    restart: str  # no, always, unless-stopped, on-failure[:N]
    address: list[str]  # as the user wrote them; [] for one that limpet chooses
    own_address: list[str]  # what came of it: IPv4, perhaps IPv6; [] for the plain host
    egress: str | None  # see `network.rules`; None for no rules
    ingress: str | None
    egress_rate: int  # bytes a second; 0 for no limit
    ingress_rate: int
    sockets: list[str]  # see `activation.parse`
    on_demand: bool
    idle_stop: float  # seconds; 0 for never
    network: str  # host, none, private, container:<id>, ns:PATH, or the name of the first network
    networks: list[str]  # NAME[:ip=…,ip6=…,mac=…,alias=…], if it is on networks with names
    ip: str  # on the first of them; so with the next three
    ip6: str
    mac_address: str
    network_alias: list[str]
    publish: list[str]  # as the user wrote them; `publishing.parse` reads them
    publish_all: bool
    runtime: str  # limpet, runc
    devices: list[str]  # host[:container[:rwm]]
    device_cgroup_rules: list[str]  # `c 1:3 mr`
    cdi: list[str]  # vendor.com/class=name
    pod: str  # its id; a name until `pods.join`
    pod_ends: bool  # the pod's infra container ends with its last other one
    infra: bool  # it is that infra container
    parent_limits: dict[str, Any]  # of the group that its own is in: the pod's, which the infra container sets
    annotations: dict[str, str]
    env_merge: list[str]  # KEY=VALUE, ${NAME} being a variable of the image
    env_clear: bool  # none of the image's
    image_volume: str  # what VOLUME means: "" for an anonymous volume, tmpfs, ignore
    no_files: list[str]  # of hostname, hosts: those of /etc that the engine does not provide
    pidfile: str  # absolute path
    requires: list[str]  # ids of containers to be started first; names until `create`
    timeout: int  # seconds until it is killed; 0: never
    umask: str  # octal, "" for 022
    shm_size: int  # bytes
    ulimits: list[str]  # name=soft[:hard]
    sysctls: dict[str, str]
    log_opts: dict[str, str]  # see `logdrivers.choice`
    log_driver: str  # one of `logdrivers.choice.KEYS`
    expose: list[str]  # as the user wrote them; `ports.parse` reads them
    dns: list[str]  # addresses for resolv.conf, in place of the host's; so with the next two
    dns_search: list[str]
    dns_option: list[str]
    ipc: str  # "", private, shareable, host, none, container:<id>
    uts: str  # "", private, host, container:<id>
    cgroupns: str  # "", private, host, container:<id>
    cgroup_parent: str  # a slice of systemd, or the path of a group; "" for limpet's own
    userns: str  # "", host, auto
    pid: str  # "", private, host, container:<id>
    isolate: str  # "", or one of `isolation.LEVELS`, which the other options hold too
    volumes_from: list[str]  # container[:ro|rw]
    storage_opts: dict[str, str]  # size, of the writable layer
    volume_driver: str  # of volumes that -v makes
    platform: str
    oom_score_adj: int
    limits: dict[str, Any]  # see `limits.KEYS`
    health: dict[str, Any]  # see `healthcheck`, and OnFailure

    def __init__(self, **values: Any) -> None:
        if not values.keys() <= _DEFAULTS.keys():
            raise TypeError(f"no such option: {', '.join(values.keys() - _DEFAULTS.keys())}")
        # `ps` of a thousand makes a thousand of them, hence the two loops.
        for name, default in _DEFAULTS.items():
            setattr(self, name, default)
        for name, kind in _CONTAINERS:
            setattr(self, name, kind())
        for name, value in values.items():
            setattr(self, name, value)

    @property
    def policed(self) -> bool:
        """Whether there are rules or rates for its traffic (`policing`)."""
        return bool(self.egress is not None or self.ingress is not None or self.egress_rate or self.ingress_rate)

    def to_json(self) -> str:
        """Only what differs from the default, so that rows stay short."""
        values = {name: getattr(self, name) for name in _DEFAULTS}
        return jsontext.dumps({name: value for name, value in values.items() if value != _DEFAULTS[name]})

    @classmethod
    def from_json(cls, text: str) -> Options:
        """Fields that this version does not know are left out: a newer limpet may have written the row."""
        values = jsontext.loads(text)
        return cls(**{name: value for name, value in values.items() if name in _DEFAULTS})


def restart_policy(text: str) -> tuple[str, int]:
    """'on-failure:3' → ('on-failure', 3); a count of 0 means for ever. Raises Invalid."""
    name, colon, count = (text or "no").partition(":")
    if name not in ("no", "always", "unless-stopped", "on-failure"):
        raise Invalid(
            f"invalid restart policy '{text}'", "it is one of no, always, unless-stopped, on-failure[:MAX-RETRIES]"
        )
    if colon and name != "on-failure":
        raise Invalid(f"restart policy '{text}': maximum retry count can only be used with 'on-failure'")
    if colon and not count.isdecimal():
        raise Invalid(f"restart policy '{text}': maximum retry count must be a number")
    return name, int(count or 0)


_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str, what: str, *, decimal: bool = False) -> int:
    """'64m' → bytes. Memory sizes are binary, log sizes decimal, as in Docker (go-units RAMInBytes, FromHumanSize)."""
    lower = text.strip().lower()
    number = lower.rstrip("bkmgti")
    unit = lower[len(number) :]
    if len(unit) > 1:
        unit = unit.removesuffix("b").removesuffix("i")
    try:
        if unit not in _UNITS:
            raise ValueError
        factor = _UNITS[unit]
        if decimal and unit in "kmgt":
            factor = 1000 ** (" kmgt".index(unit)) if unit else 1
        size = int(float(number) * factor)
        if size < 0:
            raise ValueError
    except (ValueError, OverflowError):
        raise Invalid(f"invalid size '{text}' for {what}", "write a number with b, k, m or g, like 64m") from None
    return size
