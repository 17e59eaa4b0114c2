"""All that is known about a container, in Docker's form (the Engine API's ContainerInspect): scripts go on working.

Fields that have no meaning here are there with Docker's empty value: clients look them up without asking.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from limpet.containers import state
from limpet.containers.logging import logs
from limpet.containers.monitor import healthcheck
from limpet.containers.mounts import mountplan
from limpet.containers.network import publishing
from limpet.containers.observe import listing
from limpet.containers.options import restart_policy
from limpet.containers.plan import hostfiles, limits, spec
from limpet.errors import Invalid
from limpet.layers.driver import driver

if TYPE_CHECKING:
    from limpet.containers.state import Container, Status
    from limpet.store.store import Store


def inspect(store: Store, container: Container) -> dict[str, Any]:
    """The JSON object; `docs/reference.md` has what people use of it."""
    status = state.status(store, container)
    image = listing.image_config(store, container)
    options = container.options
    try:
        command = spec.command(options, image)
    except Invalid:
        command = []
    directory = store.container_path(container.id)
    return {
        "Id": container.id,
        "Created": time_of(container.created),
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": _state(status, directory),
        "Image": container.image_id or "",
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": logs.path(store, container),
        "Name": f"/{container.name}",
        "RestartCount": status.restarts,
        "Driver": driver(store).name,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(container),
        "GraphDriver": {
            "Name": driver(store).name,
            "Data": {"UpperDir": f"{directory}/upper", "WorkDir": f"{directory}/work", "Layers": container.layers},
        },
        "Mounts": [_mount(mount) for mount in mountplan.known(store, container.id)],
        "Config": _config(container, image),
        **({"Pod": options.pod, "IsInfra": options.infra} if options.pod else {}),
        "NetworkSettings": _network(store, container, status),
    }


def _state(status: Status, directory: str) -> dict[str, Any]:
    health = healthcheck.read(directory)
    return {
        "Status": status.state,
        "Running": status.running,
        "Paused": status.state == "paused",
        "Restarting": status.state == "restarting",
        "OOMKilled": status.oom_killed,
        "Dead": False,
        "Pid": status.pid if status.running else 0,
        "ExitCode": status.exit_code,
        "Error": status.error,
        "StartedAt": status.started_at,
        "FinishedAt": status.finished_at,
        **({"LogDropped": status.log_dropped} if status.log_dropped else {}),
        **({"Health": health} if health is not None else {}),
    }


def _host_config(container: Container) -> dict[str, Any]:
    options = container.options
    policy, count = restart_policy(options.restart)
    return {
        "Binds": options.volumes or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": options.log_driver, "Config": options.log_opts},
        "NetworkMode": options.network,
        "PortBindings": publishing.bindings(publishing.wanted(options, [])) if options.publish else {},
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": count},
        "AutoRemove": options.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": options.volumes_from or None,
        "CapAdd": options.cap_add or None,
        "CapDrop": options.cap_drop or None,
        "Dns": options.dns,
        "DnsOptions": options.dns_option,
        "DnsSearch": options.dns_search,
        "ExtraHosts": options.add_host or None,
        "GroupAdd": options.group_add or None,
        "CgroupnsMode": options.cgroupns or "private",
        "Cgroup": "",
        "CgroupParent": options.cgroup_parent,
        "ConsoleSize": [0, 0],
        "IpcMode": options.ipc or "private",
        "Links": None,
        "OomScoreAdj": options.oom_score_adj,
        "PidMode": options.pid,
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": options.security_opt or None,
        "UTSMode": options.uts,
        "UsernsMode": options.userns,
        "ShmSize": options.shm_size,
        **({"StorageOpt": options.storage_opts} if options.storage_opts else {}),
        "Sysctls": options.sysctls,
        "Tmpfs": dict((text + ":").split(":", 2)[:2] for text in options.tmpfs) or None,
        "Runtime": options.runtime,
        "Devices": options.devices,
        "DeviceCgroupRules": options.device_cgroup_rules or None,
        "DeviceRequests": [
            {"Driver": "cdi", "Count": 0, "DeviceIDs": options.cdi, "Capabilities": None, "Options": None}
        ]
        if options.cdi
        else None,
        "Ulimits": options.ulimits or None,
        **limits.host_config(options.limits),
        "Init": options.init,
    }


def _config(container: Container, image: dict[str, Any]) -> dict[str, Any]:
    options = container.options
    inner = image.get("config") or {}
    entrypoint = inner.get("Entrypoint") if options.entrypoint is None else options.entrypoint
    image_command = inner.get("Cmd") if options.entrypoint is None else None
    return {
        "Hostname": hostfiles.hostname(options, container.id),
        "Domainname": options.domainname,
        "User": spec.user_text(options, image),
        "AttachStdin": options.interactive and not options.detach,
        "AttachStdout": not options.detach,
        "AttachStderr": not options.detach,
        "ExposedPorts": {port: {} for port in listing.all_exposed(image, options)},
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive and not options.detach,
        "Env": merged_environment(inner.get("Env") or [], options.env),
        "Cmd": options.command or image_command,
        **_healthcheck(options.health, image),
        "Image": container.image_name,
        "Volumes": inner.get("Volumes"),
        "WorkingDir": options.workdir or inner.get("WorkingDir") or "",
        "Entrypoint": entrypoint or None,
        "OnBuild": None,
        "Labels": {**(inner.get("Labels") or {}), **options.labels},
        **({"StopSignal": options.stop_signal} if options.stop_signal else {}),
        **({"StopTimeout": options.stop_timeout} if options.stop_timeout is not None else {}),
    }


def _healthcheck(said: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    """The user's fields over the image's; what nobody said is left out, as Docker has it."""
    theirs = (image.get("config") or {}).get("Healthcheck") or {}
    both = {**theirs, **{name: value for name, value in said.items() if name != "OnFailure"}}
    action = {"HealthcheckOnFailureAction": said["OnFailure"]} if said.get("OnFailure") else {}  # as Podman's
    return {**({"Healthcheck": both} if both else {}), **action}


def _mount(mount: mountplan.Mount) -> dict[str, Any]:
    found = {
        "Type": mount.kind,
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": "ro" if mount.read_only else "",
        "RW": not mount.read_only,
        "Propagation": _propagation(mount) if mount.kind == "bind" else "",
    }
    if mount.kind == "volume":
        found |= {"Name": mount.name, "Driver": mount.driver or "local"}
    return found


def _propagation(mount: mountplan.Mount) -> str:
    return next((word for word in mount.options if word.endswith(("private", "shared", "slave"))), "rprivate")


def _network(store: Store, container: Container, status: Status) -> dict[str, Any]:
    own = container.options.own_address
    own4, own6 = own[0] if own else "", own[1] if len(own) > 1 else ""
    empty = {
        "IPAddress": own4,
        "IPPrefixLen": 32 if own4 else 0,
        "GlobalIPv6Address": own6,
        "GlobalIPv6PrefixLen": 128 if own6 else 0,
        "Gateway": "",
        "MacAddress": "",
    }
    common = {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": f"/proc/{status.pid}/ns/net" if status.running and container.options.network != "host" else "",
        "Ports": publishing.bindings(publishing.from_status(status.ports)) if status.running else {},
    }
    if container.options.networks:
        from limpet.containers.network import networked

        found = networked.settings(store, container)
        first: dict[str, Any] = next(iter(found.values()), empty)
        return {**common, **{key: first[key] for key in empty}, "Networks": found}
    return {
        **common,
        **empty,
        "Networks": {container.options.network: {**empty, "Aliases": None, "NetworkID": "", "EndpointID": ""}},
    }


def merged_environment(image: list[str], user: list[str]) -> list[str]:
    """The image's variables with the user's on top, in the image's order; a bare KEY of the user's takes one away."""
    values: dict[str, str | None] = {}
    for text in [*image, *user]:
        key, equals, value = text.partition("=")
        values[key] = value if equals else None
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def time_of(moment: float) -> str:
    whole = int(moment)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((moment - whole) * 10**9):09d}Z"
