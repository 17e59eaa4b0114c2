"""The options that `create` and `run` share, and what they come to."""

from __future__ import annotations

from limpet.cli import podman_options
from limpet.cli.limit_options import HEALTH, LIMITS, health, limits
from limpet.cli.program_options import ENVIRONMENT, USER, WORKDIR
from limpet.cli.table import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from limpet.cli.table import Call
    from limpet.containers.options import Options


def wanted(call: Call) -> Options:
    from limpet.cli import keyvalues
    from limpet.containers import options

    image, *command = call.arguments
    entrypoint = call["entrypoint"]
    mode = ""
    named: list[str] = []
    if call["network"]:
        from limpet.cli import networks

        mode, named = networks.chosen(call["network"])
    init = False if call["no-init"] else None if call["init"] == _UNSAID else call["init"]
    made = options.Options(
        image=image,
        command=command,
        # `--entrypoint ""` takes the image's away; it is one word, as in Docker.
        entrypoint=None if entrypoint is None else [entrypoint] if entrypoint else [],
        name=call["name"],
        env=keyvalues.environment(call["env"], call["env-file"]),
        workdir=call["workdir"],
        user=call["user"],
        group_add=call["group-add"],
        volumes=call["volume"],
        mounts=call["mount"],
        tmpfs=call["tmpfs"],
        mkdir=call["mkdir"],
        read_only=bool(call["read-only"]),
        hostname=call["hostname"],
        domainname=call["domainname"],
        labels=keyvalues.pairs([*keyvalues.label_files(call["label-file"]), *call["label"]]),
        init=init,
        stop_signal=call["stop-signal"],
        stop_timeout=call["stop-timeout"],
        privileged=bool(call["privileged"]),
        cap_add=call["cap-add"],
        cap_drop=call["cap-drop"],
        security_opt=keyvalues.security(call["security-opt"]),
        add_host=call["add-host"],
        tty=call["tty"],
        interactive=call["interactive"],
        detach=bool(call.get("detach")),
        auto_remove=call["rm"],
        restart=call["restart"] or "no",
        address=call["address"],
        egress=call["egress"],
        ingress=call["ingress"],
        egress_rate=_rate(call, "egress-rate"),
        ingress_rate=_rate(call, "ingress-rate"),
        sockets=call["socket"],
        on_demand=bool(call["on-demand"]),
        idle_stop=_idle(call["idle-stop"]),
        network=mode,
        networks=named,
        ip=call["ip"],
        ip6=call["ip6"],
        mac_address=call["mac-address"],
        network_alias=call["network-alias"],
        publish=call["publish"],
        publish_all=bool(call["publish-all"]),
        runtime=call["runtime"] or "limpet",
        devices=[text for text in call["device"] if text.startswith("/")],
        cdi=_named(call),
        pod=call["pod"],
        device_cgroup_rules=call["device-cgroup-rule"],
        shm_size=options.parse_size(call["shm-size"], "shm-size") if call["shm-size"] else options.SHM_SIZE,
        ulimits=call["ulimit"],
        sysctls=keyvalues.pairs(call["sysctl"]),
        log_opts=keyvalues.pairs(call["log-opt"]),
        log_driver=call["log-driver"] or "json-file",
        expose=call["expose"],
        dns=call["dns"],
        dns_search=call["dns-search"],
        dns_option=call["dns-option"],
        ipc=call["ipc"],
        uts=call["uts"],
        cgroupns=call["cgroupns"],
        cgroup_parent=call["cgroup-parent"],
        userns=call["userns"],
        pid=call["pid"],
        isolate=call["isolate"],
        volumes_from=call["volumes-from"],
        volume_driver=call["volume-driver"],
        storage_opts=keyvalues.pairs(call["storage-opt"]),
        platform=call["platform"],
        oom_score_adj=call["oom-score-adj"] or 0,
        limits=limits(call),
        health=health(call),
    )
    if made.isolate:
        from limpet.containers.plan import isolation

        isolation.apply(made, {name for name in isolation.SINGLE if call[name.replace("_", "-")] not in (_UNSAID, [])})
    if podman_options.said(call):
        from limpet.cli import podman_given

        podman_given.apply(call, made)
    made.network = made.network or ("" if made.pod or call["pod-id-file"] else "host")
    return made


def _named(call: Call) -> list[str]:
    """Devices by their CDI name."""
    names = [text for text in call["device"] if not text.startswith("/")]
    if call["gpus"]:
        from limpet.containers.plan import cdi

        names += cdi.gpus(call["gpus"])
    return names


def _rate(call: Call, option: str) -> int:
    if not call[option]:
        return 0
    from limpet.containers.network import policing

    return policing.rate(option, call[option])


def _idle(text: str) -> float:
    if not text:
        return 0
    from limpet.cli.logs import duration
    from limpet.errors import Invalid

    seconds = duration(text)
    if seconds is None or seconds < 1:
        raise Invalid(f"invalid --idle-stop '{text}'", "write a time of a second or more, like 30s or 10m")
    return seconds


_UNSAID = ""
"""The value of --init where neither it nor --init=false was given; and of what a level of isolation may set."""

POLICIES = ("no", "on-failure", "always", "unless-stopped")

OPTIONS = (
    Option("add-host", kind="list", metavar="NAME:ADDRESS", help="Add a line to /etc/hosts"),
    Option(
        "address",
        kind="list",
        metavar="ADDRESS",
        help="Own address on the host's network (one of 127.64.0.0/10); 0.0.0.0: the plain host",
    ),
    Option("attach", "a", kind="list", metavar="STREAM", help="Attach only stdin, stdout or stderr (all without it)"),
    Option("cap-add", kind="list", metavar="NAME", help="Add a capability (ALL for every one)"),
    Option("cap-drop", kind="list", metavar="NAME", help="Drop a capability (ALL for every one)"),
    Option(
        "cgroup-parent",
        kind="string",
        default="",
        metavar="PARENT",
        help="Make its control group in this one: a slice of systemd, or a path",
    ),
    Option(
        "cgroupns",
        kind="string",
        default="",
        metavar="MODE",
        help="Cgroup namespace: private, host, or container:NAME",
        offers=("private", "host"),
    ),
    Option("cidfile", kind="string", default="", metavar="FILE", help="Write the container's id to a file"),
    Option(
        "device",
        kind="list",
        metavar="DEVICE",
        help="Add a device of the host: /dev/a[:/dev/b][:rwm], or vendor.com/class=name (CDI)",
    ),
    Option(
        "device-cgroup-rule", kind="list", metavar="RULE", help="Allow more devices: 'c 1:3 mr', '*' for every number"
    ),
    Option("dns", kind="list", metavar="ADDRESS", help="Name server, in place of the host's"),
    Option(
        "dns-option",
        kind="list",
        metavar="OPTION",
        help="Option of the resolver (resolv.conf(5))",
        aliases=("dns-opt",),
    ),
    Option("dns-search", kind="list", metavar="DOMAIN", help="Domain to search names in; . for none"),
    Option("domainname", kind="string", default="", metavar="NAME", help="NIS domain name"),
    Option("entrypoint", kind="string", metavar="COMMAND", help="Run this in place of the image's entry point"),
    *ENVIRONMENT,
    Option("expose", kind="list", metavar="PORT", help="Say that a port is served: PORT[-PORT][/tcp|udp|sctp]"),
    Option("gpus", kind="list", metavar="WHICH", help="Add GPUs that CDI files describe: all, a number, device=NAME"),
    Option("group-add", kind="list", metavar="GROUP", help="Add a supplementary group"),
    Option("hostname", "h", kind="string", default="", metavar="NAME", help="Host name of the container"),
    Option("init", default=_UNSAID, help="Run an init as PID 1 (the default, unless the command is an init)"),
    Option("interactive", "i", help="Keep standard input open"),
    Option("ip", kind="string", default="", metavar="ADDRESS", help="Its IPv4 address on its first network"),
    Option("ip6", kind="string", default="", metavar="ADDRESS", help="Its IPv6 address on its first network"),
    Option(
        "ipc",
        kind="string",
        default="",
        metavar="MODE",
        help="IPC namespace, and /dev/shm: private, shareable, host, none (no /dev/shm), or container:NAME",
        offers=("private", "shareable", "host", "none"),
    ),
    Option(
        "isolate",
        kind="string",
        default="",
        metavar="LEVEL",
        help="none, light, default or strict: many options by one word; those given beside it win",
        choices=("none", "light", "default", "strict"),
    ),
    Option(
        "egress",
        kind="string",
        metavar="none|host|dns|NAME|CIDR[:PORT],...",
        help="Whom it may connect and send to, and nobody else",
    ),
    Option(
        "egress-rate", kind="string", default="", metavar="RATE", help="What it may send a second: 10mbit, or bytes: 2m"
    ),
    Option(
        "ingress",
        kind="string",
        metavar="none|host|NAME|CIDR[:PORT],...",
        help="Who may connect and send to it, and to which of its ports",
    ),
    Option("ingress-rate", kind="string", default="", metavar="RATE", help="What it may receive, a second"),
    Option(
        "idle-stop",
        kind="string",
        default="",
        metavar="TIME",
        help="Stop when nobody has used its --socket for so long, like 10m; --on-demand starts it again",
    ),
    Option("label", "l", kind="list", metavar="KEY=VALUE", help="Set a label"),
    Option("label-file", kind="list", metavar="FILE", help="Read labels from a file"),
    Option(
        "log-driver",
        kind="string",
        default="",
        metavar="NAME",
        help="Where output goes: json-file (the default), local, journald, syslog, k8s-file, none",
        offers=("json-file", "local", "journald", "syslog", "k8s-file", "none"),
    ),
    Option("log-opt", kind="list", metavar="KEY=VALUE", help="Option of the log: max-size=10m, mode=non-blocking, tag"),
    Option("mac-address", kind="string", default="", metavar="MAC", help="Its MAC address on its first network"),
    Option("mkdir", help="Make missing directories for bind mounts"),
    Option(
        "mount",
        kind="list",
        metavar="SPEC",
        help="type=bind|volume|tmpfs|image,source=...,target=...,readonly",
        offers=("type=bind,source=", "type=volume,source=", "type=tmpfs,target=", "type=image,source="),
    ),
    Option("name", kind="string", default="", metavar="NAME", help="Name of the container"),
    Option(
        "network",
        kind="list",
        metavar="NETWORK",
        help="host (the default), none, private, container:NAME, ns:PATH, or NAME[:ip=...,alias=...,mac=...]",
        offers=("host", "none", "private", "bridge"),
        aliases=("net",),
    ),
    Option(
        "network-alias", kind="list", metavar="NAME", help="One more name on its first network", aliases=("net-alias",)
    ),
    Option("no-init", help="Run the command itself as PID 1"),
    Option("on-demand", help="Start it when somebody connects to one of its --socket, not before"),
    Option("oom-score-adj", kind="int", default=0, metavar="N", help="Preference of the out-of-memory killer"),
    Option(
        "pid",
        kind="string",
        default="",
        metavar="MODE",
        help="PID namespace: private, host, or container:NAME",
        offers=("private", "host"),
    ),
    Option("platform", kind="string", default="", metavar="OS/ARCH", help="Platform of an image to pull"),
    Option("pod", kind="string", default="", metavar="[new:]NAME", help="Make it in this pod, or in a new one"),
    Option("pod-id-file", kind="string", default="", metavar="FILE", help="Make it in the pod whose id this file has"),
    Option("privileged", default=_UNSAID, help="All capabilities, all devices, nothing masked"),
    Option(
        "publish",
        "p",
        kind="list",
        metavar="PORTS",
        help="Publish a port: [ADDRESS:][PORT:]PORT; without an address on loopback only",
    ),
    Option("publish-all", "P", help="Publish all ports that the image exposes, each at a free one"),
    Option(
        "pull",
        kind="string",
        default="missing",
        metavar="WHEN",
        help="Pull the image: always, missing, never",
        choices=("always", "missing", "never"),
    ),
    Option("quiet", "q", help="No progress of a pull"),
    Option("read-only", default=_UNSAID, help="Mount the container's root read-only"),
    Option(
        "restart",
        kind="string",
        default="no",
        metavar="POLICY",
        help="no, on-failure[:N], always, unless-stopped",
        offers=POLICIES,
    ),
    Option("rm", help="Remove the container, and its anonymous volumes, when it ends"),
    Option(
        "runtime", kind="string", default="limpet", metavar="NAME", help="limpet or runc", choices=("limpet", "runc")
    ),
    Option(
        "security-opt",
        kind="list",
        metavar="OPTION",
        help="no-new-privileges, seccomp=unconfined|FILE …",
    ),
    Option("shm-size", kind="string", default="", metavar="SIZE", help="Size of /dev/shm (64m)"),
    Option(
        "socket",
        kind="list",
        metavar="[ADDRESS:]PORT[/udp]|/PATH",
        help="Listen for it, and hand the socket over as systemd does (LISTEN_FDS)",
    ),
    Option("stop-signal", kind="string", default="", metavar="SIGNAL", help="Signal that stops the container"),
    Option("stop-timeout", kind="int", metavar="SECONDS", help="Seconds until a stop kills (10)"),
    Option(
        "storage-opt",
        kind="list",
        metavar="size=SIZE",
        help="How much the container may write in its own layer",
        offers=("size=",),
    ),
    Option("sysctl", kind="list", metavar="KEY=VALUE", help="Set a kernel parameter"),
    Option("tmpfs", kind="list", metavar="DIR[:OPTIONS]", help="Mount a tmpfs"),
    Option("tty", "t", help="Give the container a terminal"),
    Option("ulimit", kind="list", metavar="NAME=SOFT[:HARD]", help="Set a resource limit"),
    USER,
    Option(
        "userns",
        kind="string",
        default="",
        metavar="MODE",
        help="User namespace: host (the default), or auto: root in the container is nobody on the host",
        offers=("host", "auto"),
    ),
    Option(
        "uts",
        kind="string",
        default="",
        metavar="MODE",
        help="UTS namespace: private, host, or container:NAME",
        offers=("private", "host"),
    ),
    Option("volume", "v", kind="list", metavar="SOURCE:DIR[:ro]", help="Mount a volume or a directory of the host"),
    Option("volume-driver", kind="string", default="", metavar="NAME", help="Driver of volumes that -v makes"),
    Option("volumes-from", kind="list", metavar="CONTAINER[:ro]", help="Mount what another container mounts"),
    WORKDIR,
    *podman_options.PODMAN,
    *LIMITS,
    *HEALTH,
)
