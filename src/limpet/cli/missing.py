"""Options and commands of Docker's that limpet does not have, and what to do about it: better than "unknown flag".

Nothing is taken and ignored: a limit that does not hold would be worse than an error. A test compares these names with
what `docker --help` and `docker COMMAND --help` list.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LATER = "limpet has no such option yet"

# The parts that docs/docker.md lists: what is planned, and where.
_LIMITS = "limpet has no such option: it limits by --memory, --cpus, --pids-limit and their like"

_WINDOWS = "it is for Windows; --isolate none, light, default or strict is limpet's"

_CREATE: Sequence[tuple[str, str]] = (
    ("link", "there are no links between containers: two that are on one network know each other by name"),
    ("link-local-ip", f"{_LATER}: --ip and --ip6 are there"),
    (
        "kernel-memory oom-kill-disable cpu-count cpu-percent cpu-rt-period cpu-rt-runtime io-maxbandwidth io-maxiops",
        _LIMITS,
    ),
    ("use-api-socket", f"{_LATER}: the Engine API is to come"),
    ("isolation", _WINDOWS),
    ("disable-content-trust", "there is no content trust to disable: leave it out"),
)

_PULL = "`limpet login` and registries.toml say how a registry is spoken with"
_IDS = "--userns auto gives ids of its own; which ones is limpet's choice"
_PODMAN: Sequence[tuple[str, str]] = (
    ("cert-dir creds decryption-key retry retry-delay tls-verify", _PULL),
    ("cgroup-conf", "--memory, --cpus, --pids-limit and their like limit it; `limpet update` changes them"),
    ("cgroups", "every container has a control group of its own"),
    ("chrootdirs group-entry passwd passwd-entry hostuser", f"{_LATER}: --user takes a number, -v mounts /etc/passwd"),
    ("conmon-pidfile", "there is no conmon: --pidfile has the pid of PID 1, the file `status` that of the monitor"),
    ("gidmap subgidname subuidname uidmap", _IDS),
    ("health-log-destination health-max-log-count health-max-log-size", "`inspect` has the last five results"),
    (
        "health-startup-cmd health-startup-interval health-startup-retries health-startup-success"
        " health-startup-timeout",
        "--health-start-period and --health-start-interval are there",
    ),
    ("hosts-file", "-v FILE:/etc/hosts mounts one; --add-host adds lines"),
    ("init-ctr", "--requires starts a container first; `limpet wait` waits for its end"),
    ("init-path", "limpet's own init is in no file; --no-init runs the command as PID 1"),
    ("intel-rdt-clos-id rdt-class", f"{_LATER}: --cpuset-cpus is there"),
    ("latest l", "name it: `limpet ps -lq` has its id"),
    ("personality", f"{_LATER}: `setarch` in the container does it"),
    (
        "preserve-fd preserve-fds",
        "a container gets its input, and with --socket listening sockets, of the caller's files",
    ),
    ("rmi", "`limpet rmi` removes it, `limpet image prune` all that nothing uses"),
    ("rootfs", "`limpet import DIR` or `limpet capture` makes an image of it, `-v` mounts it"),
    ("sdnotify", f"{_LATER}: `limpet wait --condition healthy` waits until it is well"),
    ("seccomp-policy", "--security-opt seccomp=FILE, or seccomp=unconfined"),
    ("secret", "-v FILE:/run/secrets/NAME:ro mounts one"),
    ("shm-size-systemd", "--shm-size is there"),
    ("systemd", "--no-init --tmpfs /run --tmpfs /run/lock --stop-signal SIGRTMIN+3 is what systemd wants"),
)

_BUILDX: Sequence[tuple[str, str]] = (("builder", "there is one builder, this machine: leave it out"),)

_CHECKPOINTS = "checkpoints are kept with their container; `checkpoint create --export` writes a file elsewhere"
_INSECURE = "plain HTTP is spoken with this machine, and with others that registries.toml allows it for"

_OPTIONS: Mapping[str, Sequence[tuple[str, str]]] = {
    "run": (*_CREATE, *_PODMAN),
    "create": (*_CREATE, *_PODMAN),
    "exec": tuple(each for each in _PODMAN if each[0].startswith(("latest", "preserve"))),
    "build": (
        (
            "squash",
            "end the Dockerfile with `FROM scratch` and `COPY --from=STAGE / /`: that is one layer of what stays",
        ),
        ("cgroup-parent", "limpet's steps have groups of their own: --memory, --cpus, --pids-limit limit them"),
        (
            "security-opt",
            "a step has limpet's own confinement; --allow security.insecure lifts it where RUN asks for it",
        ),
        ("isolation", _WINDOWS),
        ("disable-content-trust", "there is no content trust to disable: leave it out"),
        ("compress", "there is nothing to compress: leave it out"),
        *_BUILDX,
    ),
    "bake": (("call", "`limpet bake --check` is --call=check"), *_BUILDX),
    "pull": (("disable-content-trust", _LATER),),
    "push": (("disable-content-trust", _LATER),),
    **dict.fromkeys(("manifest create", "manifest inspect", "manifest push"), (("insecure", _INSECURE),)),
    "images": (("tree", _LATER),),
    "history": (("platform", _LATER),),
    "image inspect": (("platform", _LATER),),
    "rmi": (("platform", _LATER),),
    "login": (
        (
            "password p",
            "everybody on this machine could read it in the list of processes: pipe it in, --password-stdin",
        ),
    ),
    "save": (("platform", _LATER),),
    "rm": (("link l", "there are no links between containers"),),
    "start": (("checkpoint-dir", _CHECKPOINTS),),
    **dict.fromkeys(("checkpoint create", "checkpoint ls", "checkpoint rm"), (("checkpoint-dir", _CHECKPOINTS),)),
    "update": (("cpu-rt-period cpu-rt-runtime", _LIMITS),),
    "network create": (
        ("config-from config-only", f"{_LATER}: say the options at each network"),
        ("ingress scope", "there is no cluster"),
        ("ipam-opt", "limpet gives the addresses, and has no options for it but --subnet, --gateway and --ip-range"),
        ("ipv4", "each network has IPv4 addresses: leave it out"),
    ),
    "network connect": (
        ("link link-local-ip", "there are no links between containers: --alias gives it one more name"),
        ("driver-opt", _LATER),
        ("gw-priority", "the first network that a container is on, and that is not internal, is its way out"),
    ),
    "volume create": (
        (
            "availability group limit-bytes required-bytes scope secret sharing topology-preferred topology-required"
            " type",
            "there is no cluster",
        ),
    ),
    "volume ls": (("cluster", "there is no cluster"),),
}


_LATER_COMMAND = "limpet has no such command yet"

_COMMANDS: Mapping[str, str] = {
    "compose": f"{_LATER_COMMAND}: `limpet up` and `limpet down` start and remove the service of a directory",
    "buildx": "leave the word out: `limpet build`, `limpet bake`; `limpet cache` is its du and prune, and"
    " `limpet registry inspect` its imagetools inspect",
    "context": "there is no daemon: `ssh HOST limpet …` works on another machine",
    "system dial-stdio": "there is no daemon: `ssh HOST limpet …` works on another machine",
    **dict.fromkeys(
        "config,plugin,secret,trust,volume update".split(","),
        _LATER_COMMAND,
    ),
    "auto-update": f"{_LATER_COMMAND}: `limpet pull` and `limpet run --replace` do it by hand",
    **dict.fromkeys(("generate", "kube", "play"), f"{_LATER_COMMAND}: `limpet pod` makes pods"),
    "healthcheck": f"{_LATER_COMMAND}: `limpet inspect` has the last results, `limpet wait --condition healthy` waits",
    "init": "a container is made ready when it starts: `limpet create`, `limpet start`",
    "machine": f"{_LATER_COMMAND}: limpet runs on Linux itself",
    **dict.fromkeys(("mount", "unmount"), "`limpet cp` and `limpet export` read and write a container's files"),
    "unshare": "`limpet run` is enough: each command enters the user namespace by itself",
    "untag": "`limpet rmi NAME` takes a name away, and the image with its last one",
    **dict.fromkeys("node service stack swarm".split(), "there is no cluster"),
}


def command(name: str) -> str:
    """What to do instead of Docker's command `name`; "" if Docker has none of this name."""
    return _COMMANDS.get(name, "")


def commands() -> list[str]:
    """Docker's commands that limpet does not have."""
    return sorted(_COMMANDS)


def listed(command: str) -> list[tuple[list[str], str]]:
    """(long names, what to do instead) for a command, aliases left out."""
    return [([name for name in names.split() if len(name) > 1], why) for names, why in _OPTIONS.get(command, ())]


def reason(command: str, word: str) -> str:
    """What to do instead of Docker's option `word` ("--publish", "-p") of `command`; "" if it is nobody's option."""
    from limpet.cli.commands import ALIASES

    for names, why in _OPTIONS.get(ALIASES.get(command, command), ()):
        if word.lstrip("-") in names.split():
            return why
    return ""
