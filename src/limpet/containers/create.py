"""A container comes into being: everything the user said is checked, then directory, then row, in that order.

containers/<id>/
  image.json      the image's config as it was: the image may go while the container stays
  mounts.json     what `-v`, `--mount`, `--tmpfs` and VOLUME came to (only if there are any)
  upper, work     the writable layer and overlayfs's own directory
  rootfs          an empty mount point, used in the container's own mount namespace only
"""

from __future__ import annotations

import os
import time

from limpet import jsontext
from limpet.containers import names, state
from limpet.containers.network import addressing, ports
from limpet.containers.observe import events
from limpet.containers.options import restart_policy
from limpet.containers.plan import hostfiles, sharing, spec
from limpet.containers.state import Container
from limpet.errors import Conflict, Invalid, NotFound
from limpet.images import catalog
from limpet.kernel import idmap, signals
from limpet.store import eventlog, faults
from limpet.store.files import remove_tree, sync_directory, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from limpet.containers.mounts.mountplan import Mount
    from limpet.containers.options import Options
    from limpet.images.catalog import Image
    from limpet.store.store import Store

ATTEMPTS = 6  # at a generated name, then the short id (moby `names.go`)


def create(
    store: Store,
    image: Image,
    options: Options,
    *,
    layers: list[str] | None = None,
    fill: Callable[[str, list[Mount]], None] | None = None,
) -> Container:
    """Makes the container, not started. Raises Invalid for what can't be, Conflict for a name in use.

    `layers`: other ones than the image's, bottom first (a build's steps so far; the image then may have no id). `fill`
    gets the container's directory and mounts before anybody sees them.
    On disk when it returns, except with `--rm`: what a crash takes would have been thrown away.
    """
    if options.pod and not options.infra:
        from limpet.containers.pod import pods

        pods.join(store, options)
    if any(name.startswith("org.limpet.") for name in options.annotations):
        raise Invalid("--annotation org.limpet.…: these are limpet's own", "choose another name")
    if options.requires:
        from limpet.containers import state

        try:
            options.requires = [state.find(store, name).id for name in options.requires]
        except NotFound as e:  # no container was made: `run` fails, with its code
            raise NotFound(e.message, e.hint) from None
    options.network = options.network or "host"
    sharing.resolve(store, options)
    check(options, image.config)
    wanted = names.check(options.name) if options.name else ""
    declared = (image.config.get("config") or {}).get("Volumes") or {}
    mounts: list[Mount] = []
    if declared or options.volumes or options.mounts or options.tmpfs or options.volumes_from:
        from limpet.containers.mounts import mountplan

        mounts = mountplan.plan(store, options, list(declared))
        mountplan.make_volumes(store, mounts)
    container_id = names.container_id()
    durable = not options.auto_remove
    directory = store.container_path(container_id)
    for (other,) in store.db.rows("SELECT id FROM container WHERE options LIKE '%\"auto_remove\":true%'"):
        from limpet.containers import removal

        removal.collect(store, other)
    with store.lease():
        try:
            _make_directory(store, directory, image.config, mounts, durable)
            if options.storage_opts:
                from limpet.containers.mounts import quota

                size = quota.size_of(options.storage_opts, "--storage-opt")
                quota.hold(store, [f"{directory}/upper", f"{directory}/work"], size)
            if fill is not None:
                fill(directory, mounts)
            return _insert(store, container_id, wanted, image, mounts, options, durable, layers)
        except BaseException:
            remove_tree(directory)
            raise


def check(options: Options, image: dict[str, Any]) -> None:
    """Everything that can be said to be wrong before anything is made. Raises Invalid."""
    spec.command(options, image)
    spec.bounding(options)
    said = spec.security(options)
    if said["landlock"]:
        from limpet.kernel import landlock

        if landlock.version() < landlock.SCOPES:
            raise Invalid("--security-opt landlock=sockets needs Linux 6.12 with Landlock", "leave it out")
        if options.runtime != "limpet":
            raise Invalid(f"--security-opt landlock=sockets is not there with the runtime {options.runtime}")
    profile = said["seccomp"]
    if profile not in ("", "unconfined"):
        from limpet.kernel import seccomp

        seccomp.compile(seccomp.from_docker_json(profile, spec.bounding(options)))
    if options.log_opts or options.log_driver != "json-file":
        from limpet.containers.logging.logdrivers import choice

        choice.check(options)
    if options.policed:
        from limpet.containers.network import policing

        policing.check(options)
    if options.sockets or options.on_demand or options.idle_stop:
        from limpet.containers.network import activation

        activation.check(options)
    if options.health:
        from limpet.containers.monitor import healthcheck

        healthcheck.validate(options.health)
    if options.limits:
        from limpet.containers.plan import limits

        limits.check(options.limits)
    if options.storage_opts:
        from limpet.containers.mounts import quota

        quota.size_of(options.storage_opts, "--storage-opt")
    ports.parse_all(options.expose)
    hostfiles.resolver(b"", options)
    sharing.check(options)
    addressing.check(options)
    if options.publish or options.publish_all:
        from limpet.containers.network import publishing

        publishing.check(options)
    policy, _ = restart_policy(options.restart)
    if options.auto_remove and policy != "no":
        raise Invalid("conflicting options: cannot specify both --restart and --rm")
    for text in options.add_host:
        hostfiles.host_entry(text)
    for text in options.devices:
        spec.device_parts(text)
    for text in options.device_cgroup_rules:
        spec.device_rule(text)
    if options.cdi:
        from limpet.containers.plan import cdi

        cdi.edits(cdi.find(options.cdi))
    for text in options.ulimits:
        spec.rlimit(text)
    if options.stop_signal:
        signals.number(options.stop_signal)
    if options.runtime not in ("limpet", "runc"):
        raise Invalid(f"unknown runtime '{options.runtime}'", "limpet (the default) and runc are known")
    if idmap.nested():
        from limpet.containers.plan import unprivileged

        unprivileged.check(options)
    if options.init and options.runtime != "limpet":
        raise Invalid(f"--init is not there with the runtime {options.runtime}", "leave out one of the two")
    if options.workdir and not options.workdir.startswith("/"):
        raise Invalid(f"the working directory '{options.workdir}' is invalid", "it needs to be an absolute path")
    if len(options.hostname) > 64 or any(c in options.hostname for c in "/ \t\n"):
        raise Invalid(f"invalid hostname '{options.hostname}'")
    if not -1000 <= options.oom_score_adj <= 1000:
        raise Invalid(f"Invalid value {options.oom_score_adj}, range for oom score adj is [-1000, 1000]")


def _make_directory(store: Store, directory: str, image: dict[str, Any], mounts: list[Mount], durable: bool) -> None:
    os.mkdir(directory, 0o710)
    # The root directory's own mode and owner come from the upper: those of an ordinary root file system.
    for name, mode in (("upper", 0o755), ("work", 0o700), ("rootfs", 0o755)):
        os.mkdir(f"{directory}/{name}", mode)
    os.chmod(f"{directory}/upper", 0o755)
    _write(f"{directory}/image.json", jsontext.dumps(image), durable)
    if mounts:
        from limpet.containers.mounts import mountplan, volumes

        for mount in mounts:
            if mount.name:
                volumes.make_directory(store, mount.name)
        _write(f"{directory}/mounts.json", mountplan.save(mounts), durable)
    if durable:
        sync_directory(directory)
        sync_directory(f"{store.root}/containers")
    faults.reach("container-directory")


def _write(path: str, text: str, durable: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, text.encode())
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def _insert(
    store: Store,
    container_id: str,
    wanted: str,
    image: Image,
    mounts: list[Mount],
    options: Options,
    durable: bool,
    layers: list[str] | None,
) -> Container:
    if layers is None:
        layers = catalog.layers(store, image.id)
    created = time.time()
    made: list[str] = []  # volumes
    db = store.db
    with db.transaction(durable=durable):
        # Removed since: its layers may be gone. Only a build's steps have an image without an id.
        if image.id and db.row("SELECT 1 FROM image WHERE id = ?", image.id) is None:
            raise NotFound(f"No such image: {options.image}")
        name = wanted or _free_name(store, container_id)
        taken = db.row("SELECT id FROM container WHERE name = ?", name)
        if taken is not None:
            raise Conflict(
                f'the container name "/{name}" is already in use by container "{taken[0]}"',
                "remove or rename that one, or choose another name",
            )
        options.name = name
        options.own_address = addressing.choose(store, container_id, options)
        db.run(
            "INSERT INTO container (id, name, image_id, image_name, layers, created, options)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            container_id,
            name,
            image.id or None,
            options.image,
            jsontext.dumps(layers),
            created,
            options.to_json(),
        )
        if mounts:
            from limpet.containers.mounts import mountplan

            made = mountplan.hold(store, container_id, mounts, created)
        if options.networks:
            from limpet.containers.network import networking

            networking.add(store, container_id, options)
    faults.reach("container-row")
    container = Container(container_id, name, image.id, options.image, layers, created, options)
    for volume in made:
        eventlog.write(store, "volume", "create", volume, {"driver": "local"})
    events.tell(store, container, "create")
    if state.ruled(store):
        from limpet.containers.network import policing

        policing.refresh(store)
    return container


def _free_name(store: Store, container_id: str) -> str:
    for attempt in range(ATTEMPTS):
        name = names.generate(attempt)
        if store.db.row("SELECT 1 FROM container WHERE name = ?", name) is None:
            return name
    return container_id[:12]
