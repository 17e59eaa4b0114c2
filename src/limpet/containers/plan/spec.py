"""`make`: the plan of a container as an OCI runtime `config.json` (runtime-spec 1.0.2), which `runtime` executes.

All that Docker decides for a container is decided here: mounts, masked paths, capabilities, device rules, environment
(moby `oci/defaults.go`, `daemon/oci_linux.go`; values in notes/engines-and-demand.md section 5). Pure but for reading
the host's device nodes for `--privileged` and `--device`.
"""

from __future__ import annotations

import os

from limpet.containers.plan import hostfiles, sharing
from limpet.errors import Invalid, Refused
from limpet.kernel import capabilities, cgroup, idmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from limpet.containers.mounts.mountplan import Mount
    from limpet.containers.options import Options
    from limpet.containers.plan.users import User
    from limpet.containers.state import Container
    from limpet.store.store import Store

    Config = dict[str, Any]

VERSION = "1.0.2"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_MASKED = (
    "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi"
    " /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware"
)
_READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"

# name: (major, minor, mode bits); linux.devices adds to these, which every runtime must supply (config-linux.md).
_DEVICE_RULES: tuple[Config, ...] = (
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2))
    ),
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
)


def command(options: Options, image: Config) -> list[str]:
    """Entry point and arguments; `--entrypoint` drops the image's CMD too. Raises Invalid when nothing is left."""
    said = image.get("config") or {}
    entrypoint = options.entrypoint
    if entrypoint is None:
        args = [*(said.get("Entrypoint") or []), *(options.command or said.get("Cmd") or [])]
    else:
        args = [*entrypoint, *options.command]
    if not args:
        hint = "the image has none" if options.entrypoint is None else "--entrypoint takes the image's away"
        raise Invalid("no command specified", f"{hint}: write one after its name")
    return args


def supplementary(user: User, *, alone: bool = False) -> list[int]:
    """The groups for setgroups(2). Where a user namespace lacks the user's ids Invalid is raised.

    `alone`: whether the one id that there is may be called as the user's (see `_alone`).
    """
    if not idmap.nested():
        return list(user.groups)
    if alone and idmap.single():
        return []
    if not (idmap.has(user.uid) and idmap.has(user.gid, "gid")):
        raise Invalid(
            f"user {user.uid}:{user.gid}: your user namespace has no such id",
            "an administrator gives you ids, with usermod --add-subuids and --add-subgids; or run it as --user root"
            if idmap.single()
            else "give yourself more of them in /etc/subuid and /etc/subgid, or choose another --user",
        )
    return [] if idmap.single() else [group for group in user.groups if idmap.has(group, "gid")]


def _alone(config: Config, linux: Config, user: User) -> None:
    """Of a user who has one id: in the container, whose user is somebody else than root, it has that one's number.

    All files are his then, root's too; there is no root. Raises Invalid.
    """
    if any("path" in namespace for namespace in linux["namespaces"]):
        raise Invalid(
            f"user {user.uid}:{user.gid} in namespaces of another container: you have one id",
            "--user root, or namespaces of its own",
        )
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = [{"containerID": user.uid, "hostID": 0, "size": 1}]
    linux["gidMappings"] = [{"containerID": user.gid, "hostID": 0, "size": 1}]


def user_text(options: Options, image: Config) -> str:
    return options.user or (image.get("config") or {}).get("User") or ""


def environment(options: Options, image: Config, name: str, home: str) -> list[str]:
    """PATH, HOSTNAME and TERM of the engine, then the image's, then the user's; `KEY` without a value takes it away."""
    values = {"PATH": PATH, "HOSTNAME": name}
    if options.tty:
        values["TERM"] = "xterm"
    theirs = [] if options.env_clear else (image.get("config") or {}).get("Env") or []
    for number, text in enumerate([*theirs, *options.env_merge, *options.env]):
        key, equals, value = text.partition("=")
        if len(theirs) <= number < len(theirs) + len(options.env_merge):
            value = _merged(value, values)
        if equals:
            values[key] = value
        else:
            values.pop(key, None)
    values.setdefault("HOME", home or "/")
    if options.own_address:
        values.setdefault("LIMPET_ADDRESS", options.own_address[0])
    return [f"{key}={value}" for key, value in values.items()]


def _merged(text: str, values: dict[str, str]) -> str:
    """${NAME} and $NAME are variables that are there already (podman-run(1), --env-merge)."""
    import string

    template = string.Template(text)
    return template.safe_substitute({**dict.fromkeys(template.get_identifiers(), ""), **values})


def bounding(options: Options) -> list[str]:
    """The capability set of the container. `--cap-drop` wins over the default, `--cap-add` over `--cap-drop=ALL`."""
    everything = all_capabilities()
    if options.privileged:
        return everything
    added = [name.upper() for name in options.cap_add]
    dropped = [name.upper() for name in options.cap_drop]
    if "ALL" in added or "CAP_ALL" in added:
        gone = {capabilities.parse(name) for name in dropped if name not in ("ALL", "CAP_ALL")}
        return [name for name in everything if name not in gone]
    if "ALL" in dropped or "CAP_ALL" in dropped:
        kept: set[str] = set()
    else:
        kept = set(capabilities.DEFAULT) - {capabilities.parse(name) for name in dropped}
    for name in added:
        capability = capabilities.parse(name)
        if capability not in everything:
            raise Refused(f"--cap-add {name}: this host does not have {capability}")
        kept.add(capability)
    return [name for name in everything if name in kept]


def all_capabilities() -> list[str]:
    """All that limpet itself may have: inside another container, or with a kernel that knows fewer, not every one."""
    if not _all:
        with open("/proc/self/status", "rb") as file:
            mask = next(int(line.split()[1], 16) for line in file if line.startswith(b"CapBnd:"))
        _all.extend(name for bit, name in enumerate(capabilities.NAMES) if mask >> bit & 1)
    return [*_all]


_all: list[str] = []


def make(
    store: Store,
    container: Container,
    image: Config,
    user: User,
    mounts: list[Mount],
    size: tuple[int, int] | None = None,
    *,
    directory: str = "",
) -> Config:
    """All of config.json but `linux.seccomp`, which `seccomp.section` adds (400 names: it is kept as text).

    `user` is resolved from the container's own files; `size` is rows and columns of the terminal; `directory` has the
    files that the engine provides, if not the container's own.
    """
    options = container.options
    alone = not directory  # in a build files have to be whose they would be anywhere
    directory = directory or store.container_path(container.id)
    name = hostfiles.hostname(options, container.id)
    flags = security(options)
    process: Config = {
        "terminal": options.tty,
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            "umask": int(options.umask or "022", 8),
            "additionalGids": supplementary(user, alone=alone),
        },
        "args": command(options, image),
        "env": environment(options, image, name, user.home),
        "cwd": options.workdir or (image.get("config") or {}).get("WorkingDir") or "/",
        "capabilities": capability_sets(bounding(options), user.uid),
        "noNewPrivileges": flags["no-new-privileges"],
        **({"landlock": True} if flags["landlock"] else {}),
    }
    if size is not None and options.tty:
        process["consoleSize"] = {"height": size[0], "width": size[1]}
    if options.ulimits:
        process["rlimits"] = [rlimit(text) for text in options.ulimits]
    if options.oom_score_adj:
        process["oomScoreAdj"] = options.oom_score_adj
    devices, rules = _devices(options)
    own = sharing.namespaces(options)
    joined = sharing.joined(store, options)
    linux: Config = {
        "namespaces": [
            *({"type": kind} for kind in own),
            *({"type": kind, "path": path} for kind, path in joined.items()),
        ],
        "cgroupsPath": cgroup.relative(container.group),
        "resources": {"devices": rules},
        "devices": devices,
    }
    if options.limits:
        from limpet.containers.plan import limits

        linux["resources"].update(limits.resources(options.limits))
    if options.sysctls:
        linux["sysctl"] = dict(options.sysctls)
    if not options.privileged and not flags["systempaths"]:
        linux["maskedPaths"] = [*_MASKED.split(" "), *_thermal()]
        linux["readonlyPaths"] = _READ_ONLY.split(" ")
    config: Config = {
        "ociVersion": VERSION,
        "process": process,
        "root": {"path": "rootfs", "readonly": options.read_only},
        **({"hostname": name} if "uts" in own else {}),
        "mounts": [
            *_system_mounts(options, joined, {mount.target for mount in mounts}),
            *_files(store, options, directory, mounts),
            *(mount_of(mount) for mount in mounts),
        ],
        "annotations": {"org.limpet.init": _init(options, process["args"])},
    }
    config["annotations"] = {**options.annotations, **config["annotations"]}
    if any(mount.is_made for mount in mounts):
        config["annotations"]["org.limpet.mounts"] = "made"
    if options.health or (image.get("config") or {}).get("Healthcheck"):
        from limpet.containers.monitor import healthcheck

        check = healthcheck.annotation(options.health, image)
        if check:
            config["annotations"][healthcheck.ANNOTATION] = check
    if options.domainname and "uts" in own:
        config["domainname"] = options.domainname
    if options.userns == "auto":
        from limpet.containers.plan import idrange

        base = idrange.claim(store, container.id)
        mapping = [{"containerID": 0, "hostID": base, "size": idrange.SIZE}]
        linux["uidMappings"] = linux["gidMappings"] = mapping
        if max(user.uid, user.gid, *user.groups) >= idrange.SIZE:
            raise Invalid(
                f"user {user_text(options, image)}: its user namespace ends at id {idrange.SIZE - 1}", "--userns host"
            )
    if idmap.single() and (user.uid or user.gid):
        _alone(config, linux, user)
    if options.cdi:
        from limpet.containers.plan import cdi

        config["linux"] = linux
        cdi.apply(config, options.cdi)
        del config["linux"]
    config["linux"] = linux  # the last key: `start.prepare` adds the seccomp section to the end of the text
    return config


def security(options: Options) -> Config:
    """`--security-opt` in parts: seccomp is '', 'unconfined' or JSON text; the others are bool."""
    said: Config = {"no-new-privileges": False, "seccomp": "", "systempaths": False, "landlock": False}
    for text in options.security_opt:
        cut = min((text.find(c) for c in "=:" if c in text), default=len(text))
        key, value = text[:cut], text[cut + 1 :]
        if key == "no-new-privileges" and value in ("", "true", "false"):
            said[key] = value != "false"
        elif key == "seccomp" and value:
            said[key] = value
        elif (key == "systempaths" and value == "unconfined") or (key == "landlock" and value == "sockets"):
            said[key] = True
        elif (key, value) not in (("apparmor", "unconfined"), ("label", "disable"), ("landlock", "unconfined")):
            raise Invalid(
                f"--security-opt '{text}' is not supported",
                "no-new-privileges, seccomp=unconfined|FILE, systempaths=unconfined and landlock=sockets are",
            )
    return said


def capability_sets(names: list[str], uid: int) -> Config:
    """As moby: nobody but root gets them effective, nothing is inheritable or ambient."""
    held = names if uid == 0 else []
    return {"bounding": names, "effective": held, "permitted": held, "inheritable": [], "ambient": []}


# Programs that are an init, or want to be PID 1, by the last part of their path.
_INITS = frozenset(
    "init systemd tini tini-static dumb-init docker-init catatonit s6-svscan runit runit-init runsvdir openrc-init"
    " supervisord my_init limpet-init".split(" ")
)


def wants_init(options: Options, args: list[str]) -> bool:
    """Unless the command is an init itself: a PID 1 without handlers ignores SIGTERM and never reaps (moby#27187)."""
    if options.init is not None:
        return options.init
    return args[0].rpartition("/")[2] not in _INITS


def _init(options: Options, args: list[str]) -> str:
    """The annotation that `runtime` reads; see `init` for what they mean."""
    if not wants_init(options, args) or "pid" not in sharing.namespaces(options):  # PID 1 is somebody else
        return "false"
    return "true" if security(options)["seccomp"] in ("", "unconfined") else "apart"


def _system_mounts(options: Options, joined: dict[str, str], taken: set[str]) -> list[Config]:
    shared = None if sharing.SHARED_MEMORY in taken else sharing.shared_memory(options, joined)
    sys_mode = "rw" if options.privileged else "ro"
    return [
        _proc(options),
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": [
                *("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
                *(["gid=5"] if idmap.has(5, "gid") else []),
            ],
        },
        _sysfs(options, ["nosuid", "noexec", "nodev", sys_mode]),
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": [sys_mode, "nosuid", "noexec", "nodev"],
        },
        *_message_queues(options),
        *([] if shared is None else [shared]),
    ]


def _proc(options: Options) -> Config:
    """As with /sys: of another's PID namespace it can't be made."""
    flags = ["nosuid", "noexec", "nodev"]
    if options.pid == "host" and idmap.nested():
        return {"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind", "rslave", *flags]}
    return {"destination": "/proc", "type": "proc", "source": "proc", "options": flags}


def _sysfs(options: Options, flags: list[str]) -> Config:
    """Only who owns the network namespace may make one; others see the host's."""
    if (options.userns == "auto" or idmap.nested()) and options.network != "none":
        return {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "rslave", *flags, "rro"]}
    return {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": flags}


def _message_queues(options: Options) -> list[Config]:
    flags = ["nosuid", "noexec", "nodev"]
    if options.ipc == "host" and idmap.nested():  # as with /sys
        if not os.path.isdir("/dev/mqueue"):
            return []
        return [{"destination": "/dev/mqueue", "type": "bind", "source": "/dev/mqueue", "options": ["rbind", *flags]}]
    return [{"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": flags}]


def _files(store: Store, options: Options, directory: str, mounts: list[Mount]) -> list[Config]:
    """/etc/{hostname,hosts,resolv.conf}, unless the user mounts something there (moby `networkMounts`).

    Whoever is in another container's network has its hosts and resolv.conf too, if nothing was said of them.
    """
    taken = {mount.target for mount in mounts}
    found = []
    other = sharing.joins(options).get("network", "")
    own = {"hosts": options.add_host, "resolv.conf": options.dns or options.dns_search or options.dns_option}
    for name in hostfiles.NAMES:
        if f"/etc/{name}" in taken or name in options.no_files:
            continue
        place = store.container_path(other) if other and name in own and not own[name] else directory
        words = ["rbind", "ro" if options.read_only else "rw", "rprivate"]
        found.append({"destination": f"/etc/{name}", "type": "bind", "source": f"{place}/{name}", "options": words})
    return found


def mount_of(mount: Mount) -> Config:
    """As config.json has it (config.md "Mounts")."""
    if mount.kind == "tmpfs":
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": mount.options}
    options = list(mount.options)
    if mount.read_only and not mount.writable_below:
        options.append("rro")
    if not any(word.endswith(("private", "shared", "slave")) for word in options):
        options.append("rprivate")
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": options}


def _devices(options: Options) -> tuple[list[Config], list[Config]]:
    if options.privileged:
        return _host_devices(), [{"allow": True, "access": "rwm"}]
    devices: list[Config] = []
    rules = list(_DEVICE_RULES)
    for text in options.devices:
        path, inside, access = device_parts(text)
        for found in _nodes(path, inside):
            devices.append(found)
            rule = {key: found[key] for key in ("type", "major", "minor")}
            rules.append({"allow": True, **rule, "access": access})
    rules += [device_rule(text) for text in options.device_cgroup_rules]
    return devices, rules


def device_rule(text: str) -> Config:
    """`--device-cgroup-rule "c 1:3 mr"` (docker/cli `opts.ValidateDeviceCgroupRule`); `*` is every number."""
    words = text.split(" ")
    kind, numbers, access = words if len(words) == 3 else ("", "", "")
    major, colon, minor = numbers.partition(":")
    if (
        kind not in ("a", "b", "c")
        or not colon
        or not all(
            number == "*" or (number.isascii() and number.isdecimal() and int(number) < 2**32)
            for number in (major, minor)
        )
        or not access
        or len(access) > 3
        or not set(access) <= set("rwm")
    ):
        raise Invalid(
            f"invalid device cgroup rule '{text}'", "as in 'c 1:3 mr' or 'b 8:* rwm': TYPE MAJOR:MINOR ACCESS"
        )
    rule: Config = {"allow": True, "type": kind, "access": access}
    rule.update({name: int(number) for name, number in (("major", major), ("minor", minor)) if number != "*"})
    return rule


def device_parts(text: str) -> tuple[str, str, str]:
    """`/dev/a[:/dev/b][:rwm]` → host path, container path, access."""
    parts = text.split(":")
    access = "rwm"
    if len(parts) > 1 and parts[-1] and set(parts[-1]) <= set("rwm"):
        access = parts.pop()
    if len(parts) > 2 or not all(part.startswith("/") for part in parts):
        raise Invalid(f"invalid device '{text}'", "write /dev/NAME[:/dev/NAME][:rwm]")
    return parts[0], parts[-1], access


def _nodes(path: str, inside: str) -> list[Config]:
    """One node, or all below a directory such as /dev/snd (moby `oci/devices_linux.go`)."""
    if os.path.isdir(path):
        found = [
            device(f"{directory}/{name}", f"{inside}{directory[len(path) :]}/{name}")
            for directory, _, names in os.walk(path)
            for name in sorted(names)
            if not os.path.islink(f"{directory}/{name}")
        ]
    else:
        found = [device(path, inside)]
    nodes = [each for each in found if each is not None]
    if not nodes:
        raise Invalid(f"--device {path}: not a device node")
    return nodes


def device(path: str, inside: str) -> Config | None:
    """A node of the host as config.json has it; None for what is none. Raises Invalid for what is not there."""
    try:
        found = os.stat(path)
    except OSError as e:
        raise Invalid(f"--device {path}: {e.strerror}") from e
    kind = {0o020000: "c", 0o060000: "b"}.get(found.st_mode & 0o170000)
    if kind is None:
        return None
    return {
        "path": inside,
        "type": kind,
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": found.st_mode & 0o777,
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


_ENGINE_DEVICES = frozenset("null zero full random urandom tty console ptmx".split(" "))


def _host_devices() -> list[Config]:
    """Every device node below the host's /dev, but for those that a container has of its own."""
    found: list[Config] = []
    for directory, folders, files in os.walk("/dev"):
        if directory == "/dev":
            folders[:] = [name for name in folders if name not in ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts")]
        for name in files:
            path = f"{directory}/{name}"
            if os.path.islink(path) or (directory == "/dev" and name in _ENGINE_DEVICES):
                continue
            node = device(path, path)
            if node is not None:
                found.append(node)
    return found


_RLIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split(" ")
)


def rlimit(text: str) -> Config:
    """`nofile=1024:2048`; one number is both; -1 is unlimited."""
    name, _, value = text.partition("=")
    soft, _, hard = value.partition(":")
    try:
        if name not in _RLIMITS:
            raise ValueError
        numbers = [int(soft), int(hard or soft)]
        if min(numbers) < -1:
            raise ValueError
    except ValueError:
        raise Invalid(f"invalid ulimit '{text}'", "write NAME=SOFT[:HARD], for example nofile=1024:2048") from None
    limits = [(1 << 64) - 1 if number == -1 else number for number in numbers]
    if limits[0] > limits[1]:
        raise Invalid(f"invalid ulimit '{text}': the soft limit is above the hard one")
    return {"type": f"RLIMIT_{name.upper()}", "soft": limits[0], "hard": limits[1]}


def _thermal() -> list[str]:
    """One path a processor, of those that there are (moby#49399)."""
    base = "/sys/devices/system/cpu"
    count = os.cpu_count() or 1
    return [path for path in (f"{base}/cpu{number}/thermal_throttle" for number in range(count)) if os.path.isdir(path)]
